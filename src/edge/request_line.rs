//! The request line, made readable on its way in, so that no click is lost over a byte that a browser or an app did not
//! encode.
//!
//! hyper refuses a target that is no URI with an empty 400 that nobody can act on. [`RequestLines`] stands between the
//! socket and hyper and promises:
//!
//! - What may not stand raw in a URI but prints, and every byte from 0x80, is percent-encoded in the target. The click
//!   is then judged as if it had been sent that way, as it is behind other servers. That is ``" < > \ ^ ` { | }``, and
//!   text in UTF-8 or in any other encoding.
//! - Where that would be a guess about what was meant (RFC 9112, 3.2: a recipient should not autocorrect), the target
//!   is replaced by the path of a [`Refusal`], which the click path answers: 400, one sentence, and the connection
//!   closes. That is a raw space, a control character, a target that is neither a path nor a URL, and a line that ends
//!   in something like `HTTP/1.1` and not in `HTTP/1.1` or `HTTP/1.0`. A client that asks for such a path by itself
//!   hears the same.
//! - A target that is longer than one may be is replaced in the same way, as soon as that is seen: 414. What follows it on the
//!   connection is thrown away.
//! - Everything else reaches hyper byte by byte as it came, whichever way the bytes were cut into reads.
//! - A connection keeps at most the request line that has not ended, as long as one may be, and what one read
//!   became. Where every byte is legal and the line comes in one read, nothing is copied or allocated: a head of 600
//!   bytes is followed in about 85 ns (`benches/click.rs`).
//!
//! What it does not do, deliberately: it reads no bodies. A head that announces one, or a line that is not recognisably
//! `METHOD SP target SP HTTP/1.x`, ends its work on the connection, and all that follows is hyper's. So it can never
//! take a body for a request, and its view of where a request begins is never used where it could differ from hyper's.
//! Header lines are not repaired: a name or value that hyper refuses is refused by hyper, for which `last_word.rs` finds
//! the words. So are other versions of HTTP, and whatever is no HTTP. A raw `#` is legal here and begins a fragment,
//! which hyper drops.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{StatusCode, Uri};
use memchr::{memchr, memchr_iter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::HeadLimits;

/// A connection whose request targets can be read by hyper. Writes go straight through.
#[derive(Debug)]
pub struct RequestLines<S> {
    stream: S,
    limits: HeadLimits,
    place: Place,
    /// From the target on, a request line of which the end has not come.
    held: Vec<u8>,
    /// For the reader, from `delivered` on; then the stream is read again.
    ready: Vec<u8>,
    delivered: usize,
    /// The beginning of a header line of which the end has not come, up to [`HEADER_BYTES_MAX`].
    header_begun: Vec<u8>,
}

/// What a request line has that cannot be mended without guessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    RawSpace,
    ControlCharacter,
    TargetForm,
    HttpVersion,
    TargetTooLong,
}

/// Where the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To a method, or to the empty lines before it that hyper ignores.
    BeforeMethod,
    Method,
    /// To the target or the version, up to the end of the line.
    Target,
    Headers,
    /// To hyper alone, until the connection ends.
    Unwatched,
    /// To nobody: a target was too long, and the connection is about to be closed.
    Behind,
}

/// What a header line means for the lines after it.
enum HeaderLine {
    EndOfHead,
    AnnouncesBody,
    Other,
}

impl<S> RequestLines<S> {
    pub fn new(stream: S) -> Self {
        Self::after(stream, &[], HeadLimits::DEFAULT)
    }

    /// Of a stream from which these bytes have been read already. They begin with a request.
    pub fn after(stream: S, bytes: &[u8], limits: HeadLimits) -> Self {
        let mut lines = Self {
            stream,
            limits,
            place: Place::BeforeMethod,
            held: Vec::new(),
            ready: Vec::new(),
            delivered: 0,
            header_begun: Vec::new(),
        };
        lines.take(bytes);
        lines
    }

    /// Follows the bytes for as long as they may go on as they are: to their end, or to a target that must be looked
    /// at more closely. Answers how many that are.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.place {
                Place::BeforeMethod => self.follow_empty_lines(rest),
                Place::Method => self.follow_method(rest),
                Place::Target => match memchr(b'\n', rest) {
                    Some(end) if self.held.is_empty() && is_usual(&rest[..=end], self.limits.uri_bytes) => {
                        self.place = Place::Headers;
                        end + 1
                    }
                    _ => return at,
                },
                Place::Headers => self.follow_headers(rest),
                Place::Unwatched => rest.len(),
                Place::Behind => return at,
            };
        }
        at
    }

    fn follow_empty_lines(&mut self, bytes: &[u8]) -> usize {
        // Nearly all of them, in one comparison.
        if bytes.starts_with(b"GET ") {
            self.place = Place::Target;
            return 4;
        }
        match bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) {
            None => bytes.len(),
            Some(at) => {
                let begins_a_method = BYTES[usize::from(bytes[at])] & IN_METHOD != 0;
                self.place = if begins_a_method { Place::Method } else { Place::Unwatched };
                at
            }
        }
    }

    /// The method goes on at once, so that hyper knows that a request has begun and a drain lets it finish.
    fn follow_method(&mut self, bytes: &[u8]) -> usize {
        match bytes.iter().position(|&byte| BYTES[usize::from(byte)] & IN_METHOD == 0) {
            None => bytes.len(),
            Some(at) => {
                self.place = if bytes[at] == b' ' { Place::Target } else { Place::Unwatched };
                at + 1
            }
        }
    }

    fn follow_headers(&mut self, bytes: &[u8]) -> usize {
        let mut begin = 0;
        for end in memchr_iter(b'\n', bytes) {
            let meaning = if self.header_begun.is_empty() {
                header_line(&bytes[begin..end])
            } else {
                self.keep_header(&bytes[begin..end]);
                let meaning = header_line(&self.header_begun);
                self.header_begun.clear();
                meaning
            };
            begin = end + 1;
            self.place = match meaning {
                HeaderLine::Other => continue,
                HeaderLine::EndOfHead => Place::BeforeMethod,
                HeaderLine::AnnouncesBody => Place::Unwatched,
            };
            return begin;
        }
        self.keep_header(&bytes[begin..]);
        bytes.len()
    }

    /// As much of it as is needed to tell what the line means.
    fn keep_header(&mut self, bytes: &[u8]) {
        let room = HEADER_BYTES_MAX - self.header_begun.len();
        self.header_begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Takes bytes that do not all go on as they came: targets are held until their line has ended, then written anew.
    fn take(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let unchanged = self.follow(rest);
            self.ready.extend_from_slice(&rest[..unchanged]);
            rest = &rest[unchanged..];
            if self.place == Place::Behind || rest.is_empty() {
                return;
            }
            let Some(end) = memchr(b'\n', rest) else {
                self.held.extend_from_slice(rest);
                if self.has_too_long_a_target() {
                    self.refuse_the_rest();
                }
                return;
            };
            let (line, after) = rest.split_at(end + 1);
            self.held.extend_from_slice(line);
            rest = after;
            if self.has_too_long_a_target() {
                return self.refuse_the_rest();
            }
            let recognised = rewrite(&mem::take(&mut self.held), self.limits.uri_bytes, &mut self.ready);
            self.place = if recognised { Place::Headers } else { Place::Unwatched };
        }
    }

    /// Whether a target is held that is longer than one may be, however the line goes on. Blanks count where there are more of
    /// them than a line has.
    fn has_too_long_a_target(&self) -> bool {
        let target = self.limits.uri_bytes + 1;
        let line = self.limits.uri_bytes + b" HTTP/1.1\r\n".len();
        let has_none = |bytes: usize, ends: fn(&u8) -> bool| {
            self.held.get(..bytes).is_some_and(|held| !held.iter().any(ends))
        };
        has_none(target, |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
            || has_none(line, |&byte| byte == b'\n')
    }

    /// In place of the target and of all that comes after it.
    fn refuse_the_rest(&mut self) {
        let refusal = [Refusal::TargetTooLong.path(), " HTTP/1.1\r\n\r\n"].concat();
        self.ready.extend_from_slice(refusal.as_bytes());
        self.held = Vec::new();
        self.place = Place::Behind;
    }

    /// Gives what is held to the reader as it came, and looks no further.
    fn let_go(&mut self) {
        self.ready.append(&mut self.held);
        self.place = Place::Unwatched;
    }

    /// Whether there was something ready, of which as much as has room is now in the buffer.
    fn deliver(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let rest = &self.ready[self.delivered..];
        if rest.is_empty() {
            return false;
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.delivered += count;
        if self.delivered == self.ready.len() {
            // Most connections need it once at most; they do not keep its memory.
            self.ready = Vec::new();
            self.delivered = 0;
        }
        true
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RequestLines<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.deliver(buffer) || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let fresh = &buffer.filled()[before..];
            if fresh.is_empty() {
                if this.held.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                // hyper must see that a request was cut off.
                this.let_go();
                continue;
            }
            let unchanged = this.follow(fresh);
            if unchanged < fresh.len() {
                this.take(&fresh[unchanged..]);
                buffer.set_filled(before + unchanged);
                // In the same read where it has room: hyper looks at once at what comes first, and waits for a whole
                // head after that.
                this.deliver(buffer);
            }
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RequestLines<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
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

impl Refusal {
    /// The refusal that a path stands for.
    pub fn from_path(path: &str) -> Option<Self> {
        // One comparison for all that are none.
        if !path.starts_with("/sl/!") {
            return None;
        }
        [Self::RawSpace, Self::ControlCharacter, Self::TargetForm, Self::HttpVersion, Self::TargetTooLong]
            .into_iter()
            .find(|refusal| refusal.path() == path)
    }

    pub(super) const fn status(self) -> StatusCode {
        match self {
            Refusal::TargetTooLong => StatusCode::URI_TOO_LONG,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// One sentence for the visitor: what is wrong, and what to do.
    pub const fn sentence(self) -> &'static str {
        match self {
            Refusal::RawSpace => "The request target holds a raw space; write %20 instead.\n",
            Refusal::ControlCharacter => {
                "The request target holds a raw control character; percent-encode it or leave it out.\n"
            }
            Refusal::TargetForm => {
                "The request target must be a path that begins with a slash, such as /sl?id=…&aff_id=….\n"
            }
            Refusal::HttpVersion => "The request line must end in HTTP/1.1 or HTTP/1.0.\n",
            Refusal::TargetTooLong => "The request target is longer than this server takes; shorten it.\n",
        }
    }

    /// Under `/sl/`, so that it counts as a malformed click; no link has such an id.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Refusal::RawSpace => "/sl/!raw-space",
            Refusal::ControlCharacter => "/sl/!control-character",
            Refusal::TargetForm => "/sl/!target-form",
            Refusal::HttpVersion => "/sl/!http-version",
            Refusal::TargetTooLong => "/sl/!target-too-long",
        }
    }
}

/// Whether the rest of a line after the method is a path in legal bytes, no more of them than that, and a version that hyper
/// knows.
fn is_usual(line: &[u8], target_bytes_max: usize) -> bool {
    let Some((target, b" HTTP/1.1\r\n" | b" HTTP/1.0\r\n")) = line.split_last_chunk() else { return false };
    target.len() <= target_bytes_max && is_legal_target(target)
}

/// Whether it is a path, perhaps with a query, in bytes that a URI may have.
pub(super) fn is_legal_target(target: &[u8]) -> bool {
    // All of them, without a branch for each: that is the faster way through a target that is as it should be.
    let common = target.iter().fold(IN_TARGET, |common, &byte| common & BYTES[usize::from(byte)]);
    target.starts_with(b"/") && common != 0
}

/// Writes the rest of a line after the method so that hyper can read it. One that is not recognisably HTTP/1.x is
/// written as it came, and `false` is answered.
fn rewrite(line: &[u8], target_bytes_max: usize, out: &mut Vec<u8>) -> bool {
    let content = line.trim_ascii_end();
    // A missing target is recognised too.
    let (target, separator, version) = match content.iter().rposition(|byte| matches!(byte, b' ' | b'\t')) {
        Some(at) => (&content[..at], content[at], &content[at + 1..]),
        None => (&content[..0], b' ', content),
    };
    let is_version = matches!(version, [name @ .., digit]
        if name.eq_ignore_ascii_case(b"HTTP/1.") && digit.is_ascii_digit());
    if !is_version {
        out.extend_from_slice(line);
        return false;
    }
    let ending = &line[content.len()..];
    let is_known = matches!(version, b"HTTP/1.1" | b"HTTP/1.0") && matches!(ending, b"\r\n" | b"\n");
    match encoded(target, target_bytes_max) {
        Err(refusal) => out.extend_from_slice(refusal.path().as_bytes()),
        Ok(_) if separator != b' ' => out.extend_from_slice(Refusal::ControlCharacter.path().as_bytes()),
        Ok(_) if !is_known => out.extend_from_slice(Refusal::HttpVersion.path().as_bytes()),
        Ok(target) => out.extend_from_slice(&target),
    }
    out.push(b' ');
    let (version, ending) = if is_known { (version, ending) } else { (&b"HTTP/1.1"[..], &b"\r\n"[..]) };
    out.extend_from_slice(version);
    out.extend_from_slice(ending);
    true
}

/// A target in bytes that a URI may have.
fn encoded(target: &[u8], bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    if target.iter().any(|byte| byte.is_ascii_control()) {
        return Err(Refusal::ControlCharacter);
    }
    if target.contains(&b' ') {
        return Err(Refusal::RawSpace);
    }
    let mut encoded = Vec::with_capacity(target.len() + 32);
    for &byte in target {
        if BYTES[usize::from(byte)] & IN_TARGET != 0 {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(percent_encoding::percent_encode_byte(byte).as_bytes());
        }
    }
    if encoded.len() > bytes_max {
        return Err(Refusal::TargetTooLong);
    }
    // hyper takes every path in these bytes; for the other forms its own reader is asked.
    if encoded.starts_with(b"/") || Uri::try_from(encoded.as_slice()).is_ok() {
        Ok(encoded)
    } else {
        Err(Refusal::TargetForm)
    }
}

fn header_line(line: &[u8]) -> HeaderLine {
    match line {
        [] | [b'\r'] => HeaderLine::EndOfHead,
        [b'C' | b'c' | b'T' | b't', ..] if announces_body(line) => HeaderLine::AnnouncesBody,
        _ => HeaderLine::Other,
    }
}

/// In doubt, yes: names that only begin alike do, a length that is zero in any other way than `0`, and a line so long
/// that its end may have been cut off.
fn announces_body(line: &[u8]) -> bool {
    if let Some(length) = after(line, b"content-length") {
        let is_zero = length.strip_prefix(b":").is_some_and(|length| length.trim_ascii() == b"0");
        return !is_zero || line.len() >= HEADER_BYTES_MAX;
    }
    after(line, b"transfer-encoding").is_some()
}

/// What follows a name, in any case.
fn after<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (begin, rest) = line.split_at_checked(name.len())?;
    begin.eq_ignore_ascii_case(name).then_some(rest)
}

/// For each byte, where it may stand raw.
const BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        if character.is_ascii_alphanumeric() || is_one_of(character, b"-._~:/?#[]@!$&'()*+,;=%") {
            bytes[byte] |= IN_TARGET;
        }
        if character.is_ascii_alphanumeric() || is_one_of(character, b"!#$%&'*+-.^_`|~") {
            bytes[byte] |= IN_METHOD;
        }
        byte += 1;
    }
    bytes
};

const fn is_one_of(byte: u8, bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// RFC 3986, 2: unreserved, reserved, and the percent sign.
const IN_TARGET: u8 = 1;

/// RFC 9110, 5.6.2: a token.
const IN_METHOD: u8 = 2;

/// Enough for `Content-Length: 0` with blanks around it.
const HEADER_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::{Rng, RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    /// A stream that gives one piece a read, then says once that nothing has come, then ends.
    struct Pieces {
        pieces: VecDeque<Vec<u8>>,
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let pieces = &mut self.get_mut().pieces;
            let Some(mut piece) = pieces.pop_front() else { return Poll::Ready(Ok(())) };
            if piece.is_empty() {
                return Poll::Pending;
            }
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                pieces.push_front(rest);
            }
            Poll::Ready(Ok(()))
        }
    }

    /// What hyper gets, with so much room a read, before anything is known to have ended and then at the end.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, room: usize) -> (Vec<u8>, Vec<u8>) {
        let pieces = pieces.into_iter().map(<[u8]>::to_vec).filter(|piece| !piece.is_empty());
        let mut lines = RequestLines::new(Pieces { pieces: pieces.chain([Vec::new()]).collect() });
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut got = Vec::new();
        let mut before_the_end = None;
        loop {
            let mut space = vec![0; room];
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut lines).poll_read(&mut context, &mut buffer) {
                Poll::Pending => before_the_end = Some(got.clone()),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return (before_the_end.unwrap(), got),
                Poll::Ready(Ok(())) => got.extend_from_slice(buffer.filled()),
                Poll::Ready(Err(error)) => panic!("{error}"),
            }
        }
    }

    fn in_one_piece(bytes: &[u8]) -> String {
        String::from_utf8_lossy(&read([bytes], 1 << 16).1).into_owned()
    }

    /// What becomes of this request line in front of a head.
    fn line(line: &[u8]) -> String {
        let got = in_one_piece(&[line, b"\r\nHost: a\r\n\r\n"].concat());
        got.strip_suffix("\r\nHost: a\r\n\r\n").unwrap_or_else(|| panic!("{got:?}")).to_owned()
    }

    #[test]
    fn legal_lines_stay_as_they_are() {
        for legal in [
            "GET /sl?id=301&aff_id=67890 HTTP/1.1",
            "GET / HTTP/1.0",
            "HEAD /-._~:/?#[]@!$&'()*+,;=%zz%20 HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "GET http://go.example.com/sl?id=301 HTTP/1.1",
            "CONNECT go.example.com:443 HTTP/1.1",
            "M-SEARCH!#$%&'*+.^_`|~ /sl HTTP/1.1",
        ] {
            assert_eq!(line(legal.as_bytes()), legal);
            let bare = format!("{legal}\nHost: a\n\nGET /next HTTP/1.1\r\n");
            assert_eq!(in_one_piece(bare.as_bytes()), bare);
        }
    }

    #[test]
    fn every_byte_of_a_target_has_its_way() {
        for byte in 0..=u8::MAX {
            for before in ["/sl?s1=", "/sl/", "http://go.example.com/"] {
                let got = line(&[b"GET ", before.as_bytes(), &[byte], b"x HTTP/1.1"].concat());
                let target = match byte {
                    // The line has ended, and is none of HTTP/1.x.
                    b'\n' => format!("{before}\nx"),
                    b' ' => "/sl/!raw-space".to_owned(),
                    0..=0x1f | 0x7f => "/sl/!control-character".to_owned(),
                    b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                        format!("{before}%{byte:02X}x")
                    }
                    0x21..=0x7e => format!("{before}{}x", byte as char),
                };
                assert_eq!(got, format!("GET {target} HTTP/1.1"), "{byte:#04x} after {before}");
            }
        }
    }

    #[test]
    fn lines_that_cannot_be_mended_are_refused() {
        for (broken, refusal) in [
            ("GET /sl?s1=a b HTTP/1.1", "GET /sl/!raw-space HTTP/1.1"),
            ("GET  /sl HTTP/1.1", "GET /sl/!raw-space HTTP/1.1"),
            ("GET /sl  HTTP/1.0", "GET /sl/!raw-space HTTP/1.0"),
            ("GET /sl HTTP/1.1 HTTP/1.1", "GET /sl/!raw-space HTTP/1.1"),
            ("GET /sl\tHTTP/1.1", "GET /sl/!control-character HTTP/1.1"),
            ("GET /sl?a=\rb HTTP/1.1", "GET /sl/!control-character HTTP/1.1"),
            ("GET /sl?a=\0 b HTTP/1.1", "GET /sl/!control-character HTTP/1.1"),
            ("GET sl?id=301 HTTP/1.1", "GET /sl/!target-form HTTP/1.1"),
            ("GET HTTP/1.1", "GET /sl/!target-form HTTP/1.1"),
            ("GET  HTTP/1.1", "GET /sl/!target-form HTTP/1.1"),
            ("GET ?id=301 HTTP/1.1", "GET /sl/!target-form HTTP/1.1"),
            ("GET http:///sl HTTP/1.1", "GET /sl/!target-form HTTP/1.1"),
            ("GET http://é.example/sl HTTP/1.1", "GET /sl/!target-form HTTP/1.1"),
            ("GET /sl HTTP/1.2", "GET /sl/!http-version HTTP/1.1"),
            ("GET /sl http/1.1", "GET /sl/!http-version HTTP/1.1"),
            ("GET /sl HTTP/1.1 ", "GET /sl/!http-version HTTP/1.1"),
            ("GET /sl HTTP/1.0\t\r", "GET /sl/!http-version HTTP/1.1"),
        ] {
            assert_eq!(line(broken.as_bytes()), refusal, "{broken:?}");
            let path = refusal.split(' ').nth(1).unwrap();
            assert_eq!(Refusal::from_path(path).map(Refusal::path), Some(path));
        }
        for path in ["/sl", "/sl/!", "/sl/301", "/sl/!raw-space/", "/"] {
            assert_eq!(Refusal::from_path(path), None, "{path}");
        }
    }

    /// Whatever follows them, because nothing is known about where the next request begins.
    #[test]
    fn what_is_no_http_1_and_what_has_a_body_is_left_alone() {
        let bad = "GET /sl?a=<b c> HTTP/1.1\r\nHost: a\r\n\r\n";
        for begin in [
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\u{16}\u{3}\u{1}\0\u{5}GET",
            "GET /sl?a=<\r\n",
            "GET /sl?a=< HTTP/2\r\n\r\n",
            "GET /sl?a=< HTTP/1.10\r\n\r\n",
            "(GET) / HTTP/1.1\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-LENGTH:40\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 00\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0, 40\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length : 40\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n",
            &format!("POST / HTTP/1.1\r\nContent-Length: 0{}1\r\n\r\n", " ".repeat(HEADER_BYTES_MAX)),
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n",
            "POST / HTTP/1.1\r\ntRANSFER-eNCODING:\r\n\r\n",
        ] {
            let stream = format!("{begin}{bad}{bad}");
            assert_eq!(in_one_piece(stream.as_bytes()), stream, "{begin:?}");
            let (before_the_end, got) = read(stream.as_bytes().chunks(1), 7);
            assert_eq!((before_the_end.as_slice(), got.as_slice()), (stream.as_bytes(), stream.as_bytes()));
        }
        for begin in [
            "\r\n\n\r\nPOST / HTTP/1.1\r\nContent-Length:\t0 \r\n\r\n",
            "GET / HTTP/1.1\r\nX: Content-Length: 40\r\nTransfer: 1\r\nContent: 1\r\n\r\n",
        ] {
            let got = in_one_piece(format!("{begin}{bad}{bad}").as_bytes());
            assert_eq!(got.matches("GET /sl/!raw-space HTTP/1.1\r\n").count(), 2, "{begin:?}: {got}");
        }
    }

    /// hyper has to see that a request has begun, or a drain would close the connection under it; and how it ended.
    #[test]
    fn a_line_that_has_not_ended_is_held_from_the_target_on() {
        let (before_the_end, got) = read([b"GET /sl?a=<".as_slice()], 100);
        assert_eq!((before_the_end.as_slice(), got.as_slice()), (&b"GET "[..], &b"GET /sl?a=<"[..]));
        let (before_the_end, got) = read([b"GE".as_slice()], 100);
        assert_eq!((before_the_end.as_slice(), got.as_slice()), (&b"GE"[..], &b"GE"[..]));
    }

    #[test]
    fn a_line_without_an_end_is_not_held_for_ever() {
        let refused = b"GET /sl/!target-too-long HTTP/1.1\r\n\r\n";
        for (begin, byte) in [("/", "<"), ("/sl ", "<"), ("/sl", " ")] {
            let endless = format!("GET {begin}{}", byte.repeat(HeadLimits::DEFAULT.uri_bytes + 11));
            for behind in ["", "<< HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
                let stream = format!("{endless}{behind}");
                for size in [1, 1_000, 100_000] {
                    let (before_the_end, got) = read(stream.as_bytes().chunks(size), 4096);
                    let got = [before_the_end, got].map(|got| String::from_utf8(got).unwrap());
                    assert_eq!(got, [std::str::from_utf8(refused).unwrap(); 2], "{begin}{byte}, {size}");
                }
            }
        }
    }

    /// Requests drawn at random, whole and broken, cut into reads at random.
    #[test]
    fn where_the_reads_are_cut_makes_no_difference() {
        let seed = match std::env::var("SMARTLINK_TEST_SEED") {
            Ok(seed) => seed.parse().expect("SMARTLINK_TEST_SEED is a number"),
            Err(_) => 301,
        };
        println!("SMARTLINK_TEST_SEED={seed}");
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let (mut changed, mut bodies) = (0, 0);
        for _ in 0..4_000 {
            let stream: Vec<u8> =
                (0..random.random_range(1..5)).flat_map(|_| random_request(&mut random)).collect();
            let (_, whole) = read([stream.as_slice()], 1 << 16);
            let mut cuts: Vec<usize> = (0..random.random_range(0..12))
                .map(|_| random.random_range(0..=stream.len()))
                .chain([0, stream.len()])
                .collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
            let (_, cut) = read(pieces, random.random_range(1..300));
            assert_eq!(
                String::from_utf8_lossy(&cut),
                String::from_utf8_lossy(&whole),
                "{cuts:?} in {:?}",
                String::from_utf8_lossy(&stream)
            );
            changed += usize::from(whole != stream);
            bodies += usize::from(stream.windows(8).any(|window| window == b"-Length:"));
        }
        assert!(changed > 500 && bodies > 500, "{changed} changed, {bodies} with a length");
    }

    fn random_request(random: &mut Xoshiro256PlusPlus) -> Vec<u8> {
        let mut request = Vec::new();
        for _ in 0..random.random_range(0..2) {
            request.extend_from_slice(pick(random, &[b"\r\n", b"\n"]));
        }
        request.extend_from_slice(pick(random, &[b"GET", b"GET", b"HEAD", b"POST", b"PRI", b"(", b""]));
        request.extend_from_slice(pick(random, &[b" ", b" ", b" ", b" ", b"  ", b"\t"]));
        request
            .extend_from_slice(pick(random, &[b"/sl?a=", b"/sl?a=", b"/sl?a=", b"http://a/", b"*", b"sl"]));
        let odd = random.random_range(0..4) == 0;
        for _ in 0..random.random_range(0..20) {
            request.push(if odd {
                random.next_u32() as u8
            } else {
                b"abc=%20&<>\xc3\xa9"[random.random_range(0..12)]
            });
        }
        request.extend_from_slice(pick(
            random,
            &[b" HTTP/1.1", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/1.7", b" HTTP/2", b""],
        ));
        request.extend_from_slice(pick(random, &[b"\r\n", b"\r\n", b"\n", b" \r\n"]));
        for _ in 0..random.random_range(0..4) {
            request.extend_from_slice(pick(
                random,
                &[
                    b"Host: go.example.com\r\n",
                    b"Cookie: abc\n",
                    b"Content-Length: 0\r\n",
                    b"CONTENT-Length:12\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"User-Agent: an agent whose line is longer than what is kept of a line that has not ended yet\r\n",
                ],
            ));
        }
        request.extend_from_slice(pick(random, &[b"\r\n", b"\r\n", b"\n", b""]));
        request
    }

    fn pick<'a>(random: &mut Xoshiro256PlusPlus, choices: &[&'a [u8]]) -> &'a [u8] {
        choices[random.random_range(0..choices.len())]
    }
}
