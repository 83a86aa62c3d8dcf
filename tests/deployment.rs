//! What is said twice in the files that deploy smartlink is the same: times to end, names of variables, files. Whether they are well
//! formed is another question, which `.ci/run` asks of their schemas.

mod command;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use command::Desk;
use smartlink::config::raw::Raw;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The number behind these words, which stand there once.
#[track_caller]
fn number(name: &str, words: &str) -> f64 {
    let text = read(name);
    let mut lines = text.lines().map(str::trim).filter_map(|line| line.strip_prefix(words));
    let value = lines.next().unwrap_or_else(|| panic!("no {words:?} in {name}"));
    assert_eq!(lines.next(), None, "{words:?} is twice in {name}");
    let digits: String = value.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{words}{value} in {name}"))
}

#[test]
fn nobody_is_killed_while_they_drain() {
    // How long the click log may take to be sealed, leases to be returned, and the rest to end: src/cli/serve.rs.
    let after_the_drain = 4.0;
    for (name, words, configuration) in [
        ("config/systemd/smartlink.service", "TimeoutStopSec=", ""),
        ("config/docker/compose.yaml", "stop_grace_period:", "config/docker/smartlink.toml"),
        (
            "config/kubernetes/statefulset.yaml",
            "terminationGracePeriodSeconds:",
            "config/kubernetes/smartlink.toml",
        ),
    ] {
        let text = if configuration.is_empty() { String::new() } else { read(configuration) };
        let edge = toml::from_str::<Raw>(&text).unwrap().edge;
        let needed = edge.goodbye_seconds + edge.drain_timeout_seconds + after_the_drain;
        let given = number(name, words);
        assert!(given >= needed, "{name} gives {given} s, and {needed} s are needed");
    }
}

#[test]
fn the_configurations_can_be_run() {
    let desk = Desk::new();
    for name in ["config/docker/smartlink.toml", "config/kubernetes/smartlink.toml"] {
        let path = root().join(name);
        let secrets = [("SMARTLINK_API_KEY", "k"), ("SMARTLINK_ADMIN_TOKEN", "t")];
        let told = desk.run_with(&secrets, &["check", "--config", path.to_str().unwrap()]);
        assert_eq!(told.code, Some(0), "{name}: {told:?}");
        assert!(told.stdout.contains("admin on         0.0.0.0:9180, with a token"), "{name}: {told:?}");
        assert!(told.stdout.contains("log              json"), "{name}: {told:?}");
    }
}

/// Every name that begins so.
fn names(text: &str, start: &str) -> BTreeSet<String> {
    let is_of_it = |character: char| character.is_ascii_uppercase() || character == '_';
    text.match_indices(start)
        .map(|(at, _)| {
            let rest = &text[at..];
            rest[..rest.find(|character| !is_of_it(character)).unwrap_or(rest.len())].to_owned()
        })
        .collect()
}

#[test]
fn variables_have_the_names_that_serve_knows() {
    let known = names(&Desk::new().run(&["serve", "--help"]).stdout, "SMARTLINK_");
    let mut seen = 0;
    for name in [
        "Dockerfile",
        "config/docker/compose.yaml",
        "config/kubernetes/statefulset.yaml",
        "config/systemd/smartlink.service",
    ] {
        let used = names(&read(name), "SMARTLINK_");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{name} has {unknown:?}");
        seen += used.len();
    }
    assert!(seen > 10, "{seen}");
}

/// Paths that begin with these words, up to what cannot be in one.
fn paths<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).map(move |(at, _)| {
        let rest = &text[at + start.len()..];
        rest.split([' ', ':', '\n', ',', ']', '"']).next().unwrap_or_default()
    })
}

#[test]
fn files_that_are_named_are_there() {
    let kubernetes = read("config/kubernetes/kustomization.yaml");
    let listed: Vec<&str> = kubernetes
        .lines()
        .filter_map(|line| line.strip_prefix("  - "))
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    assert_eq!(listed.len(), 4, "{listed:?}");
    for name in listed {
        assert!(root().join("config/kubernetes").join(name).is_file(), "{name}");
    }
    let files = root().join("config/kubernetes");
    let beside: usize = fs::read_dir(files).unwrap().count();
    assert_eq!(beside, 4 + 2, "each manifest is listed, beside kustomization.yaml and smartlink.toml");

    let compose = read("config/docker/compose.yaml");
    for name in paths(&compose, "- ./") {
        assert!(root().join("config/docker").join(name).is_file(), "{name}");
    }
    // What is built must be let in.
    let ignored = read(".dockerignore");
    for name in ["Cargo.toml", "Cargo.lock", "src", "benches"] {
        assert!(ignored.lines().any(|line| line == format!("!{name}")), "{name}");
        assert!(Path::new(&root()).join(name).exists(), "{name}");
    }
    assert!(ignored.lines().any(|line| line == "*"), "no secret may get in");
}
