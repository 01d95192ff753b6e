//! What the server refuses, and what others put into its queues.

use super::certificates::Authority;
use super::common::RabbitNode;
use super::*;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

const JOBS: Queue = Queue::Jobs(Lane::Normal);

async fn refused(settings: &RabbitSettings) -> String {
    match RabbitBroker::connect(settings).await {
        Err(BrokerError::Denied(reason)) => reason,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was let in"),
    }
}

/// Any AMQP client.
async fn foreign(uri: &str) -> (Connection, Channel) {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn put(channel: &Channel, queue: Queue, body: &[u8], properties: BasicProperties) -> lapin::Result<Confirmation> {
    let queue = queue.to_string();
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish("".into(), queue.as_str().into(), options, body, properties).await?.await
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    tokio::time::timeout(PATIENCE, consumer.next()).await.expect("it comes in time").unwrap()
}

pub async fn credentials_and_virtual_hosts_that_are_wrong_are_named_without_the_password(node: &mut RabbitNode, vhost: &str) {
    let port = node.port();
    let reason = refused(&settings(&format!("amqp://guest:hunter2@127.0.0.1:{port}/{vhost}"))).await;
    assert!(reason.contains("guest") && reason.contains(&port.to_string()), "{reason}");
    assert!(!reason.contains("hunter2"), "{reason}");
    let reason = refused(&settings(&node.uri("nowhere"))).await;
    assert!(reason.contains("nowhere"), "{reason}");
    let mut missing = settings(&node.uri(vhost));
    missing.uri_file = Some("there/is/no/such/file".into());
    assert!(refused(&missing).await.contains("there/is/no/such/file"));
    // A server that is not there is another matter: it may come.
    let mut away = settings("amqp://guest:hunter2@127.0.0.1:9/v0");
    away.publish_timeout_s = 1;
    let Err(BrokerError::Gone(reason)) = RabbitBroker::connect(&away).await else { panic!("nobody listens there") };
    assert!(reason.contains("127.0.0.1:9") && !reason.contains("hunter2"), "{reason}");
}

pub async fn a_queue_that_was_declared_otherwise_is_named_with_the_fix(node: &mut RabbitNode, vhost: &str) {
    let (connection, channel) = foreign(&node.uri(vhost)).await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("narrows.jobs.low".into(), options, FieldTable::default()).await.unwrap();
    let reason = refused(&settings(&node.uri(vhost))).await;
    assert!(reason.contains("narrows.jobs.low") && reason.contains("declared otherwise"), "{reason}");
    assert!(reason.contains("broker.max_length"), "{reason}");
    channel.queue_delete("narrows.jobs.low".into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    // With the obstacle gone it is let in.
    RabbitBroker::connect(&settings(&node.uri(vhost))).await.unwrap();
}

pub async fn a_message_that_no_queue_takes_is_a_failed_publish(node: &mut RabbitNode, vhost: &str) {
    let broker = RabbitBroker::connect(&settings(&node.uri(vhost))).await.unwrap();
    let mut consumer = broker.consume(JOBS, 1).await.unwrap();
    let (connection, channel) = foreign(&node.uri(vhost)).await;
    channel.queue_delete(JOBS.to_string().as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let published = broker.publish(JOBS, "lost?".into()).await;
    // Its consumer, which lost its queue, may have had it declared anew already.
    if let Err(error) = published {
        let BrokerError::Gone(reason) = &error else { panic!("{error:?}") };
        assert!(reason.contains("narrows.jobs.normal"), "{reason}");
        tokio::time::timeout(PATIENCE, async {
            while broker.publish(JOBS, "lost?".into()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("the queue is declared anew");
    }
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.body, b"lost?");
    delivery.ack().await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

pub async fn messages_of_others_that_are_too_large_are_dead_letters(node: &mut RabbitNode, vhost: &str) {
    let broker = RabbitBroker::connect(&settings(&node.uri(vhost))).await.unwrap();
    let (connection, channel) = foreign(&node.uri(vhost)).await;
    let huge = vec![0xff; 2 * MAX_BODY_BYTES];
    put(&channel, JOBS, &huge, BasicProperties::default()).await.unwrap();
    put(&channel, Queue::Work(Class::Cpu, Lane::Low), &huge, BasicProperties::default()).await.unwrap();
    put(&channel, JOBS, b"small", BasicProperties::default()).await.unwrap();
    let mut consumer = broker.consume(JOBS, 1).await.unwrap();
    let small = next(&mut consumer).await;
    assert_eq!(small.body, b"small", "nobody is handed the large one");
    small.ack().await.unwrap();
    let mut intake = broker.intake().await.unwrap();
    let queues = [Queue::Work(Class::Cpu, Lane::Low)];
    let mut dead = broker.consume(Queue::Dead, 1).await.unwrap();
    for _ in 0..2 {
        let delivery = tokio::select! {
            delivery = next(&mut dead) => delivery,
            _ = intake.take(&queues) => panic!("nobody is handed the large one"),
        };
        let letter: DeadLetter = serde_json::from_slice(&delivery.body).unwrap();
        assert!(letter.reason.contains("2097152 bytes") && letter.body.starts_with('\u{fffd}'), "{}", letter.reason);
        delivery.ack().await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
}

pub async fn the_server_vouches_for_who_published(node: &mut RabbitNode, vhost: &str) {
    node.ctl(&["add_user", "tenant-a", "secret"]);
    node.ctl(&["set_permissions", "-p", vhost, "tenant-a", "", ".*", ""]);
    let broker = RabbitBroker::connect(&settings(&node.uri(vhost))).await.unwrap();
    let mut consumer = broker.consume(JOBS, 1).await.unwrap();
    let (connection, channel) = foreign(&format!("amqp://tenant-a:secret@127.0.0.1:{}/{vhost}", node.port())).await;
    let named = |name: &str| BasicProperties::default().with_user_id(name.into());
    put(&channel, JOBS, b"job", named("tenant-a")).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.user.as_deref(), Some("tenant-a"));
    // It is still theirs after we have put it off.
    delivery.retry(Duration::from_secs(1)).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((again.user.as_deref(), again.attempt), (Some("tenant-a"), 2));
    again.ack().await.unwrap();
    broker.publish(JOBS, "ours".into()).await.unwrap();
    let ours = next(&mut consumer).await;
    assert_eq!(ours.user.as_deref(), Some("guest"));
    ours.ack().await.unwrap();
    put(&channel, JOBS, b"forged", named("guest")).await.unwrap_err();
    connection.close(200, "done".into()).await.unwrap();
}

pub async fn a_server_is_believed_by_its_certificate_and_believes_us_by_ours(node: &mut RabbitNode, vhost: &str) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let (certificate, key) = authority.issue("server");
    let (own_certificate, own_key) = authority.issue("client");
    let port = common::free_port();
    let file = |path: &std::path::Path| format!("\"{}\"", path.display());
    let options = format!(
        "[{{cacertfile, {}}}, {{certfile, {}}}, {{keyfile, {}}}, {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}]",
        file(&authority.certificate),
        file(&certificate),
        file(&key)
    );
    let listen = format!("rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}}}, {options}, 1), ok.");
    node.ctl(&["eval", &listen]);
    let mut settings = settings(&format!("amqps://guest:guest@127.0.0.1:{port}/{vhost}"));
    let reason = refused(&settings).await;
    assert!(reason.contains("certificate"), "not one of the system's: {reason}");
    settings.ca_file = Some(authority.certificate.clone());
    // It wants ours, and says so only after it has taken the connection, if that is not cut first.
    settings.publish_timeout_s = 3;
    assert!(RabbitBroker::connect(&settings).await.is_err(), "let in without a certificate");
    settings.publish_timeout_s = 30;
    settings.client_cert_file = Some(own_certificate);
    settings.client_key_file = Some(own_key);
    let broker = RabbitBroker::connect(&settings).await.unwrap();
    broker.publish(JOBS, "sealed".into()).await.unwrap();
    let delivery = next(&mut broker.consume(JOBS, 1).await.unwrap()).await;
    assert_eq!(delivery.body, b"sealed");
    delivery.ack().await.unwrap();
}
