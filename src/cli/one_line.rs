//! What is told to a person is one line, whoever worded it: a name from an upstream, a value from a file, an error of the
//! system. Nobody but us ends a line of the log, begins one, or steers the terminal that shows it.
//!
//! This is the one place for it: lines of the log come through [`fields`], or as JSON through [`JsonLine`]; lines of commands
//! through [`OneLine`]. Tables have cells, and put a blank for a control character.

use std::fmt::{self, Write};
use std::io;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Shows a text with every character that ends a line, is not visible, or turns the direction of writing in the spelling of
/// Rust: `\n`, `\u{1b}`. What may be seen stays as it is, backslashes included.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<T>(pub T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// The fields of an event, as the subscriber would have written them, on one line.
pub fn fields() -> impl for<'w> FormatFields<'w> + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| match field.name() {
        "message" => write!(Escaping(writer), "{value:?}"),
        // Where a line of the `log` crate was written.
        name if name.starts_with("log.") => Ok(()),
        name => {
            write!(writer, "{name}=")?;
            write!(Escaping(writer), "{value:?}")
        }
    })
    .delimited(" ")
}

/// Takes lines of JSON, each whole, and spells what may not be seen as JSON spells it: a program reads the same, and a terminal is
/// not steered. serde_json itself spells what ends lines, and not much more.
pub struct JsonLine<W>(pub W);

impl<W: io::Write> io::Write for JsonLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut spelled = String::with_capacity(line.len());
        for character in text.chars() {
            // Outside of strings JSON is ASCII that may be seen, but for the end of the line.
            if character == '\n' || may_be_seen(character) {
                spelled.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Into a String, which never fails.
                let _ = write!(spelled, "\\u{unit:04x}");
            }
        }
        self.0.write_all(spelled.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Passes on what may be seen.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| !may_be_seen(*character))
        {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", character.escape_debug())?;
            rest = &rest[at + character.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Letters of every script may, and the joiners that some need; what ends a line, steers a terminal, turns the direction of
/// writing or cannot be seen may not.
fn may_be_seen(character: char) -> bool {
    const NOT_SEEN: [std::ops::RangeInclusive<char>; 9] = [
        '\u{ad}'..='\u{ad}',
        '\u{61c}'..='\u{61c}',
        '\u{200b}'..='\u{200b}',
        '\u{200e}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{feff}'..='\u{feff}',
        '\u{fff9}'..='\u{fffb}',
        '\u{e0000}'..='\u{e007f}',
    ];
    !character.is_control() && !NOT_SEEN.iter().any(|range| range.contains(&character))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn what_may_be_seen_stays() {
        for text in [
            "",
            "Card \"US\" \\n it's",
            "Bücher, 商店, e\u{301}, नमस्ते",
            "می\u{200c}خواهم",
            "https://a.example/?r={s1}#x",
        ] {
            assert_eq!(OneLine(text).to_string(), text);
        }
    }

    #[test]
    fn what_steers_a_line_or_a_terminal_is_spelled() {
        for (text, shown) in [
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\0"),
            ("\u{1b}[31mred\u{7}\u{8}\u{b}\u{c}", "\\u{1b}[31mred\\u{7}\\u{8}\\u{b}\\u{c}"),
            ("\u{7f}\u{85}\u{9b}31m", "\\u{7f}\\u{85}\\u{9b}31m"),
            (
                "\u{2028}\u{2029}\u{202e}txt\u{2066}\u{feff}\u{200b}",
                "\\u{2028}\\u{2029}\\u{202e}txt\\u{2066}\\u{feff}\\u{200b}",
            ),
        ] {
            assert_eq!(OneLine(text).to_string(), shown);
        }
    }

    /// What the program's own logging writes of an event.
    fn logged(event: impl FnOnce()) -> String {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_target(false)
            .without_time()
            .with_ansi(false)
            .fmt_fields(fields())
            .with_writer(move || written.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, event);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_is_the_same_to_who_reads_it_and_steers_no_terminal() {
        let hostile = "x\n\u{1b}[2J\u{7f}\u{9b}1m\u{202e}\u{2028}\u{e0001} \"q\" \\ Bücher 商店 😀";
        let line = format!("{}\n", serde_json::json!({ "message": hostile, hostile: 1 }));
        let mut written = Vec::new();
        io::Write::write_all(&mut JsonLine(&mut written), line.as_bytes()).unwrap();
        let written = String::from_utf8(written).unwrap();
        assert!(written.trim_end_matches('\n').chars().all(may_be_seen), "{written:?}");
        assert!(written.contains("\\udb40\\udc01") && written.contains("商店 😀"), "{written:?}");
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(read, serde_json::from_str::<serde_json::Value>(&line).unwrap());
    }

    #[test]
    fn an_event_is_one_line_whatever_its_fields_hold() {
        let hostile = "x\n2026-11-23T00:00:00Z ERROR forged\u{1b}[2J\u{9b}1m\r";
        let shown = "x\\n2026-11-23T00:00:00Z ERROR forged\\u{1b}[2J\\u{9b}1m\\r";
        assert_eq!(logged(|| tracing::warn!("offer {hostile}")), format!(" WARN offer {shown}\n"));
        assert_eq!(
            logged(|| tracing::error!(error = %hostile, count = 3, "told")),
            format!("ERROR told error={shown} count=3\n")
        );
        let quoted = format!("{hostile:?}");
        assert!(!quoted.contains('\n'));
        assert_eq!(logged(|| tracing::info!(name = hostile, "told")), format!(" INFO told name={quoted}\n"));
        let error = io::Error::other(hostile);
        let as_error: &(dyn std::error::Error + 'static) = &error;
        assert_eq!(
            logged(|| tracing::info!(error = as_error, "told")),
            format!(" INFO told error={shown}\n")
        );
    }
}
