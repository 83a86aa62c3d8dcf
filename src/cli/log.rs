//! `smartlink log`: reads the click log, beside a node that writes to it or without one.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueHint};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::one_line::OneLine;
use super::report::{self, ReportArgs};
use crate::click_id::{ClickIdKeys, Contents, NodeIdentity, WorkerIndex};
use crate::clicklog::{Entry, read_lines, segments};
use crate::config::{CLICK_LOG, Flags, click_id_keys, click_log_directory};

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
    #[command(after_help = report::EXAMPLES)]
    Stats(Box<ReportArgs>),
}

/// What there is to read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Oldest first, in a directory.
    pub(super) segments: Vec<PathBuf>,
    /// What lies beside them, compressed.
    pub(super) packed: Vec<PathBuf>,
    pub(super) directories: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Files {
    /// Segments, directories of them, or a node's data directory; - is standard input [default: those of the node]
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
}

/// Reads, and prints what came of it.
pub fn run(args: &LogArgs) -> anyhow::Result<ExitCode> {
    let flags = Flags { config: args.config.clone(), data_dir: args.data_dir.clone(), ..Flags::default() };
    match &args.action {
        Action::Cat(files) => cat(&files.find(&flags)?),
        Action::Verify(files) => verify(&files.find(&flags)?, &flags),
        Action::Stats(report) => report.run(&flags),
    }
}

impl Found {
    /// Says what was left out.
    fn tell_packed(&self) {
        if let Some(first) = self.packed.first() {
            eprintln!(
                "smartlink: {} compressed files were left out, the first of them {}; unpack them first",
                self.packed.len(),
                OneLine(first.display())
            );
        }
    }
}

impl Files {
    /// The segments that are meant: those of directories by their first click, and files as they were named.
    pub(super) fn find(&self, flags: &Flags) -> anyhow::Result<Found> {
        let named =
            if self.paths.is_empty() { vec![click_log_directory(flags)?] } else { self.paths.clone() };
        let mut found = Found::default();
        for path in named {
            if path == Path::new("-") {
                found.segments.push(STDIN.into());
                continue;
            }
            let metadata = std::fs::metadata(&path);
            if !metadata.with_context(|| format!("cannot read the click log {}; is there a node that keeps one, and is this its --data-dir?", path.display()))?.is_dir() {
                found.segments.push(path);
                continue;
            }
            let list = |path: &Path| {
                let listed = segments(path).and_then(|segments| Ok((segments, packed(path)?)));
                listed.with_context(|| format!("cannot list {}", path.display()))
            };
            let (mut path, (mut segments, mut packed)) = (path.clone(), list(&path)?);
            let inner = path.join(CLICK_LOG);
            if segments.is_empty() && packed.is_empty() && inner.is_dir() {
                // It is a data directory.
                (segments, packed) = list(&inner)?;
                path = inner;
            }
            found.segments.extend(segments.into_iter().map(|segment| segment.path));
            found.packed.extend(packed);
            found.directories.push(path);
        }
        Ok(found)
    }
}

/// Files that somebody compressed, which nobody reads here.
fn packed(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let paths =
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let is_packed = |path: &PathBuf| {
        path.extension().is_some_and(|extension| PACKED.iter().any(|packed| extension == *packed))
    };
    let mut packed: Vec<PathBuf> = paths.into_iter().filter(is_packed).collect();
    packed.sort();
    Ok(packed)
}

fn cat(found: &Found) -> anyhow::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for path in &found.segments {
        let mut written = Ok(());
        read(path, "cat", |_, line| {
            written = out.write_all(line).and_then(|()| out.write_all(b"\n"));
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written?;
    }
    out.flush()?;
    found.tell_packed();
    Ok(if found.packed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAULTY) })
}

/// Sealing gives a segment another name; one that has gone meanwhile is not missed in silence.
fn read(
    path: &Path,
    action: &str,
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let mut packed = None;
    let read = read_lines(path, |number, line| {
        if number == 1 {
            packed = packing(line, action);
        }
        if packed.is_some() { ControlFlow::Break(()) } else { each(number, line) }
    });
    read.with_context(|| format!("cannot read {}", path.display()))?;
    packed.map_or(Ok(()), |why| bail!("{} {why}", OneLine(path.display())))
}

/// What is wrong with a file that is no text at all, by how it begins. Whoever gives it here had better hear that than of each of
/// its lines.
pub(super) fn packing(head: &[u8], action: &str) -> Option<String> {
    const KINDS: [(&[u8], &str, &str); 4] = [
        (b"\x1f\x8b", "gzip", "zcat"),
        (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
        (b"\xfd7zXZ\0", "xz", "xzcat"),
        (b"BZh", "bzip2", "bzcat"),
    ];
    let (_, kind, tool) = KINDS.iter().find(|(magic, ..)| head.starts_with(magic))?;
    Some(format!(
        "is compressed ({kind}), which is not read here; {tool} FILE | smartlink log {action} - reads it"
    ))
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

fn verify(found: &Found, flags: &Flags) -> anyhow::Result<ExitCode> {
    let files = &found.segments;
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
        read(path, "verify", |number, line| {
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
    found.tell_packed();
    Ok(if faults.count == 0 && found.packed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAULTY) })
}

/// What the click id of a line says, if the line says the same.
fn check(line: &[u8], keys: &ClickIdKeys) -> Result<Contents, String> {
    let entry = Entry::read(line).map_err(|why| why.to_string())?;
    let verified = keys.verify(entry.click_id.as_bytes());
    let (contents, _) = verified.map_err(|refused| format!("click_id is not genuine: {refused}"))?;
    let time = entry.at()?;
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

/// The exit code if lines are damaged, or files were left out.
const FAULTY: u8 = 1;

const FAULTS_SHOWN: u64 = 10;

/// A name that it has on every system with segments.
const STDIN: &str = "/dev/stdin";

const PACKED: [&str; 4] = ["gz", "zst", "xz", "bz2"];

pub const EXAMPLES: &str = "\
Reads what a node has written so far, while it writes. docs/click-log.md tells what is in a line.

Examples:
  smartlink log stats
  smartlink log stats --by link --json | jq '.by.link.rows[] | select(.clicks > 100)'
  smartlink log cat | jq -c 'select(.smart_link_id == 301)'
  smartlink log verify /backup/clicks";

const CAT_EXAMPLES: &str = "\
Examples:
  smartlink log cat | jq -r 'select(.country == \"US\") | .click_id'
  smartlink log cat smartlink-data/clicks/clicks-20261122T20*";

const VERIFY_EXAMPLES: &str = "\
A line is sound if it is whole, its click id was signed with a key of this network, its time, link, affiliate and offer are
those of the click id, and no line before it has the same click. The first faults are told by file and line. Exit code: 0 if
every line is sound, 1 if not or if compressed files were left out, 2 if that could not be found out.

Examples:
  smartlink log verify
  smartlink log verify --data-dir /var/lib/smartlink
  SMARTLINK_CLICK_ID_KEY_FILE=keys smartlink log verify /backup/clicks";
