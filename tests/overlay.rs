//! A real CAKE as upstream: it lists links and offers, geo targets of one offer at a time, and neither entries nor
//! rules, which come from a `routing.toml`.

mod command;
mod support;

use std::fs;

use command::Desk;
use support::cake::Cake;
use support::http::{PHONE, Request};
use support::mmdb::{Metadata, MmdbWriter, place};
use support::node::{Node, Setup};
use support::stub::{Canned, Stub};
use support::wait;

const KEY: &str = "canary-of-the-overlay";

const CLICK: &str = "/sl?id=1&aff_id=7";

/// Link 1 with offer 10, and with offer 11 for phones in front of it.
const PHONES_APART: &str = r#"
[[smart_link_offers]]
smart_link_id = 1
offer_id = 10
priority = 2

[[routing_rules]]
rule_id = 7
smart_link_id = 1
offer_id = 11
conditions.device = { in = ["mobile"] }
"#;

#[test]
fn clicks_go_where_the_overlay_says_and_a_changed_one_is_taken_at_the_next_refresh() {
    let cake = Cake::start(1, &[10, 11, 12]);
    let node = following(&cake, PHONES_APART).start_ready();
    node.wait_for_log(&[
        "entries, rules and caps come from the overlay routing.toml alone",
        "entries=1",
        "rules=1",
    ]);
    // What the start fetched is live, and is not taken for what the next one fetches.
    assert_eq!(node.refresh()["result"], "unchanged");
    assert_eq!(node.click(CLICK).destination(), "offer10.example.com");
    let phone = Request::click(CLICK).with("User-Agent", PHONE);
    assert_eq!(node.ask(&phone).destination(), "offer11.example.com");
    let calls = cake.calls();
    assert!(calls.iter().any(|call| call.starts_with("smart_links.json?")), "{calls:?}");
    for ours in
        ["smart_link_offers.json", "routing_rules.json", "offer_caps.json", "cap_lease.json", "revision.json"]
    {
        assert!(!calls.iter().any(|call| call.starts_with(ours)), "{ours} is not CAKE's: {calls:?}");
    }

    write(&node, &PHONES_APART.replace("offer_id = 10", "offer_id = 12"));
    let report = node.refresh();
    assert_eq!((&report["result"], &report["quarantined"]), (&"published".into(), &0.into()), "{report}");
    assert_eq!(node.click(CLICK).destination(), "offer12.example.com");
    assert_eq!(node.ask(&phone).destination(), "offer11.example.com");

    // An offer that CAKE does not have is left out and named, as always.
    write(&node, &format!("{PHONES_APART}\n[[smart_link_offers]]\nsmart_link_id = 1\noffer_id = 99\n"));
    let report = node.refresh();
    assert!(report["warnings"][0].as_str().unwrap().starts_with("offer 99 on smart link 1: "), "{report}");
    assert_eq!(node.click(CLICK).destination(), "offer10.example.com");
}

#[test]
fn a_damaged_overlay_leaves_the_table_and_the_joined_network_outlives_its_upstream() {
    let cake = Cake::start(1, &[10, 11]);
    let node = following(&cake, PHONES_APART).start_ready();
    node.refresh();
    let generation = node.metrics().generation();
    for (damage, said) in [
        ("[[smart_link_offers]\n".to_owned(), "the overlay routing.toml, line 1: "),
        (PHONES_APART[..PHONES_APART.len() / 2].to_owned() + "= =", "the overlay routing.toml, line "),
        (
            PHONES_APART.replace("mobile", "phone"),
            "line 11: `conditions.device.in` is \"phone\"; expected one of",
        ),
        (
            format!("{PHONES_APART}[[offer_caps]]\noffer_id = 10\n"),
            "line 12: `cap_type` is missing; write one of click, conversion",
        ),
    ] {
        write(&node, &damage);
        cake.calls();
        let reason = node.failed_refresh();
        assert!(reason.contains(said), "{reason}");
        assert_eq!(cake.calls(), Vec::<String>::new(), "a damaged file costs no calls");
        assert_eq!((node.readyz(), node.metrics().generation()), (200, generation));
        assert_eq!(node.click(CLICK).destination(), "offer10.example.com");
    }
    node.wait_for_log(&["WARN", "refresh failed", "routing.toml, line 12", "the live table stays"]);
    fs::remove_file(node.directory().join("routing.toml")).unwrap();
    let reason = node.failed_refresh();
    assert!(reason.contains("cannot read the overlay routing.toml"), "{reason}");
    assert_eq!(node.click(CLICK).destination(), "offer10.example.com");

    // Back again: nothing has changed. What was joined is what a node starts from.
    write(&node, PHONES_APART);
    assert_eq!(node.refresh()["result"], "unchanged");
    cake.go_away();
    let node = node.kill().start_ready();
    node.wait_for_log(&["routing from the last good snapshot"]);
    assert_eq!(node.click(CLICK).destination(), "offer10.example.com");
}

#[test]
fn every_page_is_read_and_every_link_has_its_entries() {
    let cake = Cake::start(1_203, &(1..=30).collect::<Vec<_>>());
    let entries: String = (1..=1_203)
        .map(|link| format!("[[smart_link_offers]]\nsmart_link_id = {link}\noffer_id = {}\n", link % 30 + 1))
        .collect();
    let node = following(&cake, &entries).start_ready();
    let report = node.refresh();
    assert_eq!(
        (&report["links"], &report["entries"], &report["offers"]),
        (&1_203.into(), &1_203.into(), &30.into())
    );
    for link in [1, 500, 501, 1_000, 1_001, 1_203] {
        let answer = node.click(&format!("/sl?id={link}&aff_id=7"));
        assert_eq!(answer.destination(), format!("offer{}.example.com", link % 30 + 1));
    }
    let calls = cake.calls();
    for start in [0, 500, 1_000] {
        let page = format!("smart_links.json?start_at_row={start}&row_limit=500");
        assert!(calls.contains(&page), "{page} is not in {calls:?}");
    }
}

#[test]
fn geo_targets_are_asked_for_offer_by_offer_and_honoured() {
    let cake = Cake::start(2, &[10, 11, 12, 13]);
    cake.target(10, &[("GB", "allow"), ("US", "allow")]);
    cake.target(11, &[("GB", "block")]);
    let overlay = "[[smart_link_offers]]\nsmart_link_id = 1\noffer_id = 10\n\
                   [[smart_link_offers]]\nsmart_link_id = 1\noffer_id = 11\npriority = 2\n\
                   [[smart_link_offers]]\nsmart_link_id = 2\noffer_id = 11\n\
                   [[smart_link_offers]]\nsmart_link_id = 2\noffer_id = 12\npriority = 2\n";
    let setup = following(&cake, overlay);
    let setup = setup.flag("--geo").flag("geo.mmdb").flag("--trust-proxy").flag("127.0.0.1");
    let mut places =
        MmdbWriter::new(Metadata { database_type: "Test-Country".to_owned(), ..Metadata::default() });
    for (network, country) in [("100.64.0.0/16", "GB"), ("100.65.0.0/16", "FR")] {
        places.insert(network.parse().unwrap(), &place(country, None, None));
    }
    fs::write(setup.path().join("geo.mmdb"), places.to_bytes()).unwrap();
    let node = setup.start_ready();
    let destination = |link: u32, address: &str| {
        let click = Request::click(&format!("/sl?id={link}&aff_id=7")).with("X-Forwarded-For", address);
        node.ask(&click).destination().to_owned()
    };
    let (british, french) = ("100.64.0.1", "100.65.0.1");
    assert_eq!(destination(1, british), "offer10.example.com");
    assert_eq!(destination(1, french), "offer11.example.com", "10 is for GB and US alone");
    assert_eq!(destination(2, british), "offer12.example.com", "11 is not for GB");
    assert_eq!(destination(2, french), "offer11.example.com");

    // The call that CAKE refuses was made once. Offer 13 is on no link, and nobody asks for it.
    node.refresh();
    let geo = |calls: Vec<String>| {
        let mut geo: Vec<String> =
            calls.into_iter().filter(|call| call.starts_with("offer_geo_targets.json?")).collect();
        geo.sort();
        geo
    };
    let of_offer = |offer: i64| format!("offer_geo_targets.json?offer_id={offer}");
    let first = geo(cake.calls());
    assert_eq!(first.iter().filter(|call| call.contains("row_limit")).count(), 1, "{first:?}");
    cake.target(12, &[("GB", "block")]);
    assert_eq!(node.refresh()["result"], "published");
    assert_eq!(geo(cake.calls()), [10, 11, 12].map(of_offer));
    assert_eq!(destination(2, british), "fallback.example.com");

    // A country that nobody knows: the offer keeps the targets that were good.
    cake.target(12, &[("GB", "block"), ("QQ", "block")]);
    let report = node.refresh();
    assert!(report["warnings"][0].as_str().unwrap().starts_with("offer 12: "), "{report}");
    assert_eq!(destination(2, british), "fallback.example.com");
}

#[test]
fn an_answer_about_another_offer_is_not_taken() {
    let stub = Stub::start();
    let about = |offer: i64| format!(r#"{{"request_status":"Success","offer_id":{offer},"geo_targets":[]}}"#);
    stub.answer("offer_geo_targets", Canned::json(&about(10)));
    let node = Setup::of_upstream(&stub.url(), KEY).start_ready();
    assert_eq!(node.refresh()["result"], "unchanged");
    stub.answer("offer_geo_targets", Canned::json(&about(11)));
    let reason = node.failed_refresh();
    assert!(reason.contains("offer 10 was asked for, and the answer is about offer 11"), "{reason}");
}

#[test]
fn without_an_overlay_a_real_cake_is_told_apart() {
    let cake = Cake::start(1, &[10]);
    let node = Setup::of_upstream(&cake.url(), KEY).start();
    let reason = node.failed_refresh();
    for said in ["smart_link_offers.json: HTTP 404", "routing.toml", "upstream.overlay"] {
        assert!(reason.contains(said), "{said}: {reason}");
    }
    assert_eq!(node.readyz(), 503);
}

#[test]
fn serve_refuses_an_overlay_that_it_cannot_use() {
    let desk = Desk::new();
    desk.file("smartlink.toml", "[upstream]\nurl = \"https://cake.example\"\noverlay = \"routing.toml\"\n");
    let serve = |desk: &Desk| {
        let arguments =
            ["serve", "--config", "smartlink.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        desk.run_with(&[("SMARTLINK_API_KEY", KEY)], &arguments)
    };
    serve(&desk).fails_saying(&["cannot read the overlay routing.toml: "]);
    desk.file("routing.toml", PHONES_APART.replace("priority = 2", "offer_weight = 101"));
    serve(&desk).fails_saying(&["the overlay routing.toml, line 5: `offer_weight` is 101; expected"]);
    desk.file("smartlink.toml", "[upstream]\noverlay = \"routing.toml\"\n");
    serve(&desk).fails_saying(&["upstream.overlay is \"routing.toml\", but there is no upstream"]);
}

#[test]
fn check_reads_the_overlay_with_its_lines() {
    let desk = Desk::new();
    let cap =
        "[[offer_caps]]\noffer_id = 12\ncap_type = \"click\"\ncap_interval = \"daily\"\ncap_amount = 5\n";
    desk.file("good.toml", format!("{PHONES_APART}\n{cap}"));
    let told = desk.run(&["check", "--overlay", "good.toml"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("overlay          good.toml: 1 entry, 1 rule, 1 cap\n"), "{told:?}");

    desk.file("bad.toml", PHONES_APART.replace("priority = 2", "prioritty = 2").replace("mobile", "phone"));
    let told = desk.run(&["check", "--overlay", "bad.toml"]);
    assert_eq!(told.code, Some(2), "{told:?}");
    for said in [
        "error: the overlay bad.toml, line 5: unknown key `prioritty`",
        "error: the overlay bad.toml, line 11: ",
    ] {
        assert!(told.stdout.lines().any(|line| line.starts_with(said)), "{said}: {told:?}");
    }

    // Through the configuration, and against a snapshot that lacks offer 11.
    desk.file("smartlink.toml", "[upstream]\nurl = \"https://cake.example\"\noverlay = \"good.toml\"\n");
    let items = concat!(
        r#"{"offer":{"offer_id":10,"offer_status":"active","offer_url":"https://ten.example.com/"}}"#,
        "\n",
        r#"{"smart_link":{"smart_link_id":1,"affiliate_id":7,"smart_link_status":"active"}}"#,
        "\n",
    );
    let hash = blake3::hash(items.as_bytes()).to_hex();
    desk.file("snapshot", format!("smartlink-snapshot 2 {hash}\n{items}"));
    let told = desk.run_with(
        &[("SMARTLINK_API_KEY", KEY)],
        &["check", "--config", "smartlink.toml", "--snapshot", "snapshot"],
    );
    assert_eq!(told.code, Some(0), "{told:?}");
    let warning = "warning: the overlay good.toml, line 7: rule 7: the upstream has no offer 11\n";
    assert!(told.stdout.contains(warning), "{told:?}");
    let warning = "warning: the overlay good.toml, line 13: daily click cap of offer 12: the upstream has no offer 12\n";
    assert!(told.stdout.contains(warning), "{told:?}");
}

#[test]
fn caps_come_from_the_overlay() {
    let cake = Cake::start(1, &[10, 11]);
    let cap = |offer: u32, amount: u32| {
        format!(
            "{PHONES_APART}\n[[offer_caps]]\noffer_id = {offer}\ncap_type = \"click\"\ncap_interval = \"daily\"\n\
             cap_amount = {amount}\n"
        )
    };
    let node = following(&cake, &cap(10, 5)).start_ready();
    wait::until_equal("caps in force", 1, || node.metrics().value("smartlink_snapshot_caps"));
    assert_eq!(node.refresh()["result"], "unchanged");
    write(&node, &cap(10, 6));
    assert_eq!(node.refresh()["result"], "published");
    write(&node, &cap(99, 6));
    let report = node.refresh();
    assert_eq!(
        report["warnings"][0],
        "daily click cap of offer 99: `offer_id` 99 does not exist; it is left out"
    );
    wait::until_equal("caps in force", 0, || node.metrics().value("smartlink_snapshot_caps"));
    cake.go_away();
    let node = node.kill().start_ready();
    node.wait_for_log(&["routing from the last good snapshot"]);
}

#[test]
fn a_created_link_is_told_with_its_id_in_both_dialects() {
    let cake = Cake::start(1, &[10]);
    let demo = Setup::demo().start_ready();
    let create = |url: &str, key: &str| {
        let arguments =
            ["link", "create", "--upstream", url, "--smart-link-name", "made", "--affiliate-id", "7"];
        let told = Desk::new().run_with(&[("SMARTLINK_API_KEY", key)], &arguments);
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
        told.stdout
    };
    let flat = create(&cake.url(), KEY);
    assert!(flat.lines().any(|line| line.trim_start().starts_with("4711  made")), "{flat}");
    let nested = create(&format!("http://{}", demo.admin), &demo.key());
    assert!(nested.lines().any(|line| line.trim_start().starts_with("302  made")), "{nested}");
}

#[test]
fn the_example_can_be_used() {
    let desk = Desk::new();
    let told = desk.run(&["check", "--overlay", desk.file("routing.toml", EXAMPLE)]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("overlay          routing.toml: 3 entries, 2 rules, 1 cap\n"), "{told:?}");
    // What is only shown in comments is as good: without the marks it is still an overlay.
    let shown = EXAMPLE.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line));
    let whole = shown.collect::<Vec<_>>().join("\n");
    assert!(
        whole.len() < EXAMPLE.len(),
        "the example shows further conditions in lines that begin with `#: `"
    );
    let told = desk.run(&["check", "--overlay", desk.file("whole.toml", whole)]);
    assert_eq!(told.code, Some(0), "{told:?}");
}

/// A node whose upstream is this CAKE, with this overlay.
fn following(cake: &Cake, overlay: &str) -> Setup {
    let setup = Setup::of_upstream(&cake.url(), KEY);
    fs::write(setup.path().join("routing.toml"), overlay).unwrap();
    setup.setting("upstream.overlay = \"routing.toml\"")
}

/// As an editor does it.
fn write(node: &Node, overlay: &str) {
    let path = node.directory().join("routing.toml");
    fs::write(path.with_extension("new"), overlay).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

const EXAMPLE: &str = include_str!("../config/routing.toml");
