//! The servers that other tests rely on: they do what they say, and nothing of them is left when their test is gone.

mod common;

use common::http::Client;
use common::proxy::Way;
use common::server::{descendants, started_at, until};
use common::store_proxy::StoreFault;
use common::{Answer, Fault, FaultProxy, Garage, RabbitNode, Receiver, StoreFaults, StoreProxy, wait_for};
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use opendal_http_transport_reqwest::ReqwestTransport;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set where this very program is started again to be killed.
const HELD: &str = "TEST_THAT_IS_KILLED";
const QUEUE: &str = "tried";

async fn channel(uri: &str) -> lapin::Channel {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let quorum = BTreeMap::from([("x-queue-type".into(), AMQPValue::LongString("quorum".into()))]);
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), options, FieldTable::from(quorum)).await.unwrap();
    channel
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_and_started_again_has_every_message_that_it_confirmed() {
    let mut node = RabbitNode::start();
    let sent = channel(&node.uri("/")).await;
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let confirm = sent.basic_publish("".into(), QUEUE.into(), BasicPublishOptions::default(), b"kept", persistent).await;
    assert!(confirm.unwrap().await.unwrap().is_ack());
    wait_for("the queue to be on the disk", || node.knows(QUEUE).then_some(()));
    node.restart();
    let taken = channel(&node.uri("/")).await;
    let mut consumer =
        taken.basic_consume(QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await.unwrap();
    assert_eq!(consumer.next().await.unwrap().unwrap().data, b"kept");
    node.add_vhost("other");
    node.add_user("acme", "secret", "other");
    let other = channel(&node.uri_at(node.port(), "acme", "secret", "other")).await;
    assert!(other.status().connected());
    assert!(
        Connection::connect(&node.uri_at(node.port(), "acme", "secret", "/"), ConnectionProperties::default()).await.is_err()
    );
    wait_for("the message to be counted", || (node.queues("/").get(QUEUE)? == &(0, 1)).then_some(()));
    assert_eq!(node.queues("other")[QUEUE], (0, 0));
}

/// Does nothing, unless it is the program that the next test kills.
#[test]
fn a_holder_of_servers() {
    if std::env::var_os(HELD).is_none() {
        return;
    }
    let node = RabbitNode::start();
    let pids: Vec<String> = descendants(std::process::id()).keys().map(u32::to_string).collect();
    println!("holds {} {}", node.port(), pids.join(" "));
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_test_that_is_killed_leaves_no_process_behind() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_holder_of_servers", "--nocapture"]).env(HELD, "1");
    let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(holder.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("holds ") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "it ended without a word");
    }
    let words = line.split("holds ").nth(1).unwrap().split_whitespace();
    let numbers: Vec<u32> = words.map(|word| word.parse().unwrap()).collect();
    let pids: BTreeMap<u32, u64> = numbers[1..].iter().filter_map(|pid| Some((*pid, started_at(*pid)?))).collect();
    // The server, its port mapper, its forker, the watcher.
    assert!(pids.len() >= 4, "{line}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let left = || pids.iter().filter(|(pid, started)| started_at(**pid) == Some(**started)).count();
    wait_for("the end of everything it started", || (left() == 0).then_some(()));
    assert!(TcpStream::connect(("127.0.0.1", numbers[0] as u16)).is_err());
}

#[test]
fn a_server_that_is_dropped_takes_everything_with_it() {
    let node = RabbitNode::start();
    let family = descendants(std::process::id());
    assert!(family.len() >= 4, "{family:?}");
    drop(node);
    let left: Vec<_> = family.iter().filter(|(pid, started)| started_at(**pid) == Some(**started)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Answers each line with the same line.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(n @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream
}

fn says(stream: &mut TcpStream, word: &str) -> std::io::Result<String> {
    stream.write_all(word.as_bytes())?;
    hears(stream)
}

fn hears(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = [0; 1024];
    match stream.read(&mut bytes)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        n => Ok(String::from_utf8_lossy(&bytes[..n]).into_owned()),
    }
}

#[test]
fn a_proxy_passes_stalls_cuts_and_resets_as_it_is_told() {
    use std::io::ErrorKind::{ConnectionReset, WouldBlock};
    let proxy = FaultProxy::start(echo(), 1);
    let mut stream = connect(&proxy);
    assert_eq!(says(&mut stream, "a").unwrap(), "a");
    for way in [Way::Up, Way::Down, Way::Both] {
        proxy.set(Fault::Stall(way));
        assert_eq!(says(&mut stream, "held").unwrap_err().kind(), WouldBlock, "{way:?}");
        proxy.set(Fault::Pass);
        assert_eq!(hears(&mut stream).unwrap(), "held", "{way:?}");
    }
    proxy.set(Fault::Delay(Duration::from_millis(50)));
    let begun = Instant::now();
    assert_eq!(says(&mut stream, "late").unwrap(), "late");
    assert!(begun.elapsed() >= Duration::from_millis(100), "both ways");
    proxy.set(Fault::CutReplies);
    assert_eq!(says(&mut stream, "lost").unwrap_err().kind(), ConnectionReset);
    assert_eq!(proxy.traffic().bytes_up, ("a".len() + 3 * "held".len() + "late".len() + "lost".len()) as u64);
    proxy.set(Fault::Pass);
    let mut stream = connect(&proxy);
    assert_eq!(says(&mut stream, "b").unwrap(), "b");
    proxy.reset_all();
    assert_eq!(hears(&mut stream).unwrap_err().kind(), ConnectionReset);
    let mut stream = connect(&proxy);
    proxy.set(Fault::Reset);
    assert_eq!(hears(&mut stream).unwrap_err().kind(), ConnectionReset);
    assert_eq!((proxy.traffic().connections, proxy.traffic().resets), (3, 3));
    until(Duration::from_secs(5), || (proxy.open() == 0).then_some(())).unwrap();
}

/// The bucket `tried` by way of an endpoint.
fn bucket(garage: &Garage, endpoint: &str) -> opendal::Operator {
    // Somebody may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = opendal::services::S3::default().bucket("tried").endpoint(endpoint).region(garage.region());
    let builder = builder.access_key_id(garage.access_key()).secret_access_key(garage.secret_key());
    let operator = opendal::Operator::new(builder).unwrap();
    let transport = opendal::HttpTransporter::new(ReqwestTransport::new(reqwest::Client::new()));
    let context = operator.base_context().with_http_transport(transport);
    operator.with_context(context)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garage_server_keeps_objects_and_a_proxy_fails_the_requests_it_is_to_fail() {
    let mut garage = Garage::start();
    garage.create_bucket("tried");
    let proxy = StoreProxy::start(garage.port(), 1);
    let (direct, through) = (bucket(&garage, &garage.endpoint()), bucket(&garage, &proxy.endpoint()));
    through.write("a/one", "1").await.unwrap();
    for (fault, is_done) in [(StoreFault::Error, false), (StoreFault::RequestLost, false), (StoreFault::ReplyLost, true)] {
        proxy.plan("PUT", fault);
        let path = format!("a/{fault:?}");
        assert!(through.write(&path, "x").await.is_err(), "{fault:?}");
        assert_eq!(direct.exists(&path).await.unwrap(), is_done, "{fault:?}");
    }
    proxy.plan("GET", StoreFault::Slow);
    proxy.set(StoreFaults { per_cent: 0, slow: Duration::from_millis(300) });
    let begun = Instant::now();
    assert_eq!(through.read("a/one").await.unwrap().to_vec(), b"1");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    proxy.set(StoreFaults { per_cent: 100, slow: Duration::ZERO });
    for _ in 0..10 {
        let _ = through.stat("a/one").await;
    }
    let requests = proxy.requests();
    assert_eq!((requests.by_method["PUT"], requests.by_method["HEAD"]), (4, 10));
    assert_eq!(requests.failed.values().sum::<u64>(), 14);
    drop((direct, through));
    garage.restart();
    let direct = bucket(&garage, &garage.endpoint());
    assert_eq!(direct.read("a/one").await.unwrap().to_vec(), b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_answers_by_its_script_and_remembers_what_came() {
    let receiver = Receiver::start();
    receiver.script("/hook", [Answer::status(503).retry_after("7"), Answer::closed()]);
    receiver.always("/gone", Answer::status(410));
    let client = Client::new(receiver.port());
    let first = client.post("/hook", "application/json", br#"{"n":1}"#).unwrap();
    assert_eq!((first.status, first.header("retry-after")), (503, Some("7")));
    assert!(client.post("/hook", "application/json", b"{}").is_err());
    assert_eq!(client.post("/hook", "application/json", b"{}").unwrap().status, 200);
    assert_eq!(client.get("/gone").unwrap().status, 410);
    let received = receiver.until("four requests", |all| all.len() == 4).await;
    assert_eq!(received[0].json()["n"], 1);
    assert_eq!(received[0].header("content-type"), Some("application/json"));
    assert_eq!(received.iter().map(|r| r.answered).collect::<Vec<_>>(), [Some(503), None, Some(200), Some(410)]);
    assert_eq!(receiver.received_at("/hook").len(), 3);
}
