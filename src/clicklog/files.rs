//! The names of segments, and how one is sealed: by the storage when it is full, by the next start when the process that
//! wrote it ended in the middle.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memchr::{memchr, memrchr};

/// A file of the click log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    pub path: PathBuf,
    /// A process writes to it, or ended without sealing it. Zero bytes follow its lines.
    pub is_live: bool,
    /// On the disk; of a live one with the zeros.
    pub bytes: u64,
    pub changed_at: SystemTime,
}

/// The segments of a directory: the sealed ones by their first click, then the live ones.
pub fn segments(directory: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_live = name.ends_with(LIVE_SUFFIX);
        let is_sealed = name.starts_with(SEALED_PREFIX) && name.ends_with(SEALED_SUFFIX);
        if !is_live && !is_sealed {
            continue;
        }
        // One that is sealed or deleted at this moment has another name by now, or none.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        found.push(SegmentFile {
            path: entry.path(),
            is_live,
            bytes: metadata.len(),
            changed_at: metadata.modified()?,
        });
    }
    found.sort_by(|one, other| (one.is_live, &one.path).cmp(&(other.is_live, &other.path)));
    Ok(found)
}

/// Seals what earlier processes left, up to the last whole line. What a process writes to, this one or another, is left alone.
pub fn seal_left(directory: &Path) -> io::Result<()> {
    for segment in segments(directory)?.into_iter().filter(|segment| segment.is_live) {
        let sealed = File::open(&segment.path).and_then(|mut file| {
            if is_locked(&file) { Ok(()) } else { seal(&segment.path, end_of_lines(&mut file)?) }
        });
        match sealed {
            // By whoever wrote it, at this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

/// Makes the file of a segment, which nobody seals who sees it: it has its name only when it is locked.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let unnamed = path.with_extension("new");
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(&unnamed)?;
    lock(&file);
    fs::rename(&unnamed, path)?;
    Ok(file)
}

/// Marks the file of a segment as one that this process writes to, for as long as it is open. Where the file system knows no
/// locks, a process that takes over from a running one would seal what that one writes to; no other process ever does.
fn lock(file: &File) {
    let _ = file.try_lock();
}

fn is_locked(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Cuts a live segment to its lines, and gives it the name under which it stays. One without lines is removed. Nothing is
/// synced: a power failure may undo both, and the next start does them again.
pub(super) fn seal(path: &Path, end: u64) -> io::Result<()> {
    if end == 0 {
        return fs::remove_file(path);
    }
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.set_len(end)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let rest = path.file_stem().unwrap_or_default().to_string_lossy();
    let first = first_time(&mut file)?;
    fs::rename(path, directory.join(format!("{SEALED_PREFIX}{first}-{rest}{SEALED_SUFFIX}")))
}

/// One more than any in the directory.
pub(super) fn next_number(directory: &Path) -> io::Result<u64> {
    let numbers = segments(directory)?.into_iter().filter_map(|segment| {
        let name = segment.path.file_stem()?.to_str()?.to_owned();
        name.rsplit_once('-')?.1.parse::<u64>().ok()
    });
    Ok(numbers.max().unwrap_or(0) + 1)
}

/// `node` has letters and digits alone.
pub(super) fn live_path(directory: &Path, number: u64, node: &str) -> PathBuf {
    directory.join(format!("{node}-{number:010}{LIVE_SUFFIX}"))
}

/// Whether this is the name of one that is written to.
pub(super) fn is_live(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == &LIVE_SUFFIX[1..])
}

/// Where the last whole line ends. What a process was copying when it was killed has no end yet, or zeros in it.
pub(super) fn end_of_lines(file: &mut File) -> io::Result<u64> {
    let mut end = end_of_bytes(file)?;
    loop {
        let line = last_line(file, end)?;
        if line.is_empty() || (line.ends_with(b"\n") && memchr(0, &line).is_none()) {
            return Ok(end);
        }
        end -= line.len() as u64;
    }
}

/// Behind the last byte that is not zero.
fn end_of_bytes(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        read_between(file, begin, end, &mut block)?;
        if let Some(last) = block.iter().rposition(|&byte| byte != 0) {
            return Ok(begin + last as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// The line that ends here, be it without a newline; empty at the beginning.
fn last_line(file: &mut File, end: u64) -> io::Result<Vec<u8>> {
    let (mut begin, mut block) = (end, Vec::new());
    while begin > 0 {
        begin = begin.saturating_sub(BLOCK);
        read_between(file, begin, end, &mut block)?;
        let before_its_newline = block.len().saturating_sub(1);
        if let Some(newline) = memrchr(b'\n', &block[..before_its_newline]) {
            block.drain(..=newline);
            break;
        }
    }
    Ok(block)
}

fn read_between(file: &mut File, begin: u64, end: u64, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    file.seek(SeekFrom::Start(begin))?;
    file.take(end - begin).read_to_end(into).map(drop)
}

/// The time of the first line, without what names of files had better not have: `20261122T201530.123Z`.
fn first_time(file: &mut File) -> io::Result<String> {
    let mut head = Vec::new();
    read_between(file, 0, 512, &mut head)?;
    let time = memchr::memmem::find(&head, TIME_KEY).map(|at| &head[at + TIME_KEY.len()..]);
    let time = time.and_then(|rest| rest.split(|&byte| byte == b'"').next()).unwrap_or_default();
    let name = time.iter().copied().filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'.');
    Ok(name.map(char::from).collect())
}

const LIVE_SUFFIX: &str = ".live";
const SEALED_PREFIX: &str = "clicks-";
const SEALED_SUFFIX: &str = ".ndjson";
const TIME_KEY: &[u8] = b"\"time\":\"";

/// How much is read at once.
const BLOCK: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LINE: &str = "{\"time\":\"2026-11-22T20:15:30.123Z\",\"n\":1}\n";

    /// What is left of a live segment with these bytes, by the name that it has then.
    fn sealed(bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(live_path(directory.path(), 7, "5f0c"), bytes).unwrap();
        seal_left(directory.path()).unwrap();
        let left = segments(directory.path()).unwrap();
        assert!(left.len() <= 1 && left.iter().all(|segment| !segment.is_live), "{left:?}");
        let left = left.into_iter().next()?;
        let name = left.path.file_name().unwrap().to_str().unwrap().to_owned();
        Some((name, fs::read(&left.path).unwrap()))
    }

    #[test]
    fn what_a_killed_process_left_is_cut_to_its_whole_lines() {
        let zeros = [0; 200_000];
        let two = LINE.repeat(2);
        for (case, bytes, lines) in [
            ("whole lines", [two.as_bytes(), &zeros].concat(), 2),
            ("no zeros", two.clone().into_bytes(), 2),
            ("half a line", [two.as_bytes(), b"{\"time\":\"20", &zeros].concat(), 2),
            ("a line with a hole", [two.as_bytes(), b"{\"time\"\0\0\0\0}\n", &zeros].concat(), 2),
            ("very many lines", [LINE.repeat(5_000).as_bytes(), b"{", &zeros].concat(), 5_000),
        ] {
            let (name, left) = sealed(&bytes).unwrap_or_else(|| panic!("{case}: nothing is left"));
            assert_eq!(name, "clicks-20261122T201530.123Z-5f0c-0000000007.ndjson", "{case}");
            assert_eq!(left.len(), lines * LINE.len(), "{case}");
        }
    }

    #[test]
    fn without_a_line_nothing_is_left() {
        for bytes in [&[0; 100_000][..], b"", b"{\"half", b"{\"hole\0\0\n\0\0"] {
            assert_eq!(sealed(bytes), None);
        }
    }

    #[test]
    fn what_is_written_to_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = live_path(directory.path(), 7, "5f0c");
        fs::write(&path, LINE).unwrap();
        let written_to = File::open(&path).unwrap();
        lock(&written_to);
        seal_left(directory.path()).unwrap();
        assert!(path.exists());
        drop(written_to);
        seal_left(directory.path()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn numbers_go_on_and_other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(next_number(directory.path()).unwrap(), 1);
        fs::write(directory.path().join("notes.txt"), "mine").unwrap();
        let mut live = File::create(live_path(directory.path(), 41, "5f0c")).unwrap();
        live.write_all(LINE.as_bytes()).unwrap();
        assert_eq!(next_number(directory.path()).unwrap(), 42);
        seal_left(directory.path()).unwrap();
        assert_eq!(next_number(directory.path()).unwrap(), 42);
        assert_eq!(fs::read(directory.path().join("notes.txt")).unwrap(), b"mine");
    }
}
