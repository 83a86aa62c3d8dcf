//! Reads segments, live ones included, line by line. Nothing that stands in one is trusted: a line is whatever stands between
//! two newlines.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use jiff::Timestamp;
use memchr::{memchr, memchr_iter};
use serde::Deserialize;
use serde_json::Value;

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

/// Why a line is none of a click log, for whoever looks into the file. Bytes are counted from 1, within the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEntry {
    #[error("this line is empty")]
    Empty,
    #[error("zero bytes: a live segment under another name, or what a power failure left")]
    Zeros,
    #[error(
        "this line is cut off, or longer than any of a click log: after byte {bytes} its JSON object has not ended"
    )]
    CutOff { bytes: usize },
    #[error(
        "this is no line of a click log: expected one JSON object, and byte {byte} of it belongs to none"
    )]
    NoJson { byte: usize },
    #[error("this is no line of a click log: expected a JSON object, and it is another value")]
    NoObject,
    #[error("this is no line of a click log: it has no field {name}; expected {expected}")]
    Missing { name: &'static str, expected: &'static str },
    #[error("this is no line of a click log: {name} is not what was expected, {expected}")]
    Unexpected { name: &'static str, expected: &'static str },
    /// JSON can say the same in several ways, and the click log says it in one.
    #[error(
        "this is no line of a click log: expected each field once, and no escapes in click_id, time, outcome, country and device"
    )]
    Spelling,
}

impl<'a> Entry<'a> {
    pub fn read(line: &'a [u8]) -> Result<Self, NoEntry> {
        serde_json::from_slice(line).map_err(|error| why_not(line, &error))
    }

    /// When it was. `Err`: why that is not known.
    pub fn at(&self) -> Result<Timestamp, String> {
        self.time.parse().map_err(|_| {
            format!("time {:?} is none; expected one such as 2026-11-22T20:15:30.123Z", beginning(self.time))
        })
    }
}

/// What is quoted of a field that may be as long as anything.
pub fn beginning(text: &str) -> &str {
    text.char_indices().nth(QUOTED_CHARS).map_or(text, |(end, _)| &text[..end])
}

const QUOTED_CHARS: usize = 60;

/// The parser's own words are for who wrote the line; who reads a file of them did not. It is read again in full, which costs
/// nothing where lines are sound.
fn why_not(line: &[u8], error: &serde_json::Error) -> NoEntry {
    if line.trim_ascii().is_empty() {
        return NoEntry::Empty;
    }
    if line.starts_with(&[0]) {
        return NoEntry::Zeros;
    }
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(again) if again.is_eof() => return NoEntry::CutOff { bytes: line.trim_ascii_end().len() },
        // The line has no newline in it, so that the column is the byte.
        Err(again) => return NoEntry::NoJson { byte: again.column().max(error.column()).max(1) },
    };
    let Some(fields) = value.as_object() else { return NoEntry::NoObject };
    for &(name, expected, is_expected) in &FIELDS {
        match fields.get(name) {
            Some(value) if is_expected(value) => {}
            Some(_) => return NoEntry::Unexpected { name, expected },
            // As when it is null.
            None if is_expected(&Value::Null) => {}
            None => return NoEntry::Missing { name, expected },
        }
    }
    NoEntry::Spelling
}

/// The name of a field, what it is to be, and whether a value is that.
type Expected = (&'static str, &'static str, fn(&Value) -> bool);

/// What is expected of the fields of an [`Entry`].
const FIELDS: [Expected; 10] = [
    ("click_id", TEXT, Value::is_string),
    ("time", TEXT, Value::is_string),
    ("outcome", TEXT, Value::is_string),
    ("smart_link_id", ID, is_id),
    ("affiliate_id", ID, is_id),
    ("offer_id", "an id such as 301, or null", |value| value.is_null() || is_id(value)),
    ("country", "a text in quotes, or null", |value| value.is_null() || value.is_string()),
    ("device", TEXT, Value::is_string),
    ("bot", FLAG, Value::is_boolean),
    ("probe", FLAG, Value::is_boolean),
];

const TEXT: &str = "a text in quotes";

const ID: &str = "an id such as 301";

const FLAG: &str = "true or false";

fn is_id(value: &Value) -> bool {
    value.as_u64().is_some_and(|id| u32::try_from(id).is_ok())
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
    fn a_line_that_is_none_is_told_why() {
        let line = r#"{"click_id":"c","time":"2026-11-22T20:15:30.123Z","outcome":"capped","smart_link_id":301,"affiliate_id":7,"offer_id":null,"country":"US","device":"mobile","bot":false,"probe":false}"#;
        let with = |from: &str, to: &str| line.replace(from, to).into_bytes();
        assert!(Entry::read(line.as_bytes()).is_ok());
        assert!(Entry::read(&with("\"offer_id\":null,", "")).is_ok());
        for (line, why) in [
            (Vec::new(), NoEntry::Empty),
            (b" \r".to_vec(), NoEntry::Empty),
            (vec![0; 9], NoEntry::Zeros),
            (line.as_bytes()[..40].to_vec(), NoEntry::CutOff { bytes: 40 }),
            (b"GET / HTTP/1.1".to_vec(), NoEntry::NoJson { byte: 1 }),
            (b"{\"a\":1} {}".to_vec(), NoEntry::NoJson { byte: 9 }),
            (b"\xff\xfe".to_vec(), NoEntry::NoJson { byte: 1 }),
            (b"[1]".to_vec(), NoEntry::NoObject),
            (b"{}".to_vec(), NoEntry::Missing { name: "click_id", expected: TEXT }),
            (with("\"bot\"", "\"bots\""), NoEntry::Missing { name: "bot", expected: FLAG }),
            (with("301", "\"301\""), NoEntry::Unexpected { name: "smart_link_id", expected: ID }),
            (with(":7", ":4294967296"), NoEntry::Unexpected { name: "affiliate_id", expected: ID }),
            (with("\"US\"", "1"), NoEntry::Unexpected { name: "country", expected: FIELDS[6].1 }),
            (with("\"bot\":false", "\"bot\":0"), NoEntry::Unexpected { name: "bot", expected: FLAG }),
            (with("mobile", "mob\\u0069le"), NoEntry::Spelling),
            (with("\"bot\":false", "\"bot\":false,\"bot\":true"), NoEntry::Spelling),
        ] {
            assert_eq!(Entry::read(&line).unwrap_err(), why, "{:?}", String::from_utf8_lossy(&line));
        }
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
