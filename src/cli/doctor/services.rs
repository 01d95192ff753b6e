//! The broker and the stores, as they answer from this machine.

use super::finding::Finding;
use crate::broker::{Broker, BrokerError, Queue, Topic};
use crate::config::Config;
use crate::store::key::Key;
use crate::store::{Store, StoreError, Stores};
use crate::telemetry::otlp::Exporter;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a message to ourselves may be on its way.
const ROUND_TRIP: Duration = Duration::from_secs(10);
/// A store says when an object was written to the second.
const CLOCK_STEP_MS: i64 = 1000;
/// Clocks may differ by so much. Receivers of callbacks take five minutes; jobs and their bills are dated by the worker.
const MOST_SKEW_MS: i64 = 30_000;

/// What an operator does about a broker that does not answer as it should.
pub(super) fn broker_fix(error: &BrokerError) -> &'static str {
    match error {
        BrokerError::Denied(_) => {
            "correct broker.uri or broker.uri_file, or run: rabbitmqctl set_permissions -p VHOST USER '^narrows\\.' '.*' '.*'"
        }
        BrokerError::Gone(_) => "see that RabbitMQ runs and that this machine reaches its port",
        BrokerError::Full { .. } | BrokerError::TooLarge { .. } => "start workers, or raise broker.max_length",
    }
}

/// Every queue is there as it must be, and a message to ourselves comes back.
pub(super) async fn topology(broker: &dyn Broker) -> Vec<Finding> {
    vec![queues(broker).await, round_trip(broker).await]
}

async fn queues(broker: &dyn Broker) -> Finding {
    const CHECK: &str = "broker queues";
    let (mut count, mut jobs, mut parts, mut dead) = (0, 0, 0, 0);
    for queue in Queue::all() {
        let depth = match broker.depth(queue).await {
            Ok(depth) => depth,
            Err(error) => return Finding::wrong(CHECK, format!("{queue}: {error}"), broker_fix(&error)),
        };
        count += 1;
        match queue {
            Queue::Jobs(_) => jobs += depth,
            Queue::Work(..) => parts += depth,
            Queue::Dead => dead += depth,
            Queue::Events(_) | Queue::Callbacks(_) => {}
        }
    }
    Finding::ok(CHECK, format!("{count} are there; {jobs} jobs and {parts} parts wait, {dead} dead letters"))
}

/// By the topic of live progress: nobody acts on what comes by it.
async fn round_trip(broker: &dyn Broker) -> Finding {
    const CHECK: &str = "broker permissions";
    let body = format!("doctor {:016x}", rand::random::<u64>()).into_bytes();
    let trip = async {
        let mut topic = broker.subscribe(Topic::Progress).await?;
        broker.broadcast(Topic::Progress, body.clone()).await?;
        while let Some(heard) = topic.next().await {
            if heard == body {
                return Ok(());
            }
        }
        Err(BrokerError::Gone("the connection was closed".into()))
    };
    match tokio::time::timeout(ROUND_TRIP, trip).await {
        Ok(Ok(())) => Finding::ok(CHECK, "declare, publish and consume: a message to ourselves came back"),
        Ok(Err(error)) => Finding::wrong(CHECK, error.to_string(), broker_fix(&error)),
        Err(_) => {
            let found = format!("a message to ourselves did not come back within {} s", ROUND_TRIP.as_secs());
            Finding::wrong(CHECK, found, "see whether RabbitMQ blocks publishers: rabbitmqctl status shows its alarms")
        }
    }
}

/// Every store does what its roles need.
pub(super) async fn stores(stores: &Stores) -> Vec<Finding> {
    let tried = stores.check().await;
    let mut findings: Vec<Finding> = Vec::new();
    for tried in tried {
        let check = format!("store {}", tried.store);
        match tried.outcome {
            Err(reason) => findings.push(Finding::wrong(check, format!("{} failed", tried.what), reason)),
            Ok(()) => match findings.last_mut().filter(|last| last.check == check && last.ok) {
                Some(last) => last.found += &format!(", {}", tried.what),
                None => findings.push(Finding::ok(check, tried.what)),
            },
        }
    }
    findings
}

/// The collector takes spans: an empty request is one like any other.
pub(super) async fn traces(config: &Config) -> Finding {
    const CHECK: &str = "traces";
    const FIX: &str = "correct telemetry.traces.endpoint, or start the collector; jobs are done without it";
    let Some(settings) = &config.telemetry.traces else { return Finding::ok(CHECK, "none are recorded") };
    let url = match settings.url(|name| std::env::var(name).ok()) {
        Ok(url) => url,
        Err((field, reason)) => return Finding::wrong(CHECK, format!("telemetry.traces.{field}: {reason}"), FIX),
    };
    let at = url.to_string();
    let exporter = match Exporter::new(url, "doctor", "doctor") {
        Ok(exporter) => exporter,
        Err(reason) => return Finding::wrong(CHECK, reason, "install ca-certificates"),
    };
    match exporter.send(&[]).await {
        Ok(_) => Finding::ok(CHECK, format!("the collector takes them at {at}")),
        Err(error) => Finding::wrong(CHECK, format!("{at}: {error}"), FIX),
    }
}

/// This machine's clock against the one of the store that holds the work.
pub(super) async fn clock(store: &Store) -> Finding {
    const CHECK: &str = "clock";
    match written_at(store).await {
        Ok((before, written, after)) if written > 0 => skew(CHECK, before, written, after),
        Ok(_) => Finding::ok(CHECK, "the work store does not say when an object was written; nothing to compare with"),
        Err(error) => Finding::wrong(CHECK, error.to_string(), "mend the store first"),
    }
}

fn skew(check: &str, before: i64, written: i64, after: i64) -> Finding {
    let behind = (before - CLOCK_STEP_MS - written).max(0);
    let ahead = (written - after - CLOCK_STEP_MS).max(0);
    match (ahead, behind) {
        (0, 0) => Finding::ok(check, "as the work store's"),
        (ahead, behind) => {
            let (ms, word) = if ahead > 0 { (ahead, "behind") } else { (behind, "ahead of") };
            let found = format!("{:.1} s {word} the work store's", ms as f64 / 1000.0);
            if ms <= MOST_SKEW_MS {
                Finding::ok(check, found)
            } else {
                Finding::wrong(check, found, "let both synchronise with NTP (timedatectl set-ntp true)")
            }
        }
    }
}

/// Milliseconds since 1970 before an object was written, when the store says that it was, and after it.
async fn written_at(store: &Store) -> Result<(i64, i64, i64), StoreError> {
    let key = Key::trial(&format!("{:016x}", rand::random::<u64>()));
    let before = now_ms();
    store.put(&key, key.path().as_bytes().to_vec()).await?;
    let after = now_ms();
    let written = store.ranged(&key).await.map(|object| object.identity().modified_ms);
    store.delete(&key).await?;
    Ok((before, written?, after))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::{Bounds, MemoryBroker};

    #[test]
    fn clocks_may_differ_by_what_a_request_takes_and_a_little_more() {
        let of = |written| skew("clock", 100_000, written, 100_500);
        assert!(of(100_200).ok && of(99_000).ok && of(101_500).ok);
        assert_eq!(of(101_600).found, "0.1 s behind the work store's");
        assert!(of(131_500).ok && !of(131_501).ok);
        assert_eq!(
            of(60_000).line(),
            "wrong  clock: 39.0 s ahead of the work store's; fix: let both synchronise with NTP (timedatectl set-ntp true)\n"
        );
    }

    #[tokio::test]
    async fn a_broker_that_works_is_found_to() {
        let broker = MemoryBroker::new(Bounds::default());
        broker.publish(Queue::Jobs(crate::job::Lane::High), b"{}".to_vec()).await.unwrap();
        let findings = topology(&broker).await;
        assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
        assert!(findings[0].found.contains("1 jobs"), "{findings:?}");
    }

    #[tokio::test]
    async fn a_folder_that_works_is_found_to_and_nothing_is_left_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::folder(&dir.path().join("work"), &dir.path().join("tmp")).unwrap();
        let finding = clock(&store).await;
        assert!(finding.ok, "{finding:?}");
        assert_eq!(store.list("").await.unwrap(), Vec::<String>::new());
    }
}
