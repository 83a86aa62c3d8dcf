//! The pages that everybody sees.

use serde_json::{Value, json};

use super::driver::{Browser, Key, NARROW, View, WIDE};
use super::support::http::{Connection, Request};
use super::support::node::{Node, Setup};
use super::support::wait;

const TOKEN: &str = "a-token-of-the-tests-77c0de";

/// Each page, and what its pictures are called.
const PAGES: [(&str, &str); 7] = [
    ("overview", "/console/"),
    ("links", "/console/links"),
    ("search", "/console/links?q=finance&sort=clicks&dir=desc"),
    ("link", "/console/links/301"),
    ("offers", "/console/offers?sort=links"),
    ("caps", "/console/caps"),
    ("snapshots", "/console/snapshots"),
];

const VIEWS: [View; 4] = [WIDE, WIDE.dark(), NARROW, NARROW.dark()];

/// The demonstration network with some more in it, and clicks.
fn busy_node() -> Node {
    let node = Setup::demo().start_ready();
    for (index, name) in
        ["Travel Rotator - DE", "<script>alert(1)</script>", "Finance - a link with a long name that goes on"]
            .into_iter()
            .enumerate()
    {
        let link = create(&node, "smart_link.json", json!({"smart_link_name": name, "affiliate_id": 67_890}));
        let id = &link["response"]["smart_link_id"];
        let offer = 1042 + index as u32;
        create(
            &node,
            "smart_link_offer.json",
            json!({"smart_link_id": id, "offer_id": offer, "offer_weight": 40}),
        );
    }
    for (offer, amount) in [(1042, 20), (1043, 100_000)] {
        let cap =
            json!({"offer_id": offer, "cap_type": "click", "cap_interval": "daily", "cap_amount": amount});
        create(&node, "offer_cap.json", cap);
    }
    wait::until("the links to be live", || {
        node.metrics().0.contains("smartlink_snapshot_links 4\n").then_some(())
    });
    wait::until("the small cap to be full", || {
        for _ in 0..10 {
            node.click("/sl?id=301&aff_id=67890");
        }
        node.click("/sl?id=301&aff_id=1");
        let caps = node.admin("GET", "/console/caps");
        caps.body.contains("bar full").then_some(())
    });
    node
}

fn create(node: &Node, call: &str, mut parameters: Value) -> Value {
    parameters["api_key"] = node.key().into();
    let request = Request::new("POST", &format!("/api/2/{call}"))
        .with("Host", &node.admin.to_string())
        .with("Content-Type", "application/json")
        .body(parameters.to_string());
    let answer = Connection::to(node.admin).ask(&request);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn url(node: &Node, path: &str) -> String {
    format!("http://{}{path}", node.admin)
}

/// How many points of a canvas have ink.
const INK: &str = "
    const canvas = document.querySelector('[data-chart=\"NAME\"] canvas');
    if (!canvas) return -1;
    const points = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let inked = 0;
    for (let index = 3; index < points.length; index += 4) if (points[index]) inked += 1;
    return inked;";

#[test]
fn every_page_is_well_in_light_and_dark_and_on_a_narrow_screen() {
    let Some(browser) = Browser::start() else { return };
    let node = busy_node();
    for view in VIEWS {
        browser.look(view);
        for (name, path) in PAGES {
            browser.open(&url(&node, path));
            let told = format!("{path} {view:?}");
            assert_eq!(browser.count("h1"), 1, "{told}");
            assert_eq!(browser.count("main"), 1, "{told}");
            assert_eq!(browser.count("nav [aria-current=page]"), 1, "{told}");
            if name == "overview" {
                wait::until("the charts", || (browser.count("canvas") == 2).then_some(()));
            }
            // Wide tables scroll by themselves, and not the page.
            let too_wide = browser
                .run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(too_wide, 0, "{told} is wider than its window");
            let ground = browser.run("return getComputedStyle(document.documentElement).backgroundColor");
            let is_dark = ground.as_str().unwrap().starts_with("rgb(1");
            assert_eq!(is_dark, view.dark, "{told} is {ground}");
            let unnamed = browser.run(
                "return [...document.querySelectorAll('input:not([type=hidden]), select, textarea')]
                    .filter((field) => !field.labels.length).map((field) => field.outerHTML)",
            );
            assert_eq!(unnamed, json!([]), "{told} has fields without labels");
            let nameless = browser.run(
                // The legend of a chart is a part of its picture.
                "return [...document.querySelectorAll('table:not(.u-legend)')].filter((table) => !table.caption).length
                    + [...document.querySelectorAll('table:not(.u-legend) th')].filter((cell) => !cell.scope).length",
            );
            assert_eq!(nameless, 0, "{told} has tables without captions, or heads of nothing");
            let repeated = browser.run(
                "const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
                 return ids.filter((id, index) => ids.indexOf(id) !== index)",
            );
            assert_eq!(repeated, json!([]), "{told} has ids twice");
            browser.shoot(name, view);
            assert_eq!(browser.complaints(), Vec::<String>::new(), "{told}");
        }
    }
}

/// Has the page's script draw so many seconds of figures, and notes the times that it writes below the charts.
const DRAW_SECONDS: &str = r#"
    window.answering ??= window.fetch;
    window.fetch = async (address, ...rest) => {
        if (!String(address).includes("overview.json")) return window.answering(address, ...rest);
        const at = Array.from({ length: SECONDS / 5 + 1 }, (_, nth) => 1795378530 + 5 * nth);
        const all = (value) => at.map(() => value);
        const answer = { at, offers: all(3), fallbacks: all(1), others: all(1), fill_rate: all(75) };
        return { ok: true, json: async () => answer };
    };
    window.drawn = new Map();
    window.writing ??= CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
        if (this.canvas.isConnected && /^\d\d:\d\d/.test(text)) {
            const half = this.measureText(text).width / 2;
            if (!window.drawn.has(this.canvas)) window.drawn.set(this.canvas, new Map());
            window.drawn.get(this.canvas).set(text, { from: x - half, to: x + half });
        }
        return window.writing.call(this, text, x, y);
    };
    for (const chart of document.querySelectorAll("[data-chart]")) chart.replaceChildren();
    const script = document.createElement("script");
    script.src = [...document.scripts].find((script) => script.src.includes("/console-")).src;
    document.head.append(script);
"#;

/// Of every chart, what is wrong with its times; nothing before all are drawn.
const CROWDED: &str = r#"
    if (window.drawn.size < 2) return null;
    const gap = 6 * devicePixelRatio;
    return [...window.drawn].flatMap(([canvas, labels]) => {
        const times = [...labels].sort(([, one], [, other]) => one.from - other.from);
        const wrong = times.filter(([, { from, to }], nth) =>
            from < 0 || to > canvas.width || (nth > 0 && from < times[nth - 1][1].to + gap));
        const told = wrong.map(([text]) => `${text} is cut off or too near`);
        return times.length < 2 ? [...told, `${times.length} times are too few`] : told;
    });
"#;

#[test]
fn the_times_below_a_chart_stand_apart_however_long_the_node_has_run() {
    let Some(browser) = Browser::start() else { return };
    let node = Setup::demo().start_ready();
    for view in [WIDE, NARROW] {
        browser.look(view);
        browser.open(&url(&node, "/console/"));
        for seconds in [60, 90, 150, 240, 300, 420, 600, 1200, 3600] {
            browser.run(&DRAW_SECONDS.replace("SECONDS", &seconds.to_string()));
            let crowded = wait::until("the charts", || {
                let crowded = browser.run(CROWDED);
                (!crowded.is_null()).then_some(crowded)
            });
            assert_eq!(crowded, json!([]), "after {seconds} s, {view:?}");
        }
        assert_eq!(browser.complaints(), Vec::<String>::new());
    }
}

#[test]
fn charts_are_drawn_and_grow_by_themselves() {
    let Some(browser) = Browser::start() else { return };
    let node = busy_node();
    browser.look(WIDE);
    browser.open(&url(&node, "/console/"));
    for chart in ["clicks", "fill"] {
        wait::until(&format!("ink on the chart of {chart}"), || {
            let inked = browser.run(&INK.replace("NAME", chart)).as_i64().unwrap();
            (inked > 500).then_some(())
        });
    }
    // What is live moves without a person: the count of clicks, and the figures beside the charts.
    let all = "#outcome-counts tbody tr:first-child td:last-child";
    let before = browser.text(all);
    browser.run("window.stays = true");
    for _ in 0..5 {
        node.click("/sl?id=301&aff_id=67890");
    }
    wait::until("the count to move", || (browser.text(all) != before).then_some(()));
    assert_eq!(browser.run("return window.stays"), true, "it is the same page");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.click(".choice a[href=\"?span=day\"]");
    assert_eq!(browser.path(), "/console/?span=day");
    assert_eq!(browser.text(".choice [aria-current]"), "day");
}

#[test]
fn the_keyboard_reaches_everything_and_shows_where_it_is() {
    let Some(browser) = Browser::start() else { return };
    let node = busy_node();
    browser.look(WIDE);
    browser.open(&url(&node, "/console/links"));
    browser.press(Key::Tab);
    assert_eq!(focused(&browser, "textContent"), "To the content", "first, a way past the navigation");
    let is_seen =
        "const box = document.activeElement.getBoundingClientRect(); return box.left >= 0 && box.top >= 0";
    assert_eq!(browser.run(is_seen), true);
    browser.press(Key::Enter);
    assert_eq!(focused(&browser, "id"), "main");

    // From there, every link and field in turn, each with something around it.
    browser.open(&url(&node, "/console/links"));
    let reachable = browser.run(
        "return document.querySelectorAll('a[href], button, input:not([type=hidden]), summary, [tabindex=\"0\"]').length",
    );
    let mut reached = 0;
    loop {
        browser.press(Key::Tab);
        if browser.run("return document.activeElement === document.body") == true {
            break;
        }
        let outlined = browser.run(
            "const style = getComputedStyle(document.activeElement);
             return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2",
        );
        assert_eq!(outlined, true, "{} shows no focus", focused(&browser, "outerHTML"));
        reached += 1;
        assert!(reached <= 500, "the focus goes round and round");
        if reachable == reached {
            break;
        }
    }
    assert_eq!(reachable, reached);

    // A list is sorted by the keyboard alone.
    browser.run("document.querySelector('thead a[href*=\"sort=name\"]').focus()");
    browser.press(Key::Enter);
    wait::until("the list to be sorted", || browser.path().contains("sort=name").then_some(()));
    assert_eq!(browser.text("[aria-sort=ascending]").trim_end_matches(" ↑"), "Name");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// A property of what has the focus.
fn focused(browser: &Browser, property: &str) -> String {
    browser.run(&format!("return document.activeElement.{property}")).as_str().unwrap().to_owned()
}

#[test]
fn a_person_logs_in_looks_around_and_logs_out() {
    let Some(browser) = Browser::start() else { return };
    let node = Setup::demo().variable("SMARTLINK_ADMIN_TOKEN", TOKEN).start_ready();
    browser.look(WIDE);
    browser.open(&url(&node, "/console/caps"));
    assert_eq!(focused(&browser, "id"), "token", "one can type at once");
    browser.shoot("login", WIDE);
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.fill("#token", "not it");
    browser.press(Key::Enter);
    assert!(browser.text("[role=alert]").contains("not the admin token"));
    assert_eq!(browser.run("return document.querySelector('#token').value"), "");
    assert_eq!(browser.run("return document.querySelector('#token').ariaInvalid"), "true");
    // Of a page that was refused, the browser says its status, and nothing else.
    assert!(browser.complaints().iter().all(|complaint| complaint.contains("401")));
    browser.fill("#token", TOKEN);
    browser.click("button.main");
    wait::until("the page that was wanted", || (browser.path() == "/console/caps").then_some(()));
    assert_eq!(browser.run("return document.cookie"), "", "no script has the session");
    browser.click("nav a[href=\"/console/\"]");
    wait::until("the charts", || (browser.count("canvas") == 2).then_some(()));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.click(".logout button");
    wait::until("the login", || browser.path().starts_with("/console/login").then_some(()));
    browser.open(&url(&node, "/console/"));
    assert!(browser.path().starts_with("/console/login"));
}
