//! A plain HTTP client: it sends what it is told to, right or wrong.

use super::contract;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends requests, each on a connection of its own.
pub struct Client {
    pub address: SocketAddr,
    authorization: Option<String>,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub method: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, authorization: None }
    }

    pub fn basic(address: SocketAddr, id: &str, secret: &str) -> Self {
        Self::with(address, &format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))
    }

    pub fn with(address: SocketAddr, authorization: &str) -> Self {
        Self { address, authorization: Some(authorization.into()) }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], String::new()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], String::new()).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[], body.to_string()).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        let mut head = self.head(method, path, headers);
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            head += "content-type: application/json\r\n";
        }
        head += &format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        let whole = [head.into_bytes(), body].concat();
        Answer::read(method, self.raw(&whole).await)
    }

    /// The head of a request without its end.
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if let Some(authorization) = &self.authorization {
            head += &format!("authorization: {authorization}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head
    }

    /// Sends these bytes, and reads to the end of the connection.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        // A server may answer, and hang up, before it has read everything.
        let _ = socket.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        answer
    }
}

impl Answer {
    pub fn read(method: &str, bytes: Vec<u8>) -> Self {
        let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no head in {bytes:?}"));
        let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> =
            lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.into())).collect();
        let mut answer = Self { status, method: method.into(), headers, body: bytes[at + 4..].to_vec() };
        if answer.header("transfer-encoding") == "chunked" {
            answer.body = unchunked(&answer.body);
        }
        answer
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The answer has this status and is one that the contract allows for this route.
    #[track_caller]
    pub fn must(self, route: &str, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {route}: {}", self.method, String::from_utf8_lossy(&self.body));
        contract::check(&self, route);
        self
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        let bytes = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[at + 2..at + 2 + bytes]);
        rest = &rest[at + 4 + bytes..];
    }
    body
}
