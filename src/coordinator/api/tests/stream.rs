//! Server-sent events over a socket.

use super::Server;
use super::client::Client;
use crate::broker::{Broker, Topic};
use crate::coordinator::fixture::{START_MS, id, whole_job};
use crate::event::{Event, Fact, Recorded};
use crate::plan::marker::PartId;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest wait for something that must come.
const LONGEST: Duration = Duration::from_secs(20);

/// An open stream.
pub struct Stream {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
}

/// One event as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Came {
    pub id: String,
    pub event: String,
    pub data: String,
}

impl Stream {
    pub async fn open(client: &Client, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut socket = TcpStream::connect(client.address).await.unwrap();
        let head = client.head("GET", path, &[headers, &[("accept", "text/event-stream")]].concat()) + "\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(socket).lines();
        let status = lines.next_line().await.unwrap().unwrap();
        assert!(status.contains("200"), "{status}");
        while lines.next_line().await.unwrap().is_some_and(|line| !line.is_empty()) {}
        Self { lines }
    }

    /// The next event; none at the end of the stream. Lines of chunks and comments are passed over.
    pub async fn next(&mut self) -> Option<Came> {
        tokio::time::timeout(LONGEST, self.read()).await.expect("an event, or the end of the stream")
    }

    async fn read(&mut self) -> Option<Came> {
        let mut came = Came::default();
        loop {
            let line = self.lines.next_line().await.unwrap()?;
            match line.split_once(": ") {
                Some(("id", value)) => came.id = value.into(),
                Some(("event", value)) => came.event = value.into(),
                Some(("data", value)) => came.data = value.into(),
                _ if line.is_empty() && !came.data.is_empty() => return Some(came),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_stream_tells_every_event_once_in_order_and_ends_with_the_job() {
    let server = Server::start().await;
    server.site.accept("talk").await;
    let told = whole_job(&id("talk"));
    server.take_in(&told[..4]).await;
    let mut stream = Stream::open(&server.acme, "/v1/jobs/talk/events", &[]).await;
    let mut came = Vec::new();
    for _ in 0..3 {
        came.push(stream.next().await.unwrap());
    }
    server.take_in(&told[4..12]).await;
    came.push(stream.next().await.unwrap());
    server.take_in(&told[12..]).await;
    while let Some(event) = stream.next().await {
        came.push(event);
    }
    let recorded = server.site.recorded(&id("talk")).await;
    assert_eq!(came.len(), recorded.len());
    for (came, recorded) in came.iter().zip(&recorded) {
        assert_eq!((came.id.clone(), came.event.clone()), (recorded.sequence.to_string(), recorded.kind.clone()));
        assert_eq!(serde_json::from_str::<Recorded>(&came.data).unwrap(), *recorded);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_comes_back_goes_on_where_it_was_and_is_told_when_there_is_no_more() {
    let server = Server::start().await;
    server.job("talk").await;
    let last = server.site.recorded(&id("talk")).await.len().to_string();
    let mut stream = Stream::open(&server.acme, "/v1/jobs/talk/events", &[("last-event-id", "5")]).await;
    assert_eq!(stream.next().await.unwrap().id, "6");
    let headers = [("accept", "text/event-stream"), ("last-event-id", last.as_str())];
    let done = server.acme.send("GET", "/v1/jobs/talk/events", &headers, String::new()).await;
    done.must("/v1/jobs/{id}/events", 204);
    let page = server.acme.get("/v1/jobs/talk/events?after=3&limit=2").await.must("/v1/jobs/{id}/events", 200).json();
    assert_eq!((page["events"][0]["sequence"].as_u64(), page["next_after"].as_u64()), (Some(4), Some(5)));
    server.stop().await;
}

#[tokio::test]
async fn progress_is_seen_live_and_a_stop_ends_the_stream() {
    let server = Server::start().await;
    server.site.accept("talk").await;
    let mut stream = Stream::open(&server.acme, "/v1/jobs/talk/events", &[]).await;
    let fact = Fact::Progress { part: PartId::Encode(3), frames: 41 };
    let body = serde_json::to_vec(&Event::new(id("talk"), "acme".into(), START_MS, fact)).unwrap();
    // The topic keeps nothing, so it is told until it is heard.
    let telling = async {
        loop {
            server.site.broker.broadcast(Topic::Progress, body.clone()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let came = tokio::select! {
        () = telling => unreachable!("it tells for ever"),
        came = stream.next() => came.unwrap(),
    };
    assert_eq!((came.event.as_str(), came.id.as_str()), ("progress", ""));
    assert!(came.data.contains(r#""part":"encode/00003""#) && came.data.contains(r#""frames":41"#), "{}", came.data);
    let Server { stopper, serving, .. } = server;
    stopper.stop();
    while stream.next().await.is_some() {}
    tokio::time::timeout(LONGEST, serving).await.expect("the server ends").unwrap();
}
