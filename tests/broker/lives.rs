//! What a server goes through while we work with it.

use super::common::proxy::Way;
use super::common::{Fault, FaultProxy, RabbitNode, wait_for};
use super::*;
use std::collections::BTreeSet;
use std::sync::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const WORK: Queue = Queue::Work(Class::Cpu, Lane::Normal);
const JOBS: Queue = Queue::Jobs(Lane::Normal);
const EVENTS: Queue = Queue::Events(1);
/// Longest wait for what must come: also for a server that is started again, and longer than our longest single wait, which is
/// that for declared queues (60 s).
const SOON: Duration = Duration::from_secs(75);
/// How often a number is looked at that must become another.
const LOOK_EVERY: Duration = Duration::from_millis(20);

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("it comes in time")
}

/// Publishes numbers one after the other, and remembers those that were confirmed; consumes them, and remembers those
/// that came.
struct Traffic {
    confirmed: Arc<Mutex<BTreeSet<u64>>>,
    came: Arc<Mutex<BTreeSet<u64>>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn start(broker: &RabbitBroker) -> Self {
        let (confirmed, came) = (Arc::<Mutex<BTreeSet<u64>>>::default(), Arc::<Mutex<BTreeSet<u64>>>::default());
        let (stop, stopped) = watch::channel(false);
        let (publisher, numbers) = (broker.clone(), confirmed.clone());
        let publishing = async move {
            for number in 0_u64.. {
                if *stopped.borrow() {
                    return;
                }
                // One that is not confirmed may or may not be there: nothing is claimed of it.
                if publisher.publish(WORK, number.to_string().into_bytes()).await.is_ok() {
                    numbers.lock().unwrap().insert(number);
                }
            }
        };
        let mut tasks = vec![tokio::spawn(publishing)];
        let (broker, numbers) = (broker.clone(), came.clone());
        tasks.push(tokio::spawn(async move {
            let mut intake = broker.intake().await.unwrap();
            loop {
                let delivery = intake.take(&[WORK, Queue::Work(Class::Cpu, Lane::Low)]).await.unwrap();
                let number = String::from_utf8_lossy(&delivery.body).parse().unwrap();
                // One whose settlement is lost comes again.
                if delivery.ack().await.is_ok() {
                    numbers.lock().unwrap().insert(number);
                }
            }
        }));
        Self { confirmed, came, stop, tasks }
    }

    /// Waits until so many more are confirmed, and came.
    async fn flows(&self, more: usize) {
        let counts = || (self.confirmed.lock().unwrap().len(), self.came.lock().unwrap().len());
        let (confirmed, came) = counts();
        soon(async {
            while counts().0 < confirmed + more || counts().1 < came + more {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }

    /// Everything that was confirmed has come, or comes.
    async fn ends_whole(self) {
        self.stop.send_replace(true);
        let (confirmed, came) = (self.confirmed, self.came);
        let mut tasks = self.tasks.into_iter();
        soon(tasks.next().unwrap()).await.unwrap();
        let whole = tokio::time::timeout(SOON, async {
            while !confirmed.lock().unwrap().is_subset(&came.lock().unwrap()) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        if whole.await.is_err() {
            let lost: Vec<u64> = confirmed.lock().unwrap().difference(&came.lock().unwrap()).copied().collect();
            panic!("confirmed and lost: {lost:?}");
        }
        println!("  {} messages confirmed, {} came", confirmed.lock().unwrap().len(), came.lock().unwrap().len());
        tasks.for_each(|task| task.abort());
    }
}

async fn connect(node: &RabbitNode, vhost: &str) -> RabbitBroker {
    connect_to(&node.uri(vhost)).await
}

async fn connect_to(uri: &str) -> RabbitBroker {
    RabbitBroker::connect(&settings(uri)).await.unwrap()
}

/// Says it again until it is heard: what is said while a listener's connection is away, it does not hear.
async fn is_heard(broker: &RabbitBroker, listener: &mut Box<dyn Subscription>) {
    soon(async {
        loop {
            broker.broadcast(Topic::Control, "drain".into()).await.unwrap();
            if let Ok(heard) = tokio::time::timeout(Duration::from_millis(500), listener.next()).await {
                return assert_eq!(heard.unwrap(), b"drain");
            }
        }
    })
    .await;
}

/// Settles what comes, up to this one.
async fn up_to(consumer: &mut Box<dyn Consumer>, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some(last) {
        let delivery = soon(consumer.next()).await.unwrap();
        let body = String::from_utf8_lossy(&delivery.body).into_owned();
        // One whose settlement is lost comes again.
        if delivery.ack().await.is_ok() {
            seen.push(body);
        }
    }
    seen
}

pub async fn connections_that_the_server_closes_come_back_with_all_that_was_on_them(node: &mut RabbitNode, vhost: &str) {
    let broker = connect(node, vhost).await;
    let mut events = broker.consume(EVENTS, 4).await.unwrap();
    let mut listener = broker.subscribe(Topic::Control).await.unwrap();
    broker.publish(EVENTS, "held".into()).await.unwrap();
    let held = soon(events.next()).await.unwrap();
    let traffic = Traffic::start(&broker);
    for _ in 0..3 {
        traffic.flows(20).await;
        tokio::task::block_in_place(|| node.ctl(&["close_all_connections", "-p", vhost, "test"]));
    }
    traffic.flows(20).await;
    assert!(matches!(held.ack().await, Err(BrokerError::Gone(_))), "the way back is gone");
    let again = soon(events.next()).await.unwrap();
    assert_eq!((again.body.as_slice(), again.attempt, again.redelivered), (b"held".as_slice(), 1, true));
    again.ack().await.unwrap();
    is_heard(&broker, &mut listener).await;
    traffic.ends_whole().await;
}

pub async fn a_server_without_memory_takes_nothing_gives_everything_and_says_so(node: &mut RabbitNode, vhost: &str) {
    let mut settings = settings(&node.uri(vhost));
    settings.publish_timeout_s = 3;
    let broker = RabbitBroker::connect(&settings).await.unwrap();
    for n in 0..10 {
        broker.publish(WORK, vec![n]).await.unwrap();
    }
    tokio::task::block_in_place(|| node.ctl(&["set_vm_memory_high_watermark", "0.0001"]));
    // The server blocks a connection at its next message.
    let mut refused = None;
    let mut taken = 10;
    while refused.is_none() {
        assert!(taken < 100, "it is never blocked");
        match broker.publish(WORK, vec![taken]).await {
            Ok(()) => taken += 1,
            Err(error) => refused = Some(error.to_string()),
        }
    }
    let reason = refused.unwrap();
    assert!(reason.contains("resources") && reason.contains("memory"), "{reason}");
    let begun = std::time::Instant::now();
    assert!(broker.publish(WORK, vec![0]).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(6), "the wait has a limit: {:?}", begun.elapsed());
    assert!(broker.broadcast(Topic::Progress, vec![0]).await.is_err(), "and nobody waits with progress");
    let mut intake = broker.intake().await.unwrap();
    for n in 0..5 {
        let delivery = soon(intake.take(&[WORK])).await.unwrap();
        assert_eq!(delivery.body, [n]);
        delivery.ack().await.unwrap();
    }
    intake.pause().await;
    tokio::task::block_in_place(|| node.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"]));
    soon(async {
        while broker.publish(WORK, vec![taken]).await.is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let mut rest = BTreeSet::new();
    while rest.len() < usize::from(taken) - 4 {
        let delivery = soon(intake.take(&[WORK])).await.unwrap();
        rest.insert(delivery.body[0]);
        delivery.ack().await.unwrap();
    }
    // Among them perhaps the one that was refused: it may or may not be there.
    assert!((5..=taken).all(|n| rest.contains(&n)), "{rest:?}");
}

pub async fn a_killed_server_comes_back_with_every_confirmed_message(node: &mut RabbitNode, vhost: &str) {
    let broker = connect(node, vhost).await;
    let mut events = broker.consume(EVENTS, 4).await.unwrap();
    let mut jobs = broker.consume(JOBS, 1).await.unwrap();
    let mut listener = broker.subscribe(Topic::Control).await.unwrap();
    let traffic = Traffic::start(&broker);
    // Once: RabbitMQ 3.10.8 that is killed again within a second of its start now and then never finds one of its
    // queues again, whoever its client is.
    for body in ["0", "1", "2"] {
        broker.publish(EVENTS, body.into()).await.unwrap();
    }
    let held = soon(events.next()).await.unwrap();
    broker.publish(JOBS, "put off".into()).await.unwrap();
    soon(jobs.next()).await.unwrap().retry(Duration::from_secs(2)).await.unwrap();
    traffic.flows(50).await;
    tokio::task::block_in_place(|| {
        // RabbitMQ confirms a queue up to half a second before its list of queues is on the disk, and one that is not on the list
        // starts empty. The tiers are declared last of all.
        let is_listed = |tier: u32| node.knows(&format!("{vhost}_narrows.retry.{tier}"));
        wait_for("the queues to be on the disk", || (is_listed(1) && is_listed(2)).then_some(()));
        node.kill();
        node.restart();
    });
    traffic.flows(50).await;
    assert!(matches!(held.ack().await, Err(BrokerError::Gone(_))));
    assert_eq!(up_to(&mut events, "2").await, ["0", "1", "2"], "in their order");
    let again = soon(jobs.next()).await.unwrap();
    assert_eq!((again.body.as_slice(), again.attempt), (b"put off".as_slice(), 2));
    again.ack().await.unwrap();
    is_heard(&broker, &mut listener).await;
    traffic.ends_whole().await;
}

pub async fn a_server_that_stalls_is_left_and_found_again(node: &mut RabbitNode, vhost: &str) {
    let broker = connect(node, vhost).await;
    let traffic = Traffic::start(&broker);
    traffic.flows(20).await;
    node.pause();
    // Connections stay open and nobody answers: heartbeats are what tells.
    let told = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if broker.broadcast(Topic::Progress, vec![0]).await == Err(BrokerError::Gone("not now".into())) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    node.resume();
    assert!(told.is_ok(), "a silent server is not noticed");
    traffic.flows(20).await;
    traffic.ends_whole().await;
}

pub async fn connections_that_break_anywhere_lose_nothing_and_leave_nothing_open(node: &mut RabbitNode, vhost: &str) {
    const SEED: u64 = 7;
    let proxy = FaultProxy::start(node.port(), SEED);
    let broker = connect_to(&node.uri_at(proxy.port(), "guest", "guest", vhost)).await;
    let mut events = broker.consume(EVENTS, 4).await.unwrap();
    broker.publish(EVENTS, "held".into()).await.unwrap();
    drop(soon(events.next()).await.unwrap());
    let traffic = Traffic::start(&broker);
    // Among them the worst: a publish whose confirm is lost, an acknowledgement that never arrives, a handshake that
    // is never answered.
    for (fault, lasts_ms) in [
        (Fault::Reset, 300),
        (Fault::Stall(Way::Down), 5000),
        (Fault::CutReplies, 500),
        (Fault::Stall(Way::Up), 5000),
        (Fault::Flaky(60), 2000),
        (Fault::Stall(Way::Both), 300),
        (Fault::Delay(Duration::from_millis(30)), 1000),
    ] {
        traffic.flows(20).await;
        proxy.set(fault);
        tokio::time::sleep(Duration::from_millis(lasts_ms)).await;
        proxy.set(Fault::Pass);
    }
    proxy.set(Fault::Stall(Way::Down));
    proxy.reset_all();
    // Connected to nobody who answers, until the handshake's own limit; only then is there another attempt.
    let before = proxy.traffic().connections;
    soon(async {
        while proxy.traffic().connections < before + 4 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    proxy.set(Fault::Pass);
    traffic.flows(20).await;
    assert_eq!(up_to(&mut events, "held").await, ["held"]);
    traffic.ends_whole().await;
    drop((events, broker));
    soon(async {
        while proxy.open() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}
