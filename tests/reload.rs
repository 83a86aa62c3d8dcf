//! SIGHUP: a running node takes up what has changed in its configuration and the files that it names, all of it or nothing.

mod support;

use ipnet::IpNet;
use serde_json::json;
use support::certificate::Authority;
use support::http::{Answer, Connection, Request};
use support::mmdb::{Metadata, MmdbWriter, place};
use support::node::{Node, Setup};
use support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890";

/// Of a link that is not there: it goes where the network's fallback says.
const LOST: &str = "/sl?id=999&aff_id=67890";

/// A database in which this network is in that country.
fn geo(network: &str, country: &str) -> Vec<u8> {
    let mut writer = MmdbWriter::new(Metadata::default());
    writer.insert(network.parse::<IpNet>().unwrap(), &place(country, None, None));
    writer.to_bytes()
}

/// Where a node believes a click to come from, whose proxy says it is from there.
fn country(node: &Node, address: &str) -> String {
    let click = Request::click("/sl/404?aff_id=67890").with("X-Forwarded-For", address);
    let location = node.ask(&click).location().to_owned();
    location.split_once("c=").expect("the fallback tells the country").1.to_owned()
}

#[test]
fn the_demonstration_database_is_warned_of_when_it_comes_into_use() {
    let mut node = Setup::demo().start_ready();
    let warnings = |node: &Node| node.log().matches("DEMONSTRATION geo database").count();
    assert_eq!(warnings(&node), 1);
    std::fs::write(node.directory().join("places.mmdb"), geo("203.0.113.0/24", "SG")).unwrap();
    // What a reload read is in use, and was told, when the refresh that it asks for has ended.
    for (line, wanted) in [
        ("log.level = \"info\"", 1),
        ("geo.database = \"places.mmdb\"", 1),
        ("geo.database = \"\"", 2),
        ("log.level = \"info\"", 2),
    ] {
        let said = node.reload(&[line]);
        assert!(!said.contains("ERROR"), "{said}");
        node.refresh();
        assert_eq!(warnings(&node), wanted, "{line}: {}", node.log());
    }
}

/// On the admin listener.
fn ask(node: &Node, request: Request) -> Answer {
    Connection::to(node.admin).ask(&request.and("Host", &node.admin.to_string()))
}

fn reloads(node: &Node, result: &str) -> u64 {
    node.metrics().value(&format!("smartlink_configuration_reloads_total{{result=\"{result}\"}}"))
}

#[test]
fn what_has_changed_is_taken_up_by_open_connections_too() {
    let mut node = Setup::new().setting("edge.threads = 2").start_ready();
    let link = node.create_link(json!({"affiliate_id": 67890}));
    node.attach(link, node.create_offer("https://offer.example.com/"));
    node.refresh();
    let target = format!("/sl/{link}?aff_id=67890");
    let mut open = node.connect();
    assert_eq!(
        open.ask(&Request::click(&target)).header("referrer-policy"),
        Some("strict-origin-when-cross-origin")
    );
    assert_eq!(node.click(LOST).status, 404);
    std::fs::write(node.directory().join("places.mmdb"), geo("203.0.113.0/24", "SG")).unwrap();

    let said = node.reload(&[
        "edge.referrer_policy = \"no-referrer\"",
        "edge.trusted_proxies = [\"127.0.0.0/8\"]",
        "edge.bots = \"block\"",
        "edge.requests_per_connection_max = 3",
        "network.default_fallback_url = \"https://lost.example.com/?c={country}\"",
        "geo.database = \"places.mmdb\"",
    ]);
    for key in ["edge.referrer_policy", "edge.trusted_proxies", "edge.bots", "geo.database"] {
        assert!(said.contains("taken up") && said.contains(key), "{said}");
    }
    wait::until("every thread to know", || {
        let answer = open.ask(&Request::click(&target));
        (answer.header("referrer-policy") == Some("no-referrer")).then_some(())
    });
    wait::until("the network's fallback", || (node.click(LOST).status == 302).then_some(()));
    assert_eq!(country(&node, "203.0.113.9"), "SG");
    let bot = node.ask(&Request::click(&target).with("User-Agent", "curl/8.5.0"));
    assert_eq!(bot.status, 403);
    // A limit of connections that begin from now on.
    let mut short = node.connect();
    let answers = [(); 3].map(|()| short.ask(&Request::click(&target)).is_last());
    assert_eq!(answers, [false, false, true]);

    // The next one has the same network, compiled by other options.
    node.reload(&["network.default_fallback_url = \"https://other.example.com/?c={country}\""]);
    wait::until("the other fallback", || {
        (node.click(LOST).destination() == "other.example.com").then_some(())
    });
    assert_eq!(node.click(&target).destination(), "offer.example.com");
    let said = node.reload(&[]);
    assert!(said.contains("the configuration is the same"), "{said}");
    assert_eq!((reloads(&node, "loaded"), reloads(&node, "failed")), (3, 0));
}

#[test]
fn another_admin_token_is_taken_up_and_ends_the_sessions_of_the_old_one() {
    const OLD: &str = "a-token-of-the-tests-3f1c9a";
    const NEW: &str = "another-token-of-the-tests-77";
    let setup = Setup::demo().setting("admin.token_file = \"token\"");
    let file = setup.path().join("token");
    std::fs::write(&file, OLD).unwrap();
    let mut node = setup.start();
    node.wait_for_log(&["published"]);
    let metrics = |node: &Node, token: &str| {
        let bearer = format!("Bearer {token}");
        ask(node, Request::new("GET", "/metrics").with("Authorization", &bearer))
    };
    let login = |node: &Node, token: &str| {
        let form = Request::new("POST", "/console/login")
            .with("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("token={token}"));
        ask(node, form)
    };
    let page = |node: &Node, session: &str| {
        ask(node, Request::new("GET", "/console/").with("Cookie", session)).status
    };
    let session = |answer: &Answer| {
        let set = answer.header("set-cookie").unwrap_or_else(|| panic!("{answer:?}"));
        set.split(';').next().unwrap().to_owned()
    };
    let of_old = session(&login(&node, OLD));
    assert!(of_old.starts_with(&format!("smartlink_console_{}=", node.admin.port())), "{of_old}");
    assert_eq!((metrics(&node, OLD).status, page(&node, &of_old)), (200, 200));
    assert!(node.reload(&[]).contains("the configuration is the same"));
    assert_eq!(page(&node, &of_old), 200, "a reload alone ends no session");

    // One that is none is not taken up, and the old one stays.
    std::fs::write(&file, "").unwrap();
    let said = node.reload(&[]);
    assert!(said.contains("admin token") && said.ends_with("nothing was changed"), "{said}");
    assert_eq!((metrics(&node, OLD).status, page(&node, &of_old)), (200, 200));

    std::fs::write(&file, NEW).unwrap();
    assert_eq!(metrics(&node, NEW).status, 401, "not before it is told");
    let said = node.reload(&[]);
    assert!(said.contains("taken up the admin token;"), "{said}");
    assert_eq!((metrics(&node, OLD).status, metrics(&node, NEW).status), (401, 200));
    assert_eq!(page(&node, &of_old), 303, "to the login");
    assert_eq!(login(&node, OLD).status, 401);
    let of_new = session(&login(&node, NEW));
    assert_eq!(page(&node, &of_new), 200);
    let log = node.log();
    assert!(log.contains("a login to the console by the admin token was refused to 127.0.0.1: "), "{log}");
    assert!(!log.contains(OLD) && !log.contains(NEW), "{log}");
    let text = metrics(&node, NEW).body;
    for (outcome, count) in [("accepted", 2), ("refused", 1), ("limited", 0), ("failed", 0)] {
        let line = format!("smartlink_console_logins_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}

#[test]
fn another_key_of_the_embedded_api_is_taken_up() {
    let mut node = Setup::demo().start_ready();
    let file = node.data().join("api-key");
    let old = node.key();
    let calls = |node: &Node, key: &str| {
        let bearer = format!("Bearer {key}");
        let request = Request::new("GET", "/api/2/smart_links.json").with("Authorization", &bearer);
        ask(node, request).status
    };
    assert_eq!((calls(&node, &old), calls(&node, "a-new-key-of-the-tests")), (200, 401));
    std::fs::write(&file, "a-new-key-of-the-tests\n").unwrap();
    let said = node.reload(&[]);
    assert!(said.contains("taken up the API's key;"), "{said}");
    assert_eq!((calls(&node, &old), calls(&node, "a-new-key-of-the-tests")), (401, 200));
    // The node itself calls by it.
    assert_eq!(node.refresh()["error"], serde_json::Value::Null);
    let session = |node: &Node, key: &str| {
        let form = Request::new("POST", "/console/login")
            .with("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("token={key}"));
        let answer = ask(node, form);
        answer.header("set-cookie").and_then(|set| set.split(';').next()).map(str::to_owned)
    };
    let form_page = |node: &Node, session: &str| {
        let request = Request::new("GET", "/console/links/new").with("Cookie", session);
        ask(node, request).status
    };
    assert_eq!(session(&node, &old), None);
    let cookie = session(&node, "a-new-key-of-the-tests").unwrap();
    assert_eq!(form_page(&node, &cookie), 200);
    std::fs::write(&file, &old).unwrap();
    node.reload(&[]);
    assert_eq!(form_page(&node, &cookie), 303, "the session was of the other key");
}

#[test]
fn where_anything_is_wrong_nothing_is_taken_up() {
    let authority = Authority::new();
    let setup = Setup::demo()
        .setting("edge.tls_listen = [\"127.0.0.1:0\"]")
        .setting("edge.tls_certificate_file = \"chain.pem\"")
        .setting("edge.tls_key_file = \"key.pem\"")
        .setting("edge.trusted_proxies = [\"127.0.0.0/8\"]")
        .setting("geo.database = \"places.mmdb\"")
        .setting("network.default_fallback_url = \"https://lost.example.com/?c={country}\"");
    let (chain, key) = authority.certificate("edge.example.com");
    let directory = setup.path().to_owned();
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    write("chain.pem", chain.as_bytes());
    write("key.pem", key.as_bytes());
    write("places.mmdb", &geo("203.0.113.0/24", "SG"));
    write("cut.mmdb", &geo("203.0.113.0/24", "DE")[..100]);
    write("no-key.pem", b"nothing");
    let mut node = setup.start_ready();
    let sound = [
        "upstream.lost_share_max = 0.2",
        "edge.threads = 0",
        "edge.tls_key_file = \"key.pem\"",
        "geo.database = \"places.mmdb\"",
        "network.default_fallback_url = \"https://lost.example.com/?c={country}\"",
    ];
    for (wrong, line, words) in [
        ("a value", "upstream.lost_share_max = 2.0", &["upstream.lost_share_max", "2"][..]),
        ("a form", "edge.bots = fallback", &["line"]),
        ("a key", "edge.bot = \"fallback\"", &["unknown key", "bot"]),
        ("a start's key", "edge.threads = 1", &["edge.threads", "--takeover"]),
        ("a geo database that is not there", "geo.database = \"no.mmdb\"", &["no.mmdb"]),
        ("half a geo database", "geo.database = \"cut.mmdb\"", &["cut.mmdb"]),
        ("a key that is none", "edge.tls_key_file = \"no-key.pem\"", &["no-key.pem"]),
    ] {
        let referrers = "edge.referrer_policy = \"no-referrer\"";
        let fallback = "network.default_fallback_url = \"https://other.example.com/?c={country}\"";
        let said = node.reload(&[&sound[..], &[referrers, fallback, line]].concat());
        assert!(words.iter().all(|word| said.contains(word)), "{wrong}: {said}");
        assert!(said.contains("ERROR") && said.ends_with("nothing was changed"), "{wrong}: {said}");
        node.refresh();
        let answer = node.click(CLICK);
        assert_eq!(answer.header("referrer-policy"), Some("strict-origin-when-cross-origin"), "{wrong}");
        assert_eq!(node.click(LOST).destination(), "lost.example.com", "{wrong}");
        assert_eq!(country(&node, "203.0.113.9"), "SG", "{wrong}");
        node = node.forget_setting(line.split(" = ").next().unwrap());
    }
    assert_eq!((reloads(&node, "loaded"), reloads(&node, "failed")), (0, 7));
    let said = node.reload(&[&sound[..], &["edge.referrer_policy = \"no-referrer\""]].concat());
    assert!(said.contains("taken up edge.referrer_policy;"), "{said}");
    wait::until("it to be live", || {
        (node.click(CLICK).header("referrer-policy") == Some("no-referrer")).then_some(())
    });
}

#[test]
fn a_fallback_is_live_while_the_upstream_is_away() {
    let upstream = Setup::demo().start_ready();
    let mut node = Setup::following(&upstream).setting("upstream.call_timeout_seconds = 0.5").start_ready();
    assert_eq!(node.click(LOST).status, 404);
    let _gone = upstream.kill();
    node.reload(&["network.default_fallback_url = \"https://lost.example.com/\""]);
    wait::until("the fallback", || (node.click(LOST).status == 302).then_some(()));
    assert_eq!(node.click(LOST).destination(), "lost.example.com");
    assert_eq!(node.readyz(), 200);
}
