//! Click ids over the real binary: what a node writes into a `Location`, its key says who that was.

mod command;
mod support;

use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use smartlink::click_id::{ClickIdKeys, Contents, Refused, Signer};
use smartlink::types::OfferId;

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
