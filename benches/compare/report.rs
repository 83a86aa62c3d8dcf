//! What was measured, in words and tables.

use std::fmt::{Display, Formatter, Write as _};
use std::process::Command;

use crate::servers::{BARE, NGINX_FIXED, NGINX_SAME_JOB, SMARTLINK};
use crate::{CaseFound, Found, Round};

/// The median of some rounds, and the extremes.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (values.first(), values.last()) else {
            panic!("nothing was measured")
        };
        Self { median: values[values.len() / 2], least, most }
    }
}

impl Display for Spread {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let digits = formatter.precision().unwrap_or(2);
        write!(formatter, "{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.least, self.most)
    }
}

pub fn text(found: &Found, has_geo: bool) -> String {
    let mut text = String::new();
    write(&mut text, found, has_geo).expect("a string takes all");
    text
}

/// One case, as soon as it is measured.
pub fn case(found: &CaseFound) -> String {
    let mut text = String::new();
    table(&mut text, found).expect("a string takes all");
    text
}

fn write(text: &mut String, found: &Found, has_geo: bool) -> std::fmt::Result {
    writeln!(text, "# smartlink beside nginx and a bare epoll loop\n")?;
    writeln!(
        text,
        "Written by `benches/compare/run`. Everywhere: the median of the rounds, and in parentheses the least and the most.\n"
    )?;
    for (what, is) in machine() {
        writeln!(text, "- {what}: {is}")?;
    }
    let geo = if has_geo { "that of SMARTLINK_BENCH_GEO" } else { "the demonstration one" };
    writeln!(text, "- geo database, for smartlink and nginx: {geo}")?;
    writeln!(text, "\n## What we want\n")?;
    goals(text, found)?;
    writeln!(text, "\n## CPU time of the server for a click\n")?;
    writeln!(
        text,
        "Each server on one core with one thread, wrk with one thread on the other; {} rounds of {} s, by turns. Time is the kernel's \
         (`schedstat`, all threads of the process; of nginx the worker). A server that is less than all the time on its core \
         waited for the load, and is woken more often for it; or it stood in line, because something else on the machine had \
         the core: the more of that, the less the numbers are worth. Of the network's work, what comes in is done on the sender's core, \
         for all alike.\n",
        crate::ROUNDS,
        crate::ROUND_SECONDS
    )?;
    for case in &found.cases {
        table(text, case)?;
    }
    writeln!(
        text,
        "- TLS: the same certificate with an ECDSA key on P-256 for both servers, TLS 1.3 alone; wrk comes back with the ticket of its last connection, so that each click is a resumed session with a key exchange of its own, and without a signature. Each server chooses the cipher: ours AES-128-GCM, nginx by its defaults AES-256-GCM."
    )?;
    writeln!(
        text,
        "- {SMARTLINK}: release build, {} links of four entries (one of them a rule by country and sub id), click log, metrics, geo, all as by default.",
        crate::LINKS.links
    )?;
    writeln!(
        text,
        "- {NGINX_FIXED}: `return 302`, no access log. It is a redirect with a body, as nginx always sends."
    )?;
    writeln!(
        text,
        "- {NGINX_SAME_JOB}: address from X-Forwarded-For, geoip2, `map` on User-Agent, `split_clients`, `map` from link and entry to destination, click id, JSON access log (buffer of 64k). No rules, tiers, caps or metrics of links."
    )?;
    writeln!(text, "- {BARE}: in Rust; reads to the blank line and writes a fixed redirect.")?;
    let answers: Vec<_> = found.answers.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
    writeln!(text, "- Bytes of an answer: {}.", answers.join(", "))?;
    writeln!(
        text,
        "- All clicks were answered. Those of smartlink all reached an offer and were all written down (by its metrics), those of nginx's access log are all redirects, each as many as wrk counted."
    )?;
    latency(text, found)?;
    writeln!(text, "\n## Two threads\n")?;
    writeln!(
        text,
        "Keep-alive, 64 connections, server and load (two threads) on the same two cores: {:.0} clicks a second with two \
         threads, {:.0} with one: {:.2} times. The load takes about as much of the cores as the server does, and takes it from \
         both; what two threads give on cores of their own cannot be measured on a machine of two.",
        found.two_threads, found.one_thread, found.two_by_one
    )
}

fn goals(text: &mut String, found: &Found) -> std::fmt::Result {
    let [keep_alive, _, _, close, tls, direct] = found.cases.as_slice() else { panic!("a case is missing") };
    let rows: [(&str, Spread, f64); 10] = [
        ("CPU, keep-alive, 64: ours ÷ nginx fixed", ratio(keep_alive, NGINX_FIXED), 0.95),
        ("CPU, keep-alive, 64: ours ÷ nginx same job", ratio(keep_alive, NGINX_SAME_JOB), 0.55),
        ("CPU, keep-alive, 64: ours ÷ bare epoll", ratio(keep_alive, BARE), 1.45),
        ("CPU, one connection per click: ours ÷ nginx fixed", ratio(close, NGINX_FIXED), 1.0),
        ("CPU, TLS, one connection per click: ours ÷ nginx fixed", ratio(tls, NGINX_FIXED), 1.0),
        ("p99 at half of the peak: ours ÷ nginx fixed", found.latency.p99_by_nginx, 1.0),
        ("p99 while 100,000 links are published every second ÷ without", found.publishing.p99_by_quiet, 1.1),
        ("CPU, no X-Forwarded-For: ours ÷ nginx fixed", ratio(direct, NGINX_FIXED), 0.95),
        ("CPU, no X-Forwarded-For: ours ÷ nginx same job", ratio(direct, NGINX_SAME_JOB), 0.55),
        ("CPU, no X-Forwarded-For: ours ÷ bare epoll", ratio(direct, BARE), 1.45),
    ];
    writeln!(text, "| ratio, round by round | measured | wanted | |\n| --- | --- | --- | --- |")?;
    for (what, ratio, at_most) in rows {
        let verdict = if ratio.median <= at_most { "reached" } else { "**missed**" };
        writeln!(text, "| {what} | {ratio:.2} | ≤ {at_most:.2} | {verdict} |")?;
    }
    Ok(())
}

/// Ours by theirs, each round by the one beside it.
fn ratio(case: &CaseFound, theirs: &str) -> Spread {
    let rounds = |name: &str| {
        let server = case.servers.iter().find(|server| server.name == name);
        server.map(|server| server.rounds.as_slice()).expect("every case has every server")
    };
    Spread::of(rounds(SMARTLINK).iter().zip(rounds(theirs)).map(|(ours, theirs)| ours.cost / theirs.cost))
}

fn table(text: &mut String, found: &CaseFound) -> std::fmt::Result {
    writeln!(text, "### {}\n", found.case.name)?;
    writeln!(
        text,
        "| server | µs of CPU for a click | clicks a second | on its core | in line for it |\n| --- | --- | --- | --- | --- |"
    )?;
    for server in &found.servers {
        let spread = |of: fn(&Round) -> f64| Spread::of(server.rounds.iter().map(of));
        let busy = spread(|round| round.busy * 100.0).median;
        let in_line = spread(|round| round.in_line * 100.0).median;
        let (cost, rate) = (spread(|round| round.cost), spread(|round| round.clicks_a_second));
        writeln!(text, "| {} | {cost:.2} | {rate:.0} | {busy:.0} % | {in_line:.0} % |", server.name)?;
    }
    writeln!(text)
}

fn latency(text: &mut String, found: &Found) -> std::fmt::Result {
    let (latency, publishing) = (&found.latency, &found.publishing);
    writeln!(text, "\n## Waits at half of the peak\n")?;
    writeln!(
        text,
        "{:.0} clicks a second, half of the lower peak of the two, at random times and whether or not the ones before are \
         answered, over 64 connections; each wait counts from the moment at which the click was due. {} rounds of {} s, by turns. \
         Microseconds. Clicks that are not answered {} s after the end count with what they have waited until then; there \
         are such only where the machine was busy with something else.\n",
        latency.clicks_a_second,
        crate::LATENCY_ROUNDS,
        crate::LATENCY_ROUND.as_secs(),
        crate::pace::PATIENCE.as_secs()
    )?;
    writeln!(text, "| server | p50 | p99 | p99.9 |\n| --- | --- | --- | --- |")?;
    let of_many = format!("{SMARTLINK}, 100,000 links");
    let rows = [
        (SMARTLINK, &latency.smartlink),
        (NGINX_FIXED, &latency.nginx),
        (&of_many, &publishing.quiet),
        ("… while all of them are published again and again", &publishing.publishing),
    ];
    for (name, [p50, p99, p999]) in rows {
        writeln!(text, "| {name} | {p50:.0} | {p99:.0} | {p999:.0} |")?;
    }
    writeln!(
        text,
        "\nPublishing: every second, or as soon as the one before is done, one link is changed by a call of the embedded API \
         and `POST /refresh?force=true` has the whole network read over HTTP and compiled anew, at {:.0} clicks a second; API, \
         SQLite, compiler and clicks are in one process on one core. {:.1} tables a second were published.",
        publishing.clicks_a_second, publishing.tables_a_second
    )
}

fn machine() -> Vec<(&'static str, String)> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    vec![
        ("date", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        (
            "machine",
            format!("{} cores, {}", said("nproc", &["--all"]), model.trim_start_matches([' ', '\t', ':'])),
        ),
        ("kernel", said("uname", &["-sr"])),
        ("commit", said("git", &["describe", "--always", "--dirty"])),
        ("rustc", said("rustc", &["--version"])),
        ("nginx", said("nginx", &["-v"])),
        ("wrk", said("wrk", &["-v"])),
        ("load average at the end", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
    ]
}

/// The first line that a program says.
fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return "unknown".to_owned() };
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").to_owned()
}
