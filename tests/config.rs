//! `config/smartlink.toml` shows every key with its default, and what wins over what, over the real binary.

mod command;

use std::collections::BTreeSet;

use smartlink::config::LIVE_KEYS;
use smartlink::config::raw::Raw;

use command::Desk;

#[test]
fn the_example_is_the_defaults() {
    let example: Raw = toml::from_str(EXAMPLE).unwrap();
    assert_eq!(example, Raw::default());
    // The same once more as TOML: an integer where a fraction is meant, or one float for another, would show here.
    let written: toml::Table = EXAMPLE.parse().unwrap();
    assert_eq!(written, defaults());
}

#[test]
fn the_example_names_every_key_and_no_other() {
    let written = names("", &EXAMPLE.parse().unwrap());
    let known = names("", &defaults());
    assert!(known.len() > 20, "{known:?}");
    let missing: Vec<_> = known.difference(&written).collect();
    let unknown: Vec<_> = written.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:?}, unknown {unknown:?}");
}

#[test]
fn every_key_of_the_example_is_explained() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let mut keys = 0;
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(" = ")) {
        if !line.starts_with('#') {
            keys += 1;
            assert!(lines[index - 1].starts_with("# "), "{line}");
        }
    }
    assert_eq!(keys, names("", &defaults()).len());
}

#[test]
fn the_example_says_what_a_running_node_takes_up() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let (mut section, mut said) = ("", BTreeSet::new());
    for (index, line) in lines.iter().enumerate() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        }
        if let Some((key, _)) = line.split_once(" = ")
            && lines[index - 1] == "# SIGHUP takes it up."
        {
            said.insert(format!("{section}.{key}"));
        }
    }
    assert_eq!(said, LIVE_KEYS.iter().map(ToString::to_string).collect());
}

#[test]
fn the_example_can_be_run() {
    let desk = Desk::new();
    let told = desk.run(&["check", "--config", desk.file("smartlink.toml", EXAMPLE)]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let of_defaults = desk.run(&["check"]);
    let without_name = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_name(&told.stdout), without_name(&of_defaults.stdout));
}

#[test]
fn flags_over_environment_over_file_over_defaults() {
    for Setting { shown, file, variable, flag, values } in SETTINGS {
        let desk = Desk::new();
        desk.file("smartlink.toml", file);
        let config = ["--config", "smartlink.toml"];
        let variables = [("SMARTLINK_API_KEY", "k"), (variable, values[2])];
        // Each level adds one voice, and keeps those that it drowns.
        for level in 0..values.len() {
            let arguments: &[&str] = match level {
                0 => &["check"],
                1 | 2 => &[&["check"], &config[..]].concat(),
                _ => &[&["check"], &config[..], &[flag, values[3]]].concat(),
            };
            let told = desk.run_with(&variables[..if level < 2 { 1 } else { 2 }], arguments);
            let line = told.stdout.lines().find(|line| line.starts_with(shown)).unwrap_or_default();
            // By default there is no file of which an error could be shown.
            let silent = level == 0 && values[0] == NO_FILE;
            assert!(
                line.contains(values[level]) || silent && line.is_empty(),
                "{variable}, {level}: {told:?}"
            );
            for value in values.iter().filter(|value| !value.is_empty() && **value != values[level]) {
                assert!(!line.contains(value), "{variable}, level {level}: {told:?}");
            }
        }
    }
}

#[test]
fn a_list_in_a_variable_has_commas() {
    let told = Desk::new().run_with(&[("SMARTLINK_TRUST_PROXY", "10.0.0.0/8,2001:db8::/32")], &["check"]);
    assert!(told.stdout.contains("10.0.0.0/8, 2001:db8::/32"), "{told:?}");
}

#[test]
fn the_key_comes_from_the_nearest_place() {
    let desk = Desk::new();
    desk.file("key", "a\n");
    desk.file("smartlink.toml", "[upstream]\napi_key_file = \"key\"");
    let of_file: &[&str] = &["check", "--config", "smartlink.toml"];
    for (arguments, variables, place) in [
        (&["check"][..], &[][..], "with a key of its own"),
        (of_file, &[], "with the key in key"),
        (of_file, &[("SMARTLINK_API_KEY_FILE", "./key")], "with the key in ./key"),
        (
            of_file,
            &[("SMARTLINK_API_KEY_FILE", "./key"), ("SMARTLINK_API_KEY", "canary")],
            "in the environment variable SMARTLINK_API_KEY",
        ),
    ] {
        let told = desk.run_with(variables, arguments);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(told.stdout.contains(place), "{place}: {told:?}");
        assert!(!told.stdout.contains("canary"), "{told:?}");
    }
}

#[test]
fn the_click_id_key_comes_from_the_nearest_place() {
    let desk = Desk::new();
    for (name, byte) in [("of-file", "1a"), ("of-variable", "2b")] {
        desk.file(name, byte.repeat(32));
    }
    desk.file("smartlink.toml", "[edge]\nclick_id_key_file = \"of-file\"");
    let of_file: &[&str] = &["check", "--config", "smartlink.toml"];
    for (arguments, variables, place) in [
        (&["check"][..], &[][..], "with a key that the first start makes"),
        (of_file, &[], "with the key in of-file"),
        (of_file, &[("SMARTLINK_CLICK_ID_KEY_FILE", "of-variable")], "with the key in of-variable"),
        (of_file, &[("SMARTLINK_CLICK_ID_KEY_FILE", "")], "with the key in of-file"),
    ] {
        let told = desk.run_with(variables, arguments);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(
            told.stdout.lines().any(|line| line.starts_with("click ids ") && line.ends_with(place)),
            "{told:?}"
        );
        assert!(!told.stdout.contains("1a1a") && !told.stdout.contains("2b2b"), "{told:?}");
    }
    let absent = desk.run_with(&[("SMARTLINK_CLICK_ID_KEY_FILE", "absent")], &["check"]);
    assert_eq!(absent.code, Some(2), "{absent:?}");
    assert!(absent.stdout.contains("error: cannot read the click id key file absent: "), "{absent:?}");
}

#[test]
fn the_file_itself_may_be_named_by_a_variable() {
    let desk = Desk::new();
    desk.file("a.toml", "data_dir = \"of-a\"");
    desk.file("b.toml", "data_dir = \"of-b\"");
    let variable = [("SMARTLINK_CONFIG", "a.toml")];
    assert!(desk.run_with(&variable, &["check"]).stdout.contains("of-a"));
    assert!(desk.run_with(&variable, &["check", "--config", "b.toml"]).stdout.contains("of-b"));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let desk = Desk::new();
    for (text, said) in [
        ("\n[edge]\nthreads = 1\nlisen = []\n", "mine.toml, line 4: unknown key `lisen`"),
        ("datadir = \"x\"\n", "mine.toml, line 1: unknown key `datadir`"),
        ("[egde]\nthreads = 1\n", "mine.toml, line 1: unknown key `egde`"),
        ("[upstream]\napi_key = \"secret\"\n", "mine.toml, line 2: unknown key `api_key`"),
    ] {
        let told = desk.run(&["serve", "--config", desk.file("mine.toml", text)]);
        told.fails_saying(&[said]);
        assert!(!told.stderr.contains("secret"), "{told:?}");
    }
}

#[test]
fn a_node_is_not_its_own_upstream() {
    let desk = Desk::new();
    for (admin, upstream, is_refused) in [
        ("127.0.0.1:9180", "http://127.0.0.1:9180", true),
        ("127.0.0.1:9180", "http://localhost:9180/", true),
        ("[::1]:9180", "http://[::1]:9180", true),
        ("0.0.0.0:80", "http://127.0.0.1", true),
        ("127.0.0.1:9180", "http://127.0.0.1:9181", false),
        ("127.0.0.1:9180", "http://127.0.0.2:9180", false),
        ("127.0.0.1:9180", "http://cake.example:9180", false),
    ] {
        let variables = [("SMARTLINK_API_KEY", "k"), ("SMARTLINK_ADMIN_TOKEN", "t")];
        let told = desk.run_with(&variables, &["check", "--admin", admin, "--upstream", upstream]);
        let says = "is this node's own admin address; leave the upstream out";
        assert_eq!(told.stdout.contains(says), is_refused, "{told:?}");
        assert_eq!(told.code, Some(if is_refused { 2 } else { 0 }), "{told:?}");
    }
}

/// A value that can be set in all four places, and how `check` shows it: default, file, variable, flag.
struct Setting {
    shown: &'static str,
    file: &'static str,
    variable: &'static str,
    flag: &'static str,
    values: [&'static str; 4],
}

/// No error is shown.
const NO_FILE: &str = "none";

const SETTINGS: &[Setting] = &[
    Setting {
        shown: "data directory",
        file: "data_dir = \"of-file\"",
        variable: "SMARTLINK_DATA_DIR",
        flag: "--data-dir",
        values: ["./smartlink-data", "of-file", "of-variable", "of-flag"],
    },
    Setting {
        shown: "clicks on",
        file: "[edge]\nlisten = [\"127.0.0.1:81\"]",
        variable: "SMARTLINK_LISTEN",
        flag: "--listen",
        values: ["0.0.0.0:8080", "127.0.0.1:81", "127.0.0.1:82", "127.0.0.1:83"],
    },
    Setting {
        shown: "clicks on",
        file: "[edge]\nthreads = 101",
        variable: "SMARTLINK_THREADS",
        flag: "--threads",
        // How many cores there are, nobody knows.
        values: ["", "101 threads", "102", "103"],
    },
    Setting {
        shown: "trusted proxies",
        file: "[edge]\ntrusted_proxies = [\"10.1.0.0/16\"]",
        variable: "SMARTLINK_TRUST_PROXY",
        flag: "--trust-proxy",
        values: ["none", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"],
    },
    Setting {
        shown: "admin on",
        file: "[admin]\nlisten = \"127.0.0.1:81\"",
        variable: "SMARTLINK_ADMIN",
        flag: "--admin",
        values: ["127.0.0.1:9180", "127.0.0.1:81", "127.0.0.1:82", "127.0.0.1:83"],
    },
    Setting {
        shown: "upstream",
        file: "[upstream]\nurl = \"https://file.example\"",
        variable: "SMARTLINK_UPSTREAM",
        flag: "--upstream",
        values: [
            "the embedded API",
            "https://file.example",
            "https://variable.example",
            "https://flag.example",
        ],
    },
    Setting {
        shown: "error: cannot read the geo database",
        file: "[geo]\ndatabase = \"of-file.mmdb\"",
        variable: "SMARTLINK_GEO",
        flag: "--geo",
        values: [NO_FILE, "of-file.mmdb", "of-variable.mmdb", "of-flag.mmdb"],
    },
    Setting {
        shown: "error: cannot read the geo database",
        file: "[geo]\nasn_database = \"of-file.mmdb\"",
        variable: "SMARTLINK_ASN",
        flag: "--asn",
        values: [NO_FILE, "of-file.mmdb", "of-variable.mmdb", "of-flag.mmdb"],
    },
    Setting {
        shown: "log  ",
        file: "[log]\nformat = \"json\"",
        variable: "SMARTLINK_LOG_FORMAT",
        flag: "--log-format",
        values: ["pretty", "json", "pretty", "json"],
    },
    Setting {
        shown: "log  ",
        file: "[log]\nlevel = \"warn\"",
        variable: "SMARTLINK_LOG_LEVEL",
        flag: "--log-level",
        values: ["info", "warn", "debug", "trace"],
    },
    Setting {
        shown: "log  ",
        file: "[log]\nfile = \"of-file.log\"",
        variable: "SMARTLINK_LOG_FILE",
        flag: "--log-file",
        values: ["standard error", "of-file.log", "of-variable.log", "of-flag.log"],
    },
];

fn defaults() -> toml::Table {
    toml::Table::try_from(Raw::default()).unwrap()
}

/// Every key by its full name: `edge.listen`.
fn names(prefix: &str, table: &toml::Table) -> BTreeSet<String> {
    table
        .iter()
        .flat_map(|(key, value)| match value {
            toml::Value::Table(inner) => names(&format!("{prefix}{key}."), inner),
            _ => BTreeSet::from([format!("{prefix}{key}")]),
        })
        .collect()
}

const EXAMPLE: &str = include_str!("../config/smartlink.toml");
