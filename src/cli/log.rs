//! `smartlink log`: reads the click log, beside a node that writes to it or without one.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use serde_json::json;

use super::api::{number, print_table, text};
use super::one_line::OneLine;
use crate::click_id::{ClickIdKeys, Contents, NodeIdentity, WorkerIndex};
use crate::clicklog::{Entry, read_lines, segments};
use crate::config::{Flags, click_id_keys, click_log_directory};

/// What to read, and what of it.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    action: Action,
    /// Configuration file; only its data_dir, click_log.directory and edge.click_id_key_file are used
    #[arg(long, global = true, value_name = "FILE", env = "SMARTLINK_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The data directory of the node [default: ./smartlink-data]
    #[arg(long, global = true, value_name = "DIR", env = "SMARTLINK_DATA_DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Print the lines, oldest segment first.
    #[command(after_help = CAT_EXAMPLES)]
    Cat(Files),
    /// Look whether every line is whole, its click id genuine, and none there twice.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Files),
    /// Count clicks, and how many of them reached an offer.
    #[command(after_help = STATS_EXAMPLES)]
    Stats(Stats),
}

#[derive(Clone, Debug, Args)]
struct Files {
    /// Segments, or directories of them [default: those of the node]
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct Stats {
    #[command(flatten)]
    files: Files,
    /// A row for each
    #[arg(long, value_enum, default_value_t = By::Outcome)]
    by: By,
    /// Print JSON, one object a row
    #[arg(long)]
    json: bool,
}

/// What clicks are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Outcome,
    Link,
    Affiliate,
    Offer,
    Country,
    Device,
    /// In UTC
    Hour,
}

/// Reads, and prints what came of it.
pub fn run(args: &LogArgs) -> anyhow::Result<ExitCode> {
    let flags = Flags { config: args.config.clone(), data_dir: args.data_dir.clone(), ..Flags::default() };
    match &args.action {
        Action::Cat(files) => cat(&files.of(&flags)?),
        Action::Verify(files) => verify(&files.of(&flags)?, &flags),
        Action::Stats(stats) => stats.run(&stats.files.of(&flags)?),
    }
}

impl Files {
    /// The segments that are meant: those of directories by their first click, and files as they were named.
    fn of(&self, flags: &Flags) -> anyhow::Result<Vec<PathBuf>> {
        let named =
            if self.paths.is_empty() { vec![click_log_directory(flags)?] } else { self.paths.clone() };
        let mut files = Vec::new();
        for path in named {
            let metadata = std::fs::metadata(&path);
            if !metadata.with_context(|| format!("cannot read the click log {}; is there a node that keeps one, and is this its --data-dir?", path.display()))?.is_dir() {
                files.push(path);
                continue;
            }
            let found = segments(&path).with_context(|| format!("cannot list {}", path.display()))?;
            files.extend(found.into_iter().map(|segment| segment.path));
        }
        Ok(files)
    }
}

fn cat(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for path in files {
        let mut written = Ok(());
        read(path, |_, line| {
            written = out.write_all(line).and_then(|()| out.write_all(b"\n"));
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Sealing gives a segment another name; one that has gone meanwhile is not missed in silence.
fn read(path: &Path, each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> anyhow::Result<()> {
    read_lines(path, each).with_context(|| format!("cannot read {}", path.display()))
}

/// What is wrong with lines, the first of them in full.
#[derive(Default)]
struct Faults {
    count: u64,
}

impl Faults {
    fn add(&mut self, path: &Path, line: u64, problem: &str) {
        self.count += 1;
        if self.count <= FAULTS_SHOWN {
            eprintln!("smartlink: {}, line {line}: {}", path.display(), OneLine(problem));
        }
        if self.count == FAULTS_SHOWN + 1 {
            eprintln!("smartlink: … and more");
        }
    }
}

fn verify(files: &[PathBuf], flags: &Flags) -> anyhow::Result<ExitCode> {
    let kept = click_id_keys(flags)?.read()?;
    let Some(keys) = kept.map(|kept| kept.keys) else {
        bail!(
            "there is no key of click ids to verify them with; give --data-dir, the data directory of the node, or the file \
             of the keys in SMARTLINK_CLICK_ID_KEY_FILE"
        );
    };
    let bar = Progress::new(files);
    let (mut lines, mut faults, mut order) = (0_u64, Faults::default(), Order::default());
    for path in files {
        order.begin_segment();
        read(path, |number, line| {
            lines += 1;
            bar.read(line);
            match check(line, &keys) {
                Ok(contents) => {
                    if let Err(problem) = order.add(&contents) {
                        faults.add(path, number, problem);
                    }
                }
                Err(problem) => faults.add(path, number, &problem),
            }
            ControlFlow::Continue(())
        })?;
    }
    bar.finish();
    println!(
        "{lines} lines in {} files; {} of them damaged, forged or there twice",
        files.len(),
        faults.count
    );
    Ok(if faults.count == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAULTY) })
}

/// What the click id of a line says, if the line says the same.
fn check(line: &[u8], keys: &ClickIdKeys) -> Result<Contents, String> {
    let entry = Entry::read(line).map_err(|error| format!("this is no line of a click log: {error}"))?;
    let verified = keys.verify(entry.click_id.as_bytes());
    let (contents, _) = verified.map_err(|refused| format!("click_id is not genuine: {refused}"))?;
    let time = entry.time.parse::<Timestamp>().map_err(|error| format!("time is none: {error}"))?;
    let differs = |field: &str| Err(format!("{field} is another than its click_id says"));
    if time.as_millisecond() != contents.at.0 {
        differs("time")
    } else if entry.smart_link_id != contents.link.value() {
        differs("smart_link_id")
    } else if entry.affiliate_id != contents.affiliate.value() {
        differs("affiliate_id")
    } else if entry.offer_id != contents.offer.map(|offer| offer.value()) {
        differs("offer_id")
    } else {
        Ok(contents)
    }
}

/// Notices a click that is there twice, without remembering each: a thread writes its clicks in the order of their
/// sequences, so that it is enough to know the first and the last of each segment.
#[derive(Default)]
struct Order {
    /// By node and thread: the sequences of the segments before, none over another.
    before: HashMap<Thread, BTreeMap<u32, u32>>,
    /// Of this segment.
    now: HashMap<Thread, (u32, u32)>,
}

type Thread = (NodeIdentity, WorkerIndex);

impl Order {
    fn begin_segment(&mut self) {
        for (thread, (first, last)) in self.now.drain() {
            self.before.entry(thread).or_default().insert(first, last);
        }
    }

    fn add(&mut self, contents: &Contents) -> Result<(), &'static str> {
        const TWICE: &str = "this click, or one that came after it, is there already";
        let (thread, sequence) = ((contents.node, contents.worker), contents.sequence);
        let is_in_one_before = self.before.get(&thread).is_some_and(|spans| {
            spans.range(..=sequence).next_back().is_some_and(|(_, last)| *last >= sequence)
        });
        if is_in_one_before {
            return Err(TWICE);
        }
        match self.now.entry(thread) {
            Vacant(first) => drop(first.insert((sequence, sequence))),
            Occupied(mut span) => {
                let (_, last) = span.get_mut();
                if sequence <= *last {
                    return Err(TWICE);
                }
                *last = sequence;
            }
        }
        Ok(())
    }
}

/// What was counted under one name.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Of persons: neither probes nor bots.
    clicks: u64,
    /// Of these, the ones that reached an offer.
    filled: u64,
    probes: u64,
    bots: u64,
}

impl Stats {
    fn run(&self, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
        let bar = Progress::new(files);
        let (mut tallies, mut faults) = (HashMap::<String, Tally>::new(), Faults::default());
        for path in files {
            read(path, |number, line| {
                bar.read(line);
                match Entry::read(line) {
                    Ok(entry) => self.count(&entry, &mut tallies),
                    Err(error) => {
                        faults.add(
                            path,
                            number,
                            &format!("this is no line of a click log: {error}; it is not counted"),
                        );
                    }
                }
                ControlFlow::Continue(())
            })?;
        }
        bar.finish();
        let mut rows: Vec<(String, Tally)> = tallies.into_iter().collect();
        // The most first; hours as they come.
        rows.sort_by(|(one, of_one), (other, of_other)| match self.by {
            By::Hour => one.cmp(other),
            _ => of_other.clicks.cmp(&of_one.clicks).then_with(|| one.cmp(other)),
        });
        self.print(rows)?;
        Ok(if faults.count == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAULTY) })
    }

    fn count(&self, entry: &Entry<'_>, tallies: &mut HashMap<String, Tally>) {
        let mut number = itoa::Buffer::new();
        let name: &str = match self.by {
            By::Outcome => entry.outcome,
            By::Link => number.format(entry.smart_link_id),
            By::Affiliate => number.format(entry.affiliate_id),
            By::Offer => entry.offer_id.map_or(NONE, |id| number.format(id)),
            By::Country => entry.country.unwrap_or(NONE),
            By::Device => entry.device,
            // `2026-11-22T20`.
            By::Hour => entry.time.get(..13).unwrap_or(entry.time),
        };
        if !tallies.contains_key(name) {
            tallies.insert(name.to_owned(), Tally::default());
        }
        let Some(tally) = tallies.get_mut(name) else { return };
        match (entry.probe, entry.bot) {
            (true, _) => tally.probes += 1,
            (false, true) => tally.bots += 1,
            (false, false) => {
                tally.clicks += 1;
                tally.filled += u64::from(entry.outcome == OFFER);
            }
        }
    }

    fn print(&self, rows: Vec<(String, Tally)>) -> anyhow::Result<()> {
        let name = self.by.heading();
        if self.json {
            for (of, Tally { clicks, filled, probes, bots }) in rows {
                println!(
                    "{}",
                    json!({name: of, "clicks": clicks, "offers": filled, "probes": probes, "bots": bots})
                );
            }
            return Ok(());
        }
        let total = rows.iter().fold(Tally::default(), |total, (_, tally)| total.with(tally));
        let mut shown = rows;
        if shown.len() > 1 {
            shown.push(("all".to_owned(), total));
        }
        let columns = [
            text(name),
            number("clicks"),
            number("share"),
            number("offers"),
            number("fill rate"),
            number("probes"),
            number("bots"),
        ];
        print_table(&columns, &shown, |(name, tally), column| match column {
            "clicks" => tally.clicks.to_string(),
            "share" => percent(tally.clicks, total.clicks),
            "offers" => tally.filled.to_string(),
            "fill rate" => percent(tally.filled, tally.clicks),
            "probes" => tally.probes.to_string(),
            "bots" => tally.bots.to_string(),
            _ => name.clone(),
        })
    }
}

impl By {
    const fn heading(self) -> &'static str {
        match self {
            By::Outcome => "outcome",
            By::Link => "smart_link_id",
            By::Affiliate => "affiliate_id",
            By::Offer => "offer_id",
            By::Country => "country",
            By::Device => "device",
            By::Hour => "hour",
        }
    }
}

impl Tally {
    fn with(self, other: &Tally) -> Self {
        Self {
            clicks: self.clicks + other.clicks,
            filled: self.filled + other.filled,
            probes: self.probes + other.probes,
            bots: self.bots + other.bots,
        }
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// How far the reading is; hidden where nobody looks.
struct Progress(ProgressBar);

impl Progress {
    fn new(files: &[PathBuf]) -> Self {
        // Of a live segment, the zeros as well: the bar ends early.
        let bytes =
            files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes} ({bytes_per_sec}, {eta} left)");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    fn read(&self, line: &[u8]) {
        self.0.inc(line.len() as u64 + 1);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// The outcome of a click that reached one.
const OFFER: &str = "offer";

/// The name of what a line says nothing about.
const NONE: &str = "none";

/// The exit code if lines are damaged.
const FAULTY: u8 = 1;

const FAULTS_SHOWN: u64 = 10;

pub const EXAMPLES: &str = "\
Reads what a node has written so far, while it writes. docs/click-log.md tells what is in a line.

Examples:
  smartlink log stats
  smartlink log stats --by link --json | jq -r 'select(.clicks > 100)'
  smartlink log cat | jq -c 'select(.smart_link_id == 301)'
  smartlink log verify /backup/clicks";

const CAT_EXAMPLES: &str = "\
Examples:
  smartlink log cat | jq -r 'select(.country == \"US\") | .click_id'
  smartlink log cat smartlink-data/clicks/clicks-20261122T20*";

const VERIFY_EXAMPLES: &str = "\
A line is sound if it is whole, its click id was signed with a key of this network, its time, link, affiliate and offer are
those of the click id, and no line before it has the same click. The first faults are told by file and line. Exit code: 0 if
every line is sound, 1 if not, 2 if that could not be found out.

Examples:
  smartlink log verify
  smartlink log verify --data-dir /var/lib/smartlink
  SMARTLINK_CLICK_ID_KEY_FILE=keys smartlink log verify /backup/clicks";

const STATS_EXAMPLES: &str = "\
Clicks are those of persons: probes and bots have columns of their own and are in no fill rate. Lines that cannot be read are
told and not counted; the exit code is 1 then.

Examples:
  smartlink log stats
  smartlink log stats --by hour
  smartlink log stats --by offer --json smartlink-data/clicks/clicks-20261122T*";
