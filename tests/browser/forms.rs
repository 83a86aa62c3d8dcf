//! The forms, and the answer to "why": what a newcomer does, without a script; by the keyboard alone; and how each form
//! looks.

use serde_json::json;

use super::driver::{Browser, Key, NARROW, View, WIDE};
use super::support::http::{PHONE, Request};
use super::support::node::{Node, Setup};
use super::support::wait;

/// Each form, and what its pictures are called.
const FORMS: [(&str, &str); 12] = [
    ("link-new", "/console/links/new"),
    ("link-edit", "/console/links/301/edit"),
    ("attach", "/console/links/301/offers/new"),
    ("entry", "/console/links/301/offers/1042"),
    ("detach", "/console/links/301/offers/1042/remove"),
    ("rule-new", "/console/links/301/rules/new"),
    ("rule", "/console/links/301/rules/1"),
    ("offer-new", "/console/offers/new?link=301"),
    ("offer", "/console/offers/1042"),
    ("cap-new", "/console/caps/new?offer_id=1042"),
    ("explain", "/console/explain"),
    ("explain-answer", "/console/explain?id=301&aff_id=67890&country=US&device=mobile%3A+iPhone%2C+Safari"),
];

const SUBMIT: &str = "main form button[value=save]";

fn open(browser: &Browser, node: &Node, path: &str) {
    browser.open(&format!("http://{}{path}", node.admin));
}

/// Without a token, forms take the API's key.
fn log_in(browser: &Browser, node: &Node) {
    open(browser, node, "/console/links/new");
    browser.fill("#token", &node.key());
    browser.click("main form button");
    wait::until("the login", || browser.path().starts_with("/console/links/new").then_some(()));
}

/// Clicks what is called so, of what one can click in the page.
#[track_caller]
fn follow(browser: &Browser, href_ends: &str) {
    browser.click(&format!("main a[href$='{href_ends}']"));
}

/// What is wrong with the page as it is shown.
fn faults(browser: &Browser) -> serde_json::Value {
    browser.run(
        "const faults = [];
         const root = document.documentElement;
         if (root.scrollWidth > root.clientWidth) faults.push('wider than the window by ' + (root.scrollWidth - root.clientWidth));
         for (const field of document.querySelectorAll('input:not([type=hidden]), select'))
             if (!field.labels.length) faults.push('no label: ' + field.outerHTML);
         for (const table of document.querySelectorAll('table')) if (!table.caption) faults.push('no caption');
         const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
         for (const id of ids.filter((id, index) => ids.indexOf(id) !== index)) faults.push('twice: ' + id);
         for (const field of document.querySelectorAll('[aria-describedby]'))
             for (const id of field.getAttribute('aria-describedby').split(' '))
                 if (!document.getElementById(id)) faults.push('described by nothing: ' + id);
         return faults;",
    )
}

#[test]
fn every_form_is_well_in_light_and_dark_and_on_a_narrow_screen() {
    let Some(browser) = Browser::start() else { return };
    let node = Setup::demo().start_ready();
    log_in(&browser, &node);
    let views: [View; 4] = [WIDE, WIDE.dark(), NARROW, NARROW.dark()];
    for view in views {
        browser.look(view);
        for (name, path) in FORMS {
            open(&browser, &node, path);
            assert_eq!(browser.count("h1"), 1, "{path}");
            assert_eq!(faults(&browser), json!([]), "{path} {view:?}");
            browser.shoot(name, view);
        }
        // What was typed wrong, and what a change would do.
        open(&browser, &node, "/console/links/301/rules/new");
        browser.fill("#field-offer_id", "1043");
        browser.fill("#field-country", "US,ZZ");
        browser.click(SUBMIT);
        assert!(browser.text("#field-country-error").contains("\"ZZ\""));
        let focused = browser.run("return document.activeElement.id");
        assert_eq!(focused, "field-country", "the first field that is wrong has the focus");
        assert_eq!(faults(&browser), json!([]), "{view:?}");
        browser.shoot("rule-wrong", view);
        browser.fill("#field-country", "US");
        browser.click("main form button[value=preview]");
        assert!(browser.text("#preview").contains("new rule"));
        assert!(browser.path().ends_with("#preview"));
        assert_eq!(faults(&browser), json!([]), "{view:?}");
        browser.shoot("rule-preview", view);
        // What somebody else changed while the form was open.
        open(&browser, &node, "/console/links/301/rules/1");
        let change =
            json!({"rule_id": 1, "offer_weight": 41, "conditions": {"country": {"in": ["GB", "IE"]}}});
        node.post("update_routing_rule.json", change);
        browser.fill("#field-offer_weight", "42");
        browser.click(SUBMIT);
        assert!(browser.text("#overtaken").contains("Somebody else has changed this"));
        let news = browser.text("#field-offer_weight-news");
        assert!(news.contains("to “41” by somebody else. Saving again makes it “42”."), "{news}");
        assert!(browser.text("#field-country-news").contains("It stands here as it is now."));
        let focused = browser.run("return document.activeElement.id");
        assert_eq!(focused, "field-offer_weight", "the first field of which there is something to be told");
        assert_eq!(browser.run("return document.activeElement.value"), "42");
        assert_eq!(faults(&browser), json!([]), "{view:?}");
        browser.shoot("rule-overtaken", view);
        browser.click(SUBMIT);
        let done = browser.text("#done");
        assert!(done.contains("Weight from “41” to “42”."), "{done}");
        let conditions = json!({"country": {"in": ["GB"]}, "device": {"in": ["mobile"]}});
        node.post(
            "update_routing_rule.json",
            json!({"rule_id": 1, "offer_weight": 100, "conditions": conditions}),
        );
    }
    let complaints = browser.complaints();
    // A form that comes back with what is wrong, or was changed, is an answer of 422 or 409, of which the browser's log tells.
    let is_answer = |said: &String| said.contains("422") || said.contains("409");
    let others: Vec<_> = complaints.iter().filter(|said| !is_answer(said)).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_newcomer_makes_a_link_clicks_sees_the_fill_rate_move_and_asks_why() {
    let Some(browser) = Browser::start() else { return };
    let node = Setup::new().start_ready();
    log_in(&browser, &node);
    browser.look(WIDE);
    browser.without_scripts();

    open(&browser, &node, "/console/links");
    follow(&browser, "/console/links/new");
    browser.fill("#field-smart_link_name", "First steps");
    browser.fill("#field-affiliate_id", "7");
    browser.fill("#field-fallback_url", "https://fallback.example.com/");
    browser.click(SUBMIT);
    assert!(browser.text("#done").contains("“First steps” was created"));
    let link = browser.path().split(['/', '?']).nth(3).unwrap().to_owned();
    let page = format!("/console/links/{link}");
    let target = format!("/sl?id={link}&aff_id=7");

    // Nothing is attached yet.
    wait::until("the link to be live", || {
        (node.click(&target).location() == "https://fallback.example.com/").then_some(())
    });
    let fill_rate = || {
        open(&browser, &node, &page);
        browser.text("#link-now .tile:nth-child(2) .figure").replace('\u{202f}', " ")
    };
    wait::until_equal("the fill rate", "0.0 %".to_owned(), fill_rate);

    for (name, weight) in [("Everybody", "60"), ("Phones", "20")] {
        follow(&browser, &format!("/console/links/{link}/offers/new"));
        follow(&browser, &format!("/console/offers/new?link={link}"));
        browser.fill("#field-offer_name", name);
        browser.fill("#field-offer_url", &format!("https://{}.example.com/?r=#reqid#", name.to_lowercase()));
        browser.click(SUBMIT);
        assert!(browser.text("#done").contains(&format!("“{name}” was created")));
        browser.fill("#field-offer_weight", weight);
        browser.click("main form button[value=preview]");
        assert!(browser.text("#preview").contains("new"));
        browser.click(SUBMIT);
        assert!(browser.text("#done").contains("It is live."), "{}", browser.text("#done"));
    }
    let offers = browser.text("#tiers");
    assert!(offers.contains("Everybody") && offers.contains("Phones"), "{offers}");

    follow(&browser, &format!("/console/links/{link}/rules/new"));
    browser.fill("#field-offer_id", "2");
    browser.fill("#field-priority", "0");
    browser.choose("#field-device-mode", "in");
    browser.fill("#field-device", "mobile");
    browser.click(SUBMIT);
    assert!(browser.text("#done").contains("offer 2 on link"), "{}", browser.text("#done"));

    for _ in 0..20 {
        let request = Request::click(&target).with("User-Agent", PHONE);
        assert_eq!(node.ask(&request).destination(), "phones.example.com");
        assert_ne!(node.click(&target).destination(), "fallback.example.com");
    }
    wait::until("the fill rate to move", || {
        let rate = fill_rate();
        let percent: f64 = rate.trim_end_matches(" %").parse().unwrap();
        (percent > 80.0).then_some(())
    });

    // Why?
    browser.click("main a[href^='/console/explain']");
    browser.choose("#field-device", "mobile: iPhone, Safari");
    browser.click("main form button[type=submit]");
    let ending = browser.text(".verdict");
    assert!(ending.contains("offer 2 “Phones” by rule 1, in priority 0"), "{ending}");
    assert_eq!(browser.text(".tier.well .entry.well .status"), "drawn");
    browser.choose("#field-device", "desktop: Windows, Chrome");
    browser.click("main form button[type=submit]");
    let path = browser.text(".path");
    assert!(path.contains("device must be in mobile; the click's is desktop"), "{path}");
    assert!(browser.text(".tier.well h3").starts_with("Priority 1"), "{path}");

    // The same in the report.
    let shown = fill_rate();
    let said = node.command(&["log", "stats", "--json", "--by", "link", "--link", &link]);
    assert!(said.status.success(), "{said:?}");
    let report: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let rows = report["by"]["link"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{report}");
    let reported = rows[0]["fill_rate"].as_f64().unwrap() * 100.0;
    assert_eq!(format!("{reported:.1} %"), shown, "{report}");
    assert_eq!(browser.complaints(), [] as [String; 0]);
}

#[test]
fn a_link_is_made_by_the_keyboard_alone() {
    let Some(browser) = Browser::start() else { return };
    let node = Setup::demo().start_ready();
    log_in(&browser, &node);
    browser.look(WIDE);
    open(&browser, &node, "/console/links/new");
    let tab_to = |wanted: &str| {
        for _ in 0..40 {
            let at =
                browser.run("const at = document.activeElement; return at.id || at.value || at.textContent");
            if at == wanted {
                return;
            }
            browser.press(Key::Tab);
        }
        panic!("the keyboard does not reach {wanted}");
    };
    tab_to("field-smart_link_name");
    browser.type_in("By keys");
    tab_to("field-affiliate_id");
    browser.type_in("x");
    tab_to("save");
    browser.press(Key::Enter);
    // The focus is where something is wrong.
    assert!(browser.text("#field-affiliate_id-error").contains("expected a whole number"));
    assert_eq!(browser.run("return document.activeElement.id"), "field-affiliate_id");
    assert_eq!(browser.run("return document.activeElement.value"), "x");
    // Select all, and type over it.
    browser.type_in("\u{e009}a\u{e000}7");
    browser.press(Key::Enter);
    wait::until("the link's page", || browser.path().starts_with("/console/links/302").then_some(()));
    assert!(browser.text("#done").contains("“By keys” was created"));
}
