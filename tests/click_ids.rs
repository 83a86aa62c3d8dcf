//! Click ids over the real binary: what a node writes into a `Location`, its key says who that was; and `smartlink
//! click-id decode` says it to a person.

mod command;
mod support;

use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use smartlink::click_id::{ClickId, ClickIdKeys, Contents, NodeIdentity, Refused, Signer, WorkerIndex};
use smartlink::types::{AffiliateId, LinkId, OfferId, UnixMillis};

use command::Desk;
use support::node::{Node, Setup};

/// The id stands in it twice, under both its names.
const OFFER_URL: &str = "https://shop.example.com/?r=#reqid#&c={click_id}";

#[test]
fn an_id_says_which_click_it_was_and_when() {
    let node = Setup::new().start_ready();
    let keys = own_keys(&node);
    for affiliate in [67890, u32::MAX] {
        let (link, offer) = route(&node, affiliate, OFFER_URL);
        let before = unix_millis();
        let id = id_of_click(&node, link, affiliate);
        let after = unix_millis();
        assert_eq!(id.len(), 50);
        let (contents, signer) = keys.verify(id.as_bytes()).unwrap();
        assert_eq!(signer, Signer::First);
        assert_eq!(ids_of(&contents), (link, affiliate, Some(offer)));
        assert!((before..=after).contains(&contents.at.0), "{before} {after} {contents:?}");
        assert!(node.logged(&[&format!("carry node {}", contents.node)]), "{contents:?}");
    }
}

#[test]
fn a_click_that_went_to_no_offer_carries_none() {
    let node = Setup::new().start_ready();
    let keys = own_keys(&node);
    let fallback = "https://www.example.com/?r=#reqid#&c={click_id}";
    let empty = node.create_link(json!({"affiliate_id": 7, "fallback_url": fallback}));
    // Twelve sub ids of 255 bytes that take three characters each, which is too long to be sent.
    let full = node.create_link(json!({"affiliate_id": 7, "fallback_url": fallback}));
    let offer = node.create_offer(&format!("https://long.example.com/?{}", "{s1}".repeat(12)));
    node.attach(full, offer);
    node.refresh();
    for (link, sub) in [(empty, String::new()), (full, "%20".repeat(255))] {
        let answer = node.click(&format!("/sl?id={link}&aff_id=7&s1={sub}"));
        let (contents, _) = keys.verify(only_id_in(answer.location()).as_bytes()).unwrap();
        assert_eq!(ids_of(&contents), (link as u32, 7, None));
    }
    assert_eq!(node.metrics().clicks("location_too_long"), 1);
}

#[test]
fn the_key_is_the_owners_alone_and_shown_nowhere() {
    let node = Setup::new().start_ready();
    let path = node.directory().join("data/click-id-key");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    let (link, _) = route(&node, 67890, OFFER_URL);
    id_of_click(&node, link, 67890);
    let explained = node.admin("GET", &format!("/explain?id={link}&aff_id=67890")).body;
    for (place, text) in [("log", node.log()), ("metrics", node.metrics().0), ("explain", explained)] {
        assert!(!text.is_empty() && !text.contains(&key[..16]), "{place}");
    }
    assert!(!node.logged(&["WARN", "click-id-key"]), "{}", node.log());
}

#[test]
fn a_key_for_everybody_is_warned_of() {
    let setup = Setup::new();
    let shared = setup.path().join("shared");
    let setup = setup.variable("SMARTLINK_CLICK_ID_KEY_FILE", shared.to_str().unwrap());
    std::fs::write(&shared, "5a".repeat(32)).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o644)).unwrap();
    let node = setup.start_ready();
    node.wait_for_log(&["WARN", "every user of this machine can read or write", "`chmod o= "]);
    let desk = Desk::new();
    let (name, keys) =
        (shared.to_str().unwrap(), [("SMARTLINK_CLICK_ID_KEY_FILE", shared.to_str().unwrap())]);
    let told = desk.run_with(&keys, &["check", "--strict"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.contains(&format!(
        "warning: every user of this machine can read or write the click id key file {name}"
    )));
}

#[test]
fn two_nodes_believe_each_other_by_a_shared_file_and_not_by_keys_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let shared = directory.path().join("shared");
    std::fs::write(&shared, format!("{}\n", "5a".repeat(32))).unwrap();
    let setting = format!("edge.click_id_key_file = {shared:?}");
    let together = [Setup::new().setting(&setting), Setup::new().setting(&setting)];
    let alone = [Setup::new(), Setup::new()];
    for (setups, believe) in [(together, true), (alone, false)] {
        let nodes = setups.map(Setup::start_ready);
        let file =
            |node: &Node| if believe { shared.clone() } else { node.directory().join("data/click-id-key") };
        if believe {
            assert!(nodes.iter().all(|node| !node.directory().join("data/click-id-key").exists()));
        }
        let ids = nodes.each_ref().map(|node| id_of_click(node, route(node, 67890, OFFER_URL).0, 67890));
        let read = ids.each_ref().map(|id| Contents::read_unverified(id.as_bytes()).unwrap());
        assert_ne!(read[0].node, read[1].node);
        for (reader, writer) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
            let verified = keys_in(&file(&nodes[reader])).verify(ids[writer].as_bytes());
            if believe || reader == writer {
                assert_eq!(verified, Ok((read[writer], Signer::First)));
            } else {
                assert_eq!(verified, Err(Refused::Forged));
            }
        }
    }
}

/// As an operator rotates: the new key second on every node, then first. What was signed before stays valid.
#[test]
fn the_first_key_signs_and_both_verify() {
    let setup = Setup::new();
    let path = setup.path().join("keys");
    let (old, new) = ("5a".repeat(32), "6b".repeat(32));
    std::fs::write(&path, format!("{old}\n{new}\n")).unwrap();
    let node = setup.setting("edge.click_id_key_file = \"keys\"").start_ready();
    let (link, _) = route(&node, 67890, OFFER_URL);
    let before = id_of_click(&node, link, 67890);
    let setup = node.kill();
    std::fs::write(&path, format!("{new}\n{old}\n")).unwrap();
    let node = setup.start_ready();
    let after = id_of_click(&node, link, 67890);
    let keys = keys_in(&path);
    let signer = |id: &str| keys.verify(id.as_bytes()).map(|(_, signer)| signer);
    assert_eq!((signer(&before), signer(&after)), (Ok(Signer::Second), Ok(Signer::First)));
}

#[test]
fn a_killed_node_goes_on_with_its_key_as_another_node() {
    let mut setup = Setup::new();
    let mut ids: Vec<String> = Vec::new();
    let (mut link, mut key) = (0, String::new());
    for start in 0..3 {
        let node = setup.start_ready();
        let of_file = std::fs::read_to_string(node.directory().join("data/click-id-key")).unwrap();
        if start == 0 {
            (link, _) = route(&node, 67890, OFFER_URL);
            key.clone_from(&of_file);
        }
        assert_eq!(of_file, key);
        ids.push(id_of_click(&node, link, 67890));
        setup = node.kill();
    }
    let keys = ClickIdKeys::from_text(key.as_bytes()).unwrap();
    let nodes: HashSet<_> = ids.iter().map(|id| keys.verify(id.as_bytes()).unwrap().0.node).collect();
    assert_eq!(nodes.len(), 3);
}

#[test]
fn no_id_comes_twice_over_threads_and_connections() {
    let node = Setup::new().setting("edge.threads = 3").start_ready();
    let keys = own_keys(&node);
    let (link, _) = route(&node, 67890, OFFER_URL);
    let mut ids = HashSet::new();
    let mut threads = HashSet::new();
    // The system gives each connection to a thread by a hash of its ports: soon each has had one.
    for connections in 0.. {
        assert!(connections < 1_000, "connections reach threads {threads:?} alone");
        let mut connection = node.connect();
        for _ in 0..5 {
            let target = format!("/sl?id={link}&aff_id=67890");
            let id = only_id_in(connection.ask(&support::http::Request::click(&target)).location());
            let (contents, _) = keys.verify(id.as_bytes()).unwrap();
            threads.insert(contents.worker);
            assert!(ids.insert(id), "{contents:?} came twice");
        }
        if threads.len() == 3 {
            break;
        }
    }
}

#[test]
fn decode_tells_what_is_in_an_id_and_whose_key_signed_it() {
    let desk = Desk::new();
    desk.file("keys", format!("{FIRST}\n{SECOND}\n"));
    for (lines, which) in [(FIRST, "first"), (SECOND, "second")] {
        let id = signed_with(lines, OfferId::new(1042));
        let told = desk.run(&["click-id", "decode", id.as_str(), "--key-file", "keys"]);
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
        let expected = format!(
            "click id   {}\n\
             version    1\n\
             time       2026-09-21T14:13:20.123Z\n\
             node       9f3a0102c4d5, thread 3\n\
             sequence   17\n\
             link       301\n\
             affiliate  67890\n\
             offer      1042\n\
             verified   yes, with the {which} key of keys\n",
            id.as_str()
        );
        assert_eq!(told.stdout, expected);
    }
    let none = signed_with(FIRST, None);
    let told = desk.run(&["click-id", "decode", none.as_str(), "--key-file", "keys"]);
    assert!(told.stdout.contains("\noffer      none\n"), "{told:?}");
}

#[test]
fn decode_as_json_takes_many() {
    let desk = Desk::new();
    desk.file("keys", FIRST);
    let (genuine, none, forged) =
        (signed_with(FIRST, OfferId::new(1042)), signed_with(FIRST, None), signed_with(SECOND, None));
    let (genuine, none, forged) = (genuine.as_str(), none.as_str(), forged.as_str());
    desk.file("ids", format!("{none}\r\n\n  {forged} \nrubbish\u{1b}[31m\n{genuine}"));
    let told = desk.run_reading("ids", &["click-id", "decode", "--key-file", "keys", "--json", genuine, "-"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(1), ""), "{told:?}");
    let lines: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told_of = |offer: Value, id: &str| {
        json!({
            "click_id": id, "version": 1, "time": "2026-09-21T14:13:20.123Z", "node": "9f3a0102c4d5", "thread": 3,
            "sequence": 17, "smart_link_id": 301, "affiliate_id": 67890, "offer_id": offer, "verified": true,
            "key": "first",
        })
    };
    assert_eq!(lines[0], told_of(1042.into(), genuine));
    assert_eq!(lines[1], told_of(Value::Null, none));
    assert_eq!((&lines[2]["click_id"], &lines[2]["verified"]), (&json!(forged), &json!(false)));
    assert!(lines[2]["problem"].as_str().unwrap().starts_with("its MAC is wrong: "), "{}", lines[2]);
    assert!(lines[3]["problem"].as_str().unwrap().starts_with("it has 12 bytes"), "{}", lines[3]);
    assert_eq!(lines[4], lines[0]);
    assert_eq!(lines.len(), 5);
    // Alone, those that are genuine are a success.
    desk.file("ids", format!("{genuine}\n{none}\n"));
    let told = desk.run_reading("ids", &["click-id", "decode", "--key-file", "keys", "-"]);
    assert_eq!((told.code, told.stdout.matches("click id   ").count()), (Some(0), 2), "{told:?}");
}

#[test]
fn decode_refuses_what_is_forged_or_damaged_in_one_sentence() {
    let desk = Desk::new();
    desk.file("keys", FIRST);
    let genuine = signed_with(FIRST, OfferId::new(1042));
    let genuine = genuine.as_str();
    let forged = signed_with(SECOND, OfferId::new(1042));
    let other_offer = genuine.replace("BBL", "BBM");
    assert_ne!(other_offer, genuine);
    for (id, problem) in [
        (forged.as_str(), "its MAC is wrong: it was forged or damaged, or signed with another key"),
        (&other_offer, "its MAC is wrong"),
        (&genuine[1..], "it has 49 bytes, and a click id has 50"),
        (&genuine.replace('E', "+"), "it is not base64url"),
        (&genuine.replacen('E', "I", 1), "it is of version 2, and this smartlink knows version 1"),
        ("AaIDL3vnRSVFof0AAAAAAAABLQABCTIAAAQS", "it has 36 bytes"),
        ("\u{1b}[31mred", "it has 8 bytes"),
        ("", "it has 0 bytes"),
    ] {
        let told = desk.run(&["click-id", "decode", "--key-file", "keys", id]);
        assert_eq!((told.code, told.stdout.as_str()), (Some(1), ""), "{told:?}");
        assert!(told.stderr.starts_with("smartlink: `") && told.stderr.contains(problem), "{told:?}");
        assert!(told.stderr.lines().count() == 1 && !told.stderr.contains('\u{1b}'), "{told:?}");
    }
}

#[test]
fn decode_finds_the_key_where_serve_does_and_tells_when_there_is_none() {
    let desk = Desk::new();
    let id = signed_with(FIRST, None);
    let decode = ["click-id", "decode", id.as_str()];
    let told = desk.run(&decode);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("verified   no: there is no key ./smartlink-data/click-id-key"), "{told:?}");
    let told = desk.run(&[&decode[..], &["--json"]].concat());
    let answer: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((&answer["verified"], &answer["key"]), (&json!(false), &Value::Null));

    std::fs::create_dir(desk.path("data")).unwrap();
    desk.file("data/click-id-key", FIRST);
    desk.file("first", FIRST);
    desk.file("second", SECOND);
    desk.file("named.toml", "edge.click_id_key_file = \"first\"\n");
    desk.file("data.toml", "data_dir = \"data\"\n");
    for (variables, arguments, place) in [
        (&[][..], &["--data-dir", "data"][..], "data/click-id-key"),
        (&[], &["--config", "data.toml"], "data/click-id-key"),
        (&[], &["--config", "named.toml"], "first"),
        (&[("SMARTLINK_CLICK_ID_KEY_FILE", "first")], &["--data-dir", "absent"], "first"),
        (&[("SMARTLINK_CLICK_ID_KEY_FILE", "second")], &["--key-file", "first"], "first"),
    ] {
        let told = desk.run_with(variables, &[&decode[..], arguments].concat());
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(
            told.stdout.ends_with(&format!("verified   yes, with the first key of {place}\n")),
            "{told:?}"
        );
    }
    let told = desk.run_with(&[("SMARTLINK_CLICK_ID_KEY_FILE", "second")], &decode);
    assert_eq!(told.code, Some(1), "{told:?}");
    let told = desk.run(&[&decode[..], &["--unverified", "--key-file", "second"]].concat());
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.ends_with("verified   no: --unverified was given\n"), "{told:?}");

    desk.run(&[&decode[..], &["--key-file", "absent"]].concat())
        .fails_saying(&["cannot read the click id key file absent: "]);
    desk.run(&[&decode[..], &["--key-file", desk.file("bad", "canary")]].concat())
        .fails_saying(&["the click id key file bad, line 1: this is no key"]);
    assert_eq!(desk.run(&["click-id", "decode"]).code, Some(2));
}

#[test]
fn decode_of_a_nodes_own_click() {
    let node = Setup::new().start_ready();
    let (link, offer) = route(&node, 67890, OFFER_URL);
    let id = id_of_click(&node, link, 67890);
    let data_dir = node.directory().join("data");
    let told =
        Desk::new().run(&["click-id", "decode", "--json", &id, "--data-dir", data_dir.to_str().unwrap()]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let answer: Value = serde_json::from_str(&told.stdout).unwrap();
    let ids = ["smart_link_id", "affiliate_id", "offer_id"].map(|name| answer[name].as_u64().unwrap());
    assert_eq!(ids, [link.into(), 67890, offer.into()]);
    assert_eq!((&answer["verified"], &answer["key"]), (&json!(true), &json!("first")));
    assert_eq!(answer["sequence"], 0);
}

/// A link with one offer, live; their ids.
#[track_caller]
fn route(node: &Node, affiliate: u32, url: &str) -> (u32, u32) {
    let link = node.create_link(json!({"affiliate_id": affiliate}));
    let offer = node.create_offer(url);
    node.attach(link, offer);
    node.refresh();
    (link.try_into().unwrap(), offer.try_into().unwrap())
}

#[track_caller]
fn id_of_click(node: &Node, link: u32, affiliate: u32) -> String {
    only_id_in(node.click(&format!("/sl?id={link}&aff_id={affiliate}")).location())
}

/// Both tokens are the same id.
#[track_caller]
fn only_id_in(location: &str) -> String {
    let ids = location.split_once("/?r=").and_then(|(_, rest)| rest.split_once("&c="));
    let (id, again) = ids.unwrap_or_else(|| panic!("{location}"));
    assert_eq!(id, again);
    id.to_owned()
}

fn ids_of(contents: &Contents) -> (u32, u32, Option<u32>) {
    (contents.link.value(), contents.affiliate.value(), contents.offer.map(OfferId::value))
}

fn own_keys(node: &Node) -> ClickIdKeys {
    keys_in(&node.directory().join("data/click-id-key"))
}

fn keys_in(path: &Path) -> ClickIdKeys {
    ClickIdKeys::from_text(&std::fs::read(path).unwrap()).unwrap()
}

fn unix_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// An id of a known click.
fn signed_with(key: &str, offer: Option<OfferId>) -> ClickId {
    ClickIdKeys::from_text(key.as_bytes()).unwrap().sign(Contents {
        at: UnixMillis(1_790_000_000_123),
        node: NodeIdentity::new(0x9f3a_0102_c4d5),
        worker: WorkerIndex::new(3).unwrap(),
        sequence: 17,
        link: LinkId::new(301).unwrap(),
        affiliate: AffiliateId::new(67890).unwrap(),
        offer,
    })
}

const FIRST: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const SECOND: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
