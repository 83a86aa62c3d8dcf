//! Requests that somebody has damaged: good and bad ones, mutated at random, pipelined, cut, half-closed and reset, over many
//! connections. Nothing panics, nothing hangs, whatever comes back is whole answers, and good clicks that come before them on
//! the same connection or beside them on others are answered rightly, in their order.
//!
//! What exactly has to come of which bytes is what tests/http_vectors.rs looks at. `CHAOS_REQUESTS` says how many there are.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use socket2::SockRef;

use crate::run::{Run, lengths, millis, number, of_this_build};
use crate::support::http::{Answer, Request};
use crate::support::node::{Node, Setup};
use crate::support::wait::{self, DEADLINE};

#[test]
fn damaged_requests_cost_nobody_else_an_answer() {
    let mut run = Run::begin("mutants");
    let wanted = number("CHAOS_REQUESTS").unwrap_or(lengths(20_000, 200_000, 1_000_000));
    let node = of_this_build(Setup::demo())
        .setting("edge.threads = 2")
        .setting("click_log.keep_bytes = 268435456")
        .start_ready();
    let told = Told { seed: run.random.random(), ..Told::default() };
    let (begun, is_over) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        let beside = scope.spawn(|| good_clicks(&node, &is_over));
        let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(|| told.send_until(&node, wanted))).collect();
        let ended: Vec<_> = senders.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Relaxed);
        for ended in ended {
            ended.unwrap();
        }
        told.beside.store(beside.join().unwrap(), Relaxed);
    });
    // All are closed, and so all tasks are gone.
    wait::until_equal("connections_active", 0, || node.metrics().value("smartlink_connections_active"));
    let (wrong, took) = (told.wrong.into_inner().unwrap(), begun.elapsed());
    let panics = node.log().lines().filter(|line| line.contains("panicked")).count();
    run.tell(&[
        ("mutants", &told.mutants.load(Relaxed)),
        ("connections", &told.connections.load(Relaxed)),
        ("reset_by_the_client", &told.resets.load(Relaxed)),
        ("answers", &told.answers.load(Relaxed)),
        ("refusals", &told.refusals.load(Relaxed)),
        ("good_before", &told.good.load(Relaxed)),
        ("good_beside", &told.beside.load(Relaxed)),
        ("panics", &panics),
        ("wrong", &wrong.len()),
        ("longest_connection", &millis(Some(Duration::from_micros(told.longest_micros.load(Relaxed))))),
        ("a_second", &format!("{:.0}", told.mutants.load(Relaxed) as f64 / took.as_secs_f64())),
    ]);
    assert_eq!(panics, 0, "{}", node.log());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(node.click(CLICK).status, 302);
    // What was mutated was not damaged beyond recognition, nor left as it was.
    let (answers, refusals) = (told.answers.load(Relaxed), told.refusals.load(Relaxed));
    assert!(refusals > wanted / 50 && answers - refusals > wanted / 50, "{answers}, {refusals}");
}

/// What all senders have sent and seen.
#[derive(Default)]
struct Told {
    seed: u64,
    connections: AtomicU64,
    mutants: AtomicU64,
    resets: AtomicU64,
    answers: AtomicU64,
    refusals: AtomicU64,
    good: AtomicU64,
    beside: AtomicU64,
    longest_micros: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Told {
    fn send_until(&self, node: &Node, wanted: u64) {
        while self.mutants.load(Relaxed) < wanted {
            let nth = self.connections.fetch_add(1, Relaxed);
            // Of its own, so that what is drawn for it does not depend on who sends it.
            let random = Xoshiro256PlusPlus::seed_from_u64(self.seed.wrapping_add(nth));
            let begun = Instant::now();
            if let Err(why) = self.converse(node, nth, random) {
                let mut wrong = self.wrong.lock().unwrap();
                if wrong.len() < WRONG_SHOWN {
                    wrong.push(format!("connection {nth}: {why}"));
                }
            }
            self.longest_micros.fetch_max(begun.elapsed().as_micros() as u64, Relaxed);
        }
    }

    fn converse(&self, node: &Node, nth: u64, mut random: Xoshiro256PlusPlus) -> Result<(), String> {
        let good = random.random_range(0..4);
        let mut bytes = Vec::new();
        for number in 0..good {
            bytes.extend_from_slice(&Request::click(&format!("{CLICK}&s1=good-{nth}-{number}")).to_bytes());
        }
        // Behind one that is refused, no other is read.
        let mutants = random.random_range(1..=4);
        for _ in 0..mutants {
            bytes.extend_from_slice(&mutant(&mut random));
        }
        self.mutants.fetch_add(mutants, Relaxed);
        let is_reset = random.random_range(0..8) == 0;
        if is_reset {
            bytes.truncate(random.random_range(0..=bytes.len()));
        }
        let mut stream = TcpStream::connect(node.clicks).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let mut begin = 0;
        while begin < bytes.len() {
            let end = match random.random_range(0..4) {
                0 => bytes.len(),
                1 => begin + 1,
                _ => random.random_range(begin + 1..=bytes.len()),
            };
            // Who was refused is not listened to any more.
            if stream.write_all(&bytes[begin..end]).is_err() {
                break;
            }
            begin = end;
        }
        if is_reset {
            self.resets.fetch_add(1, Relaxed);
            // With the answers that nobody has read.
            return SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .map_err(|error| error.to_string());
        }
        let _ = stream.shutdown(Shutdown::Write);
        let mut got = Vec::new();
        match stream.read_to_end(&mut got) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => {
                return Err(format!("it hangs: {error}, after {} for {}", text(&got), text(&bytes)));
            }
        }
        let answers = answers(&got).ok_or_else(|| format!("{} came for {}", text(&got), text(&bytes)))?;
        self.answers.fetch_add(answers.len() as u64, Relaxed);
        let refused = answers.iter().filter(|answer| answer.status >= 400).count();
        self.refusals.fetch_add(refused as u64, Relaxed);
        for number in 0..good {
            let is_its_own = |answer: &&Answer| {
                answer.status == 302 && answer.location().contains(&format!("?sub=good-{nth}-{number}&"))
            };
            if answers.get(number).filter(is_its_own).is_none() {
                return Err(format!("good {number}: {} came for {}", text(&got), text(&bytes)));
            }
        }
        self.good.fetch_add(good as u64, Relaxed);
        if let Some(other) = answers.iter().find(|answer| !STATUSES.contains(&answer.status)) {
            return Err(format!("{} for {}", other.status_line, text(&bytes)));
        }
        Ok(())
    }
}

/// Beside all that, each on a connection that was opened for it. Answers how many they were.
fn good_clicks(node: &Node, is_over: &AtomicBool) -> u64 {
    for nth in 0.. {
        if is_over.load(Relaxed) {
            return nth;
        }
        let answer = node.click(&format!("{CLICK}&s1=beside-{nth}"));
        assert!(answer.location().contains(&format!("?sub=beside-{nth}&")), "{answer:?}");
    }
    unreachable!("it is over some time")
}

/// A request, mutated up to five times.
fn mutant(random: &mut Xoshiro256PlusPlus) -> Vec<u8> {
    let mut bytes = seed(random).to_vec();
    for _ in 0..random.random_range(1..=5) {
        mutate(&mut bytes, random);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Xoshiro256PlusPlus) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    let at = random.random_range(0..length);
    let range = at..random.random_range(at..=length.min(at + 40));
    match random.random_range(0..12) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.next_u32() as u8,
        2 | 3 => {
            let piece = PIECES[random.random_range(0..PIECES.len())];
            bytes.splice(at..at, piece.iter().copied());
        }
        4 => drop(bytes.drain(range)),
        5 => {
            let again = bytes[range].to_vec();
            bytes.splice(at..at, again);
        }
        6 => bytes.truncate(at),
        7 => {
            let byte = bytes[at];
            let most = if random.random_range(0..50) == 0 { 20_000 } else { 100 };
            let times = random.random_range(1..=most);
            bytes.splice(at..at, std::iter::repeat_n(byte, times));
        }
        8 => {
            let other = seed(random);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.random_range(0..other.len())..]);
        }
        9 => bytes[range].make_ascii_uppercase(),
        // A line in another's place, or twice.
        10 => {
            let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
            let line = lines[random.random_range(0..lines.len())].to_vec();
            bytes.splice(at..at, line);
        }
        _ => {
            if let Some(digit) = bytes.iter().skip(at).position(u8::is_ascii_digit) {
                let number: &[u8] = match random.random_range(0..5) {
                    0 => b"0",
                    1 => b"-1",
                    2 => b"18446744073709551616",
                    3 => b"4294967295",
                    _ => b"0x10",
                };
                bytes.splice(at + digit..=at + digit, number.iter().copied());
            }
        }
    }
}

fn seed(random: &mut Xoshiro256PlusPlus) -> &'static [u8] {
    SEEDS[random.random_range(0..SEEDS.len())].as_bytes()
}

/// Whole answers, one behind the other. Which methods were asked for, a mutant does not say: an answer behind which another one
/// begins where its body should be was to HEAD.
fn answers(mut bytes: &[u8]) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
        if bytes.starts_with(b"HTTP/1.1 100 Continue\r\n") {
            bytes = &bytes[head..];
            continue;
        }
        let behind = &bytes[head..];
        let is_to_head = behind.is_empty() || behind.starts_with(b"HTTP/1.");
        let (answer, length) = Answer::parse(bytes, is_to_head)?;
        bytes = &bytes[length..];
        answers.push(answer);
    }
    Some(answers)
}

fn text(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes[..bytes.len().min(6_000)].escape_ascii())
}

const CLICK: &str = "/sl?id=301&aff_id=67890";

const SENDERS: usize = 8;

const WRONG_SHOWN: usize = 5;

/// Each of them is meant; no 500.
const STATUSES: [u16; 10] = [200, 302, 400, 404, 405, 408, 413, 414, 415, 431];

const SEEDS: [&str; 14] = [
    "GET /sl?id=301&aff_id=67890 HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
    "GET /sl/301?aff_id=67890&s1=a%20b&s2=%C3%A9 HTTP/1.1\r\nHost: go.example.com:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept-Language: de,en;q=0.5\r\nReferer: https://a.example/b\r\nCookie: a=b; c=d\r\nConnection: keep-alive\r\n\r\n",
    "HEAD /sl?id=301&aff_id=67890 HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
    "GET /sl?id=301&aff_id=67890 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET http://go.example.com/sl?id=301&aff_id=67890 HTTP/1.1\r\nHost: go.example.com\r\n\r\n",
    "GET /sl?id=301&aff_id=67890&s1=<\u{e9}> HTTP/1.1\r\nHost: [::1]\r\nX-Forwarded-For: 192.0.2.1, 198.51.100.7\r\n\r\n",
    "POST /api/2/conversion.json HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"click_id\":\"a\"}",
    "POST /api/2/conversion.json HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\na\r\nclick_id=a\r\n2;x=y\r\n&a\r\n0\r\nX: y\r\n\r\n",
    "GET /p.ashx?o=1042&r=abc&f=img HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /sl?id=301&aff_id=67890 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "GET /sl HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    "GET /sl?id=301&aff_id=67890 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\nSec-Purpose: prefetch\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\u{c}\u{4}\0\0\0\0\0\0\u{3}\0\0\0d\0\u{4}\0\0\u{ff}\u{ff}",
];

const PIECES: [&[u8]; 32] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b"%",
    b"%00",
    b"%0d%0a",
    b"#",
    b"?",
    b"&",
    b"&id=1",
    b"/../",
    b"\xff",
    b"\xc3\xa9",
    b"GET ",
    b" HTTP/1.1",
    b" HTTP/1.0\r\n",
    b"\r\nHost: b",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 0",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding : chunked",
    b"\r\n folded",
    b"\r\nConnection: close",
    b"\r\nExpect: 100-continue",
    b"\r\nUpgrade: websocket",
    b"0\r\n\r\n",
];
