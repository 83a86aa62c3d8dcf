//! What goes over the wire, byte by byte: `http_vectors.tsv` says for each input which answers come, whether the connection ends
//! after them, and so that there is never one more: no second request is read out of the body or the headers of the first.
//!
//! Each input is sent in one piece, byte by byte, and cut at random, on connections that our own loop reads first and on some
//! that hyper has read from the beginning: the answers are the same. After each of them, a click on a new connection is answered.

mod support;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use support::http::{Answer, Request};
use support::node::{Node, Setup};
use support::wait::DEADLINE;

/// A line of the table.
#[derive(Debug)]
struct Vector {
    name: String,
    statuses: Vec<u16>,
    ends: Ends,
    bytes: Vec<u8>,
}

/// What becomes of the connection behind the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// The last answer says so, and it is closed.
    Closes,
    /// It is closed without a word: there is no answer that whoever began like this would read.
    Silently,
    /// A further click is answered on it.
    GoesOn,
}

#[test]
fn every_vector_is_answered_as_the_table_says_however_it_is_cut() {
    let vectors = vectors();
    assert!(vectors.len() >= 150, "{}", vectors.len());
    // What is refused by the address is not what is looked for.
    let node = Setup::demo().flag("--threads").flag("2").start_ready();
    let seed = seed();
    let (next, wrong) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(vector) = vectors.get(next.fetch_add(1, Relaxed)) {
                    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ vector.bytes.len() as u64);
                    if let Err(why) = check(&node, vector, &mut random) {
                        wrong.lock().unwrap().push(format!("{}: {why}", vector.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
    println!("{} vectors", vectors.len());
}

/// In every way in which it can be sent.
fn check(node: &Node, vector: &Vector, random: &mut Xoshiro256PlusPlus) -> Result<(), String> {
    let length = vector.bytes.len();
    let mut ways = vec![("in one piece", vec![])];
    // Byte by byte is what the others are; of what is long, each byte near its ends.
    if length <= BYTE_BY_BYTE_MAX {
        ways.push(("byte by byte", (1..length).collect()));
    }
    let mut cuts: Vec<usize> =
        (0..random.random_range(1..8)).map(|_| random.random_range(1..length)).collect();
    cuts.sort_unstable();
    cuts.dedup();
    ways.push(("cut at random", cuts));
    // hyper knows the preface of HTTP/2 where all of it is there at once, and answers 400 to the beginning of one.
    if vector.ends == Ends::Silently {
        ways.truncate(1);
    }
    for by_hyper in [false, true] {
        for (way, cuts) in &ways {
            let said = converse(node, vector, cuts, by_hyper);
            said.map_err(|why| format!("{way} {cuts:?}, by hyper {by_hyper}: {why}"))?;
        }
    }
    let answer = node.click(CLICK);
    if answer.status != 302 {
        return Err(format!("the click after it: {answer:?}"));
    }
    Ok(())
}

/// Sends it, and reads all that comes.
fn converse(node: &Node, vector: &Vector, cuts: &[usize], by_hyper: bool) -> Result<(), String> {
    let mut stream = TcpStream::connect(node.clicks).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut statuses = vector.statuses.clone();
    let mut bytes = Vec::new();
    if by_hyper {
        // To announce a length, be it 0, is not plain.
        statuses.insert(0, 302);
        bytes.extend_from_slice(&Request::click(CLICK).with("Content-Length", "0").to_bytes());
    }
    let behind_the_first = bytes.len();
    bytes.extend_from_slice(&vector.bytes);
    if vector.ends == Ends::GoesOn {
        statuses.push(302);
        bytes.extend_from_slice(
            &Request::click(&format!("{CLICK}&s1=sentinel")).with("Connection", "close").to_bytes(),
        );
    }
    let mut begin = 0;
    let cuts = cuts.iter().map(|cut| cut + behind_the_first).filter(|&cut| cut < bytes.len());
    for cut in cuts.chain([bytes.len()]).collect::<Vec<_>>() {
        // Who was refused is not listened to any more; that is told by the answers.
        if stream.write_all(&bytes[begin..cut]).is_err() {
            break;
        }
        begin = cut;
    }
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Ok(_) => {}
        // It was closed before all was read, as it may be when it was refused.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => return Err(format!("{error} after {}", escaped(&got))),
    }
    let _ = stream.shutdown(Shutdown::Both);
    let (mut rest, mut answers) = (got.as_slice(), Vec::new());
    while !rest.is_empty() {
        let nth = answers.len();
        let is_head = vector.bytes.starts_with(b"HEAD ") && nth == usize::from(by_hyper);
        let (answer, length) =
            Answer::parse(rest, is_head).ok_or_else(|| format!("no whole answer: {}", escaped(rest)))?;
        rest = &rest[length..];
        answers.push(answer);
    }
    let came: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    if came != statuses {
        return Err(format!("{came:?} came, and not {statuses:?}: {}", escaped(&got)));
    }
    if vector.ends == Ends::GoesOn
        && !answers.last().is_some_and(|answer| answer.location().contains("sentinel"))
    {
        return Err(format!("the last answer is another's: {}", escaped(&got)));
    }
    let last = answers.last();
    if vector.ends == Ends::Closes
        && !last.is_some_and(|last| last.is_last() || last.status_line.starts_with("HTTP/1.0"))
    {
        return Err(format!("the last answer does not say so: {}", escaped(&got)));
    }
    Ok(())
}

/// Tab-separated: name, statuses, what becomes of the connection, and the bytes with escapes, in which `{GOOD}` is a click that
/// would be answered, and `{a*100}` an `a` a hundred times.
fn vectors() -> Vec<Vector> {
    let mut names = HashSet::new();
    let lines = include_str!("http_vectors.tsv").lines();
    let vectors = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let [name, statuses, ends, bytes] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert!(names.insert(name), "{name} is there twice");
        let statuses = statuses.split(' ').filter(|status| *status != "-");
        let ends = match ends {
            "closes" => Ends::Closes,
            "silently" => Ends::Silently,
            "goes on" => Ends::GoesOn,
            other => panic!("{other} in {line}"),
        };
        Vector {
            name: name.to_owned(),
            statuses: statuses.map(|status| status.parse().unwrap()).collect(),
            ends,
            bytes: unescaped(bytes),
        }
    });
    vectors.collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let escaped = rest.as_bytes().get(1).copied();
        let used = match (first, escaped) {
            ('\\', Some(b'x')) => {
                bytes.push(u8::from_str_radix(&rest[2..4], 16).unwrap());
                4
            }
            ('\\', Some(byte)) => {
                bytes.push(match byte {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    b'\\' | b'{' => byte,
                    _ => panic!("\\{} in {text}", byte as char),
                });
                2
            }
            ('{', _) => {
                let end = rest.find('}').unwrap_or_else(|| panic!("{text}"));
                match &rest[1..end] {
                    "GOOD" => {
                        bytes.extend_from_slice(&Request::click(&format!("{CLICK}&s1=good")).to_bytes())
                    }
                    "SL" => bytes.extend_from_slice(CLICK.as_bytes()),
                    "HOST" => bytes.extend_from_slice(b"Host: go.example.com\r\n"),
                    repeated => {
                        let (what, times) = repeated.rsplit_once('*').unwrap_or_else(|| panic!("{text}"));
                        bytes.extend_from_slice(&unescaped(what).repeat(times.parse().unwrap()));
                    }
                }
                end + 1
            }
            _ => {
                bytes.extend_from_slice(&rest.as_bytes()[..first.len_utf8()]);
                first.len_utf8()
            }
        };
        rest = &rest[used..];
    }
    bytes
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().take(1_000).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{}", byte as char);
        text
    })
}

fn seed() -> u64 {
    let seed = match std::env::var("SMARTLINK_TEST_SEED") {
        Ok(seed) => seed.parse().expect("SMARTLINK_TEST_SEED is a number"),
        Err(_) => 301,
    };
    println!("SMARTLINK_TEST_SEED={seed}");
    seed
}

const CLICK: &str = "/sl?id=301&aff_id=67890";

/// Each of them is a system call, and a look at the whole head so far.
const BYTE_BY_BYTE_MAX: usize = 600;
