//! Reads segments, live ones included, line by line. Nothing that stands in one is trusted: a line is whatever stands between
//! two newlines.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use memchr::{memchr, memchr_iter};
use serde::Deserialize;

use super::files::is_live;

/// What reports need of a line. A line may have more.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry<'a> {
    pub click_id: &'a str,
    /// As written: `2026-11-22T20:15:30.123Z`.
    pub time: &'a str,
    pub outcome: &'a str,
    pub smart_link_id: u32,
    pub affiliate_id: u32,
    pub offer_id: Option<u32>,
    pub country: Option<&'a str>,
    pub device: &'a str,
    pub bot: bool,
    pub probe: bool,
}

impl<'a> Entry<'a> {
    /// `Err`: why it is no line of a click log.
    pub fn read(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

/// Gives every line of a segment, without its newline and with its number from 1, until one is enough. Of a live segment the
/// line that is being written is left out; elsewhere a last line without a newline is a line.
pub fn read_lines(path: &Path, each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> io::Result<()> {
    lines_in(File::open(path)?, is_live(path), each)
}

/// As [`read_lines`], of bytes that are a segment's, wherever they are.
pub fn lines_in(
    mut segment: impl Read,
    is_live: bool,
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    // The beginning of a line of which the end has not been read.
    let mut begun = Vec::new();
    let mut number = 0;
    loop {
        let count = match segment.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut bytes = &block[..count];
        // Zeros follow what has been written.
        let end = if is_live { memchr(0, bytes) } else { None };
        bytes = &bytes[..end.unwrap_or(count)];
        let mut begin = 0;
        for newline in memchr_iter(b'\n', bytes) {
            number += 1;
            let rest = &bytes[begin..newline];
            let enough = if begun.is_empty() {
                each(number, rest)
            } else {
                begun.extend_from_slice(rest);
                let enough = each(number, &begun);
                begun.clear();
                enough
            };
            if enough.is_break() {
                return Ok(());
            }
            begin = newline + 1;
        }
        begun.extend_from_slice(&bytes[begin..]);
        if end.is_some() {
            return Ok(());
        }
        // Somebody's file without newlines; it is not to be in memory as a whole.
        begun.truncate(LINE_BYTES_KEPT);
    }
    if !begun.is_empty() && !is_live {
        // Whatever it says, it is the last.
        let _ = each(number + 1, &begun);
    }
    Ok(())
}

const BLOCK: usize = 1024 * 1024;

/// More than any line that was written.
const LINE_BYTES_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(name: &str, bytes: &[u8]) -> Vec<(u64, String)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Vec::new();
        read_lines(&path, |number, line| {
            lines.push((number, String::from_utf8(line.to_vec()).unwrap()));
            ControlFlow::Continue(())
        })
        .unwrap();
        lines
    }

    #[test]
    fn a_live_segment_ends_before_its_zeros_and_without_the_line_that_is_being_written() {
        let numbered =
            |texts: &[&str]| (1..).zip(texts.iter().map(|text| (*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(lines("a.live", b"one\ntwo\nthr\0\0\0\0"), numbered(&["one", "two"]));
        assert_eq!(lines("a.live", b"one\ntwo"), numbered(&["one"]));
        assert_eq!(lines("a.live", &[0; 10]), []);
        assert_eq!(lines("a.ndjson", b"one\n\nthree"), numbered(&["one", "", "three"]));
        assert_eq!(lines("a.ndjson", b"o\0e\ntwo\n"), numbered(&["o\0e", "two"]));
    }

    #[test]
    fn lines_over_the_edges_of_blocks_are_whole() {
        let wanted: Vec<_> = (1..=20_000).map(|number| (number, "x".repeat(number as usize % 300))).collect();
        let text: String = wanted.iter().map(|(_, line)| format!("{line}\n")).collect();
        assert!(text.len() > 2 * BLOCK);
        assert_eq!(lines("a.ndjson", text.as_bytes()), wanted);
    }

    #[test]
    fn enough_is_enough() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.ndjson");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let mut read = 0;
        read_lines(&path, |number, _| {
            read = number;
            if number == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(read, 2);
    }
}
