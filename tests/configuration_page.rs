//! docs/configuration.md is what config/smartlink.toml, the types and the command line say, brought into tables; the ranges in it are
//! tried out. After a change of a key:
//!
//! ```text
//! SMARTLINK_BLESS=1 cargo test --test configuration_page
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::CommandFactory;
use smartlink::cli::Command;
use smartlink::config::raw::Raw;
use smartlink::config::{Config, Flags, LIVE_KEYS};
use toml::Value;

const EXAMPLE: &str = include_str!("../config/smartlink.toml");

/// A key, as the example has it.
#[derive(Debug)]
struct Key {
    /// In full: `edge.threads`.
    name: String,
    default: Value,
    /// What it is, for people.
    prose: String,
    flag: Option<String>,
    variable: Option<String>,
}

/// What a number may be.
struct Range {
    key: &'static str,
    least: f64,
    most: Option<f64>,
    /// Whether it may be 0 besides.
    or_zero: bool,
    /// Said of the end that is not a number of its own.
    remark: &'static str,
    /// What else must be said for it to be tried out.
    beside: &'static str,
}

const fn from(key: &'static str, least: f64) -> Range {
    Range { key, least, most: None, or_zero: false, remark: "", beside: "" }
}

const fn between(key: &'static str, least: f64, most: f64) -> Range {
    Range { most: Some(most), ..from(key, least) }
}

const DAY: f64 = 86_400.0;

const RANGES: &[Range] = &[
    between("edge.threads", 0.0, 1024.0),
    between("edge.header_read_timeout_seconds", 0.1, DAY),
    between("edge.idle_timeout_seconds", 0.1, DAY),
    between("edge.write_timeout_seconds", 0.1, DAY),
    Range { remark: "to half of the descriptors", ..from("edge.connections_max", 0.0) },
    from("edge.connections_per_address_max", 0.0),
    between("edge.requests_per_connection_max", 0.0, u32::MAX as f64),
    Range { or_zero: true, ..between("edge.connection_age_max_seconds", 1.0, DAY) },
    Range { beside: "uri_bytes_max = 256", ..between("edge.head_bytes_max", 1024.0, 65_536.0) },
    Range {
        remark: "to `edge.head_bytes_max`",
        beside: "head_bytes_max = 65536",
        ..between("edge.uri_bytes_max", 256.0, 65_536.0)
    },
    between("edge.goodbye_seconds", 0.0, DAY),
    between("edge.drain_timeout_seconds", 0.0, DAY),
    between("upstream.refresh_interval_seconds", 0.1, DAY),
    between("upstream.refresh_interval_max_seconds", 0.1, DAY),
    between("upstream.call_timeout_seconds", 0.1, DAY),
    from("upstream.body_bytes_max", 65_536.0),
    from("upstream.rows_max", 0.0),
    between("upstream.lost_share_max", 0.0, 1.0),
    from("upstream.lost_count_min", 0.0),
    between("conversions.click_age_days_max", 1.0, 365.0),
    between("click_log.segment_bytes", 1_048_576.0, 1_073_741_824.0),
    between("click_log.seal_after_seconds", 1.0, DAY),
    between("click_log.sync_interval_seconds", 0.1, DAY),
    from("click_log.keep_bytes", 0.0),
    between("click_log.keep_days", 0.01, 3650.0),
    between("api.requests_per_second", 0.0, 1_000_000.0),
    between("api.burst", 1.0, u32::MAX as f64),
    between("api.body_read_timeout_seconds", 0.1, DAY),
    from("metrics.links_max", 0.0),
];

/// Texts that are one of a few.
const CHOICES: &[(&str, &[&str])] = &[
    ("edge.bots", &["fallback", "route", "block"]),
    (
        "edge.referrer_policy",
        &[
            "no-referrer",
            "no-referrer-when-downgrade",
            "same-origin",
            "origin",
            "strict-origin",
            "origin-when-cross-origin",
            "strict-origin-when-cross-origin",
            "unsafe-url",
        ],
    ),
    ("click_log.addresses", &["full", "truncated", "hashed"]),
    ("click_log.when_full", &["serve", "refuse"]),
    ("log.format", &["pretty", "json"]),
    ("log.level", &["error", "warn", "info", "debug", "trace"]),
];

#[test]
fn the_page_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = page();
    if std::env::var_os("SMARTLINK_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(page.lines()).find(|(written, made)| written != made);
    assert!(
        written == page,
        "docs/configuration.md is not what the configuration says; make it anew with SMARTLINK_BLESS=1. First difference: {differs:?}"
    );
}

#[test]
fn every_number_has_a_range_and_keeps_to_it() {
    let keys = keys();
    let is_number = |key: &&Key| matches!(key.default, Value::Integer(_) | Value::Float(_));
    let numbers: Vec<_> = keys.iter().filter(is_number).map(|key| key.name.as_str()).collect();
    let ranged: Vec<_> = RANGES.iter().map(|range| range.key).collect();
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    let numbers: Vec<&'static str> = numbers.into_iter().map(|name| &*name.to_owned().leak()).collect();
    assert_eq!(sorted(numbers), sorted(ranged));
    for range in RANGES {
        let default = &keys.iter().find(|key| key.name == range.key).unwrap().default;
        let is_whole = matches!(default, Value::Integer(_));
        let step = if is_whole { 1.0 } else { 0.001 };
        let text = |number: f64| if is_whole { format!("{number:.0}") } else { format!("{number:?}") };
        let accepts = |number: f64| configured(range.key, &text(number), range.beside);
        if range.remark.is_empty() || range.most.is_some() {
            accepts(range.least).unwrap_or_else(|error| panic!("{} = {}: {error}", range.key, range.least));
        }
        let below = accepts(range.least - step);
        let said = below.expect_err(&format!("{} = {}", range.key, range.least - step));
        assert!(said.contains(range.key) || said.contains("whole number"), "{said}");
        if let Some(most) = range.most {
            accepts(most).unwrap_or_else(|error| panic!("{} = {most}: {error}", range.key));
            let above = accepts(most + step);
            let said = above.expect_err(&format!("{} = {}", range.key, most + step));
            assert!(said.contains(range.key) || said.contains("whole number"), "{said}");
        }
        let zero = accepts(0.0).is_ok();
        assert_eq!(zero, range.or_zero || range.least == 0.0, "{} = 0", range.key);
    }
}

#[test]
fn every_choice_is_one_and_nothing_else() {
    for (key, choices) in CHOICES {
        for choice in *choices {
            configured(key, &format!("{choice:?}"), "").unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        let said = configured(key, "\"another\"", "").expect_err(key);
        assert!(choices.iter().all(|choice| said.contains(choice)), "{said}");
    }
}

#[test]
fn flags_and_variables_are_those_of_the_command_line() {
    let command = Command::command();
    let serve = command.find_subcommand("serve").unwrap();
    let mut of_command: BTreeMap<String, String> = serve
        .get_arguments()
        .filter_map(|argument| {
            let variable = argument.get_env()?.to_str()?.to_owned();
            Some((format!("--{}", argument.get_long()?), variable))
        })
        .collect();
    // It names the file itself.
    assert!(of_command.remove("--config").is_some());
    let of_page: BTreeMap<_, _> =
        keys().into_iter().filter_map(|key| Some((key.flag?, key.variable?))).collect();
    assert_eq!(of_page, of_command);
}

/// Whether a file with this value, and perhaps another one of its section, can be run; else why not.
fn configured(key: &str, value: &str, beside: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("smartlink.toml");
    let (section, name) = key.split_once('.').unwrap();
    std::fs::write(&path, format!("[{section}]\n{name} = {value}\n{beside}\n")).unwrap();
    let flags = Flags { config: Some(path), ..Flags::default() };
    Config::load(&flags).map(drop).map_err(|error| error.to_string())
}

/// Every key of the example, in its order, with the words of its section.
fn keys() -> Vec<Key> {
    sections().into_iter().flat_map(|(_, _, keys)| keys).collect()
}

/// Name, words, keys.
fn sections() -> Vec<(String, String, Vec<Key>)> {
    let defaults = toml::Table::try_from(Raw::default()).unwrap();
    let mut sections = vec![(String::new(), String::new(), Vec::new())];
    let mut comment: Vec<&str> = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let words = std::mem::take(&mut comment);
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push((section.to_owned(), words.join("\n"), Vec::new()));
        } else if let Some((name, _)) = line.split_once(" = ") {
            let section = &sections.last().unwrap().0;
            let (name, default) = if section.is_empty() {
                (name.to_owned(), defaults[name].clone())
            } else {
                (format!("{section}.{name}"), defaults[section][name].clone())
            };
            sections.last_mut().unwrap().2.push(key(name, default, &words));
        }
    }
    sections
}

fn key(name: String, default: Value, words: &[&str]) -> Key {
    let (mut flag, mut variable, mut prose) = (None, None, Vec::new());
    for line in words {
        if let Some(rest) = line.strip_prefix("Flag: ") {
            let (of_flag, of_variable) = rest.split_once(". Variable: ").expect(rest);
            let first = |text: &str| text.split([',', '.']).next().map(str::to_owned);
            (flag, variable) = (first(of_flag), first(of_variable));
        } else if *line != "SIGHUP takes it up." {
            prose.push(*line);
        }
    }
    Key { name, default, prose: prose.join("\n"), flag, variable }
}

fn page() -> String {
    let mut page = String::from(HEAD);
    for (section, words, keys) in sections() {
        if !section.is_empty() {
            let _ = write!(page, "\n## `[{section}]`\n\n{words}\n");
        }
        page += "\n| key | type | default | range | flag, variable | at SIGHUP |\n| --- | --- | --- | --- | --- | --- |\n";
        for key in &keys {
            let Key { name, default, flag, variable, .. } = key;
            let (flag, variable) = (flag.as_deref(), variable.as_deref());
            let typed = flag.zip(variable).map(|(flag, variable)| format!("`{flag}`, `{variable}`"));
            let at_hangup = if LIVE_KEYS.contains(&name.as_str()) { "taken up" } else { "refused" };
            let _ = writeln!(
                page,
                "| `{name}` | {} | {} | {} | {} | {at_hangup} |",
                kind(name, default),
                shown(default),
                range(name),
                typed.unwrap_or_default()
            );
        }
        for Key { name, prose, .. } in &keys {
            let _ = write!(page, "\n**`{name}`**: {prose}\n");
        }
    }
    page + VARIABLES
}

fn kind(name: &str, default: &Value) -> String {
    let kind = match default {
        Value::String(_) => "text",
        Value::Boolean(_) => "true or false",
        Value::Integer(_) => "whole number",
        Value::Float(_) => "number",
        Value::Array(_) => "list of texts",
        other => panic!("{name}: {other:?}"),
    };
    let units = [("seconds", "seconds"), ("days", "days"), ("bytes", "bytes"), ("share", "share of 1")];
    let is_number = matches!(default, Value::Integer(_) | Value::Float(_));
    // A rate is calls, and not seconds.
    let unit =
        units.iter().find(|(word, _)| is_number && name.contains(word) && !name.contains("per_second"));
    unit.map_or(kind.to_owned(), |(_, unit)| format!("{kind}, {unit}"))
}

fn shown(default: &Value) -> String {
    match default {
        Value::String(text) if text.is_empty() => "none".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        value => format!("`{value}`"),
    }
}

fn range(name: &str) -> String {
    if let Some((_, choices)) = CHOICES.iter().find(|(key, _)| *key == name) {
        return choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(" ");
    }
    let Some(range) = RANGES.iter().find(|range| range.key == name) else { return String::new() };
    let Range { least, most, or_zero, remark, .. } = range;
    let zero = if *or_zero { "0, or " } else { "" };
    match most {
        _ if !remark.is_empty() => format!("{zero}{least} {remark}"),
        Some(most) => format!("{zero}{least} to {most}"),
        None => format!("{zero}from {least}"),
    }
}

const HEAD: &str = "\
# Configuration

Every key of the configuration file, with its type, default and range. [config/smartlink.toml](../config/smartlink.toml) is the same as a
file that can be copied: it has the defaults, and a file needs only what differs. `smartlink check --config FILE` says what is wrong with
one.

A flag wins over its variable, the variable over the file, the file over the default. A key that is not known is an error, with
its line. A list in a variable has commas; a flag is given several times.

At SIGHUP a running node reads the file again, and takes up all of it or nothing. Where it says \"refused\", a value that differs from the
one that the node runs with is one of the things for which nothing is taken up: such a key is for the next start, which may be
`smartlink serve --takeover`.

This page is made of the types, the example and the command line by tests/configuration_page.rs, which also tries the ranges out.
";

const VARIABLES: &str = "
## Variables alone

Secrets are in no configuration file, which names files at most. A variable that is empty is not set.

| variable | |
| --- | --- |
| `SMARTLINK_CONFIG` | the configuration file (`--config`) |
| `SMARTLINK_API_KEY`, `SMARTLINK_API_KEY_FILE` | the key of the upstream's API or of the embedded one, or a file with it; they win over `upstream.api_key_file`, in this order |
| `SMARTLINK_ADMIN_TOKEN`, `SMARTLINK_ADMIN_TOKEN_FILE` | the token of the admin listener, or a file with it; they win over `admin.token_file`, in this order |
| `SMARTLINK_CLICK_ID_KEY_FILE` | the file of the keys of click ids; it wins over `edge.click_id_key_file` |
| `SMARTLINK_API_URL` | the API that `smartlink link`, `offer`, `rule` and the like speak to (`--api`); `serve` does not know it |
| `RUST_LOG` | what is logged, in more detail than `log.level`, over which it wins |
| `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `LISTEN_FDS` and others | set by systemd: [running.md](running.md#systemd) |
";
