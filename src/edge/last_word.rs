//! The last word on a connection: what hyper refuses by itself is answered with a sentence, too.
//!
//! A head that hyper cannot read never reaches the click path. hyper answers it with an empty 400, 414 or 431 that nobody can
//! act on, has no setting for another answer, and closes. [`LastWord`] stands between hyper and the socket and promises:
//!
//! - A write that is such an answer goes out with its status and date, one sentence as its body, and the headers of our
//!   other refusals. hyper hears that its own bytes were written once all of it is.
//! - Every other write goes straight through, after one byte of it was compared.
//!
//! Such an answer is known by what none of ours has: status 400, 414 or 431, and no body. It is a write of its own, because
//! hyper reads a head only after the answer before it has been flushed. Were that to change, it would go out as empty as
//! it is; the tests in `tests/click.rs` would tell.
//!
//! What it does not do, deliberately: it does not find out what was wrong, which hyper tells nobody, and not even by
//! which method was asked. So a malformed HEAD is answered with a body as well; nothing can be taken for it, because the
//! connection closes. Where hyper closes without an answer (an HTTP/2 preface, a head that never ended), so does this.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::request_line::Refusal;

/// A connection on which no refusal is without a sentence. Reads go straight through.
#[derive(Debug)]
pub(super) struct LastWord<S> {
    stream: S,
    /// What goes out in place of hyper's refusal; empty until there is one.
    words: Vec<u8>,
    /// How much of it is out.
    said: usize,
}

impl<S> LastWord<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, words: Vec::new(), said: 0 }
    }

    /// Whether something else is to go out than these bytes.
    fn speaks_for(&mut self, bytes: &[u8]) -> bool {
        // Nearly all answers are 302, and their remainders do not look like it either.
        if bytes.get(STATUS_AT) == Some(&b'4') && self.words.is_empty() {
            self.words = with_a_sentence(bytes).unwrap_or_default();
        }
        !self.words.is_empty()
    }
}

impl<S: AsyncWrite + Unpin> LastWord<S> {
    /// Writes what goes out in place of these bytes, over as many calls as it takes, and then reports these as written.
    fn poll_say(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while self.said < self.words.len() {
            let rest = &self.words[self.said..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.said += count,
            }
        }
        (self.words, self.said) = (Vec::new(), 0);
        Poll::Ready(Ok(bytes.len()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LastWord<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LastWord<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.speaks_for(bytes) {
            return this.poll_say(context, bytes);
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(head) = slices.first()
            && this.speaks_for(head)
        {
            return this.poll_say(context, head);
        }
        Pin::new(&mut this.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// The same answer with a body, if this is one that hyper gives by itself.
#[cold]
fn with_a_sentence(answer: &[u8]) -> Option<Vec<u8>> {
    // HTTP/1.0 where an earlier request on the connection was.
    let status = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    let (_, sentence) = SENTENCES.iter().find(|(line, _)| status.starts_with(line))?;
    let length_at = memmem::find(answer, EMPTY)?;
    let (before, after) = (&answer[..length_at], &answer[length_at + EMPTY.len()..]);
    if !after.ends_with(b"\r\n\r\n") {
        return None;
    }
    let closes = memmem::find(answer, b"\r\nconnection: close\r\n").is_some();
    let headers = format!(
        "\r\n{}content-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\ncontent-length: {}\r\n",
        if closes { "" } else { "connection: close\r\n" },
        sentence.len()
    );
    Some([before, headers.as_bytes(), after, sentence.as_bytes()].concat())
}

/// By the rest of the status line, what is said.
const SENTENCES: [(&[u8], &str); 3] = [
    (
        b"400 Bad Request\r\n",
        "The request is not HTTP/1.1 that can be read: its request line, a header line, Content-Length or \
         Transfer-Encoding is malformed.\n",
    ),
    (
        b"431 Request Header Fields Too Large\r\n",
        "The head of the request is longer than this server takes, or has more than 100 header lines; shorten it.\n",
    ),
    (b"414 URI Too Long\r\n", Refusal::TargetTooLong.sentence()),
];

/// What every answer that hyper gives by itself has, and none of ours but redirects.
const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// Behind `HTTP/1.1 `.
const STATUS_AT: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that takes so many bytes a write, and none at every second one.
    struct Narrow {
        room: usize,
        is_full: bool,
        written: Vec<u8>,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            this.is_full = !this.is_full;
            if this.is_full {
                return Poll::Pending;
            }
            let count = bytes.len().min(this.room);
            this.written.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What goes out when an answer is written as hyper writes: what is left of it, again and again.
    fn sent(answer: &str, room: usize, vectored: bool) -> String {
        let narrow = Narrow { room, is_full: false, written: Vec::new() };
        let mut stream = LastWord::new(narrow);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut rest = answer.as_bytes();
        while !rest.is_empty() {
            let written = if vectored {
                Pin::new(&mut stream).poll_write_vectored(&mut context, &[IoSlice::new(rest)])
            } else {
                Pin::new(&mut stream).poll_write(&mut context, rest)
            };
            match written {
                Poll::Pending => {}
                Poll::Ready(count) => rest = &rest[count.unwrap()..],
            }
        }
        String::from_utf8(stream.stream.written).unwrap()
    }

    const DATE: &str = "date: Sun, 22 Nov 2026 15:00:00 GMT\r\n\r\n";

    #[test]
    fn refusals_of_hyper_get_a_sentence_however_little_is_taken_at_once() {
        for ((version, close), (status, sentence)) in [("1.1", "connection: close\r\n"), ("1.0", "")]
            .into_iter()
            .flat_map(|version| SENTENCES.map(|sentence| (version, sentence)))
        {
            let status = std::str::from_utf8(status).unwrap();
            let answer = format!("HTTP/{version} {status}{close}content-length: 0\r\n{DATE}");
            let whole = format!(
                "HTTP/{version} {status}connection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
                 cache-control: no-store\r\ncontent-length: {}\r\n{DATE}{sentence}",
                sentence.len()
            );
            for (room, vectored) in [(1, false), (7, true), (100, true), (10_000, false), (10_000, true)] {
                assert_eq!(sent(&answer, room, vectored), whole, "{room}, {vectored}");
            }
        }
    }

    #[test]
    fn all_else_goes_out_as_it_is() {
        for head in [
            "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 35\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 05\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
            "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 7\r\n",
            "",
        ] {
            let answer = format!("{head}{DATE}");
            for (room, vectored) in [(1, true), (9, false), (10_000, true)] {
                assert_eq!(sent(&answer, room, vectored), answer, "{room}, {vectored}");
            }
        }
    }
}
