//! As much HTTP/1.1 (RFC 9112) as tests need: a blocking client for loopback ports, and messages read off a connection
//! whole, with their bytes as they came, for proxies and receivers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest message, bytes.
const MAX_MESSAGE: usize = 256 * 1024 * 1024;
/// Longest wait of the client for any one piece of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Letters, digits and `-._~` as they are, everything else as `%XX` (RFC 3986 2.1).
pub fn percent_encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Talks to one loopback port, one connection for each request.
#[derive(Clone, Debug)]
pub struct Client {
    port: u16,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{} {}: {e}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl Client {
    pub fn new(port: u16) -> Self {
        Self { port, headers: Vec::new() }
    }

    /// Sends this header with every request.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// # Errors
    /// Nobody answers, or not in HTTP.
    pub fn get(&self, path: &str) -> io::Result<Response> {
        self.call("GET", path, &[], &[])
    }

    /// # Errors
    /// Nobody answers, or not in HTTP.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> io::Result<Response> {
        self.call("POST", path, &[("content-type", content_type)], body)
    }

    /// # Errors
    /// Nobody answers, or not in HTTP.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n", self.port);
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method != "GET" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        // A server may refuse a body before it has read it: what it says then is the answer.
        let sent = stream.write_all((head + "\r\n").as_bytes()).and_then(|()| stream.write_all(body));
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        match parse(&bytes, method) {
            Some(response) => Ok(response),
            None => Err(sent.and(read.map(|_| ())).err().unwrap_or_else(|| io::Error::other("no HTTP answer"))),
        }
    }
}

/// A whole answer in memory.
fn parse(bytes: &[u8], method: &str) -> Option<Response> {
    let kind = if method == "HEAD" { Kind::ResponseToHead } else { Kind::Response };
    let message = ready(Wire::new(bytes).message(kind))?.ok()??;
    Some(Response { status: message.status()?, headers: message.headers, body: message.body })
}

/// A future that never waits: its bytes are in memory.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    futures::FutureExt::now_or_never(future)
}

/// Which rules say where a message ends (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    ResponseToHead,
}

/// A request or an answer.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// First line, without its end.
    pub start: String,
    pub headers: Vec<(String, String)>,
    /// Without the framing of chunks.
    pub body: Vec<u8>,
    /// Every byte as it came.
    pub raw: Vec<u8>,
    /// Its end is the end of the connection.
    pub ends_connection: bool,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    fn word(&self, n: usize) -> &str {
        self.start.split(' ').nth(n).unwrap_or_default()
    }

    /// Of a request.
    pub fn method(&self) -> &str {
        self.word(0)
    }

    /// Of a request: path and query.
    pub fn target(&self) -> &str {
        self.word(1)
    }

    /// Of an answer.
    pub fn status(&self) -> Option<u16> {
        self.word(1).parse().ok()
    }

    /// Does the sender want the connection closed after it?
    pub fn closes(&self) -> bool {
        self.ends_connection || self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Reads message after message off a connection.
pub struct Wire<R> {
    stream: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Wire<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next message, `None` when the connection ends between two.
    ///
    /// # Errors
    /// The connection breaks, or what comes is no HTTP.
    pub async fn message(&mut self, kind: Kind) -> io::Result<Option<Message>> {
        let mut message = Message::default();
        let mut at = 0;
        match self.line(&mut at).await? {
            None if self.buffer.is_empty() => return Ok(None),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(line) => message.start = line,
        }
        loop {
            let line = self.line(&mut at).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other("a header without a colon"))?;
            message.headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        self.body(kind, &mut message, &mut at).await?;
        message.raw = self.buffer.drain(..at).collect();
        Ok(Some(message))
    }

    async fn body(&mut self, kind: Kind, message: &mut Message, at: &mut usize) -> io::Result<()> {
        let without = match kind {
            Kind::ResponseToHead => true,
            Kind::Response => matches!(message.status(), Some(100..=199 | 204 | 304)),
            Kind::Request => false,
        };
        if without {
            return Ok(());
        }
        if message.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked")) {
            return self.chunks(message, at).await;
        }
        let length = message.header("content-length").and_then(|value| value.parse::<usize>().ok());
        match length {
            Some(length) => message.body = self.bytes(at, length).await?,
            None if kind == Kind::Request => {}
            None => {
                while self.fill().await? > 0 {}
                message.body = self.buffer[*at..].to_vec();
                *at = self.buffer.len();
                message.ends_connection = true;
            }
        }
        Ok(())
    }

    async fn chunks(&mut self, message: &mut Message, at: &mut usize) -> io::Result<()> {
        loop {
            let line = self.line(at).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
            let chunk = self.bytes(at, length).await?;
            message.body.extend(chunk);
            if length == 0 {
                // Trailers, up to an empty line.
                while !self.line(at).await?.ok_or(io::ErrorKind::UnexpectedEof)?.is_empty() {}
                return Ok(());
            }
            self.line(at).await?;
        }
    }

    /// The line at `at` without its end; `None` when the connection ends before it does.
    async fn line(&mut self, at: &mut usize) -> io::Result<Option<String>> {
        loop {
            if let Some(length) = self.buffer[*at..].iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&self.buffer[*at..*at + length]).trim_end_matches('\r').to_string();
                *at += length + 1;
                return Ok(Some(line));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn bytes(&mut self, at: &mut usize, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < *at + length {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let bytes = self.buffer[*at..*at + length].to_vec();
        *at += length;
        Ok(bytes)
    }

    async fn fill(&mut self) -> io::Result<usize> {
        if self.buffer.len() > MAX_MESSAGE {
            return Err(io::Error::other("a message longer than a test's"));
        }
        self.buffer.reserve(64 * 1024);
        self.stream.read_buf(&mut self.buffer).await
    }
}
