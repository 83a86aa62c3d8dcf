//! API keys by name: made and revoked by the command line while the API runs on the same file.

#[path = "support/api.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Output};

use http::Method;
use serde_json::{Value, json};
use smartlink::backoffice::{Limits, Rate};
use support::{Api, JSON, KEY};

/// The file that a node keeps in its data directory.
const DATABASE: &str = "smartlink.sqlite3";

#[test]
fn a_key_is_valid_until_it_is_revoked() {
    let (directory, api) = start();
    let first = create(directory.path(), "billing");
    let second = create(directory.path(), "billing-2");
    assert_ne!(first, second);
    for key in [&first, &second] {
        list_links(&api, key).success();
    }
    let body = json!({"api_key": second, "smart_link_name": "x", "affiliate_id": 1}).to_string();
    api.send(Method::POST, "/api/2/smart_link.json", JSON, body).success();

    assert!(key(directory.path(), &["revoke", "billing"]).status.success());
    list_links(&api, &first).refused(401, &["`api_key` is wrong"]);
    list_links(&api, &second).success();
    list_links(&api, KEY).success();

    // The name is free again, and the old key stays wrong.
    let third = create(directory.path(), "billing");
    list_links(&api, &third).success();
    list_links(&api, &first).refused(401, &["`api_key` is wrong"]);
}

#[test]
fn a_wrong_key_beside_a_valid_one_is_wrong() {
    let (directory, api) = start();
    let valid = create(directory.path(), "billing");
    let bearer = format!("Bearer {valid}");
    let with = |query: &str| {
        api.send(
            Method::GET,
            &format!("/api/2/offers.json?api_key={query}"),
            &[("authorization", &bearer)],
            "",
        )
    };
    with(&valid).success();
    with(KEY).success();
    with(&valid[1..]).refused(401, &["`api_key` is wrong"]);
    with("").refused(401, &["`api_key` is wrong"]);
}

#[test]
fn the_list_says_when_and_never_the_key() {
    let (directory, api) = start();
    let nobody = stdout(&key(directory.path(), &["list"]));
    assert!(nobody.contains("no keys"), "{nobody}");
    let used = create(directory.path(), "used");
    create(directory.path(), "idle");
    let revision = list_links(&api, KEY).headers["smartlink-revision"].clone();
    list_links(&api, &used).success();

    let list: Value = serde_json::from_str(&stdout(&key(directory.path(), &["list", "--json"]))).unwrap();
    assert_eq!((&list[0]["name"], &list[1]["name"]), (&"idle".into(), &"used".into()));
    assert_eq!(list[0]["last_used_on"], Value::Null);
    assert_eq!(list[1]["last_used_on"].as_str().unwrap().len(), "2026-11-22".len());
    assert!(list[1]["created_at"].as_str().unwrap().ends_with('Z'));
    let table = stdout(&key(directory.path(), &["list"]));
    assert!(table.starts_with("NAME  CREATED") && table.contains("never"), "{table}");

    // Neither the keys nor their use are a change of the network.
    assert_eq!(list_links(&api, KEY).headers["smartlink-revision"], revision);
    // Nor is the key itself anywhere on the disk.
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(used.len()).any(|window| window == used.as_bytes()));
    }
}

#[test]
fn mistakes_are_told() {
    let (directory, _api) = start();
    create(directory.path(), "billing");
    let long = "x".repeat(65);
    for (arguments, said) in [
        (&["create", "billing"][..], "already"),
        (&["create", "two words"][..], "1 to 64 letters"),
        (&["create", ""][..], "1 to 64 letters"),
        (&["create", &long][..], "1 to 64 letters"),
        (&["revoke", "biling"][..], "no key named `biling`"),
    ] {
        let output = key(directory.path(), arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.contains(said), "{arguments:?}: {error}");
    }
    let elsewhere = directory.path().join("elsewhere");
    let output = key(&elsewhere, &["list"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no store"));
    assert!(!elsewhere.exists());
}

#[test]
fn haste_is_told_to_wait() {
    let (directory, api) = start_with(slow());
    let hasty = create(directory.path(), "hasty");
    let calm = create(directory.path(), "calm");
    for _ in 0..3 {
        list_links(&api, &hasty).success();
    }
    let refused = list_links(&api, &hasty);
    refused.refused(429, &["this key", "3 calls at once", "Retry-After"]);
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=1_000).contains(&wait), "{wait}");
    list_links(&api, &calm).success();
    // The edge refreshes by the node's own key.
    for _ in 0..20 {
        list_links(&api, KEY).success();
    }
}

#[test]
fn guesses_are_slow_and_keep_no_key_in_use_out() {
    let (directory, api) = start_with(slow());
    let known = create(directory.path(), "known");
    list_links(&api, &known).success();
    for guess in ["a", "b", "c"] {
        list_links(&api, guess).refused(401, &["wrong"]);
    }
    list_links(&api, "d").refused(429, &["wrong or a new key", "all together"]);
    list_links(&api, &known).success();
    // A key that was revoked is wrong at its next call, and a guess from then on.
    assert!(key(directory.path(), &["revoke", "known"]).status.success());
    list_links(&api, &known).refused(401, &["wrong"]);
    list_links(&api, &known).refused(429, &["wrong or a new key"]);
}

#[test]
fn without_a_limit_nobody_waits() {
    let (directory, api) = start_with(Limits { rate: None, ..Limits::default() });
    let key = create(directory.path(), "any");
    for _ in 0..500 {
        list_links(&api, &key).success();
    }
}

/// Three calls, and then none for longer than any test runs.
fn slow() -> Limits {
    Limits { rate: Rate::new(0.001, 3), ..Limits::default() }
}

fn start() -> (tempfile::TempDir, Api) {
    start_with(Limits::default())
}

fn start_with(limits: Limits) -> (tempfile::TempDir, Api) {
    let directory = tempfile::tempdir().unwrap();
    let api = Api::start_with(&directory.path().join(DATABASE), limits);
    (directory, api)
}

fn list_links(api: &Api, key: &str) -> support::Reply {
    api.send(Method::GET, &format!("/api/2/smart_links.json?api_key={key}"), &[], "")
}

/// A new key, as the command shows it.
#[track_caller]
fn create(data_dir: &Path, name: &str) -> String {
    let made: Value = serde_json::from_str(&stdout(&key(data_dir, &["create", name, "--json"])))
        .expect("JSON of a new key");
    assert_eq!(made["name"], name);
    made["key"].as_str().unwrap().to_owned()
}

fn key(data_dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_smartlink"))
        .arg("key")
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}
