//! Receivers that mean harm, and names that lead inside.

use super::receiver::{Answer, Receiver, Rest, status};
use super::stage::{Stage, endpoint, job};
use async_trait::async_trait;
use narrows::callback::cursor::Cursor;
use narrows::callback::guard::Resolver;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers every name with the next of these lists; the last one stays.
struct Book {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Book {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(parse).collect()), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Resolver for Book {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, SeqCst);
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { Ok(answers.remove(0)) } else { Ok(answers[0].clone()) }
    }
}

/// One event for this URL, tried until it has arrived or was given up.
async fn deliver(stage: &Stage, url: &str) -> Cursor {
    let (talk, hook) = (job("talk"), endpoint(url));
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 1).await;
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    let cursor = stage.cursor_when(&talk, &hook, |c| c.next_sequence == 2).await;
    running.stop().await;
    cursor
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let (mut stage, mut receiver, mut inside) = (Stage::new(), Receiver::start().await, Receiver::start().await);
    stage.settings.schedule_s = vec![0];
    for code in [301, 302, 303, 307, 308] {
        receiver.otherwise(Answer { status: code, headers: vec![("location", inside.url("/secret"))], ..Answer::default() });
        let cursor = deliver(&stage, &receiver.url(&format!("/{code}"))).await;
        assert_eq!(cursor.last_failure.unwrap(), format!("the endpoint answered {code}"));
    }
    assert_eq!(receiver.rest().len(), 5);
    assert!(inside.rest().is_empty());
}

#[tokio::test]
async fn an_answer_without_end_is_cut_and_counts_by_its_status() {
    let (stage, receiver) = (Stage::new(), Receiver::start().await);
    for rest in [Rest::Endless, Rest::Silent] {
        receiver.script([Answer { rest: rest.clone(), ..status(200) }]);
        let started = Instant::now();
        let cursor = deliver(&stage, &receiver.url(&format!("/{rest:?}"))).await;
        assert_eq!((cursor.delivered, cursor.exhausted), (1, 0));
        assert!(started.elapsed() < Duration::from_secs(4), "{rest:?}: {:?}", started.elapsed());
    }
}

/// A server that takes the connection and then does this, whatever is sent to it.
async fn wild(behaviour: fn(tokio::net::TcpStream) -> futures::future::BoxFuture<'static, ()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(behaviour(client));
        }
    });
    port
}

#[tokio::test]
async fn whoever_answers_nothing_or_for_ever_is_given_up_in_time() {
    let mut stage = Stage::new();
    (stage.settings.schedule_s, stage.settings.timeout_s) = (vec![0], 1);
    let silent = wild(|mut client| {
        Box::pin(async move {
            let mut sink = Vec::new();
            let _ = client.read_to_end(&mut sink).await;
        })
    });
    let dripping = wild(|mut client| {
        Box::pin(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
            while client.write_all(b"x").await.is_ok() {
                tick.tick().await;
            }
        })
    });
    let headers = wild(|mut client| {
        Box::pin(async move {
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while client.write_all(b"x-more: and more of it, again and again\r\n").await.is_ok() {}
        })
    });
    let noise = wild(|mut client| {
        Box::pin(async move {
            let _ = client.write_all(b"220 mail.example.com ESMTP\r\n").await;
        })
    });
    let said = [(silent.await, "no answer within 1 s"), (dripping.await, "no answer within 1 s")];
    for (port, expected) in said {
        let started = Instant::now();
        let cursor = deliver(&stage, &format!("http://127.0.0.1:{port}/")).await;
        assert_eq!(cursor.last_failure.unwrap(), expected);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
    for port in [headers.await, noise.await] {
        let reason = deliver(&stage, &format!("http://127.0.0.1:{port}/")).await.last_failure.unwrap();
        assert!(reason.starts_with("the connection broke: "), "{reason}");
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_and_nobody_is_called() {
    let (mut stage, mut receiver) = (Stage::new(), Receiver::start().await);
    stage.settings.schedule_s = vec![0];
    stage.settings.allow_private.clear();
    let port = receiver.port;
    for (at, why) in [
        (&["127.0.0.1"][..], "loopback"),
        (&["10.1.2.3"], "private (RFC 1918)"),
        (&["169.254.169.254"], "link-local"),
        (&["100.64.0.1"], "carrier"),
        (&["::1"], "loopback"),
        (&["::ffff:127.0.0.1"], "IPv4 address in IPv6 form"),
        (&["64:ff9b::7f00:1"], "NAT64"),
        (&["93.184.216.34", "127.0.0.1"], "loopback"),
    ] {
        stage.resolver = Book::new(&[at]);
        let reason = deliver(&stage, &format!("http://{}.example.com:{port}/", at.len())).await.last_failure.unwrap();
        assert!(reason.contains("example.com") && reason.contains(why), "{reason}");
        // The next name is another endpoint; its cursor starts anew.
        let folder = narrows::store::key::Key::cursor(
            &job("talk"),
            endpoint_id(&format!("http://{}.example.com:{port}/", at.len())).as_str(),
        );
        stage.store.delete(&folder).await.unwrap();
    }
    for url in ["http://127.0.0.1", "http://2130706433", "http://0x7f.1", "http://0177.0.0.1", "http://[::ffff:7f00:1]"] {
        let reason = deliver(&stage, &format!("{url}:{port}/")).await.last_failure.unwrap();
        assert!(reason.contains("is not public"), "{reason}");
    }
    assert!(receiver.rest().is_empty());
}

fn endpoint_id(url: &str) -> narrows::callback::EndpointId {
    narrows::callback::EndpointId::of(&endpoint(url))
}

#[tokio::test]
async fn a_name_is_resolved_once_and_the_checked_address_is_called() {
    let (mut stage, mut receiver) = (Stage::new(), Receiver::start().await);
    stage.settings.schedule_s = vec![0];
    // Asked a second time it would lead to another place.
    let book = Book::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    stage.resolver = book.clone();
    let cursor = deliver(&stage, &format!("http://hooks.example.com:{}/a?b=c", receiver.port)).await;
    assert_eq!((cursor.delivered, book.asked.load(SeqCst)), (1, 1));
    let taken = receiver.next().await;
    assert_eq!(taken.path, "/a?b=c");
    assert_eq!(taken.header("host"), format!("hooks.example.com:{}", receiver.port));
}

#[tokio::test]
async fn https_to_somebody_who_cannot_prove_his_name_is_refused() {
    let (mut stage, receiver) = (Stage::new(), Receiver::start().await);
    stage.settings.schedule_s = vec![0];
    stage.settings.allow_http = false;
    let reason = deliver(&stage, &receiver.url("/")).await.last_failure.unwrap();
    assert!(reason.contains("callbacks go to https"), "{reason}");
    // Plain text on the other side.
    let reason = deliver(&stage, &receiver.url("/").replace("http:", "https:")).await.last_failure.unwrap();
    assert!(reason.starts_with("no connection: "), "{reason}");
}
