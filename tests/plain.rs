//! Requests are read in two ways, by our own loop and by hyper, and nobody is to notice which one it was: the same answers,
//! in the order of the requests, however the bytes are cut and wherever a connection goes over from the one to the other.

mod support;

use std::ops::Range;

use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use support::http::{Answer, CRAWLER, Connection, DESKTOP, PHONE, Request};
use support::node::{Node, Setup};

/// On its way through hyper, a connection begins with this.
fn by_hyper(node: &Node) -> Connection {
    let mut connection = node.connect();
    // To announce a length, be it 0, is not plain.
    assert_eq!(
        connection.ask(&Request::click("/sl?id=301&aff_id=67890").with("Content-Length", "0")).status,
        302
    );
    connection
}

#[test]
fn both_ways_give_the_same_answers() {
    let node = Setup::demo().start_ready();
    let mut random = random();
    let (mut plain, mut hyper) = (node.connect(), by_hyper(&node));
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    for _ in 0..2_000 {
        let request = request(&mut random);
        let answers = [&mut plain, &mut hyper].map(|connection| connection.ask(&request));
        let [ours, theirs] = answers.each_ref().map(comparable);
        assert_eq!(ours, theirs, "{request:?}");
        *statuses.entry(answers[0].status).or_default() += 1;
        if answers[0].is_last() {
            plain.assert_closes();
            hyper.assert_closes();
            (plain, hyper) = (node.connect(), by_hyper(&node));
        }
    }
    println!("{statuses:?}");
    for status in [302, 400, 404] {
        assert!(statuses[&status] > 20, "{statuses:?}");
    }
}

/// What must be the same: all but the order of headers, the moment, the id of the click and the offer that was drawn.
fn comparable(answer: &Answer) -> (String, Vec<(String, String)>, String) {
    let mut headers = answer.headers.clone();
    headers.sort();
    for (name, value) in &mut headers {
        if name == "date" {
            assert!(httpdate::parse_http_date(value).is_ok(), "{value}");
            value.clear();
        }
        if name == "location"
            && let Some((_, query)) = value.split_once('?')
        {
            *value = query.split_once("r=").map_or(query, |(before, _)| before).to_owned();
        }
    }
    (answer.status_line.clone(), headers, answer.body.clone())
}

/// One that our own loop answers: that there is nothing in it for hyper is what `src/edge/plain/read.rs` tests.
fn request(random: &mut Xoshiro256PlusPlus) -> Request {
    let target = match random.random_range(0..12) {
        0 => "/".to_owned(),
        1 => "/sl".to_owned(),
        2 => "/sl/!raw-space".to_owned(),
        3 => "/sl?id=301&aff_id=x".to_owned(),
        4 => "/sl?id=999&aff_id=67890".to_owned(),
        5 => "/sl/301?aff_id=1&aff_id=2".to_owned(),
        6 => format!("/{}?", "a".repeat(random.random_range(0..3000))),
        _ => format!("/sl?id=301&aff_id=67890&s1={}", random.next_u32()),
    };
    let agents = [DESKTOP, PHONE, CRAWLER, ""];
    let mut request =
        Request::click(&target).with("User-Agent", agents[random.random_range(0..agents.len())]);
    if random.random_range(0..20) == 0 {
        request = request.without("Host");
    }
    for (name, value) in [
        ("hOST", "go.example.com"),
        ("Connection", "keep-alive"),
        ("CONNECTION", "Close"),
        ("Sec-Purpose", "prefetch"),
        ("Accept-Language", "de,en;q=0.5"),
        ("Referer", "\u{fc}"),
        ("Cookie", &"c".repeat(random.random_range(0..4000))),
        ("X-Forwarded-For", "192.0.2.1"),
    ] {
        if random.random_range(0..12) == 0 {
            request = request.and(name, value);
        }
    }
    request
}

#[test]
fn answers_come_in_order_however_the_bytes_are_cut() {
    let node = Setup::demo().start_ready();
    let mut random = random();
    let mut handed_over = 0;
    for _ in 0..60 {
        let requests = random.random_range(1..40);
        // From here on hyper reads.
        let first_other = random.random_range(0..2 * requests);
        handed_over += u32::from(first_other < requests);
        let mut bytes = Vec::new();
        for nth in 0..requests {
            let request = Request::click(&format!("/sl?id=301&aff_id=67890&s1=nth{nth}"));
            let request = match (nth == first_other, random.random_range(0..3)) {
                (false, _) => request,
                (true, 0) => request.with("Content-Length", "0"),
                (true, 1) => request.with("Connection", "keep-alive, x"),
                (true, _) => Request::click(&format!("/sl?id=301&aff_id=67890&s1=nth{nth}&s2=<\u{e9}>")),
            };
            bytes.extend_from_slice(&request.to_bytes());
        }
        let mut connection = node.connect();
        for piece in pieces(&mut random, bytes.len()) {
            connection.send(&bytes[piece]).unwrap();
        }
        for nth in 0..requests {
            let answer = connection.read().unwrap();
            assert!(
                answer.location().contains(&format!("?sub=nth{nth}&")),
                "{nth} of {requests}: {answer:?}"
            );
        }
    }
    assert!(handed_over > 10, "{handed_over}");
}

fn pieces(random: &mut Xoshiro256PlusPlus, length: usize) -> Vec<Range<usize>> {
    let mut cuts: Vec<_> = (0..random.random_range(0..20)).map(|_| random.random_range(0..length)).collect();
    cuts.extend([0, length]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| cut[0]..cut[1]).collect()
}

/// More answers than are made ahead, to a client that takes none before it has asked for all.
#[test]
fn many_requests_at_once_are_all_answered() {
    let node = Setup::demo().start_ready();
    let mut connection = node.connect();
    let mut bytes = Vec::new();
    for nth in 0..2_000 {
        bytes.extend_from_slice(
            format!("GET /sl?id=301&aff_id=67890&s1=nth{nth} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        );
    }
    connection.send(&bytes).unwrap();
    for nth in 0..2_000 {
        assert!(connection.read().unwrap().location().contains(&format!("?sub=nth{nth}&")), "{nth}");
    }
    assert_eq!(node.metrics().clicks("offer"), 2_000);
}

/// A client that is done asking is still answered, and one that is cut off in the middle of a head is not.
#[test]
fn what_follows_the_last_request_is_not_answered() {
    let node = Setup::demo().start_ready();
    let click = Request::click("/sl?id=301&aff_id=67890");
    let mut connection = node.connect();
    connection
        .send([click.clone().with("Connection", "close").to_bytes(), click.to_bytes()].concat())
        .unwrap();
    assert!(connection.read().unwrap().is_last());
    connection.assert_closes();
    let mut connection = node.connect();
    connection.send_last([click.to_bytes(), b"GET /sl?id=301&aff".to_vec()].concat()).unwrap();
    assert_eq!(connection.read().unwrap().status, 302);
    connection.assert_closes();
    assert_eq!(node.metrics().clicks("offer"), 2);
}

fn random() -> Xoshiro256PlusPlus {
    let seed = match std::env::var("SMARTLINK_TEST_SEED") {
        Ok(seed) => seed.parse().expect("SMARTLINK_TEST_SEED is a number"),
        Err(_) => 301,
    };
    println!("SMARTLINK_TEST_SEED={seed}");
    Xoshiro256PlusPlus::seed_from_u64(seed)
}
