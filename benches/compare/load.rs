//! The load: requests of a real browser, over all links, sent by wrk as fast as the answers come.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// How requests come.
#[derive(Clone, Copy)]
pub struct Shape {
    pub connections: u64,
    /// One connection per click.
    pub close: bool,
    /// Visitors come through a load balancer, which tells their addresses in `X-Forwarded-For`.
    pub forwarded: bool,
    pub tls: bool,
}

/// What wrk counted.
#[derive(Clone, Copy)]
pub struct Sent {
    pub requests: u64,
    pub seconds: f64,
}

impl Sent {
    pub fn a_second(self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

/// One request for every link, in an order that has nothing to do with theirs.
pub fn requests(links: u64, shape: Shape) -> Vec<String> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    (0..links)
        .map(|nth| {
            let link = 1 + nth * 7_919 % links;
            let mut head = format!(
                "GET /sl?id={link}&aff_id=7&s1=campaign-{} HTTP/1.1\r\nHost: go.example.com\r\n",
                link % 50
            );
            for (name, value) in BROWSER {
                write!(head, "{name}: {value}\r\n").expect("a string takes all");
            }
            if shape.forwarded {
                // Half of them from the networks that the demonstration database knows, half from anywhere.
                let [a, b, c, d] = random.random::<[u8; 4]>();
                let known = [[192, 0, 2], [198, 51, 100], [203, 0, 113]][a as usize % 3];
                let [a, b, c] = if nth % 2 == 0 { known } else { [1 + a % 9, b, c] };
                write!(head, "X-Forwarded-For: {a}.{b}.{c}.{d}\r\n").expect("a string takes all");
            }
            if shape.close {
                head += "Connection: close\r\n";
            }
            head + "\r\n"
        })
        .collect()
}

/// Writes wrk's script into that directory. Every request in it is ready to be sent, and the summary is for machines.
pub fn script(directory: &Path, name: &str, requests: &[String]) -> PathBuf {
    // Rust's escapes of ASCII are Lua's too.
    let list: String = requests.iter().map(|request| format!("{request:?},\n")).collect();
    let path = directory.join(format!("{name}.lua"));
    let text = format!(
        "local requests = {{\n{list}}}\n\
         local nth = 0\n\
         request = function()\n  nth = nth % #requests + 1\n  return requests[nth]\nend\n\
         done = function(summary)\n  local errors = summary.errors\n  io.write(string.format(\n    \
         \"\\nsummary %d %d %d %d %d %d %d\\n\", summary.requests, summary.duration,\n    \
         errors.connect, errors.read, errors.write, errors.status, errors.timeout))\nend\n"
    );
    std::fs::write(&path, text).expect("the directory takes files");
    path
}

/// Runs wrk, and insists that nothing failed.
pub fn wrk(
    address: SocketAddr,
    script: &Path,
    connections: u64,
    threads: u64,
    tls: bool,
    seconds: u64,
) -> Sent {
    let scheme = if tls { "https" } else { "http" };
    let output = Command::new("wrk")
        .arg(format!("-c{connections}"))
        .arg(format!("-t{threads}"))
        .arg(format!("-d{seconds}s"))
        // An answer that is late is late; that a server stops to answer shows in the count.
        .arg("--timeout=60s")
        .arg("-s")
        .arg(script)
        .arg(format!("{scheme}://{address}"))
        .output()
        .unwrap_or_else(|error| panic!("cannot run wrk ({error}): benches/compare/run installs it"));
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text.lines().find_map(|line| line.strip_prefix("summary "));
    let summary = summary.unwrap_or_else(|| {
        panic!("wrk did not end well: {text}{}", String::from_utf8_lossy(&output.stderr));
    });
    let numbers: Vec<u64> =
        summary.split(' ').map(|number| number.parse().expect("the script writes numbers")).collect();
    let [requests, micros, errors @ ..] = numbers.as_slice() else { panic!("too short: {summary}") };
    assert!(
        errors.iter().all(|&count| count == 0),
        "clicks failed: connect, read, write, status, timeout {errors:?}"
    );
    assert!(*requests > 0, "no click was answered");
    Sent { requests: *requests, seconds: *micros as f64 / 1e6 }
}

/// Chrome on Android, as in benches/click.rs.
const BROWSER: &[(&str, &str)] = &[
    (
        "User-Agent",
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
    ),
    ("sec-ch-ua", "\"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\""),
    ("sec-ch-ua-mobile", "?1"),
    ("sec-ch-ua-platform", "\"Android\""),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.9"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://news.example.org/article?page=2"),
    ("Upgrade-Insecure-Requests", "1"),
];

const SEED: u64 = 301;
