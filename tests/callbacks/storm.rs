//! Consumers that die at any moment, and consumers that should be dead and are not.

use super::receiver::{Receiver, Taken, status};
use super::stage::{Stage, endpoint, neighbours};
use narrows::broker::Queue;
use narrows::broker::memory::{Bounds, MemoryBroker};
use narrows::job::{Callback, JobId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

const EVENTS: u64 = 12;

/// Every event came, none before the one in front of it had come, and each under one id.
fn check(taken: &[Taken], jobs: &[JobId]) {
    let mut first: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut ids: BTreeMap<(String, u64), BTreeSet<String>> = BTreeMap::new();
    for request in taken {
        let (name, sequence) = (request.json()["job"].as_str().unwrap().to_string(), request.sequence());
        let heard = first.entry(name.clone()).or_default();
        if !heard.contains(&sequence) {
            heard.push(sequence);
        }
        ids.entry((name, sequence)).or_default().insert(request.header("webhook-id").to_string());
    }
    for job in jobs {
        assert_eq!(first[job.as_str()], (1..=EVENTS).collect::<Vec<_>>(), "{job}");
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
}

async fn storm(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut stage, mut receiver) = (Stage::new(), Receiver::start().await);
    stage.broker = MemoryBroker::new(Bounds { deliveries: 10_000, ..Bounds::default() });
    stage.settings.schedule_s = vec![0; 30];
    let (jobs, hook) = (neighbours(6), endpoint(&receiver.url("/")));
    for job in &jobs {
        stage.accept(job, std::slice::from_ref(&hook)).await;
        stage.record_all(job, EVENTS).await;
        stage.nudge(job, std::slice::from_ref(&hook)).await;
    }
    receiver.script((0..400).map(|_| status(if rng.random_bool(0.2) { 500 } else { 204 })));
    let mut taken = Vec::new();
    let mut kills = 0;
    while !all_done(&stage, &jobs, &hook).await {
        let running = stage.run(&jobs[0]);
        for _ in 0..rng.random_range(1..8) {
            if stage.broker.unsettled(Queue::callbacks_of(jobs[0].as_str())) == 0 {
                break;
            }
            // Between one request and the next, wherever it is then.
            match tokio::time::timeout(std::time::Duration::from_millis(300), receiver.next()).await {
                Ok(request) => taken.push(request),
                Err(_) => break,
            }
        }
        for _ in 0..rng.random_range(0..20) {
            tokio::task::yield_now().await;
        }
        running.kill().await;
        kills += 1;
        assert!(kills < 1000, "it does not get on");
        // Somebody says it again.
        let job = &jobs[rng.random_range(0..jobs.len())];
        stage.nudge(job, std::slice::from_ref(&hook)).await;
    }
    taken.extend(receiver.rest());
    println!("seed {seed}: {kills} kills, {} requests for {} events", taken.len(), EVENTS as usize * jobs.len());
    check(&taken, &jobs);
}

async fn all_done(stage: &Stage, jobs: &[JobId], hook: &Callback) -> bool {
    for job in jobs {
        if stage.cursor(job, hook).await.next_sequence <= EVENTS {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn killed_again_and_again_nothing_is_lost_and_nothing_comes_before_its_turn() {
    for seed in [1, 2, 3] {
        storm(seed).await;
    }
}

#[tokio::test]
async fn two_consumers_that_both_believe_they_are_the_only_one_lose_nothing() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    // Two brokers, one bucket: neither knows of the other.
    let mut zombie = Stage::new();
    zombie.store = stage.store.clone();
    let (jobs, hook) = (neighbours(4), endpoint(&receiver.url("/")));
    for job in &jobs {
        stage.accept(job, std::slice::from_ref(&hook)).await;
        stage.record_all(job, EVENTS).await;
    }
    let running = [stage.run(&jobs[0]), zombie.run(&jobs[0])];
    for stage in [&stage, &zombie] {
        for job in &jobs {
            stage.nudge(job, std::slice::from_ref(&hook)).await;
        }
    }
    for stage in [&stage, &zombie] {
        stage.settled(&jobs[0]).await;
    }
    for running in running {
        running.stop().await;
    }
    assert!(all_done(&stage, &jobs, &hook).await);
    check(&receiver.rest(), &jobs);
}
