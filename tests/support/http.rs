//! HTTP/1.1 in bytes, for tests that assert what is on the wire: requests are written as they stand, and exactly one
//! answer is read, by its `Content-Length`. Nothing is retried, followed or decoded.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use super::wait::DEADLINE;

/// One connection, kept alive until either side closes it.
pub struct Connection {
    stream: TcpStream,
    /// Read, and not yet part of an answer.
    unread: Vec<u8>,
    /// Methods of the requests whose answers are still to come: an answer to HEAD has no body.
    heads: Vec<bool>,
}

/// A request as it will be written.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// One whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `HTTP/1.1 302 Found`.
    pub status_line: String,
    pub status: u16,
    /// In the order of the wire, names in lower case.
    pub headers: Vec<(String, String)>,
    /// What is not UTF-8 in it is U+FFFD.
    pub body: String,
    pub bytes: Vec<u8>,
}

/// How a connection ended instead of answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Before the first byte of the answer: it can be asked again elsewhere.
    BeforeFirstByte,
    /// In the middle: the worst that can happen.
    Torn(String),
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// A person's click, from a desktop browser.
    pub fn click(target: &str) -> Self {
        Self::new("GET", target).with("Host", "go.example.com").with("User-Agent", DESKTOP)
    }

    /// Sets a header, in place of one of the same name.
    pub fn with(self, name: &str, value: &str) -> Self {
        self.without(name).and(name, value)
    }

    /// Adds a header, beside any of the same name.
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.with("Content-Length", &length)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        [text.as_bytes(), &self.body].concat()
    }
}

impl Connection {
    #[track_caller]
    pub fn to(address: SocketAddr) -> Self {
        Self::try_to(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub fn try_to(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, unread: Vec::new(), heads: Vec::new() })
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Answer {
        self.ask_raw(request.to_bytes())
    }

    /// Sends exactly these bytes, which hold one request, and reads its answer.
    #[track_caller]
    pub fn ask_raw(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        let bytes = bytes.as_ref();
        self.send(bytes).unwrap();
        self.read().unwrap_or_else(|none| {
            panic!("no answer ({none:?}) to {:?}", String::from_utf8_lossy(bytes).escape_debug().to_string())
        })
    }

    /// Sends bytes that begin with one request, and reads nothing.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let bytes = bytes.as_ref();
        self.heads.push(bytes.starts_with(b"HEAD "));
        self.stream.write_all(bytes)
    }

    /// Sends bytes that begin with one request, and the end of the stream with them: in the same segment where the
    /// system can be told to wait for it.
    pub fn send_last(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&self.stream).set_tcp_cork(true)?;
        self.send(bytes)?;
        self.stream.shutdown(Shutdown::Write)
    }

    /// Reads exactly one answer.
    pub fn read(&mut self) -> Result<Answer, NoAnswer> {
        let is_head = self.heads.first().copied().unwrap_or(false);
        loop {
            if let Some((answer, bytes)) = Answer::parse(&self.unread, is_head) {
                if !self.heads.is_empty() {
                    self.heads.remove(0);
                }
                self.unread.drain(..bytes);
                return Ok(answer);
            }
            self.read_more("the rest of an answer")?;
        }
    }

    /// Waits until the other side closes, and asserts that it says nothing more before.
    #[track_caller]
    pub fn assert_closes(&mut self) {
        assert_eq!(self.read().map(|answer| answer.status_line), Err(NoAnswer::BeforeFirstByte));
    }

    fn read_more(&mut self, what: &str) -> Result<(), NoAnswer> {
        let mut chunk = [0; 4096];
        let ended = match self.stream.read(&mut chunk) {
            Ok(0) => "end of file".to_owned(),
            Ok(count) => {
                self.unread.extend_from_slice(&chunk[..count]);
                return Ok(());
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("waited {DEADLINE:?} in vain for {what}; got so far: {:?}", self.unread_text());
            }
            Err(error) => error.to_string(),
        };
        if self.unread.is_empty() {
            return Err(NoAnswer::BeforeFirstByte);
        }
        Err(NoAnswer::Torn(format!("{ended} after {:?}", self.unread_text())))
    }

    fn unread_text(&self) -> String {
        String::from_utf8_lossy(&self.unread).into_owned()
    }
}

impl Answer {
    /// The answer that these bytes begin with, and how many of them it has; `None` if some are still to come.
    pub fn parse(bytes: &[u8], is_to_head: bool) -> Option<(Self, usize)> {
        let head_bytes = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..head_bytes]).expect("a head in UTF-8");
        let mut answer = Self::from_head(head);
        let length = match answer.header("content-length") {
            _ if is_to_head => 0,
            Some(length) => length.parse().expect("a Content-Length"),
            None => panic!("an answer without Content-Length: {head}"),
        };
        let body = bytes.get(head_bytes..head_bytes + length)?;
        answer.body = String::from_utf8_lossy(body).into_owned();
        answer.bytes = body.to_vec();
        Some((answer, head_bytes + length))
    }

    fn from_head(head: &str) -> Self {
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("a status line").to_owned();
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        let status = status.unwrap_or_else(|| panic!("no status: {status_line:?}"));
        Self { status_line, status, headers, body: String::new(), bytes: Vec::new() }
    }

    /// The only header of this name.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    pub fn header_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Whether the other side closes after this answer.
    pub fn is_last(&self) -> bool {
        self.header("connection") == Some("close")
    }

    /// Where a redirect goes.
    #[track_caller]
    pub fn location(&self) -> &str {
        assert_eq!(self.status_line, "HTTP/1.1 302 Found", "{self:?}");
        self.header("location").unwrap_or_else(|| panic!("a redirect to nowhere: {self:?}"))
    }

    /// The host of where a redirect goes.
    #[track_caller]
    pub fn destination(&self) -> &str {
        let location = self.location();
        let rest = location.strip_prefix("https://").unwrap_or_else(|| panic!("not https: {location}"));
        rest.split(['/', '?']).next().unwrap_or_default()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Chrome on Windows.
pub const DESKTOP: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                           Chrome/131.0.0.0 Safari/537.36";

/// Safari on an iPhone.
pub const PHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
                         Gecko) Version/18.1 Mobile/15E148 Safari/604.1";

/// Safari on an iPad.
pub const TABLET: &str = "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                          Version/17.5 Mobile/15E148 Safari/604.1";

pub const CRAWLER: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
