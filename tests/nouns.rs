//! `smartlink link`, `offer`, `rule`, `geo-target` and `cap`, the real binary against a running node.

#[path = "support/terminal.rs"]
mod support;

use serde_json::{Value, json};
use support::{Node, command, run};

const URL: &str = "https://shop.example.com/a?r=#reqid#";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Link 1 of affiliate 67890, offer 1.
fn small() -> Node {
    let node = Node::start();
    node.ok(&["link", "create", "--smart-link-name", "Finance", "--affiliate-id", "67890"]);
    node.ok(&["offer", "create", "--offer-name", "Card", "--offer-url", URL, "--payout", "45"]);
    node
}

#[test]
fn a_link_from_creation_to_detachment() {
    let node = small();
    let table = node.ok(&["link", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(
        lines[0].starts_with("smart_link_id  smart_link_name  affiliate_id  smart_link_status"),
        "{table}"
    );
    assert!(lines[1].starts_with("            1  Finance                 67890  active"), "{table}");

    let entry = ["--smart-link-id", "1", "--offer-id", "1"];
    let attach = |more: &[&str]| node.ok(&[&["link", "attach"], &entry[..], more].concat());
    assert_eq!(attach(&["--offer-weight", "60"]), "offer 1 attached to link 1: weight 60, priority 1\n");
    assert_eq!(attach(&["--priority", "2"]), "offer 1 changed on link 1: weight 60, priority 2\n");
    assert_eq!(attach(&[]), "offer 1 unchanged on link 1: weight 60, priority 2\n");
    let offers = node.ok(&["link", "offers", "--smart-link-id", "1"]);
    assert_eq!(offers.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(), ["1", "1", "60", "2"]);
    let detached = node.ok(&[&["link", "detach"], &entry[..]].concat());
    assert_eq!(detached, "offer 1 removed from link 1: weight 60, priority 2\n");
    node.fails(&[&["link", "detach"], &entry[..]].concat(), &["`offer_id` 1 is not attached", "404"]);

    node.ok(&[
        "link",
        "set",
        "--smart-link-id",
        "1",
        "--fallback-url",
        "https://www.example.com/",
        "--cap-aware",
        "false",
    ]);
    let set = json(&node.ok(&["link", "set", "--smart-link-id", "1", "--rotation-type", "even", "--json"]));
    assert_eq!(
        (&set["response"]["rotation_type"], &set["response"]["cap_aware"]),
        (&json!("even"), &json!(false))
    );
    assert_eq!(set["response"]["fallback_url"], "https://www.example.com/");
    let set = json(&node.ok(&["link", "set", "--smart-link-id", "1", "--fallback-url", "", "--json"]));
    assert_eq!(set["response"].get("fallback_url"), None);
}

#[test]
fn an_offer_and_its_change() {
    let node = small();
    let offer = json(&node.ok(&["offer", "list", "--json"]))["offers"][0]["offer"].take();
    assert_eq!(
        offer,
        json!({"offer_id": 1, "offer_name": "Card", "offer_url": URL, "offer_status": "active", "payout": 45.0})
    );
    let set = node.ok(&[
        "offer",
        "set",
        "--offer-id",
        "1",
        "--payout",
        "",
        "--offer-status",
        "paused",
        "--vertical-id",
        "7",
        "--json",
    ]);
    let set = json(&set)["offer"].take();
    assert_eq!(
        (set.get("payout"), &set["offer_status"], &set["vertical_id"]),
        (None, &json!("paused"), &json!(7))
    );
    let table = node.ok(&["offer", "list", "--offer-status", "paused"]);
    assert!(table.lines().nth(1).unwrap().contains("Card        paused"), "{table}");
    assert_eq!(node.ok(&["offer", "list", "--offer-status", "active"]).lines().count(), 1);
    assert_eq!(node.ok(&["offer", "list", "--vertical-id", "7"]).lines().count(), 2);
    assert_eq!(node.ok(&["offer", "list", "--advertiser-id", "7"]).lines().count(), 1);
}

#[test]
fn a_rule_with_conditions_in_both_forms() {
    let node = small();
    let create = [
        "rule",
        "create",
        "--smart-link-id",
        "1",
        "--offer-id",
        "1",
        "--priority",
        "1",
        "--offer-weight",
        "10",
    ];
    let hours = "hours mon-fri 09:00-17:30 America/New_York";
    let when = ["--when", "country in US,CA", "--when", "device not_in tablet", "--when", hours];
    node.ok(&[&create[..], &when].concat());
    let conditions = json!({
        "country": {"in": ["US", "CA"]}, "device": {"not_in": ["tablet"]},
        "hours": {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:30", "time_zone": "America/New_York"},
    });
    let rules = json(&node.ok(&["rule", "list", "--json"]));
    assert_eq!(
        rules["response"]["routing_rules"],
        json!([{"rule_id": 1, "smart_link_id": 1, "offer_id": 1, "priority": 1, "offer_weight": 10, "conditions": conditions}])
    );
    let table = node.ok(&["rule", "list"]);
    let shown = format!("country in US,CA; device not_in tablet; {hours}");
    assert!(table.contains(&shown), "{table}");

    let with_json =
        json(&node.ok(&[&create[..], &["--conditions", &conditions.to_string(), "--json"]].concat()));
    assert_eq!(with_json["response"]["conditions"], conditions);
    let set = node.ok(&["rule", "set", "--rule-id", "2", "--offer-weight", "20", "--json"]);
    assert_eq!(json(&set)["response"]["conditions"], conditions);
    let set = node.ok(&["rule", "set", "--rule-id", "2", "--when", "os in ios", "--json"]);
    assert_eq!(json(&set)["response"]["conditions"], json!({"os": {"in": ["ios"]}}));
    assert_eq!(node.ok(&["rule", "remove", "--rule-id", "2"]), "rule 2 removed\n");

    node.fails(&create, &["--when or --conditions"]);
    node.fails(
        &[&create[..], &["--when", "country in ZZ"]].concat(),
        &["`conditions.country.in`", "ZZ", "422"],
    );
    node.fails(
        &[&create[..], &["--when", "country US"]].concat(),
        &["--when \"country US\"", "expected a name"],
    );
}

#[test]
fn geo_targets() {
    let node = small();
    let set = ["geo-target", "set", "--offer-id", "1", "--countries", "US,CA", "--action", "allow"];
    assert_eq!(node.ok(&set), "offer 1 allows US, CA\n");
    assert_eq!(node.ok(&["geo-target", "list", "--offer-id", "1"]), node.ok(&["geo-target", "list"]));
    let remove = ["geo-target", "remove", "--offer-id", "1", "--countries", "CA"];
    assert_eq!(node.ok(&remove), "offer 1 no longer names CA\n");
    let left = json(&node.ok(&["geo-target", "list", "--json"]));
    assert_eq!(left["response"]["offer_geo_targets"][0]["geo_targets"][0]["country_code"], "US");
    assert_eq!(left["response"]["total_rows"], 1);
    node.fails(
        &["geo-target", "set", "--offer-id", "1", "--countries", "XX", "--action", "block"],
        &["`countries`"],
    );
}

#[test]
fn lists_read_all_rows_or_so_many() {
    let node = small();
    for name in ["a", "b", "c"] {
        node.ok(&["link", "create", "--smart-link-name", name, "--affiliate-id", "7"]);
    }
    assert_eq!(node.ok(&["link", "list"]).lines().count(), 1 + 4);
    assert_eq!(node.ok(&["link", "list", "--limit", "2"]).lines().count(), 1 + 2);
    let two = json(&node.ok(&["link", "list", "--limit", "2", "--json"]));
    assert_eq!(two["response"]["smart_links"].as_array().unwrap().len(), 2);
    assert_eq!(two["response"]["total_rows"], 4);
}

#[test]
fn the_key_is_sought_in_order_and_never_shown() {
    let node = small();
    let key = node.key();
    let list = |name: &str, value: &str| {
        let upstream = ["link", "list", "--api", node.admin.as_str()];
        run(command().args(upstream).env(name, value))
    };
    assert_eq!(list("SMARTLINK_API_KEY", &key).code, 0);
    assert_eq!(list("SMARTLINK_API_KEY_FILE", node.file("api-key").to_str().unwrap()).code, 0);
    assert_eq!(list("SMARTLINK_DATA_DIR", node.directory.path().to_str().unwrap()).code, 0);
    list("UNUSED", "").failed(&[
        "SMARTLINK_API_KEY",
        "SMARTLINK_API_KEY_FILE",
        "smartlink-data/api-key",
        "--data-dir",
    ]);
    list("SMARTLINK_API_KEY_FILE", "/nowhere/key").failed(&["/nowhere/key"]);
    let wrong = list("SMARTLINK_API_KEY", "canary-of-the-key");
    wrong.failed(&["`api_key` is wrong", "401"]);
    assert!(!wrong.error.contains("canary"), "{wrong:?}");
}

#[test]
fn the_upstream_of_serve_is_not_the_api_that_commands_speak_to() {
    let node = small();
    let list = |arguments: &[&str], variables: &[(&str, &str)]| {
        let data = node.directory.path().to_str().unwrap();
        run(command()
            .args(["link", "list", "--data-dir", data])
            .args(arguments)
            .envs(variables.iter().copied()))
    };
    // In the environment of a node, whose upstream has another key.
    let of_serve = ("SMARTLINK_UPSTREAM", "http://192.0.2.1:9180");
    let of_commands = ("SMARTLINK_API_URL", node.admin.as_str());
    assert_eq!(list(&[], &[of_serve, of_commands]).code, 0);
    assert_eq!(list(&["--api", &node.admin], &[of_serve]).code, 0);
    assert_eq!(list(&["--upstream", &node.admin], &[of_serve]).code, 0, "its name of before");
}

#[test]
fn what_cannot_be_reached_is_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let list = |upstream: &str| {
        run(command()
            .args(["link", "list", "--upstream", upstream])
            .env("SMARTLINK_API_KEY", "canary-of-the-key"))
    };
    for (upstream, said) in [
        (format!("http://{nobody}"), "cannot be reached"),
        ("9180".to_owned(), "--api (SMARTLINK_API_URL) is no scheme, host"),
    ] {
        let said_of = list(&upstream);
        said_of.failed(&[said]);
        assert!(!said_of.error.contains("canary"), "{said_of:?}");
    }
}

#[test]
fn the_key_of_the_node_here_is_sent_to_no_other() {
    let node = Node::start();
    let elsewhere = run(command()
        .args(["link", "list", "--upstream", "http://192.0.2.1:9180", "--data-dir"])
        .arg(node.directory.path()));
    elsewhere.failed(&["no API key for http://192.0.2.1:9180/", "SMARTLINK_API_KEY"]);
}

#[test]
fn a_cap_from_setting_to_removal() {
    let node = small();
    let name = ["--offer-id", "1", "--cap-type", "click", "--cap-interval", "daily"];
    let set = |more: &[&str]| node.ok(&[&["cap", "set"], &name[..], more].concat());
    let berlin = ["--cap-amount", "1000", "--time-zone", "Europe/Berlin"];
    assert_eq!(set(&berlin), "cap 1 created: daily click cap of offer 1, 1000 in Europe/Berlin\n");
    assert_eq!(
        set(&["--cap-amount", "5", "--send-alert-only", "true"]),
        "cap 1 changed: daily click cap of offer 1, 5 in Europe/Berlin, only alerts\n"
    );
    set(&["--cap-amount", "7", "--affiliate-id", "67890", "--time-zone", "UTC"]);
    let table = node.ok(&["cap", "list", "--affiliate-id", "67890"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][5..10], ["cap_amount", "used", "leased", "remaining", "window_ends_at"], "{table}");
    assert_eq!(lines.len(), 2, "{table}");
    assert_eq!(lines[1][..9], ["2", "1", "67890", "click", "daily", "7", "0", "0", "7"]);
    // Its window begins when the node asks for some of it for the first time, which may be now.
    let window_ends_at = lines[1][9];
    assert!(window_ends_at == "-" || window_ends_at.parse::<jiff::Timestamp>().is_ok(), "{table}");
    assert_eq!(lines[1][10..], ["UTC", "false"]);
    let all = json(&node.ok(&["cap", "list", "--json"]));
    assert_eq!(all["response"]["total_rows"], 2);

    node.fails(
        &[
            "cap",
            "set",
            "--offer-id",
            "9",
            "--cap-type",
            "click",
            "--cap-interval",
            "daily",
            "--cap-amount",
            "1",
        ],
        &["`offer_id` 9 does not exist", "404"],
    );
    let by_name = node.ok(&[&["cap", "remove"], &name[..]].concat());
    assert!(by_name.starts_with("cap 1 removed: daily click cap of offer 1, 5 in"), "{by_name}");
    let by_id = node.ok(&["cap", "remove", "--cap-id", "2", "--json"]);
    assert_eq!(json(&by_id)["response"]["affiliate_id"], 67890);
}

#[test]
fn a_cap_is_removed_in_one_of_two_ways() {
    let remove = |typed: &[&str]| run(command().args(["cap", "remove"]).args(typed));
    let ways = ["--cap-id alone", "--offer-id, --cap-type, --cap-interval", "--affiliate-id"];
    for (typed, said) in [
        (&[][..], "no cap is named; name it"),
        (&["--offer-id", "1"], "--cap-type and --cap-interval are not given; name the cap"),
        (&["--offer-id", "1", "--cap-type", "click"], "--cap-interval is not given; name the cap"),
    ] {
        remove(typed).failed(&[&[said][..], &ways[..]].concat());
    }

    let usage = [
        "Usage: smartlink cap remove [OPTIONS] --cap-id <ID>\n",
        "smartlink cap remove [OPTIONS] --offer-id <ID> --cap-type <TYPE> --cap-interval <INTERVAL> [--affiliate-id <ID>]\n",
    ];
    let both = remove(&["--cap-id", "1", "--offer-id", "1"]);
    assert!(both.code == 2 && both.error.contains("'--cap-id <ID>' cannot be used with"), "{both:?}");
    let help = remove(&["--help"]);
    for usage in usage {
        assert!(both.error.contains(usage) && help.out.contains(usage), "{both:?} {help:?}");
    }
}

#[test]
fn an_amount_that_is_none_is_refused_with_what_was_expected() {
    let cap = ["cap", "set", "--offer-id", "1", "--cap-type", "click", "--cap-interval", "daily"];
    for amount in ["-1", "1.5", "-1.5", "many", "", "9007199254740992"] {
        let said = run(command().args(cap).args(["--cap-amount", amount]));
        let expected = format!(
            "invalid value '{amount}' for '--cap-amount <N>': expected a whole number from 0 to 9007199254740991"
        );
        assert!(said.code == 2 && said.error.contains(&expected), "{said:?}");
    }
}

#[test]
fn an_empty_list_of_caps_says_that_there_is_none() {
    let node = small();
    let list = |typed: &[&str]| node.run(&[&["cap", "list"], typed].concat());
    for (typed, said) in [
        (
            &["--offer-id", "9"][..],
            "smartlink: offer 9 has no cap; `smartlink offer list --offer-id 9` tells",
        ),
        (&["--offer-id", "1", "--cap-type", "click"], "smartlink: there is no such cap;"),
        (&[], "smartlink: there is no cap; `smartlink cap set` sets one"),
    ] {
        let answer = list(typed);
        assert!(answer.code == 0 && answer.out.starts_with("cap_id  offer_id"), "{answer:?}");
        assert!(answer.error.starts_with(said) && answer.error.lines().count() == 1, "{answer:?}");
    }
    let json = list(&["--offer-id", "9", "--json"]);
    assert_eq!((json.code, &*json.error), (0, ""), "{json:?}");
    assert!(node.ok(&["offer", "list", "--offer-id", "1"]).contains("Card"));
}

#[test]
fn caps_whose_ledger_cannot_be_used_have_dashes_and_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ledger.sqlite3"), "no database at all, ".repeat(100)).unwrap();
    let node = Node::start_in(directory, &[]);
    node.ok(&["offer", "create", "--offer-name", "Card", "--offer-url", URL]);
    let cap = ["cap", "set", "--offer-id", "1", "--cap-type", "click", "--cap-interval", "daily"];
    node.ok(&[&cap[..], &["--cap-amount", "5"]].concat());
    let said = node.run(&["cap", "list"]);
    let row: Vec<&str> = said.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[5..10], ["5", "-", "-", "-", "-"], "{said:?}");
    assert_eq!((said.code, said.error.lines().count()), (0, 1), "{said:?}");
    for word in
        ["smartlink: where there is a dash", "cannot ask its ledger", "its log says why and what to do"]
    {
        assert!(said.error.contains(word), "{said:?}");
    }
}

#[test]
fn a_watched_cap_is_a_line_for_each_change() {
    let node = small();
    let set = |amount: &str| {
        let name = ["cap", "set", "--offer-id", "1", "--cap-type", "click", "--cap-interval", "daily"];
        node.ok(&[&name[..], &["--cap-amount", amount]].concat());
    };
    set("5");
    let mut watch = command();
    watch.args(["cap", "watch", "--json", "--api", &node.admin, "--data-dir"]).arg(node.directory.path());
    let mut watch = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut next = || json(&lines.next().unwrap().unwrap());
    assert_eq!(next()["cap_amount"], 5);
    set("6");
    assert_eq!(next()["cap_amount"], 6);
    node.ok(&["cap", "remove", "--cap-id", "1"]);
    let last = next();
    assert_eq!((&last["cap_id"], &last["removed"]), (&json!(1), &json!(true)));
    watch.kill().unwrap();
    watch.wait().unwrap();
}
