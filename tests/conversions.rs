//! Conversions over real sockets: what a postback is answered, what is counted, and that a full conversion cap closes its
//! offer on every node.

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use smartlink::click_id::{ClickIdKeys, Contents, NodeIdentity, WorkerIndex};
use smartlink::types::{AffiliateId, LinkId, OfferId, UnixMillis};
use support::http::{Answer, Connection, Request};
use support::node::{Node, Setup};
use support::wait;

const OFFER_URL: &str = "https://shop.example.com/?r={click_id}";
const FALLBACK: &str = "https://fallback.example.com/?r={click_id}";

#[test]
fn a_click_is_converted_once_and_stays_so() {
    let node = Setup::new().start_ready();
    let (link, offer) = route(&node);
    let id = id_of_click(&node, link);
    let pixel = format!("/p.ashx?o={offer}&e=&r={id}&t=T-1");
    let first = ask(&node, &pixel);
    assert_eq!((first.status, first.body.as_str()), (200, "SUCCESS\n"));
    assert_eq!(first.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(first.header("cache-control"), Some("no-store"));
    // The other call, the same conversion; then two others of the same click.
    let json = format!("/api/2/conversion.json?click_id={id}&amount=45.50&transaction_id=T-1");
    let again = ask(&node, &json);
    assert_eq!(again.status, 200);
    assert_eq!(again.header("content-type"), Some("application/json"));
    assert_eq!(
        again.json(),
        json!({"request_status": "Success", "message": "conversion already counted", "response": {"result": "repeated"}})
    );
    assert_eq!(ask(&node, &pixel).body, "SUCCESS, already counted\n");
    assert_eq!(ask(&node, &format!("{pixel}2")).body, "SUCCESS\n");
    assert_eq!(
        ask(&node, &format!("{json}&event=5")).json(),
        json!({"request_status": "Success", "message": "conversion counted", "response": {"result": "counted"}})
    );
    assert_eq!(counts(&node), [("counted", 3), ("repeated", 2)]);

    // What was answered is on the disk.
    let node = node.kill().start_ready();
    assert_eq!(ask(&node, &pixel).body, "SUCCESS, already counted\n");
    assert_eq!(counts(&node), [("repeated", 1)]);
}

#[test]
fn in_the_format_that_is_asked_for() {
    let node = Setup::new().start_ready();
    let (link, _) = route(&node);
    let id = id_of_click(&node, link);
    let pixel = |answer: &Answer| {
        assert_eq!(answer.header("content-type"), Some("image/gif"));
        assert!(answer.bytes.starts_with(b"GIF89a\x01\0\x01\0") && answer.bytes.len() == 43, "{answer:?}");
    };
    let script = |answer: &Answer, said: &str| {
        assert_eq!(answer.header("content-type"), Some("application/javascript; charset=utf-8"));
        assert_eq!(answer.body, format!("/* {said} */;\n"));
    };
    let img = ask(&node, &format!("/p.ashx?r={id}&f=img"));
    assert_eq!(img.status, 200);
    pixel(&img);
    let js = ask(&node, &format!("/p.ashx?r={id}&f=js"));
    assert_eq!(js.status, 200);
    script(&js, "conversion already counted");
    assert_eq!(ask(&node, &format!("/p.ashx?r={id}&f=pb")).body, "SUCCESS, already counted\n");

    let img = ask(&node, "/p.ashx?f=img");
    assert_eq!((img.status, img.header("cache-control")), (400, Some("no-store")));
    pixel(&img);
    let js = ask(&node, "/p.ashx?f=js");
    assert_eq!((js.status, js.header("cache-control")), (400, Some("no-store")));
    script(&js, "The parameter r is missing.");
    assert_eq!(counts(&node), [("counted", 1), ("repeated", 2), ("invalid", 2)]);
}

#[test]
fn what_does_not_count_is_answered_and_counted() {
    let node = Setup::new().setting("conversions.click_age_days_max = 30").start_ready();
    let (link, offer) = route(&node);
    let id = id_of_click(&node, link);
    let forged = if id.ends_with('A') { id[..49].to_owned() + "Q" } else { id[..49].to_owned() + "A" };
    let keys = own_keys(&node);
    let of_days_ago = |days: f64| signed(&keys, 1, unix_millis() - (days * 86_400_000.0) as i64, Some(1042));
    let to_nothing = signed(&keys, 2, unix_millis(), None);
    let other_network = ClickIdKeys::from_text("5a".repeat(32).as_bytes()).unwrap();
    let other_network = signed(&other_network, 1, unix_millis(), Some(1042));
    let cases = [
        (
            id.clone() + "&o=999",
            400,
            "The parameter o names another offer than the one that the click went to;",
        ),
        (id.clone() + "&o=abc", 400, "The parameter o must be the id of an offer, a whole number from 1 to"),
        (id.clone() + "&e=x", 400, "The parameter e must be a whole number"),
        (id.clone() + "&t=a&t=b", 400, "The parameter t is given more than once."),
        (id.clone() + "&f=gif", 400, "The parameter f must be pb, img or js."),
        (String::new(), 400, "The parameter r is missing."),
        (forged, 400, "The click id in r is not one of this network"),
        (id[..40].to_owned(), 400, "The click id in r is not one of this network"),
        (other_network, 400, "The click id in r is not one of this network"),
        (of_days_ago(30.01), 410, "The click was more than 30 days ago"),
        (of_days_ago(-1.01), 410, "The click is yet to come"),
        (to_nothing, 404, "The click went to no offer"),
        (of_days_ago(29.9), 200, "SUCCESS\n"),
        (of_days_ago(-0.9), 200, "SUCCESS\n"),
        (format!("{id}&o={offer}&unknown=%FF"), 200, "SUCCESS\n"),
    ];
    let mut connection = node.connect();
    for (query, status, said) in &cases {
        let answer = connection.ask(&Request::click(&format!("/p.ashx?r={query}")));
        assert_eq!(answer.status, *status, "{query}: {answer:?}");
        assert!(answer.body.starts_with(said), "{query}: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    }
    assert_eq!(counts(&node), [("counted", 3), ("forged", 3), ("late", 2), ("unknown", 1), ("invalid", 6)]);
    for (target, status, message) in [
        ("/api/2/conversion.json?click_id=x", 400, "The click id in click_id is not one of this network"),
        ("/api/2/conversion.json?amount=1", 400, "The parameter click_id is missing."),
    ] {
        let refused = connection.ask(&Request::click(target));
        let told = refused.json();
        assert_eq!((refused.status, &told["request_status"]), (status, &json!("Error")), "{refused:?}");
        assert!(told["message"].as_str().unwrap().starts_with(message), "{told}");
    }
    // A click goes on as ever on the same connection, and is the only one that was counted.
    assert!(
        connection.ask(&Request::click(&click(link))).location().starts_with("https://shop.example.com/")
    );
    assert_eq!(node.metrics().sum("smartlink_clicks_total"), 2);
    assert!(!node.logged(&["onversion"]), "{}", node.log());
}

#[test]
fn posted_as_a_form_and_as_json() {
    let node = Setup::new().start_ready();
    let (link, _) = route(&node);
    let id = id_of_click(&node, link);
    let post = |target: &str, media_type: &str, body: &str| {
        let target = format!("/api/2/conversion.json{target}");
        let request = Request::click(&target).method("POST").with("Content-Type", media_type);
        node.ask(&request.body(body))
    };
    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json";
    let result = |answer: Answer| answer.json()["response"]["result"].clone();
    assert_eq!(result(post("", FORM, &format!("click_id={id}&transaction_id=a+b&amount=5"))), "counted");
    let object = json!({"click_id": id, "transaction_id": "a b", "amount": 45.5, "event": 0}).to_string();
    assert_eq!(result(post("", JSON, &object)), "repeated");
    assert_eq!(result(post(&format!("?click_id={id}&transaction_id=c"), "", "")), "counted");
    assert_eq!(result(post(&format!("?click_id={id}"), JSON, r#"{"transaction_id":"d"}"#)), "counted");
    // In pieces, without a length.
    let chunked = format!(
        "POST /api/2/conversion.json HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n\
         9\r\nclick_id=\r\n32\r\n{id}\r\n11\r\n&transaction_id=e\r\n0\r\n\r\n"
    );
    assert_eq!(result(node.connect().ask_raw(chunked)), "counted");

    let long = format!("click_id={id}&more={}", "x".repeat(16 * 1024));
    for (answer, status, said, is_last) in [
        (post("", FORM, &long), 413, "at most 16 KiB", true),
        (post("", "text/xml", "<a/>"), 415, "Content-Type", false),
        (post("", JSON, "[]"), 400, "not a JSON object", false),
        (post(&format!("?click_id={id}"), JSON, &object), 400, "click_id is given more than once", false),
    ] {
        let message = answer.json()["message"].clone();
        assert_eq!((answer.status, answer.is_last()), (status, is_last), "{answer:?}");
        assert!(message.as_str().unwrap().contains(said), "{answer:?}");
    }
    assert_eq!(counts(&node), [("counted", 4), ("repeated", 1), ("invalid", 4)]);
    // A body that does not come is waited for, but not for ever.
    let mut connection = node.connect();
    let head =
        format!("POST /api/2/conversion.json?click_id={id} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    let slow = connection.ask_raw(head);
    assert_eq!((slow.status, slow.is_last()), (408, true), "{slow:?}");
}

#[test]
fn requests_that_are_no_postbacks() {
    let node = Setup::new().start_ready();
    let (link, _) = route(&node);
    let id = id_of_click(&node, link);
    let pixel = Request::click(&format!("/p.ashx?r={id}"));
    let json = Request::click(&format!("/api/2/conversion.json?click_id={id}"));
    for (request, status, allow, is_last) in [
        (pixel.clone().method("POST"), 405, Some("GET, HEAD"), false),
        (pixel.clone().method("POST").body("a=b"), 405, Some("GET, HEAD"), true),
        (json.clone().method("PUT").body("a=b"), 405, Some("GET, HEAD, POST"), true),
        (pixel.clone().body("a=b"), 400, None, true),
        (
            json.clone().with("Transfer-Encoding", "chunked").body("0\r\n\r\n").without("Content-Length"),
            400,
            None,
            true,
        ),
        (pixel.clone().without("Host"), 400, None, true),
        (json.clone().and("Host", "b"), 400, None, true),
        (pixel.clone().with("Host", "a b"), 400, None, true),
    ] {
        let answer = node.ask(&request);
        assert_eq!(
            (answer.status, answer.header("allow"), answer.is_last()),
            (status, allow, is_last),
            "{request:?}: {answer:?}"
        );
        assert!(!answer.body.is_empty());
    }
    assert_eq!(counts(&node), [("invalid", 8)]);
    assert_eq!(node.ask(&Request::click("/P.ashx")).status, 404);
    assert_eq!(node.ask(&Request::click("/api/2/conversion.json/")).status, 404);
}

#[test]
fn a_probe_is_answered_and_not_recorded() {
    let node = Setup::new().start_ready();
    let (link, _) = route(&node);
    let id = id_of_click(&node, link);
    for (target, status) in [
        (format!("/p.ashx?r={id}"), 200),
        (format!("/p.ashx?r={id}&f=img"), 200),
        (format!("/api/2/conversion.json?click_id={id}"), 200),
        ("/p.ashx?r=x&f=img".to_owned(), 400),
        ("/api/2/conversion.json".to_owned(), 400),
    ] {
        let answer = node.ask(&Request::click(&target).method("HEAD"));
        assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{target}: {answer:?}");
        assert_ne!(answer.header("content-length"), Some("0"));
    }
    assert_eq!(counts(&node), []);
    assert_eq!(ask(&node, &format!("/p.ashx?r={id}")).body, "SUCCESS\n");
}

#[test]
fn without_a_ledger_nothing_is_accepted() {
    let node = Setup::new().start_ready();
    let (link, _) = route(&node);
    let id = id_of_click(&node, link);
    let data = node.directory().join("data");
    let setup = node.kill();
    // What was written last stands in the write-ahead log, which would mend the file.
    std::fs::remove_file(data.join("ledger.sqlite3-wal")).unwrap();
    std::fs::write(data.join("ledger.sqlite3"), "no database at all, ".repeat(100)).unwrap();
    let node = setup.start_ready();
    let refused = |answer: Answer| {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{answer:?}");
        assert!(!answer.is_last());
        answer
    };
    let told = refused(ask(&node, &format!("/p.ashx?r={id}"))).body;
    assert!(told.contains("send it again"), "{told}");
    assert_eq!(refused(ask(&node, &format!("/p.ashx?r={id}&f=img"))).bytes.len(), 43);
    let told = refused(ask(&node, &format!("/api/2/conversion.json?click_id={id}"))).json();
    assert_eq!(told["request_status"], "Error");
    assert_eq!(counts(&node), [("failed", 3)]);
    node.wait_for_log(&["WARN", "the ledger takes no conversions", "ledger.sqlite3"]);
    // Once, and not for each of them.
    assert_eq!(node.log().matches("takes no conversions").count(), 1);
    // Clicks go where they went.
    assert!(node.click(&click(link)).location().starts_with("https://shop.example.com/"));
}

#[test]
fn a_full_conversion_cap_closes_its_offer_on_every_node() {
    let first = Setup::new().start_ready();
    let (link, offer) = route(&first);
    let cap = |amount: u32| {
        let cap = json!({"offer_id": offer, "cap_type": "conversion", "cap_interval": "lifetime", "cap_amount": amount});
        first.post("offer_cap.json", cap);
    };
    cap(2);
    first.refresh();
    let key = first.directory().join("data/click-id-key");
    let second =
        Setup::following(&first).variable("SMARTLINK_CLICK_ID_KEY_FILE", key.to_str().unwrap()).start_ready();
    let nodes = [&first, &second];
    let goes_to = |node: &Node, host: &str| {
        wait::until(&format!("clicks to go to {host}"), || {
            (node.click(&click(link)).destination() == host).then_some(())
        });
    };
    for node in nodes {
        goes_to(node, "shop.example.com");
    }
    // Clicks of both, converted at the second, whose ledger is the first's.
    let ids = nodes.map(|node| id_of_click(node, link));
    let convert = |id: &str| ask(&second, &format!("/p.ashx?r={id}")).body;
    assert_eq!(convert(&ids[0]), "SUCCESS\n");
    // Told once more, it does not fill the cap.
    assert_eq!(convert(&ids[0]), "SUCCESS, already counted\n");
    assert_eq!(remaining(&first, offer), 1);
    for node in nodes {
        goes_to(node, "shop.example.com");
    }
    assert_eq!(convert(&ids[1]), "SUCCESS\n");
    let begun = Instant::now();
    for node in nodes {
        goes_to(node, "fallback.example.com");
    }
    println!("closed everywhere after {:?}", begun.elapsed());
    for node in nodes {
        assert!(node.metrics().clicks("capped") > 0);
    }
    // The conversion of a click that was before counts all the same; the click that came too late has nothing to convert.
    assert_eq!(convert(&format!("{}&t=2", ids[0])), "SUCCESS\n");
    let late = id_in(&first.click(&click(link)));
    assert_eq!(ask(&second, &format!("/p.ashx?r={late}")).status, 404);
    assert_eq!(remaining(&first, offer), 0);

    cap(4);
    for node in nodes {
        goes_to(node, "shop.example.com");
    }
    wait::until_equal("the cap to have one left", 1, || remaining(&first, offer));
    assert_eq!(counts(&second), [("counted", 3), ("repeated", 1), ("unknown", 1)]);

    // Without the first there is no ledger, and what is not accepted is told so.
    let setup = first.kill();
    let away = ask(&second, &format!("/p.ashx?r={}&t=3", ids[0]));
    assert_eq!((away.status, away.header("retry-after")), (503, Some("5")), "{away:?}");
    drop(setup);
}

#[test]
fn many_at_once_are_each_counted_once() {
    const SENDERS: u32 = 16;
    const EACH: u32 = 25;
    let node = Setup::new().start_ready();
    let keys = own_keys(&node);
    let at = unix_millis();
    let ids: Vec<String> = (0..EACH).map(|sequence| signed(&keys, sequence, at, Some(1042))).collect();
    // All of them say the same.
    let counted: usize = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (ids, address) = (&ids, node.clicks);
                scope.spawn(move || {
                    let mut connection = Connection::to(address);
                    let from = (sender * EACH / SENDERS) as usize;
                    let order = ids[from..].iter().chain(&ids[..from]);
                    order
                        .filter(|id| {
                            let answer = connection.ask(&Request::click(&format!("/p.ashx?r={id}&t=1")));
                            assert_eq!(answer.status, 200, "{answer:?}");
                            answer.body == "SUCCESS\n"
                        })
                        .count()
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    });
    assert_eq!(counted, EACH as usize);
    let repeated = u64::from((SENDERS - 1) * EACH);
    assert_eq!(counts(&node), [("counted", u64::from(EACH)), ("repeated", repeated)]);
}

/// What was answered with success before a node went down, however it did, is known after.
#[test]
fn nothing_that_was_answered_is_lost() {
    let mut setup = Some(Setup::new().setting("edge.goodbye_seconds = 0.2"));
    for (round, signal) in [(0, "TERM"), (1, "KILL")] {
        let mut node = setup.take().unwrap().start_ready();
        let keys = own_keys(&node);
        let answered = AtomicUsize::new(0);
        let counted: Vec<String> = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..8)
                .map(|sender| {
                    let (keys, answered, address) = (&keys, &answered, node.clicks);
                    scope.spawn(move || send_until_the_end(keys, address, 10 * round + sender, answered))
                })
                .collect();
            wait::until("postbacks to be answered", || {
                (answered.load(Ordering::Relaxed) > 100).then_some(())
            });
            node.signal(signal);
            senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
        });
        node.wait_for_exit();
        let node = node.kill().start_ready();
        let mut connection = node.connect();
        for id in &counted {
            let answer = connection.ask(&Request::click(&format!("/p.ashx?r={id}")));
            assert_eq!(answer.body, "SUCCESS, already counted\n", "{signal}: {answer:?}");
        }
        setup = Some(node.kill());
    }
}

/// Sends postbacks until the connection ends or none can be made, and tells which were counted.
fn send_until_the_end(
    keys: &ClickIdKeys,
    address: SocketAddr,
    worker: usize,
    answered: &AtomicUsize,
) -> Vec<String> {
    let mut counted = Vec::new();
    let mut connection = Connection::to(address);
    for sequence in 0.. {
        let id = signed_by(keys, worker, sequence, unix_millis(), Some(1042));
        let request = Request::click(&format!("/p.ashx?r={id}"));
        let Ok(answer) =
            connection.send(request.to_bytes()).map_err(drop).and_then(|()| connection.read().map_err(drop))
        else {
            break;
        };
        assert_eq!((answer.status, answer.body.as_str()), (200, "SUCCESS\n"), "{answer:?}");
        counted.push(id);
        answered.fetch_add(1, Ordering::Relaxed);
        if answer.is_last() {
            break;
        }
    }
    counted
}

#[test]
fn other_nodes_record_with_a_key() {
    let node = Setup::new().start_ready();
    let call = Request::new("POST", "/api/2/record_conversions.json").with("Host", &node.admin.to_string());
    let admin = |request: &Request| Connection::to(node.admin).ask(request);
    let conversion = json!({"click_id": "x", "event": 0, "transaction": "t", "offer_id": 1, "affiliate_id": 2,
        "smart_link_id": 3, "clicked_at": unix_millis(), "amount": null});
    let body = json!([conversion, conversion]).to_string();
    let keyless = call.clone().body(body.as_str());
    let bearer = format!("Bearer {}", node.key());
    let keyed = call.with("Authorization", &bearer).body(body);
    assert_eq!(admin(&keyless).status, 401);
    assert_eq!(admin(&keyed.clone().method("GET").body("")).status, 405);
    let refused = admin(&keyed.clone().body("[{}]"));
    assert_eq!(refused.status, 400, "{refused:?}");
    let recorded = admin(&keyed);
    assert_eq!(recorded.json(), json!({"request_status": "Success", "response": ["counted", "repeated"]}));
}

/// A link to one offer; clicks go there as soon as this returns.
fn route(node: &Node) -> (i64, i64) {
    let offer = node.create_offer(OFFER_URL);
    let link = node.create_link(json!({"affiliate_id": 7, "fallback_url": FALLBACK}));
    node.attach(link, offer);
    node.refresh();
    (link, offer)
}

fn click(link: i64) -> String {
    format!("/sl?id={link}&aff_id=7")
}

fn id_of_click(node: &Node, link: i64) -> String {
    id_in(&node.click(&click(link)))
}

fn id_in(redirect: &Answer) -> String {
    redirect.location().split_once("r=").unwrap().1.to_owned()
}

fn ask(node: &Node, target: &str) -> Answer {
    node.ask(&Request::click(target))
}

/// The results that have been counted, in the order of the documentation.
fn counts(node: &Node) -> Vec<(&'static str, u64)> {
    let metrics = node.metrics();
    ["counted", "repeated", "forged", "late", "unknown", "invalid", "failed"]
        .into_iter()
        .map(|result| (result, metrics.value(&format!("smartlink_conversions_total{{result=\"{result}\"}}"))))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// As the API says, and the metrics after a moment.
fn remaining(node: &Node, offer: i64) -> u64 {
    let key = node.key();
    let caps: Value =
        node.admin("GET", &format!("/api/2/offer_caps.json?offer_id={offer}&api_key={key}")).json();
    let remaining = caps["response"]["offer_caps"][0]["remaining"].as_u64().unwrap();
    let series = format!(
        "smartlink_cap_remaining{{offer_id=\"{offer}\",affiliate_id=\"\",cap_type=\"conversion\",cap_interval=\"lifetime\"}}"
    );
    wait::until_equal(&series, Some(remaining), || {
        let metrics = node.metrics();
        metrics.0.contains(&series).then(|| metrics.value(&series))
    });
    remaining
}

fn own_keys(node: &Node) -> ClickIdKeys {
    let path: PathBuf = node.directory().join("data/click-id-key");
    ClickIdKeys::from_text(&std::fs::read(path).unwrap()).unwrap()
}

/// The id of a click that nobody made.
fn signed(keys: &ClickIdKeys, sequence: u32, at: i64, offer: Option<u32>) -> String {
    signed_by(keys, 0, sequence, at, offer)
}

fn signed_by(keys: &ClickIdKeys, worker: usize, sequence: u32, at: i64, offer: Option<u32>) -> String {
    let contents = Contents {
        at: UnixMillis(at),
        node: NodeIdentity::new(1),
        worker: WorkerIndex::new(worker).unwrap(),
        sequence,
        link: LinkId::new(301).unwrap(),
        affiliate: AffiliateId::new(7).unwrap(),
        offer: offer.and_then(OfferId::new),
    };
    keys.sign(contents).as_str().to_owned()
}

fn unix_millis() -> i64 {
    let since: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}
