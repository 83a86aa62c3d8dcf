//! Reads files of lines on every core, and counts.
//!
//! One thread at a time takes the next chunk of whole lines from the files, in their order; each looks at its own. What a line
//! cannot be read for is told with its place, whatever thread met it: the first few by name, the others by number.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::click::{Click, Filter};
use super::tally::{Admission, By, Groups, Tally};
use crate::cli::log::packing;
use crate::cli::one_line::OneLine;
use crate::clicklog::{Chunk, SegmentReader};

/// What came of reading.
#[derive(Debug, Default)]
pub struct Counted {
    /// That were read at least in part.
    pub files: u64,
    pub bytes: u64,
    pub lines: u64,
    /// Lines that a filter left out.
    pub left_out: u64,
    /// Milliseconds of the first and of the last click that was counted.
    pub period: Option<(i64, i64)>,
    pub all: Tally,
    /// By each of what was asked for.
    pub groups: Vec<Group>,
    pub damage: Damage,
}

/// Clicks by one kind of name.
#[derive(Debug)]
pub struct Group {
    pub by: By,
    pub rows: Vec<(u32, Tally)>,
    /// What is in none of them.
    pub other: Tally,
}

/// What was not counted though it should have been.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    pub lines: u64,
    /// Files that could not be read, or not to their end.
    pub files: u64,
    /// The first of both, files before lines.
    pub named: Vec<Named>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub path: PathBuf,
    /// `None`: the whole file.
    pub place: Option<Place>,
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: u64,
    /// Where the line begins, from 0.
    pub byte: u64,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, why) = (OneLine(self.path.display()), OneLine(&self.why));
        match self.place {
            Some(Place { line, byte }) => write!(f, "line {line} (byte {byte}) of {path}: {why}"),
            None => write!(f, "file {path}: {why}"),
        }
    }
}

/// Counts all lines of these files that the filter takes. `told` hears of bytes that have been read.
pub fn count(
    paths: Vec<PathBuf>,
    by: &[By],
    filter: &Filter,
    threads: usize,
    told: impl Fn(u64) + Sync,
) -> Counted {
    let files = Mutex::new(Files::new(paths));
    let admissions: Vec<Admission> = by.iter().map(|_| Admission::new()).collect();
    let reader = || {
        let mut reader = Reader::new(by, &admissions, filter);
        let mut chunk = Chunk::default();
        loop {
            let next = files.lock().unwrap_or_else(PoisonError::into_inner).next(&mut chunk);
            let Some(of) = next else { return reader };
            told(chunk.bytes.len() as u64);
            reader.read(of, &chunk);
        }
    };
    let whole = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(reader)).collect();
        let mut whole = reader();
        for other in others {
            // A panic of one is a panic of all.
            whole.merge(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        whole
    });
    whole.finish(files.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The files, and how far they have been read.
struct Files {
    waiting: VecDeque<PathBuf>,
    opened: Vec<PathBuf>,
    open: Option<SegmentReader>,
    chunks: u32,
    /// A file that is named twice, and a segment that was renamed while the directory was listed, are read once.
    seen: HashSet<(u64, u64)>,
    files: u64,
    bytes: u64,
    unread: u64,
    named: Vec<Named>,
}

/// Which part of which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ChunkOf {
    file: u32,
    chunk: u32,
}

impl Files {
    fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            waiting: paths.into(),
            opened: Vec::new(),
            open: None,
            chunks: 0,
            seen: HashSet::new(),
            files: 0,
            bytes: 0,
            unread: 0,
            named: Vec::new(),
        }
    }

    fn next(&mut self, chunk: &mut Chunk) -> Option<ChunkOf> {
        loop {
            if self.open.is_none() {
                let path = self.waiting.pop_front()?;
                self.open(path);
            }
            let Some(segment) = &mut self.open else { continue };
            let problem = match segment.next_chunk(chunk) {
                Ok(true) if chunk.offset == 0 => packing(&chunk.bytes, "stats"),
                Ok(true) => None,
                Ok(false) => {
                    self.open = None;
                    continue;
                }
                Err(error) => Some(format!("cannot be read further: {error}")),
            };
            if let Some(why) = problem {
                self.open = None;
                self.name(why);
                continue;
            }
            if chunk.offset == 0 {
                self.files += 1;
            }
            self.bytes += chunk.bytes.len() as u64;
            self.chunks += 1;
            return Some(ChunkOf { file: self.opened.len() as u32 - 1, chunk: self.chunks - 1 });
        }
    }

    fn open(&mut self, path: PathBuf) {
        let segment = SegmentReader::open(&path);
        self.opened.push(path);
        self.chunks = 0;
        match segment {
            Ok(segment) if self.seen.insert(segment.identity) => self.open = Some(segment),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.name("was deleted before it was read".to_owned());
            }
            Err(error) => self.name(format!("cannot be read: {error}")),
        }
    }

    /// The file that was opened last is not read.
    fn name(&mut self, why: String) {
        self.unread += 1;
        if self.named.len() < NAMED_MAX {
            let path = self.opened.last().cloned().unwrap_or_default();
            self.named.push(Named { path, place: None, why });
        }
    }
}

/// One thread's part.
struct Reader<'a> {
    filter: &'a Filter,
    groups: Vec<Groups<'a>>,
    by: &'a [By],
    all: Tally,
    left_out: u64,
    period: Option<(i64, i64)>,
    /// How many lines each chunk has, so that lines can be numbered.
    lines: Vec<(ChunkOf, u32)>,
    damaged: u64,
    /// The first of them, in their order.
    named: Vec<InChunk>,
}

/// A line that could not be read, before it is known which number it has.
struct InChunk {
    of: ChunkOf,
    line: u32,
    byte: u64,
    why: String,
}

impl<'a> Reader<'a> {
    fn new(by: &'a [By], admissions: &'a [Admission], filter: &'a Filter) -> Self {
        let groups = by.iter().zip(admissions).map(|(by, admission)| Groups::new(*by, admission)).collect();
        Self {
            filter,
            groups,
            by,
            all: Tally::default(),
            left_out: 0,
            period: None,
            lines: Vec::new(),
            damaged: 0,
            named: Vec::new(),
        }
    }

    fn read(&mut self, of: ChunkOf, chunk: &Chunk) {
        let (mut lines, mut begin) = (0, 0);
        let ends = memchr::memchr_iter(b'\n', &chunk.bytes).map(|newline| (newline, newline + 1));
        let rest = (!chunk.bytes.ends_with(b"\n")).then_some((chunk.bytes.len(), chunk.bytes.len()));
        for (end, next) in ends.chain(rest) {
            let line = &chunk.bytes[begin..end];
            match Click::read(line) {
                Ok(click) if self.filter.takes(&click) => self.add(&click),
                Ok(_) => self.left_out += 1,
                Err(why) => {
                    self.damaged += 1;
                    // Chunks come to a thread in their order.
                    if self.named.len() < NAMED_MAX {
                        let byte = chunk.offset + begin as u64;
                        self.named.push(InChunk { of, line: lines, byte, why });
                    }
                }
            }
            lines += 1;
            begin = next;
        }
        self.lines.push((of, lines));
    }

    fn add(&mut self, click: &Click) {
        self.all.add(click);
        for groups in &mut self.groups {
            groups.add(click);
        }
        let (first, last) = self.period.unwrap_or((click.at, click.at));
        self.period = Some((first.min(click.at), last.max(click.at)));
    }

    fn merge(&mut self, from: Self) {
        for (groups, more) in self.groups.iter_mut().zip(from.groups) {
            groups.merge(more);
        }
        self.all.merge(&from.all);
        self.left_out += from.left_out;
        let of_both = [self.period, from.period].into_iter().flatten();
        self.period = of_both.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        self.lines.extend(from.lines);
        self.damaged += from.damaged;
        self.named.extend(from.named);
    }

    fn finish(mut self, files: Files) -> Counted {
        self.lines.sort_unstable_by_key(|(of, _)| *of);
        self.named.sort_by_key(|named| (named.of, named.byte));
        self.named.truncate(NAMED_MAX.saturating_sub(files.named.len()));
        let mut damage = Damage { lines: self.damaged, files: files.unread, named: files.named };
        for InChunk { of, line, byte, why } in mem::take(&mut self.named) {
            let before = self.lines.iter().filter(|(other, _)| other.file == of.file && *other < of);
            let line = before.map(|(_, lines)| u64::from(*lines)).sum::<u64>() + u64::from(line) + 1;
            let path = files.opened.get(of.file as usize).map_or(Path::new(""), |path| path).to_owned();
            damage.named.push(Named { path, place: Some(Place { line, byte }), why });
        }
        Counted {
            files: files.files,
            bytes: files.bytes,
            lines: self.lines.iter().map(|(_, lines)| u64::from(*lines)).sum(),
            left_out: self.left_out,
            period: self.period,
            all: self.all,
            groups: (self.by.iter().zip(self.groups))
                .map(|(by, groups)| {
                    let (rows, other) = groups.finish();
                    Group { by: *by, rows, other }
                })
                .collect(),
            damage,
        }
    }
}

/// So many of what is damaged are told by name.
pub const NAMED_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn line(millis: u32, link: u32) -> String {
        let outcome = if link.is_multiple_of(3) { "capped" } else { "offer" };
        format!(
            "{{\"click_id\":\"c\",\"time\":\"2026-11-22T20:{:02}:30.{:03}Z\",\"outcome\":\"{outcome}\",\"smart_link_id\":{link},\
             \"affiliate_id\":7,\"offer_id\":null,\"country\":null,\"device\":\"mobile\",\"bot\":false,\"probe\":false}}\n",
            millis / 1000 % 60,
            millis % 1000,
        )
    }

    #[test]
    fn threads_come_to_the_same_and_name_the_same_lines() {
        let directory = tempfile::tempdir().unwrap();
        let (mut paths, mut places) = (Vec::new(), Vec::new());
        for file in 0..3 {
            let mut text = String::new();
            for number in 0..20_000 {
                if number % 3_001 == 3_000 {
                    places.push((file, Place { line: number + 1, byte: text.len() as u64 }));
                    text.push_str("nonsense\n");
                } else {
                    text.push_str(&line(number as u32, number as u32 % 500 + 1));
                }
            }
            assert!(text.len() > 3 * 1024 * 1024, "several chunks");
            paths.push(directory.path().join(format!("{file}.ndjson")));
            fs::write(paths.last().unwrap(), text).unwrap();
        }
        let by = [By::Link, By::Minute];
        let mut seen = Vec::new();
        for threads in [1, 2, 5] {
            let bytes = AtomicU64::new(0);
            let told = |read| {
                bytes.fetch_add(read, Ordering::Relaxed);
            };
            let mut counted = count(paths.clone(), &by, &Filter::default(), threads, told);
            assert_eq!(bytes.into_inner(), counted.bytes);
            assert_eq!((counted.files, counted.lines, counted.damage.lines), (3, 60_000, 18));
            assert_eq!(counted.all.clicks(), 60_000 - 18);
            let named: Vec<_> = counted.damage.named.iter().map(|named| named.place.unwrap()).collect();
            let wanted: Vec<_> = places.iter().take(NAMED_MAX).map(|(_, place)| *place).collect();
            assert_eq!(named, wanted);
            for Group { rows, other, .. } in &mut counted.groups {
                rows.sort_unstable_by_key(|(name, _)| *name);
                assert_eq!(rows.iter().map(|(_, tally)| tally.clicks()).sum::<u64>(), counted.all.clicks());
                assert_eq!(*other, Tally::default());
            }
            seen.push(format!("{counted:?}"));
        }
        assert!(seen.iter().all(|one| *one == seen[0]));
    }

    #[test]
    fn what_is_no_segment_is_named_and_the_rest_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            fs::write(directory.path().join(name), bytes).unwrap();
            directory.path().join(name)
        };
        let whole = file("a.ndjson", line(0, 1).as_bytes());
        let again = directory.path().join(".").join("a.ndjson");
        let packed = file("b.gz", b"\x1f\x8b\x08rest");
        let gone = directory.path().join("gone.ndjson");
        let empty = file("c.ndjson", b"");
        let paths = vec![packed, gone, directory.path().to_owned(), empty, whole, again];
        let counted = count(paths, &[], &Filter::default(), 2, |_| ());
        assert_eq!((counted.files, counted.lines, counted.all.clicks()), (1, 1, 1));
        assert_eq!((counted.damage.files, counted.damage.lines), (3, 0));
        let why: Vec<&str> = counted.damage.named.iter().map(|named| &*named.why).collect();
        assert!(why[0].contains("zcat FILE") && why[1].contains("deleted"), "{why:?}");
        assert!(why[2].starts_with("cannot be read: "), "{why:?}");
    }
}
