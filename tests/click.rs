//! The click, line by line of its specification, over a real socket: what is on the wire, and what is counted.

mod support;

use std::collections::{HashMap, HashSet};
use std::thread;

use serde_json::json;
use support::http::{Answer, CRAWLER, Connection, DESKTOP, PHONE, Request, TABLET};
use support::node::{Metrics, Setup};
use support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890";

/// The demonstration's three offers and their shares in a hundred.
const OFFERS: [(&str, i64, u64); 3] =
    [("card.example.com", 1042, 60), ("loan.example.net", 1043, 30), ("insure.example.org", 1044, 10)];

/// Its rule for phones in Great Britain.
const MOBILE_OFFER: &str = "app.example.co.uk";

/// Its link's fallback.
const FALLBACK: &str = "www.example.com";

#[test]
fn both_forms_lead_to_an_offer_and_forward_nothing() {
    let node = Setup::demo().start_ready();
    for target in [
        "/sl?id=301&aff_id=67890",
        "/sl?aff_id=67890&id=301",
        "/sl/?id=301&aff_id=67890",
        "/sl/301?aff_id=67890",
        "/sl/301?aff_id=67890&utm_source=x&url=https://evil.example/&host=evil.example&&=&s9=evil",
        "http://go.example.com/sl?id=301&aff_id=67890",
    ] {
        let answer = node.click(target);
        assert!(is_demo_offer(answer.destination()), "{target}: {answer:?}");
        assert!(!answer.location().contains("evil"), "{target}: {answer:?}");
    }
    assert_eq!(node.metrics().clicks("offer"), 6);
}

#[test]
fn a_redirect_has_exactly_these_headers_and_head_the_same() {
    let node = Setup::demo().start_ready();
    let mut connection = node.connect();
    let get = connection.ask(&Request::click(CLICK));
    let head = connection.ask(&Request::click(CLICK).method("HEAD"));
    for answer in [&get, &head] {
        assert_eq!(answer.status_line, "HTTP/1.1 302 Found");
        assert_eq!(
            answer.header_names(),
            ["cache-control", "content-length", "date", "location", "referrer-policy"]
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-length"), Some("0"));
        assert_eq!(answer.header("referrer-policy"), Some("strict-origin-when-cross-origin"));
        let date = answer.header("date").unwrap();
        assert!(httpdate::parse_http_date(date).is_ok() && date.ends_with(" GMT"), "{date}");
        assert!(is_demo_offer(answer.destination()), "{answer:?}");
    }
    // Still in step: what followed the answer to HEAD was the next answer, not a body.
    assert_eq!(connection.ask(&Request::click("/sl?id=301")).status, 400);

    let node = Setup::demo().setting("edge.referrer_policy = \"no-referrer\"").start_ready();
    assert_eq!(node.click(CLICK).header("referrer-policy"), Some("no-referrer"));
}

#[test]
fn a_malformed_parameter_is_named_in_one_sentence_and_never_redirected() {
    let node = Setup::demo().start_ready();
    let mut connection = node.connect();
    let mut sent = 0;
    for (parameter, targets) in [
        (
            "id",
            &[
                "/sl",
                "/sl?",
                "/sl/",
                "/sl?aff_id=67890",
                "/sl?ID=301&aff_id=67890",
                "/sl?%69d=301&aff_id=67890",
                "/sl?id&aff_id=67890",
                "/sl?id=&aff_id=67890",
                "/sl?id=0&aff_id=67890",
                "/sl?id=0301&aff_id=67890",
                "/sl?id=+301&aff_id=67890",
                "/sl?id=-301&aff_id=67890",
                "/sl?id=%33%30%31&aff_id=67890",
                "/sl?id=%20301&aff_id=67890",
                "/sl?id=301%00&aff_id=67890",
                "/sl?id=301.0&aff_id=67890",
                "/sl?id=3e2&aff_id=67890",
                "/sl?id=0x12d&aff_id=67890",
                "/sl?id=4294967296&aff_id=67890",
                "/sl?id=4294967597&aff_id=67890",
                "/sl?id=18446744073709551917&aff_id=67890",
                "/sl?id=00000000301&aff_id=67890",
                "/sl?id=301&id=301&aff_id=67890",
                "/sl?id=301,301&aff_id=67890",
                "/sl?id[]=301&aff_id=67890",
                "/sl/301?id=301&aff_id=67890",
                "/sl/301;x?aff_id=67890",
                "/sl/%33%30%31?aff_id=67890",
                "/sl/abc?aff_id=67890",
                "/sl?id=https://evil.example/&aff_id=67890",
            ][..],
        ),
        (
            "aff_id",
            &[
                "/sl?id=301",
                "/sl/301",
                "/sl?id=301&affid=67890",
                "/sl?id=301&aff_id",
                "/sl?id=301&aff_id=",
                "/sl?id=301&aff_id=0",
                "/sl?id=301&aff_id=067890",
                "/sl?id=301&aff_id=%2067890",
                "/sl?id=301&aff_id=67890%0d%0aLocation:%20https://evil.example/",
                "/sl?id=301&aff_id=4294967296",
                "/sl?id=301&aff_id=67890&aff_id=67890",
                "/sl?id=301&aff_id=67890&s1=x&aff_id=1",
                "/sl/301?aff_id=six",
            ][..],
        ),
    ] {
        for target in targets {
            // One connection for all of them: a wrong parameter is no reason to close.
            let answer = connection.ask(&Request::click(target));
            assert_eq!(answer.status_line, "HTTP/1.1 400 Bad Request", "{target}");
            assert_is_one_sentence(&answer);
            assert!(answer.body.contains(&format!(" {parameter} ")), "{target}: {:?}", answer.body);
            sent += 1;
        }
    }
    let metrics = node.metrics();
    assert_eq!((metrics.clicks("invalid"), metrics.sum("smartlink_clicks_total")), (sent, sent));
}

#[test]
fn other_methods_are_refused_with_the_ones_allowed() {
    let node = Setup::demo().start_ready();
    let mut connection = node.connect();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PURGE", "get"] {
        let answer = connection.ask(&Request::click(CLICK).method(method).body(""));
        assert_eq!(answer.status_line, "HTTP/1.1 405 Method Not Allowed", "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method}");
        assert_is_one_sentence(&answer);
    }
    let answer = connection.ask(&Request::click(CLICK).method("POST").body("a=b"));
    assert_eq!((answer.status, answer.is_last()), (405, true), "{answer:?}");
    connection.assert_closes();
    let metrics = node.metrics();
    assert_eq!((metrics.clicks("invalid"), metrics.sum("smartlink_clicks_total")), (9, 9));
}

#[test]
fn a_body_is_refused_and_the_connection_closes() {
    let node = Setup::demo().start_ready();
    for framing in [
        "Content-Length: 4\r\n\r\nbody",
        "Content-Length: 00\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        // Two readings of where the next request begins are how requests are smuggled.
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 4\r\n\r\nbody",
        "Content-Length: -1\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\n",
    ] {
        let mut connection = node.connect();
        let request = format!("GET {CLICK} HTTP/1.1\r\nHost: go.example.com\r\n{framing}");
        let answer = connection.ask_raw(&request);
        assert_eq!((answer.status, answer.header("location")), (400, None), "{framing:?}: {answer:?}");
        connection.assert_closes();
    }
    // Saying that there is none is no body.
    assert_eq!(node.ask(&Request::click(CLICK).body("")).status, 302);
}

#[test]
fn the_host_must_be_there_once_and_be_a_host() {
    let node = Setup::demo().start_ready();
    let bare = Request::click(CLICK).without("Host");
    for (request, word) in [
        (bare.clone(), "missing"),
        (bare.clone().and("Host", "a.example.com").and("Host", "a.example.com"), "more than once"),
        (bare.clone().and("Host", ""), "not a host name"),
        (bare.clone().and("Host", "a.example.com/path"), "not a host name"),
        (bare.clone().and("Host", "user@a.example.com"), "not a host name"),
        (bare.clone().and("Host", "a.example.com, b.example.com"), "not a host name"),
        (bare.clone().and("Host", "a.example.com:port"), "not a host name"),
        (bare.clone().and("Host", "a.example.com:65536"), "not a host name"),
        (bare.clone().and("Host", "[::1"), "not a host name"),
    ] {
        let mut connection = node.connect();
        let answer = connection.ask(&request);
        assert_eq!((answer.status, answer.is_last()), (400, true), "{request:?}: {answer:?}");
        assert!(answer.body.contains("Host") && answer.body.contains(word), "{request:?}: {answer:?}");
        assert_is_one_sentence(&answer);
        connection.assert_closes();
    }
    for host in ["go.example.com:8080", "127.0.0.1", "[::1]:80", "xn--bcher-kva.example", "localhost"] {
        assert_eq!(node.ask(&bare.clone().and("Host", host)).status, 302, "{host}");
    }
    let answer = node.connect().ask_raw(format!("GET {CLICK} HTTP/1.0\r\n\r\n"));
    assert!(answer.status == 302 && answer.header("location").is_some(), "{answer:?}");
    let twice = format!("GET {CLICK} HTTP/1.0\r\nHost: a.example.com\r\nHost: b.example.com\r\n\r\n");
    assert_eq!(node.connect().ask_raw(twice).status, 400);
}

#[test]
fn a_probe_is_answered_like_a_click_and_counted_as_a_probe() {
    let node = Setup::demo().start_ready();
    let mut connection = node.connect();
    let probes = [
        Request::click(CLICK).method("HEAD"),
        Request::click(CLICK).with("Sec-Purpose", "prefetch"),
        Request::click(CLICK).with("Sec-Purpose", "prefetch;prerender"),
        Request::click(CLICK).with("Sec-Purpose", "prefetch;anonymous-client-ip"),
        Request::click(CLICK).with("Purpose", "prefetch"),
        Request::click(CLICK).with("Purpose", "Preview"),
        Request::click(CLICK).with("X-Purpose", "preview"),
        Request::click(CLICK).with("X-Purpose", "x").and("X-Purpose", "prefetch"),
        Request::click(CLICK).with("X-Moz", "prefetch"),
    ];
    for probe in &probes {
        assert!(is_demo_offer(connection.ask(probe).destination()), "{probe:?}");
    }
    let metrics = node.metrics();
    assert_eq!(metrics.clicks("probe"), probes.len() as u64);
    assert_eq!(metrics.sum("smartlink_clicks_total"), probes.len() as u64);
    let link = metrics.value("smartlink_link_clicks_total{smart_link_id=\"301\",outcome=\"probe\"}");
    assert_eq!(link, probes.len() as u64);
    assert_eq!(metrics.sum("smartlink_offer_clicks_total"), 0);

    for person in [
        Request::click(CLICK),
        Request::click(CLICK).with("Sec-Purpose", "none"),
        Request::click(CLICK).with("X-Moz", "preview"),
        Request::click("/sl?id=301&aff_id=67890&purpose=prefetch"),
    ] {
        connection.ask(&person);
    }
    let metrics = node.metrics();
    assert_eq!((metrics.clicks("offer"), metrics.sum("smartlink_offer_clicks_total")), (4, 4));
    assert_eq!(metrics.clicks("probe"), probes.len() as u64);
}

/// Addresses of the demonstration database.
const BRITISH: &str = "198.51.100.7";
const AMERICAN: &str = "192.0.2.1";

/// A link whose macro nobody filled in, or that was written by hand: the click is judged as if it had been encoded.
#[test]
fn raw_bytes_that_are_not_legal_in_a_target_are_encoded_and_reach_the_offer() {
    let node = Setup::demo().start_ready();
    let mut connection = node.connect();
    let cases: [(&[u8], &str); 16] = [
        (b"\"", "%22"),
        (b"<", "%3C"),
        (b">", "%3E"),
        (b"\\", "%5C"),
        (b"^", "%5E"),
        (b"`", "%60"),
        (b"{", "%7B"),
        (b"|", "%7C"),
        (b"}", "%7D"),
        (b"{}", "%7B%7D"),
        ("é".as_bytes(), "%C3%A9"),
        ("日本".as_bytes(), "%E6%97%A5%E6%9C%AC"),
        (b"<script>\"x\"</script>", "%3Cscript%3E%22x%22%3C%2Fscript%3E"),
        (b"a%20b<", "a%20b%3C"),
        // As %FF and %E9 are: bytes that are not UTF-8 are U+FFFD.
        (b"\xff", "%EF%BF%BD"),
        (b"caf\xe9", "caf%EF%BF%BD"),
    ];
    for (sent, received) in cases {
        let answer = connection.ask_raw(raw_click(CLICK, sent));
        assert!(is_demo_offer(answer.destination()), "{sent:?}: {answer:?}");
        let sub = format!("?sub={received}&r=");
        assert!(answer.location().contains(&sub), "{sent:?}: {answer:?}");
    }
    let absolute = format!("http://go.example.com{CLICK}");
    let answer = connection.ask_raw(raw_click(&absolute, b"<\xff>"));
    assert!(answer.location().contains("?sub=%3C%EF%BF%BD%3E&r="), "{answer:?}");
    let clicks = cases.len() as u64 + 1;
    assert_eq!(node.metrics().clicks("offer"), clicks);

    // Where an id is meant, they are as wrong as their encoding is.
    for (target, parameter) in [("/sl?aff_id=67890&id=301", "id"), ("/sl?id=301&aff_id=67890", "aff_id")] {
        for bytes in [b"<".as_slice(), b"\xff", "é".as_bytes()] {
            let line = [b"GET ", target.as_bytes(), bytes, b" HTTP/1.1"].concat();
            let answer = connection.ask_raw(with_host(&line));
            assert_eq!(answer.status, 400, "{bytes:?}: {answer:?}");
            assert!(answer.body.contains(&format!(" {parameter} ")), "{bytes:?}: {answer:?}");
            assert_is_one_sentence(&answer);
        }
    }
    let metrics = node.metrics();
    assert_eq!((metrics.clicks("invalid"), metrics.sum("smartlink_clicks_total")), (6, clicks + 6));
}

#[test]
fn request_lines_that_would_have_to_be_guessed_are_refused_with_a_sentence() {
    let node = Setup::demo().start_ready();
    let mut sent = 0;
    for (line, words) in [
        (format!("GET {CLICK}&s1=a b HTTP/1.1"), "raw space; write %20"),
        (format!("GET {CLICK}&s1= HTTP/1.1 HTTP/1.1"), "raw space; write %20"),
        (format!("GET  {CLICK} HTTP/1.1"), "raw space; write %20"),
        (format!("GET {CLICK}  HTTP/1.1"), "raw space; write %20"),
        (format!("GET {CLICK}&s1=a b HTTP/1.0"), "raw space; write %20"),
        (format!("GET http://go.example.com{CLICK}&s1=a b HTTP/1.1"), "raw space; write %20"),
        ("GET /favicon .ico HTTP/1.1".to_owned(), "raw space; write %20"),
        (format!("GET {CLICK}&s1=\0 HTTP/1.1"), "control character"),
        (format!("GET {CLICK}&s1=\u{1f}x HTTP/1.1"), "control character"),
        (format!("GET {CLICK}&s1=\u{7f} HTTP/1.1"), "control character"),
        (format!("GET {CLICK}&s1=a\tb HTTP/1.1"), "control character"),
        (format!("GET {CLICK}&s1=a\rb HTTP/1.1"), "control character"),
        (format!("GET {CLICK}\tHTTP/1.1"), "control character"),
        (format!("GET {} HTTP/1.1", &CLICK[1..]), "begins with a slash"),
        (format!("GET http://<{CLICK} HTTP/1.1"), "begins with a slash"),
        ("GET HTTP/1.1".to_owned(), "begins with a slash"),
        (format!("GET {CLICK} HTTP/1.2"), "HTTP/1.1 or HTTP/1.0"),
        (format!("GET {CLICK} http/1.1"), "HTTP/1.1 or HTTP/1.0"),
        (format!("GET {CLICK} HTTP/1.1 "), "HTTP/1.1 or HTTP/1.0"),
        // A client that asks for what stands for a refusal hears it, too.
        ("GET /sl/!raw-space HTTP/1.1".to_owned(), "raw space; write %20"),
        // The line is wrong before the method is.
        (format!("POST {CLICK}&s1=a b HTTP/1.1"), "raw space; write %20"),
    ] {
        let mut connection = node.connect();
        let answer = connection.ask_raw(with_host(line.as_bytes()));
        assert_eq!((answer.status, answer.is_last()), (400, true), "{line:?}: {answer:?}");
        assert!(answer.body.contains(words), "{line:?}: {answer:?}");
        assert_is_one_sentence(&answer);
        connection.assert_closes();
        sent += 1;
        let metrics = node.metrics();
        let counted = (metrics.clicks("invalid"), metrics.sum("smartlink_clicks_total"));
        assert_eq!(counted, (sent, sent), "{line:?}");
    }
}

/// Every byte there is, in the path, as the name of a parameter and in a value: no answer is without words.
#[test]
fn no_byte_of_a_target_is_answered_without_a_sentence() {
    let node = Setup::demo().start_ready();
    let mut sent = 0;
    for byte in (0..=u8::MAX).filter(|byte| *byte != b'\n') {
        for begin in ["/sl/301", "/sl?id=301&aff_id=67890&x", "/sl?id=301&aff_id=67890&s1=x"] {
            let line = [b"GET ", begin.as_bytes(), &[byte], b"?aff_id=67890 HTTP/1.1"].concat();
            let answer = node.connect().ask_raw(with_host(&line));
            match answer.status {
                302 => assert!(is_demo_offer(answer.destination()), "{byte:#04x} after {begin}: {answer:?}"),
                // Of another link, or of another path.
                404 => assert!(begin == "/sl/301" && (byte.is_ascii_digit() || byte == b'/'), "{byte:#04x}"),
                status => assert_eq!(status, 400, "{byte:#04x} after {begin}: {answer:?}"),
            }
            if answer.status != 302 {
                assert_is_one_sentence(&answer);
            }
            sent += u64::from((begin, byte) != ("/sl/301", b'/'));
        }
    }
    assert_eq!(node.metrics().sum("smartlink_clicks_total"), sent);
}

/// What the HTTP layer refuses by itself is told in a sentence, and counted, like what the click path refuses.
#[test]
fn what_is_no_http_1_and_heads_that_cannot_be_read_are_refused_with_a_sentence() {
    let node = Setup::demo().start_ready();
    let head = |lines: &str| format!("GET {CLICK} HTTP/1.1\r\nHost: go.example.com\r\n{lines}\r\n\r\n");
    let usual = {
        let mut names = node.connect().ask_raw(head("Host: other.example.com")).headers;
        names.sort_unstable();
        names.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let mut sent = 1;
    for bytes in [
        head("no colon"),
        head("Ho st: a"),
        head("X : a"),
        head(": a"),
        head("X: a\r\n folded"),
        head("X: a\0b"),
        head("X: a\rb"),
        head("X\u{e9}: a"),
        head("Content-Length: x"),
        head("Content-Length: -1"),
        head("Content-Length: +1"),
        head("Content-Length:"),
        head("Content-Length: 0, 0"),
        head("Content-Length: 0\r\nContent-Length: 1"),
        head("Content-Length: 99999999999999999999"),
        head("Transfer-Encoding: x"),
        head("Transfer-Encoding:"),
        head("Transfer-Encoding: chunked, gzip"),
        format!("GET {CLICK} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        format!("GET {CLICK}\r\n"),
        format!("GET {CLICK} HTTP/2.0\r\n\r\n"),
        format!("GET\t{CLICK} HTTP/1.1\r\nHost: go.example.com\r\n\r\n"),
        format!(" GET {CLICK} HTTP/1.1\r\nHost: go.example.com\r\n\r\n"),
        format!("(GET) {CLICK} HTTP/1.1\r\n\r\n"),
        format!("GET {CLICK}&s1=a\nb HTTP/1.1\r\nHost: go.example.com\r\n\r\n"),
        // A client that wants TLS.
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".to_owned(),
    ] {
        // As the first on its connection, and behind an answer that is already under way.
        for before in [String::new(), head("X: a")] {
            let mut connection = node.connect();
            connection.send(format!("{before}{bytes}")).unwrap();
            if !before.is_empty() {
                assert_eq!(connection.read().unwrap().status, 302);
            }
            let answer = connection.read().unwrap();
            assert_eq!((answer.status, answer.is_last()), (400, true), "{bytes:?}: {answer:?}");
            assert_eq!(answer.status_line, "HTTP/1.1 400 Bad Request", "{bytes:?}");
            assert_eq!(answer.header_names(), usual, "{bytes:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{bytes:?}");
            let date = answer.header("date").unwrap();
            assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
            assert!(answer.body.contains("a header line, Content-Length or"), "{bytes:?}: {answer:?}");
            assert_is_one_sentence(&answer);
            connection.assert_closes();
            sent += 1;
            wait::until_equal("clicks counted as invalid", sent, || node.metrics().clicks("invalid"));
        }
    }
    // Behind an answer that says HTTP/1.0, this one does, too.
    let mut connection = node.connect();
    let kept = connection.ask_raw(format!("GET {CLICK} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    assert_eq!(kept.status_line, "HTTP/1.0 302 Found");
    let answer = connection.ask_raw("GET / HTTP/1.0\r\nX : a\r\n\r\n");
    assert_eq!((answer.status_line.as_str(), answer.is_last()), ("HTTP/1.0 400 Bad Request", true));
    assert_is_one_sentence(&answer);
    connection.assert_closes();
    wait::until_equal("clicks counted as invalid", sent + 1, || node.metrics().clicks("invalid"));

    // An HTTP/2 client that did not ask first: HTTP/1.1 has no answer that it understands.
    let mut connection = node.connect();
    connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    connection.assert_closes();
    wait::until_equal("clicks counted as invalid", sent + 2, || node.metrics().clicks("invalid"));
}

#[test]
fn a_head_that_is_too_large_is_refused_with_a_sentence() {
    let node = Setup::demo().start_ready();
    let with_lines = |count: usize| {
        (1..count).fold(Request::click(CLICK).without("User-Agent"), |request, _| request.and("X", "a"))
    };
    let with_bytes = |bytes: usize| {
        let request = Request::click(CLICK).with("X", "");
        let rest = bytes - request.to_bytes().len();
        request.with("X", &"a".repeat(rest))
    };
    assert_eq!(node.ask(&with_lines(100)).status, 302);
    assert_eq!(node.ask(&with_bytes(16 * 1024)).status, 302);
    let mut sent = 0;
    for request in [with_lines(101), with_bytes(16 * 1024 + 1)] {
        let mut connection = node.connect();
        let answer = connection.ask(&request);
        assert_eq!(answer.status_line, "HTTP/1.1 431 Request Header Fields Too Large");
        assert!(answer.is_last(), "{answer:?}");
        assert!(
            answer.body.contains("longer than this server takes, or has more than 100 header lines"),
            "{answer:?}"
        );
        assert_is_one_sentence(&answer);
        sent += 1;
        wait::until_equal("clicks counted as invalid", sent, || node.metrics().clicks("invalid"));
    }
}

/// As shell scripts, load testers and old proxies do: they say that they will send nothing more, and wait.
#[test]
fn who_sends_a_request_and_its_end_together_is_answered() {
    const TIMES: u64 = 100;
    let node = Setup::demo().start_ready();
    let requests = [
        (Request::click(CLICK).to_bytes(), 302),
        (Request::click(CLICK).with("Connection", "close").to_bytes(), 302),
        (format!("GET {CLICK} HTTP/1.0\r\n\r\n").into_bytes(), 302),
        (format!("GET {CLICK} HTTP/1.1\r\nHost : go.example.com\r\n\r\n").into_bytes(), 400),
        (Request::click("/sl?id=301").to_bytes(), 400),
        (Request::click(CLICK).method("POST").body("a=b").to_bytes(), 405),
    ];
    for (request, status) in &requests {
        for _ in 0..TIMES {
            let mut connection = node.connect();
            connection.send_last(request).unwrap();
            let answer = connection.read();
            let what = String::from_utf8_lossy(request);
            assert_eq!(answer.as_ref().map(|answer| answer.status), Ok(*status), "{what}: {answer:?}");
            connection.assert_closes();
        }
    }
    // Several of them, and then the end.
    let mut connection = node.connect();
    connection.send_last(Request::click(CLICK).to_bytes().repeat(50)).unwrap();
    for _ in 0..50 {
        assert_eq!(connection.read().unwrap().status, 302);
    }
    connection.assert_closes();
    let metrics = node.metrics();
    assert_eq!((metrics.clicks("offer"), metrics.clicks("invalid")), (3 * TIMES + 50, 3 * TIMES));
    wait::until_equal("connections_active", 0, || node.metrics().value("smartlink_connections_active"));
}

#[test]
fn a_client_that_goes_away_is_noticed_at_once_and_a_silent_one_after_the_timeout() {
    // Nothing in the first part of the test may end by it.
    let patient = Setup::demo().setting("edge.header_read_timeout_seconds = 600.0");
    let node = patient.setting("edge.idle_timeout_seconds = 600.0").start_ready();
    let closed = |reason: &str| {
        node.metrics().value(&format!("smartlink_connections_closed_total{{reason=\"{reason}\"}}"))
    };
    // Before the first request, and after an answer; altogether, and only in one direction.
    let mut done = 0;
    for asks in [false, true] {
        for half in [false, true] {
            let mut connection = node.connect();
            if asks {
                assert_eq!(connection.ask(&Request::click(CLICK)).status, 302);
            }
            if half {
                connection.send_last("").unwrap();
                connection.assert_closes();
            }
            drop(connection);
            done += 1;
            wait::until_equal("connections that were done", done, || closed("done"));
        }
    }
    // In the middle of a head: nobody can tell what was asked for.
    let mut connection = node.connect();
    connection.send_last(&Request::click(CLICK).to_bytes()[..30]).unwrap();
    connection.assert_closes();
    wait::until_equal("connections that broke", 1, || closed("broken"));
    // While it reads none of its answers, of which there are more than fit between the two.
    let link = node.create_link(json!({"affiliate_id": 7}));
    node.attach(link, node.create_offer(&format!("https://long.example.com/?{}", "{s1}".repeat(10))));
    node.refresh();
    let click = Request::click(&format!("/sl/{link}?aff_id=7&s1={}", "+".repeat(255))).to_bytes();
    let mut greedy = node.connect();
    // That the node takes them all is not what is looked for.
    let _ = greedy.send_last(click.repeat(2_000));
    let mut answered = 0;
    wait::until("the node to wait for its client", || {
        let before = std::mem::replace(&mut answered, node.metrics().clicks("offer"));
        (answered > 2 && answered == before).then_some(())
    });
    drop(greedy);
    wait::until_equal("connections_active", 0, || node.metrics().value("smartlink_connections_active"));
    assert_eq!((closed("header_timeout"), node.metrics().clicks("invalid")), (0, 0));

    // Silent from the beginning, after an answer, and in the middle of a head: closed without an answer.
    let hasty = Setup::demo().setting("edge.header_read_timeout_seconds = 0.1");
    let node = hasty.setting("edge.idle_timeout_seconds = 0.1").start_ready();
    let mut answered = node.connect();
    assert_eq!(answered.ask(&Request::click(CLICK)).status, 302);
    let mut begun = node.connect();
    begun.send(&Request::click(CLICK).to_bytes()[..30]).unwrap();
    for mut connection in [answered, begun, node.connect()] {
        connection.assert_closes();
    }
    for (reason, count) in [("header_timeout", 2), ("idle_timeout", 1)] {
        let series = format!("smartlink_connections_closed_total{{reason=\"{reason}\"}}");
        wait::until_equal(&series, count, || node.metrics().value(&series));
    }
    assert_eq!(node.metrics().clicks("invalid"), 0);
}

#[test]
fn a_client_that_does_not_take_its_answers_is_closed() {
    let node = Setup::demo().setting("edge.write_timeout_seconds = 0.1").start_ready();
    let mut connection = node.connect();
    let request = Request::click(CLICK).to_bytes().repeat(1_000);
    // Until both sides' buffers are full, and then until the node closes.
    while connection.send(&request).is_ok() {}
    let series = "smartlink_connections_closed_total{reason=\"write_timeout\"}";
    wait::until_equal(series, 1, || node.metrics().value(series));
    assert_eq!(node.click(CLICK).status, 302);
}

/// A browser keeps a fragment to itself. What comes with one all the same was not meant for the server.
#[test]
fn what_follows_a_raw_number_sign_is_ignored() {
    let node = Setup::demo().start_ready();
    let mut connection = node.connect();
    for (target, sub) in [
        (format!("{CLICK}&s1=a#b&s2=c"), "a"),
        (format!("{CLICK}#&s1=a"), ""),
        (format!("{CLICK}&s1=a#<\u{e9}>"), "a"),
        (format!("http://go.example.com{CLICK}&s1=a#b"), "a"),
    ] {
        let answer = connection.ask(&Request::click(&target));
        assert!(answer.location().contains(&format!("?sub={sub}&r=")), "{target}: {answer:?}");
    }
    let answer = connection.ask(&Request::click(&CLICK.replace('?', "#?")));
    assert_eq!((answer.status, answer.body.as_str()), (400, "The parameter id is missing.\n"));
    // But it does not hide what would have to be guessed at.
    assert_eq!(connection.ask(&Request::click(&format!("{CLICK}#a b"))).status, 400);
}

#[test]
fn repaired_requests_stay_in_step_with_those_around_them() {
    let node = Setup::demo().start_ready();
    let good = Request::click(CLICK).to_bytes();
    let (bad, refused) = (raw_click(CLICK, b"<\xff>"), raw_click(CLICK, b"a b"));
    let all = [good.as_slice(), &bad, &good, b"\r\n\r\n", &bad, &good, &refused].concat();
    // In one piece one more may follow; byte by byte it would meet a connection that is closed.
    for (bytes, pieces) in [([all.as_slice(), &good].concat(), 1), (all.clone(), all.len())] {
        let before = node.metrics();
        let mut connection = node.connect();
        for piece in bytes.chunks(bytes.len() / pieces) {
            connection.send(piece).unwrap();
        }
        for sub in ["?sub=&", "?sub=%3C%EF%BF%BD%3E&", "?sub=&", "?sub=%3C%EF%BF%BD%3E&", "?sub=&"] {
            let answer = connection.read().unwrap();
            assert!(answer.location().contains(sub), "{pieces} pieces, {sub}: {answer:?}");
        }
        let answer = connection.read().unwrap();
        assert_eq!((answer.status, answer.is_last()), (400, true), "{answer:?}");
        assert_is_one_sentence(&answer);
        // What comes after a line that could not be read is not answered.
        connection.assert_closes();
        let after = node.metrics();
        let grown = |outcome| after.clicks(outcome) - before.clicks(outcome);
        assert_eq!((grown("offer"), grown("invalid")), (5, 1), "{pieces} pieces");
    }
}

/// A body that looks like a click is no click, and neither is what follows it: nobody knows better where it ends.
#[test]
fn a_body_is_never_read_as_a_request() {
    let node = Setup::demo().start_ready();
    let hidden = String::from_utf8(raw_click(CLICK, b"<a b>")).unwrap();
    let mut sent = 0;
    for framing in [
        format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Content-Length: 4\r\n\r\nbody{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
    ] {
        let mut connection = node.connect();
        let request = format!("POST {CLICK}&s1=<> HTTP/1.1\r\nHost: go.example.com\r\n{framing}{hidden}");
        let answer = connection.ask_raw(&request);
        assert_eq!((answer.status, answer.is_last()), (405, true), "{framing:?}: {answer:?}");
        connection.assert_closes();
        sent += 1;
        let metrics = node.metrics();
        let counted = (metrics.clicks("invalid"), metrics.sum("smartlink_clicks_total"));
        assert_eq!(counted, (sent, sent), "{framing:?}");
    }
}

#[test]
fn a_target_that_is_too_long_once_it_is_encoded_is_too_long() {
    let node = Setup::demo().start_ready();
    let answer = node.connect().ask_raw(raw_click(CLICK, &[b'<'; 2_700]));
    assert!(is_demo_offer(answer.destination()), "{answer:?}");
    for bytes in [2_800, 6_000, 16_000] {
        assert_eq!(node.connect().ask_raw(raw_click(CLICK, &vec![b'<'; bytes])).status, 414, "{bytes}");
    }
}

#[test]
fn a_trusted_proxy_tells_the_country_and_so_the_rule() {
    let node = Setup::demo().flag("--trust-proxy").flag("127.0.0.1").flag("--trust-proxy").flag("10.0.0.0/8");
    let node = node.start_ready();
    let phone = Request::click(CLICK).with("User-Agent", PHONE);
    let cases: [(&[&str], bool); 14] = [
        (&[BRITISH], true),
        (&["198.51.100.7:4711"], true),
        (&["::ffff:198.51.100.7"], true),
        (&["[2001:db8:9::1]:4711"], true),
        (&["192.0.2.1, 198.51.100.7"], true),
        (&["198.51.100.7, 10.1.2.3,10.9.9.9"], true),
        (&["192.0.2.1", "198.51.100.7, 10.1.2.3", "10.9.9.9"], true),
        (&[], false),
        (&[AMERICAN], false),
        (&["198.51.100.7, 192.0.2.1"], false),
        (&["198.51.100.7", "192.0.2.1, 10.1.2.3"], false),
        (&["198.51.100.7", "garbage"], false),
        (&["198.51.100.7,,10.1.2.3,"], true),
        (&["198.51.100.7 192.0.2.1"], false),
    ];
    let mut connection = node.connect();
    for (lines, british) in cases {
        let request = lines.iter().fold(phone.clone(), |request, line| request.and("X-Forwarded-For", line));
        let answer = connection.ask(&request);
        assert_eq!(answer.destination() == MOBILE_OFFER, british, "{lines:?}: {answer:?}");
        assert!(british || is_demo_offer(answer.destination()), "{lines:?}: {answer:?}");
    }
    let found = node.metrics().value("smartlink_geo_lookups_total{result=\"found\"}");
    assert_eq!(found, 11, "eight British, three American");
}

#[test]
fn nobody_else_tells_the_address() {
    let node = Setup::demo().flag("--trust-proxy").flag("10.0.0.0/8").start_ready();
    let request = Request::click(CLICK)
        .with("User-Agent", PHONE)
        .with("X-Forwarded-For", BRITISH)
        .with("Forwarded", &format!("for={BRITISH}"))
        .with("X-Real-IP", BRITISH);
    for _ in 0..20 {
        assert!(is_demo_offer(node.ask(&request).destination()));
    }
}

#[test]
fn the_device_decides_together_with_the_country() {
    let node = Setup::demo().flag("--trust-proxy").flag("127.0.0.0/8").start_ready();
    let mut connection = node.connect();
    let british = Request::click(CLICK).with("X-Forwarded-For", BRITISH);
    for (request, to_the_app) in [
        (british.clone().with("User-Agent", PHONE), true),
        (british.clone().with("User-Agent", DESKTOP), false),
        (british.clone().with("User-Agent", TABLET), false),
        (british.clone().without("User-Agent"), false),
        // A frozen User-Agent is corrected by what the client hints say.
        (british.with("Sec-CH-UA-Mobile", "?1").with("Sec-CH-UA-Platform", "\"Android\""), true),
        (Request::click(CLICK).with("X-Forwarded-For", AMERICAN).with("User-Agent", PHONE), false),
    ] {
        let answer = connection.ask(&request);
        assert_eq!(answer.destination() == MOBILE_OFFER, to_the_app, "{request:?}: {answer:?}");
    }
}

#[test]
fn sub_ids_arrive_percent_encoded_in_the_query_alone() {
    let node = Setup::demo().start_ready();
    let click = |sub: &str| {
        let answer = node.click(&format!("{CLICK}&s1={sub}"));
        let location = answer.location().to_owned();
        let query = location.split_once("?sub=").unwrap_or_else(|| panic!("{location}")).1;
        let (sub, id) = query.split_once("&r=").unwrap_or_else(|| panic!("{location}"));
        (sub.to_owned(), id.to_owned())
    };
    let mut ids = HashSet::new();
    for (sent, received) in [
        ("", ""),
        ("plain-1.2_3~4", "plain-1.2_3~4"),
        ("a+b", "a%20b"),
        ("a%2Bb", "a%2Bb"),
        ("%26r%3Dforged", "%26r%3Dforged"),
        ("a%23b%3Fc%2Fd%40e%3Af", "a%23b%3Fc%2Fd%40e%3Af"),
        ("%0d%0aLocation:%20https://evil.example", "%0D%0ALocation%3A%20https%3A%2F%2Fevil.example"),
        ("f%C3%BCnf", "f%C3%BCnf"),
        ("fünf", "f%C3%BCnf"),
        ("%ff", "%EF%BF%BD"),
        ("%zz", "%25zz"),
        ("first&s1=second", "first"),
        ("{click_id}%23reqid%23", "%7Bclick_id%7D%23reqid%23"),
    ] {
        let (sub, id) = click(sent);
        assert_eq!(sub, received, "{sent}");
        let well_formed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!((1..=50).contains(&id.len()) && id.bytes().all(well_formed), "{id}");
        assert!(ids.insert(id), "a click id came twice");
    }
    assert_eq!(click(&"x".repeat(255)).0.len(), 255);
    assert_eq!(node.metrics().value("smartlink_sub_ids_cut_total"), 0);
    assert_eq!(click(&"x".repeat(256)).0, "x".repeat(255));
    // 127 characters of two bytes are 254; the next would be cut in two.
    assert_eq!(click(&"%C3%BC".repeat(200)).0, "%C3%BC".repeat(127));
    assert_eq!(node.metrics().value("smartlink_sub_ids_cut_total"), 2);
}

#[test]
fn a_location_over_8_kib_is_replaced_by_the_fallback_and_counted() {
    let node = Setup::new().start_ready();
    let link =
        node.create_link(json!({"affiliate_id": 7, "fallback_url": "https://fallback.example.com/?o=#oid#"}));
    // Twelve sub ids of 255 bytes, each of which takes three characters when it is encoded.
    let offer = node.create_offer(&format!("https://long.example.com/?{}", "{s1}".repeat(12)));
    node.attach(link, offer);
    node.refresh();
    let click = |sub_bytes: usize| node.click(&format!("/sl/{link}?aff_id=7&s1={}", "+".repeat(sub_bytes)));
    assert_eq!(click(200).destination(), "long.example.com");
    assert_eq!(click(255).location(), "https://fallback.example.com/?o=");
    let metrics = node.metrics();
    assert_eq!((metrics.clicks("location_too_long"), metrics.clicks("offer")), (1, 1));
    assert_eq!(metrics.sum("smartlink_offer_clicks_total"), 1);
    let series =
        format!("smartlink_link_clicks_total{{smart_link_id=\"{link}\",outcome=\"location_too_long\"}}");
    assert_eq!(metrics.value(&series), 1);
}

#[test]
fn bots_go_where_the_configuration_says_and_never_count_as_persons() {
    let demo = Setup::demo().start_ready();
    let crawler = Request::click(CLICK).with("User-Agent", CRAWLER);
    let mut nodes = Vec::new();
    for policy in ["fallback", "route", "block"] {
        let setup = Setup::following(&demo).setting(&format!("edge.bots = {policy:?}"));
        nodes.push((policy, setup.start_ready()));
    }
    for (policy, node) in &nodes {
        let answer = node.ask(&crawler);
        match *policy {
            "fallback" => assert_eq!(answer.destination(), FALLBACK),
            "route" => assert!(is_demo_offer(answer.destination()), "{answer:?}"),
            _ => {
                assert_eq!(answer.status_line, "HTTP/1.1 403 Forbidden");
                assert_is_one_sentence(&answer);
            }
        }
        assert!(is_demo_offer(node.click(CLICK).destination()), "{policy}: a person");
        let metrics = node.metrics();
        assert_eq!((metrics.clicks("bot"), metrics.clicks("offer")), (1, 1), "{policy}");
        assert_eq!(metrics.sum("smartlink_offer_clicks_total"), 1, "{policy}");

        // Where the link is nobody's, or somebody else's, that is where a bot is sent as a person is; and it is counted
        // as a bot nevertheless, or it would be in the fill rate.
        for target in ["/sl?id=999&aff_id=67890", "/sl?id=301&aff_id=7"] {
            assert_eq!(
                node.ask(&Request::click(target).with("User-Agent", CRAWLER)).status,
                404,
                "{policy}: {target}"
            );
        }
        let metrics = node.metrics();
        assert_eq!((metrics.clicks("bot"), metrics.sum("smartlink_clicks_total")), (3, 4), "{policy}");
    }
}

#[test]
fn other_paths_are_not_found_and_no_clicks() {
    let node = Setup::demo().start_ready();
    let mut connection = node.connect();
    for path in [
        "/",
        "/favicon.ico",
        "/SL?id=301&aff_id=67890",
        "/slow",
        "/sl/301/302?aff_id=67890",
        "/metrics",
        "//sl",
    ] {
        let answer = connection.ask(&Request::click(path));
        assert_eq!((answer.status, answer.header("location")), (404, None), "{path}: {answer:?}");
        assert!(answer.header("content-type").unwrap().starts_with("text/plain"), "{path}: {answer:?}");
    }
    assert_eq!(connection.ask(&Request::click("/favicon.ico").method("POST").body("")).status, 405);
    let answer = connection.ask(&Request::click("/").body("body"));
    assert_eq!((answer.status, answer.is_last()), (400, true));
    let metrics = node.metrics();
    assert_eq!(metrics.sum("smartlink_clicks_total"), 0, "none of them was a click");
}

#[test]
fn clicks_that_no_offer_takes_go_to_the_link_s_fallback_or_the_network_s_or_nowhere() {
    let first = Setup::new().start_ready();
    let own =
        json!({"affiliate_id": 7, "fallback_url": "https://own.example.com/?l={smart_link_id}&c={country}"});
    let with_own = first.create_link(own);
    let without = first.create_link(json!({"affiliate_id": 7}));
    let inactive = first.create_link(json!({
        "affiliate_id": 7, "smart_link_status": "inactive", "fallback_url": "https://inactive.example.com/",
    }));
    let narrow = first.create_link(json!({"affiliate_id": 7, "fallback_url": "https://narrow.example.com/"}));
    let offer = first.create_offer("https://shop.example.com/");
    first.post(
        "update_offer_geo_targets.json",
        json!({"offer_id": offer, "countries": "US", "action": "allow"}),
    );
    first.attach(narrow, offer);
    let network = Setup::following(&first)
        .setting("network.default_fallback_url = \"https://network.example.com/?l={smart_link_id}\"");
    let network = network.start_ready();
    first.refresh();

    let cases = [
        (with_own, 7, "no_offers", Some("own.example.com")),
        (without, 7, "no_offers", None),
        (inactive, 7, "inactive_link", Some("inactive.example.com")),
        (narrow, 7, "no_match", Some("narrow.example.com")),
        // Somebody else's link: not the link's own fallback.
        (with_own, 8, "affiliate_mismatch", None),
        (4_294_967_295, 7, "unknown_link", None),
    ];
    for (link, affiliate, outcome, own) in cases {
        let target = format!("/sl?id={link}&aff_id={affiliate}");
        assert_eq!(network.click(&target).destination(), own.unwrap_or("network.example.com"), "{outcome}");
        let answer = first.click(&target);
        match own {
            Some(host) => assert_eq!(answer.destination(), host, "{outcome}"),
            None => {
                assert_eq!(answer.status_line, "HTTP/1.1 404 Not Found", "{outcome}");
                assert_is_one_sentence(&answer);
            }
        }
    }
    for node in [&first, &network] {
        let metrics = node.metrics();
        let count = |outcome| cases.iter().filter(|case| case.2 == outcome).count() as u64;
        for (_, _, outcome, _) in cases {
            assert_eq!(metrics.clicks(outcome), count(outcome), "{outcome}");
        }
        assert_eq!(metrics.sum("smartlink_clicks_total"), cases.len() as u64);
        let unknown = metrics.sum_of("smartlink_link_clicks_total", "outcome=\"unknown_link\"");
        assert_eq!(unknown, 0, "visitors cannot make series");
    }
    let location = first.click(&format!("/sl?id={with_own}&aff_id=7"));
    assert_eq!(location.location(), format!("https://own.example.com/?l={with_own}&c="));
}

#[test]
fn ten_thousand_clicks_split_by_weight_and_every_one_is_counted() {
    const CONNECTIONS: u64 = 8;
    const CLICKS_EACH: u64 = 1_250;
    let node = Setup::demo().start_ready();
    let address = node.clicks;
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| thread::spawn(move || destinations_of(&mut Connection::to(address), CLICKS_EACH)))
        .collect();
    let mut reached: HashMap<String, u64> = HashMap::new();
    for client in clients {
        for (host, count) in client.join().unwrap() {
            *reached.entry(host).or_default() += count;
        }
    }
    // Also some that are no persons' clicks, so that the sum is over more than one outcome.
    let mut connection = node.connect();
    for _ in 0..10 {
        connection.ask(&Request::click(CLICK).method("HEAD"));
        connection.ask(&Request::click(CLICK).with("User-Agent", CRAWLER));
        connection.ask(&Request::click("/sl?id=301"));
        connection.ask(&Request::click("/sl?id=9&aff_id=9"));
    }

    let clicks = CONNECTIONS * CLICKS_EACH;
    assert_eq!(reached.values().sum::<u64>(), clicks);
    for (host, _, share) in OFFERS {
        // Seven standard errors: by Chernoff's bound the three shares together leave them once in 10⁹ runs at most,
        // while a swapped or a lost weight is dozens away. That the split is exact is proven with seeds, elsewhere.
        let probability = share as f64 / 100.0;
        let expected = clicks as f64 * probability;
        let bound = 7.0 * (expected * (1.0 - probability)).sqrt();
        let count = reached.get(host).copied().unwrap_or_default();
        assert!((count as f64 - expected).abs() < bound, "{host}: {count}, expected {expected} ± {bound:.0}");
    }

    let metrics = node.metrics();
    assert_eq!(metrics.sum("smartlink_clicks_total"), clicks + 40);
    for (outcome, count) in
        [("offer", clicks), ("probe", 10), ("bot", 10), ("invalid", 10), ("unknown_link", 10)]
    {
        assert_eq!(metrics.clicks(outcome), count, "{outcome}");
    }
    for outcome in ["offer", "probe", "bot"] {
        assert_eq!(of_link_301(&metrics, outcome), metrics.clicks(outcome), "{outcome}");
    }
    assert_eq!(metrics.sum("smartlink_link_clicks_total"), clicks + 20, "link 301 and no other");
    for (host, offer, _) in OFFERS {
        let series = format!("smartlink_offer_clicks_total{{offer_id=\"{offer}\"}}");
        assert_eq!(metrics.value(&series), reached[host], "{host}");
    }
    assert_eq!(metrics.sum("smartlink_offer_clicks_total"), clicks);
    assert_eq!(metrics.sum("smartlink_geo_lookups_total"), clicks + 30, "one a click that was well-formed");
}

fn destinations_of(connection: &mut Connection, clicks: u64) -> HashMap<String, u64> {
    let mut reached = HashMap::new();
    let click = Request::click(CLICK).to_bytes();
    for _ in 0..clicks {
        *reached.entry(connection.ask_raw(&click).destination().to_owned()).or_default() += 1;
    }
    reached
}

fn of_link_301(metrics: &Metrics, outcome: &str) -> u64 {
    metrics.value(&format!("smartlink_link_clicks_total{{smart_link_id=\"301\",outcome=\"{outcome}\"}}"))
}

/// A click with these bytes as its first sub id, as they are.
fn raw_click(target: &str, sub: &[u8]) -> Vec<u8> {
    with_host(&[b"GET ", target.as_bytes(), b"&s1=", sub, b" HTTP/1.1"].concat())
}

/// A request line and the least head behind it.
fn with_host(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: go.example.com\r\n\r\n"].concat()
}

fn is_demo_offer(host: &str) -> bool {
    OFFERS.iter().any(|(offer, _, _)| *offer == host)
}

#[track_caller]
fn assert_is_one_sentence(answer: &Answer) {
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{answer:?}");
    assert_eq!(answer.header("location"), None, "{answer:?}");
    assert!(answer.body.ends_with(".\n") && !answer.body.contains(". "), "{answer:?}");
}
