//! Reads segments many whole lines at a time, so that several threads can each look at some of them.
//!
//! A chunk is bounded, whatever is in the file: of a line that is longer than a chunk, which none that was written is, the
//! beginning is given and the rest passed over. Of a live segment everything up to the last whole line is read, where that was
//! when it was opened.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memchr::{memchr, memrchr};

use super::files::{end_of_lines, is_live, segments};

/// Whole lines that stand one behind another.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Where in the file the first line begins.
    pub offset: u64,
    /// Each line with its newline; the last one of a file may have none.
    pub bytes: Vec<u8>,
}

/// A file of lines, and what of it has been read.
pub struct SegmentReader {
    source: Box<dyn Read + Send>,
    /// The device, and the number on it: the same file by another name has the same.
    pub identity: (u64, u64),
    /// What there is to read, as far as that is known.
    pub bytes: u64,
    offset: u64,
    /// The beginning of a line of which the end has not been read.
    begun: Vec<u8>,
}

impl SegmentReader {
    /// Opens a segment, or any file of lines. A live one that was sealed meanwhile is opened by the name that it has by now; of
    /// one that was without lines, nothing is left.
    pub fn open(path: &Path) -> io::Result<Self> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_live(path) => {
                match sealed_name(path)? {
                    Some(sealed) => Self::of_file(File::open(sealed)?, false),
                    None => Ok(Self::new(Box::new(io::empty()), (0, 0), 0)),
                }
            }
            file => Self::of_file(file?, is_live(path)),
        }
    }

    fn of_file(mut file: File, is_live: bool) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let identity = (metadata.dev(), metadata.ino());
        if !is_live {
            return Ok(Self::new(Box::new(file), identity, metadata.len()));
        }
        let end = end_of_lines(&mut file)?;
        io::Seek::rewind(&mut file)?;
        Ok(Self::new(Box::new(file.take(end)), identity, end))
    }

    fn new(source: Box<dyn Read + Send>, identity: (u64, u64), bytes: u64) -> Self {
        Self { source, identity, bytes, offset: 0, begun: Vec::new() }
    }

    /// Replaces what is in `chunk` by the lines that follow. Whether there were any.
    pub fn next_chunk(&mut self, chunk: &mut Chunk) -> io::Result<bool> {
        let bytes = &mut chunk.bytes;
        chunk.offset = self.offset;
        bytes.clear();
        bytes.append(&mut self.begun);
        let room = CHUNK - bytes.len();
        let read = (&mut self.source).take(room as u64).read_to_end(bytes)?;
        if read < room {
            // The end of the file.
        } else if let Some(newline) = memrchr(b'\n', bytes) {
            self.begun.extend_from_slice(&bytes[newline + 1..]);
            bytes.truncate(newline + 1);
        } else {
            let passed_over = self.pass_over_line()?;
            self.offset += bytes.len() as u64 + passed_over;
            bytes.truncate(LINE_BYTES_KEPT);
            return Ok(true);
        }
        self.offset += bytes.len() as u64;
        Ok(!bytes.is_empty())
    }

    /// Reads on behind the next newline, and answers how far that is.
    fn pass_over_line(&mut self) -> io::Result<u64> {
        let (mut block, mut passed_over) = (Vec::new(), 0);
        loop {
            block.clear();
            if (&mut self.source).take(BLOCK).read_to_end(&mut block)? == 0 {
                return Ok(passed_over);
            }
            if let Some(newline) = memchr(b'\n', &block) {
                self.begun.extend_from_slice(&block[newline + 1..]);
                return Ok(passed_over + newline as u64 + 1);
            }
            passed_over += block.len() as u64;
        }
    }
}

/// Under which name a live segment went on when it was sealed.
fn sealed_name(live: &Path) -> io::Result<Option<PathBuf>> {
    let stem =
        |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = live.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let mut sealed = segments(directory)?.into_iter().filter(|segment| !segment.is_live);
    let rest = stem(live);
    Ok(sealed.find(|segment| stem(&segment.path).ends_with(&rest)).map(|segment| segment.path))
}

/// As much is read at once: far more than a line, and little enough to stay in a cache.
const CHUNK: usize = 1024 * 1024;

const BLOCK: u64 = 64 * 1024;

/// Of a line that is longer than a chunk.
const LINE_BYTES_KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Every line with its place, by chunks.
    fn lines(name: &str, bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        lines_of(SegmentReader::open(&path).unwrap())
    }

    fn lines_of(mut segment: SegmentReader) -> Vec<(u64, Vec<u8>)> {
        let (mut lines, mut chunk) = (Vec::new(), Chunk::default());
        while segment.next_chunk(&mut chunk).unwrap() {
            assert!(chunk.bytes.len() <= CHUNK);
            let mut offset = chunk.offset;
            for line in chunk.bytes.split_inclusive(|&byte| byte == b'\n') {
                lines.push((offset, line.strip_suffix(b"\n").unwrap_or(line).to_vec()));
                offset += line.len() as u64;
            }
        }
        lines
    }

    #[test]
    fn lines_over_the_edges_of_chunks_are_whole_and_in_their_place() {
        let mut wanted = Vec::new();
        let mut text = Vec::new();
        for number in 0..30_000 {
            let line = vec![b'x'; number % 300];
            wanted.push((text.len() as u64, line.clone()));
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
        assert!(text.len() > 4 * CHUNK);
        assert_eq!(lines("a.ndjson", &text), wanted);
        text.pop();
        assert_eq!(lines("a.ndjson", &text), wanted);
    }

    #[test]
    fn a_live_segment_ends_with_its_last_whole_line() {
        let ends = |bytes: &[u8]| lines("a.live", bytes).len();
        assert_eq!(ends(b"one\ntwo\nthr\0\0\0\0"), 2);
        assert_eq!(ends(b"one\ntwo"), 1);
        assert_eq!(ends(b"one\nt\0o\n\0\0\0"), 1);
        assert_eq!(ends(&[0; 3 * CHUNK]), 0);
        assert_eq!(ends(b""), 0);
    }

    #[test]
    fn a_line_that_has_no_end_takes_no_memory() {
        let mut text = b"first\n".to_vec();
        text.resize(5 * CHUNK, b'x');
        text.extend_from_slice(b"\nlast\n");
        let found = lines("a.ndjson", &text);
        let places: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(places, [0, 6, 5 * CHUNK as u64 + 1]);
        assert_eq!((found[1].1.len(), &found[2].1[..]), (LINE_BYTES_KEPT, &b"last"[..]));
        // And none behind it.
        let found = lines("a.ndjson", &vec![b'x'; 3 * CHUNK]);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn one_that_was_sealed_meanwhile_is_read_by_its_new_name() {
        let directory = tempfile::tempdir().unwrap();
        let sealed = directory.path().join("clicks-20261122T201530.123Z-5f0c-0000000007.ndjson");
        std::fs::write(&sealed, "one\ntwo\n").unwrap();
        let live = directory.path().join("5f0c-0000000007.live");
        assert_eq!(lines_of(SegmentReader::open(&live).unwrap()).len(), 2);
        let removed = SegmentReader::open(&directory.path().join("5f0c-0000000008.live"));
        assert_eq!(lines_of(removed.unwrap()), []);
        let gone = SegmentReader::open(&directory.path().join("gone.ndjson"));
        assert!(gone.is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
    }

    proptest! {
        /// As many bytes as it pleases come at a time, from a pipe for example.
        #[test]
        fn any_pieces_make_the_same_lines(text in prop::collection::vec(prop_oneof![4 => 32..127_u8, 1 => Just(b'\n')], 0..300), at_once in 1..20_usize) {
            struct Pieces(VecDeque<u8>, usize);
            impl Read for Pieces {
                fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                    let count = self.1.min(into.len()).min(self.0.len());
                    (&mut self.0).take(count as u64).read(&mut into[..count])
                }
            }
            let source = Pieces(text.iter().copied().collect(), at_once);
            let found = lines_of(SegmentReader::new(Box::new(source), (0, 0), 0));
            let mut joined = Vec::new();
            for (offset, line) in &found {
                prop_assert_eq!(*offset, joined.len() as u64);
                joined.extend_from_slice(line);
                joined.push(b'\n');
            }
            if !text.ends_with(b"\n") {
                joined.pop();
            }
            prop_assert_eq!(joined, text);
        }
    }
}
