//! The broker on a real RabbitMQ: first what every broker promises, then what only a server can do to us.

#[path = "broker/certificates.rs"]
mod certificates;
mod common;
#[path = "../src/broker/contract.rs"]
mod contract;
#[path = "broker/lives.rs"]
mod lives;
#[path = "broker/refusals.rs"]
mod refusals;

use async_trait::async_trait;
use common::RabbitNode;
use contract::{Limits, Maker};
use futures::StreamExt;
use futures::future::BoxFuture;
use narrows::broker::rabbit::{RabbitBroker, RabbitSettings};
use narrows::broker::{
    Broker, BrokerError, Class, Consumer, DeadLetter, Delivery, MAX_BODY_BYTES, Queue, Subscription, Topic, within,
};
use narrows::job::Lane;
use narrows::trace::TraceContext;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Virtual hosts for the cases of one node; each case has one of its own.
const VHOSTS: usize = 32;
/// Cases that run at once.
const AT_ONCE: usize = 4;
/// Longest time of one case, or of one step of a server's life.
const PATIENCE: Duration = Duration::from_secs(120);

/// Settings for a test: as few tiers as will do, each being a queue.
fn settings(uri: &str) -> RabbitSettings {
    let text = format!(
        "kind = \"rabbitmq\"\nuri = \"{uri}\"\nheartbeat_s = 2\ndelivery_limit = 20\nmax_length = 1000\n\
         publish_timeout_s = 30\nretry_tiers_s = [1, 2]\n"
    );
    toml::from_str(&text).unwrap()
}

/// Makes `v0`, `v1` and so on, all at once: every call of the tool starts a virtual machine.
fn add_vhosts(node: &RabbitNode, count: usize) {
    let all = "<<\".*\">>";
    let one = format!(
        "V = list_to_binary(\"v\" ++ integer_to_list(N)), rabbit_vhost:add(V, <<\"test\">>), \
         rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, V, {all}, {all}, {all}, <<\"test\">>)"
    );
    node.ctl(&["eval", &format!("lists:foreach(fun(N) -> {one} end, lists:seq(0, {})), ok.", count - 1)]);
}

/// A node with empty virtual hosts; brokers of it.
struct OnNode {
    node: RabbitNode,
    made: AtomicUsize,
}

#[async_trait]
impl Maker for OnNode {
    async fn make(&self, limits: Limits) -> Arc<dyn Broker> {
        let vhost = self.made.fetch_add(1, SeqCst);
        assert!(vhost < VHOSTS, "more cases than virtual hosts");
        let mut settings = settings(&self.node.uri(&format!("v{vhost}")));
        settings.max_length = limits.queue_messages;
        settings.delivery_limit = limits.deliveries;
        Arc::new(RabbitBroker::connect(&settings).await.unwrap())
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn delay(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// What the server keeps for a listener, and what is on its way to it.
    fn topic_messages(&self) -> usize {
        1024 + 64
    }
}

type Case = (&'static str, for<'a> fn(&'a dyn Maker) -> BoxFuture<'a, ()>);

macro_rules! as_list {
    ($($case:ident,)*) => {
        const CASES: &[Case] = &[$((stringify!($case), |maker| Box::pin(contract::$case(maker))),)*];
    };
}

contract::every_case!(as_list);

/// Runs each on its own task, so that one that fails hides no other; names those that failed.
async fn all_pass(work: Vec<(&'static str, BoxFuture<'static, ()>)>, at_once: usize) {
    let runs = work.into_iter().map(|(name, work)| async move {
        let begun = std::time::Instant::now();
        let ended = tokio::spawn(tokio::time::timeout(PATIENCE, work)).await;
        println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
        let passed = matches!(ended, Ok(Ok(())));
        (!passed).then_some(name)
    });
    let failed: Vec<&str> = futures::stream::iter(runs).buffer_unordered(at_once).filter_map(async |name| name).collect().await;
    assert!(failed.is_empty(), "failed, each told above: {failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_keeps_what_every_broker_promises() {
    let node = tokio::task::spawn_blocking(|| {
        let node = RabbitNode::start();
        add_vhosts(&node, VHOSTS);
        node
    });
    let maker = Arc::new(OnNode { node: node.await.unwrap(), made: AtomicUsize::new(0) });
    let run = |(name, case): &Case| {
        let (maker, case) = (maker.clone(), *case);
        let work: BoxFuture<'static, ()> = Box::pin(async move { case(&*maker).await });
        (*name, work)
    };
    all_pass(CASES.iter().map(run).collect(), AT_ONCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_may_refuse_or_stall_or_die_and_nothing_is_lost() {
    let node = tokio::task::spawn_blocking(|| {
        let node = RabbitNode::start();
        add_vhosts(&node, 9);
        node
    });
    let node = Arc::new(tokio::sync::Mutex::new(node.await.unwrap()));
    let mut work: Vec<(&'static str, BoxFuture<'static, ()>)> = Vec::new();
    macro_rules! step {
        ($module:ident::$name:ident, $vhost:literal) => {
            let node = node.clone();
            work.push((stringify!($name), Box::pin(async move { $module::$name(&mut *node.lock().await, $vhost).await })));
        };
    }
    step!(refusals::credentials_and_virtual_hosts_that_are_wrong_are_named_without_the_password, "v0");
    step!(refusals::a_queue_that_was_declared_otherwise_is_named_with_the_fix, "v0");
    step!(refusals::a_message_that_no_queue_takes_is_a_failed_publish, "v1");
    step!(refusals::messages_of_others_that_are_too_large_are_dead_letters, "v2");
    step!(refusals::the_server_vouches_for_who_published, "v2");
    step!(refusals::a_server_is_believed_by_its_certificate_and_believes_us_by_ours, "v3");
    step!(lives::connections_that_the_server_closes_come_back_with_all_that_was_on_them, "v4");
    step!(lives::a_server_without_memory_takes_nothing_gives_everything_and_says_so, "v5");
    step!(lives::a_killed_server_comes_back_with_every_confirmed_message, "v6");
    step!(lives::a_server_that_stalls_is_left_and_found_again, "v7");
    step!(lives::connections_that_break_anywhere_lose_nothing_and_leave_nothing_open, "v8");
    // One after the other: each has the server for itself.
    all_pass(work, 1).await;
}
