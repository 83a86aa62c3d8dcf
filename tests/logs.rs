//! What a node says of itself: in both forms, from the wanted level on, into the wanted place, and a line for each refresh that
//! changed something.

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::node::{Node, Setup};
use support::stub::{Canned, Stub};
use support::wait;

/// Every line, as a program reads it.
#[track_caller]
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"))).collect()
}

#[test]
fn a_line_of_json_has_its_fields_by_name() {
    let node = Setup::demo().flag("--log-format").flag("json").start_ready();
    let lines = lines(&node.log());
    for line in &lines {
        assert!(line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(["ERROR", "WARN", "INFO"].contains(&line["level"].as_str().unwrap()), "{line}");
        assert!(line["message"].is_string(), "{line}");
        assert!(line["target"].as_str().unwrap().starts_with("smartlink"), "{line}");
    }
    let begun = &lines[0]["message"];
    let said = format!("smartlink {}, process {}", env!("CARGO_PKG_VERSION"), node.id());
    assert_eq!(begun, &Value::from(said));
    let published = lines.iter().find(|line| line["message"] == "published").expect("it has published");
    assert_eq!((&published["generation"], &published["links"]), (&json!(1), &json!(1)), "{published}");
    assert!(published["snapshot"].is_string(), "{published}");
}

#[test]
fn the_level_is_as_typed_and_rust_log_wins() {
    let quiet = |setup: Setup| setup.flag("--log-level").flag("error").start_and_fail();
    let wrong = |setup: Setup| setup.setting("geo.database = \"absent.mmdb\"");
    let mut node = quiet(wrong(Setup::demo()));
    assert_eq!(node.wait_for_exit().code(), Some(2));
    assert_eq!(node.log().lines().count(), 1, "only why it ended: {}", node.log());
    let mut node = quiet(wrong(Setup::demo()).variable("RUST_LOG", "smartlink=info"));
    assert_eq!(node.wait_for_exit().code(), Some(2));
    node.wait_for_log(&[" INFO smartlink "]);
    let mut node = quiet(wrong(Setup::demo()).variable("RUST_LOG", "smartlink=loud"));
    assert_eq!(node.wait_for_exit().code(), Some(2));
    assert!(!node.logged(&[" INFO "]), "{}", node.log());
    // And so is what was wrong with it, where warnings are told.
    let mut node = wrong(Setup::demo()).variable("RUST_LOG", "smartlink=loud").start_and_fail();
    assert_eq!(node.wait_for_exit().code(), Some(2));
    node.wait_for_log(&["RUST_LOG is \"smartlink=loud\", which is not understood"]);
    node.wait_for_log(&[" INFO smartlink "]);
}

#[test]
fn the_level_can_be_changed_while_it_runs() {
    let stub = Stub::start();
    let mut node = Setup::of_upstream(&stub.url(), "k").setting("log.level = \"error\"").start_and_fail();
    wait::until("the node to ask its upstream", || (stub.asked() > 0).then_some(()));
    assert_eq!(node.log(), "");
    node.configure(&["log.level = \"info\""]);
    node.signal("HUP");
    node.wait_for_log(&["SIGHUP: taken up log.level"]);
}

#[test]
fn a_start_that_fails_is_told_in_the_wanted_form() {
    let wrong = || Setup::demo().setting("geo.database = \"absent.mmdb\"");
    let mut node = wrong().flag("--log-format").flag("json").start_and_fail();
    assert_eq!(node.wait_for_exit().code(), Some(2));
    let last = lines(&node.log()).pop().unwrap();
    assert_eq!(last["level"], "ERROR", "{last}");
    assert!(last["message"].as_str().unwrap().contains("absent.mmdb"), "{last}");
    // In a file, and to whoever has typed the command.
    let setup = wrong().flag("--log-file").flag("node.log");
    let mut node = setup.start_and_fail();
    assert_eq!(node.wait_for_exit().code(), Some(2));
    let file = fs::read_to_string(node.directory().join("node.log")).unwrap();
    assert!(file.contains("ERROR ") && file.contains("absent.mmdb"), "{file}");
    assert!(node.log().starts_with("smartlink: ") && node.log().contains("absent.mmdb"), "{}", node.log());
    // Where no file can be, nothing is started.
    let mut node = Setup::demo().flag("--log-file").flag("absent/node.log").start_and_fail();
    assert_eq!(node.wait_for_exit().code(), Some(2));
    node.wait_for_log(&["smartlink: cannot open the log absent/node.log: "]);
}

#[track_caller]
fn wait_for(file: &Path, said: &str) {
    wait::until(&format!("{} to have {said:?}", file.display()), || {
        fs::read_to_string(file).unwrap_or_default().contains(said).then_some(())
    });
}

#[test]
fn a_file_that_was_renamed_is_opened_anew_at_sigusr1() {
    let node = Setup::demo().setting("log.file = \"node.log\"").start_and_fail();
    let (file, old) = (node.directory().join("node.log"), node.directory().join("node.log.1"));
    wait_for(&file, "published");
    fs::rename(&file, &old).unwrap();
    // What is said before the signal goes on in the old one.
    node.signal("HUP");
    wait_for(&old, "SIGHUP: ");
    assert!(!file.exists());
    node.signal("USR1");
    wait_for(&file, "SIGUSR1: the log goes on in node.log");
    node.signal("HUP");
    wait_for(&file, "SIGHUP: ");
    assert_eq!(fs::read_to_string(&old).unwrap().matches("SIGHUP: ").count(), 1);
    // One that cannot be opened leaves the log where it is.
    fs::rename(&file, &old).unwrap();
    fs::create_dir(&file).unwrap();
    node.signal("USR1");
    wait_for(&old, "SIGUSR1: cannot open the log node.log: ");
    assert_eq!(node.log(), "", "nothing went to standard error");
}

#[test]
fn without_a_file_sigusr1_says_so_and_does_nothing() {
    let node = Setup::demo().start_ready();
    node.signal("USR1");
    node.wait_for_log(&["SIGUSR1: ", "no file"]);
    assert_eq!(node.readyz(), 200);
}

fn said(node: &Node) -> Vec<String> {
    node.log().lines().map(str::to_owned).collect()
}

#[test]
fn a_refresh_that_changed_something_is_one_line_and_another_is_none() {
    let stub = Stub::start();
    let offer = |name: &str| json!([{"offer": {"offer_id": 10, "offer_status": "active", "offer_url": format!("https://{name}.example.com/")}}]);
    stub.list("offers", offer("one"));
    let links = json!([{"smart_link_id": 1, "affiliate_id": 7, "smart_link_status": "active"}]);
    stub.list("smart_links", links);
    let entries = json!([{"smart_link_id": 1, "offer_id": 10, "offer_weight": 1, "priority": 1}]);
    stub.list("smart_link_offers", entries);
    let node = Setup::of_upstream(&stub.url(), "k").start_ready();
    node.refresh();
    for _ in 0..5 {
        assert_eq!(node.refresh()["result"], "unchanged");
    }
    stub.list("offers", offer("two"));
    assert_eq!(node.refresh()["result"], "published");
    // A failure is told, and so is that it is over, though nothing has changed.
    stub.answer("offers", Canned::json("{}"));
    node.failed_refresh();
    stub.list("offers", offer("two"));
    assert_eq!(node.refresh()["result"], "unchanged");
    // Lines arrive in order, though after the answers: the last one makes sure of those before it.
    node.wait_for_log(&["INFO refreshes succeed again failures=1"]);
    let said: Vec<String> =
        said(&node).into_iter().skip_while(|line| !line.contains("published generation=1")).collect();
    let (expected, log) = (
        [
            "INFO published",
            "INFO published generation=2",
            "WARN refresh failed",
            "INFO refreshes succeed again",
        ],
        node.log(),
    );
    assert_eq!(said.len(), expected.len(), "{log}");
    assert!(said.iter().zip(expected).all(|(line, expected)| line.contains(expected)), "{log}");
}

#[test]
fn the_same_line_again_and_again_is_counted() {
    let node = Setup::demo().variable("RUST_LOG", "info").start_ready();
    for _ in 0..25 {
        node.signal("USR1");
        // Signals of a kind that wait are one: each is to be taken.
        node.readyz();
    }
    node.wait_for_log(&["INFO the same ", "left out: SIGUSR1: the log goes to standard error"]);
    let told = said(&node).iter().filter(|line| line.contains("INFO SIGUSR1: ")).count();
    assert_eq!(told, 10, "{}", node.log());
}
