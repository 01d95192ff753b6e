//! The process dies before every single call to the store or the broker, one after the other: a worker and a coordinator
//! over a folder and a broker in memory, of which from step *k* on nothing returns any more. Whoever comes after them must
//! bring the job to the same end, for every *k*. To die after a call is to die before the next one.

use super::project::Partition;
use super::sweep::Tick;
use super::{CoordinatorSettings, Fleet, now_ms};
use crate::broker::memory::{Bounds, MemoryBroker};
use crate::broker::{Broker, BrokerError, Consumer, Delivery, Intake, Parcel, Queue, Settle, Settlement, Subscription, Topic};
use crate::event::{Projection, Recorded};
use crate::part::Mode;
use crate::part::finish::JobResult;
use crate::shutdown;
use crate::store::key::Key;
use crate::store::{ConcurrentLimitLayer, ConcurrentLimitSemaphore, Store, Stores};
use crate::tenant::Tenants;
use crate::trace::{Span, TraceContext};
use crate::worker::fake::{self, Act, FakeChildren};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The partition of the job `talk`.
const PARTITION: u8 = 15;
/// How often the sweeper of a second life looks.
const TICK_EVERY: Duration = Duration::from_millis(20);
/// Longest life. The sweep of a second life asks so often that a part on a busy machine has more copies than a worker holds;
/// what is one too many is put off for half a minute, and a life ends when nothing is left in any queue.
const PATIENCE: Duration = Duration::from_secs(90);

/// Counts the calls of one process; the one of this number never returns, nor does any after it.
#[derive(Clone)]
struct Steps(Arc<Count>);

struct Count {
    taken: AtomicU64,
    last: u64,
    dead: Notify,
}

impl Steps {
    fn until(last: u64) -> Self {
        Self(Arc::new(Count { taken: AtomicU64::new(0), last, dead: Notify::new() }))
    }

    async fn take(&self) {
        if self.0.taken.fetch_add(1, Ordering::SeqCst) >= self.0.last {
            self.0.dead.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// What the store's limit of calls at once takes as a semaphore is asked before every call.
impl ConcurrentLimitSemaphore for Steps {
    type Permit = ();

    async fn acquire(&self) {
        self.take().await;
    }
}

/// A broker whose every publish, settlement and broadcast is a step.
struct Mortal {
    broker: MemoryBroker,
    steps: Steps,
}

struct MortalConsumer(Box<dyn Consumer>, Steps);
struct MortalIntake(Box<dyn Intake>, Steps);
/// Dropped, the delivery in it goes back.
struct MortalSettle(Option<Delivery>, Steps);

fn mortal(delivery: Delivery, steps: &Steps) -> Delivery {
    let Delivery { queue, attempt, redelivered, waited, trace, .. } = delivery;
    let (body, user) = (delivery.body.clone(), delivery.user.clone());
    let parcel = Parcel { queue, body, attempt, redelivered, user, waited, trace };
    Delivery::new(parcel, Box::new(MortalSettle(Some(delivery), steps.clone())))
}

#[async_trait]
impl Settle for MortalSettle {
    async fn settle(&mut self, settlement: Settlement) -> Result<(), BrokerError> {
        self.1.take().await;
        match self.0.take() {
            Some(delivery) => delivery.settle(settlement).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Consumer for MortalConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        Ok(mortal(self.0.next().await?, &self.1))
    }
}

#[async_trait]
impl Intake for MortalIntake {
    async fn take(&mut self, queues: &[Queue]) -> Result<Delivery, BrokerError> {
        Ok(mortal(self.0.take(queues).await?, &self.1))
    }

    async fn pause(&mut self) {
        self.0.pause().await;
    }
}

#[async_trait]
impl Broker for Mortal {
    async fn publish_within(&self, queue: Queue, body: Vec<u8>, trace: Option<TraceContext>) -> Result<(), BrokerError> {
        self.steps.take().await;
        self.broker.publish_within(queue, body, trace).await
    }

    async fn consume(&self, queue: Queue, prefetch: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(MortalConsumer(self.broker.consume(queue, prefetch).await?, self.steps.clone())))
    }

    async fn intake(&self) -> Result<Box<dyn Intake>, BrokerError> {
        Ok(Box::new(MortalIntake(self.broker.intake().await?, self.steps.clone())))
    }

    async fn broadcast(&self, topic: Topic, body: Vec<u8>) -> Result<(), BrokerError> {
        self.steps.take().await;
        self.broker.broadcast(topic, body).await
    }

    async fn subscribe(&self, topic: Topic) -> Result<Box<dyn Subscription>, BrokerError> {
        self.broker.subscribe(topic).await
    }

    async fn depth(&self, queue: Queue) -> Result<u64, BrokerError> {
        Broker::depth(&self.broker, queue).await
    }
}

/// What outlives every process: the folder and the queues.
struct Site {
    dir: tempfile::TempDir,
    broker: MemoryBroker,
    children: Arc<FakeChildren>,
}

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
enum Life {
    Died,
    /// The job has ended, and nobody has anything to do.
    Done,
}

impl Site {
    async fn new(preset: &str) -> Self {
        // In memory where there is such a folder: every write is waited for.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        std::fs::write(dir.path().join("talk.mp4"), b"media").unwrap();
        let broker = MemoryBroker::new(Bounds { deliveries: 1000, ..Bounds::default() });
        let document = serde_json::json!({
            "id": "talk", "input": { "uri": "talk.mp4" }, "output": { "uri": "out" }, "preset": preset,
            "set": { "chunk.grid": "fixed", "chunk.target_s": 40, "chunk.longest_s": 60 },
            "callbacks": [{ "url": "http://127.0.0.1:9/hook" }],
        });
        let body = document.to_string().into_bytes();
        broker.publish(Queue::Jobs(crate::job::Lane::Normal), body).await.unwrap();
        Self { dir, broker, children: FakeChildren::new(|_, _| Act::Work) }
    }

    fn stores(&self, steps: &Steps) -> Stores {
        let at = |name: &str| self.dir.path().join(name);
        let store = |name: &str| {
            let layer = ConcurrentLimitLayer::with_semaphore(steps.clone());
            Store::folder(&at(name), &at("tmp")).unwrap().layered(layer)
        };
        Stores::new(store("work")).with_output("out", store("out")).with_source("talk.mp4", at("talk.mp4"))
    }

    /// A worker and a coordinator that live until step `last`, or until the job is done.
    async fn live(&self, last: u64, sweeps: bool) -> Life {
        let steps = Steps::until(last);
        let broker: Arc<dyn Broker> = Arc::new(Mortal { broker: self.broker.clone(), steps: steps.clone() });
        let stores = self.stores(&steps);
        let mut tools = fake::tools(self.dir.path(), broker.clone(), stores.clone(), &self.children, Mode::Fleet);
        let tenants = Arc::new(Tenants::open());
        tools.tenants = tenants.clone();
        let callbacks = Arc::new(super::fixture::callback_settings());
        let (devices, observer) = (Arc::default(), crate::observe::nobody());
        let fleet = Fleet { broker, stores, tenants, callbacks, window: 2, devices, observer, span: Span::none() };
        let (_stopper, stop) = shutdown::channel();
        let partition = Partition::new(fleet, settings(), PARTITION).await.unwrap();
        let worker = crate::worker::Worker::new(tools, fake::settings());
        let tasks: [JoinHandle<()>; 2] = [
            tokio::spawn({
                let stop = stop.clone();
                async move { worker.run(stop).await.unwrap() }
            }),
            tokio::spawn(async move { partition.run(stop).await.unwrap() }),
        ];
        let life = tokio::select! {
            () = steps.0.dead.notified() => Life::Died,
            () = self.done(sweeps) => Life::Done,
        };
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        life
    }

    async fn done(&self, sweeps: bool) {
        let all = async {
            while !self.is_done().await {
                tokio::time::sleep(TICK_EVERY).await;
                if sweeps {
                    let tick = serde_json::to_vec(&Tick { tick: now_ms() }).unwrap();
                    self.broker.publish(Queue::Events(PARTITION), tick).await.unwrap();
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, all).await;
        waited.unwrap_or_else(|_| panic!("the job does not end; unsettled: {:?}", self.unsettled()));
    }

    fn unsettled(&self) -> BTreeMap<String, usize> {
        let queues = Queue::all().filter(|queue| !matches!(queue, Queue::Callbacks(_)));
        queues.map(|queue| (queue.to_string(), self.broker.unsettled(queue))).filter(|(_, count)| *count > 0).collect()
    }

    async fn is_done(&self) -> bool {
        let stores = self.stores(&Steps::until(u64::MAX));
        let state: Option<Projection> = stores.work().get_json(&Key::status(&fake::id())).await.unwrap();
        state.is_some_and(|state| state.is_terminal()) && self.unsettled().is_empty()
    }

    /// Everything that is the same however the job came about.
    async fn end(&self) -> End {
        let stores = self.stores(&Steps::until(u64::MAX));
        let (work, job) = (stores.work(), fake::id());
        let mut events = Vec::new();
        for path in 1.. {
            match work.get_json::<Recorded>(&Key::event(&job, path)).await.unwrap() {
                Some(event) => events.push(event),
                None => break,
            }
        }
        assert!(events.iter().enumerate().all(|(n, event)| event.sequence == n as u64 + 1));
        assert_eq!(work.list(&Key::events(&job)).await.unwrap().len(), events.len(), "no gap");
        assert!(events.last().is_some_and(Recorded::is_last), "the end comes last");
        let state: Projection = work.get_json(&Key::status(&job)).await.unwrap().unwrap();
        assert_eq!((state.sequence, state.status.state), (events.len() as u64, events.last().unwrap().status.state));
        let ids: BTreeSet<String> = events.iter().map(|event| event.id.clone()).collect();
        assert_eq!(ids.len(), events.len(), "each event once");
        let result = work.get_json(&Key::result(&job)).await.unwrap().unwrap();
        let JobResult::Completed { objects } = result else { panic!("{result:?}") };
        let all = files(&self.dir.path().join("out"));
        let named: BTreeSet<&str> = objects.iter().map(|object| object.path.as_str()).collect();
        assert!(named.iter().all(|path| all.contains_key(*path)), "every object that is named is there");
        let scratch = self.dir.path().join("scratch");
        let left: Vec<_> = std::fs::read_dir(scratch).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        assert_eq!(left, Vec::<std::path::PathBuf>::new(), "scratch is left");
        assert!(self.broker.unsettled(Queue::Callbacks(PARTITION)) > 0, "its endpoint is to be told");
        // A report holds times.
        let output = all.into_iter().filter(|(path, _)| path != "report.json").collect();
        let bills = work.list(&Key::usage_folder("local", None)).await.unwrap().len();
        End { ids: ids.into_iter().filter(|id| !id.contains("job.progress")).collect(), output, bills }
    }
}

#[derive(Debug, PartialEq)]
struct End {
    ids: BTreeSet<String>,
    output: BTreeMap<String, Vec<u8>>,
    bills: usize,
}

fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(root).unwrap().display().to_string();
                found.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// A sweep finds everything due at once.
fn settings() -> CoordinatorSettings {
    CoordinatorSettings { stall_after_s: 0, sweep_every_s: 0, ..super::fixture::settings() }
}

/// Dies before the first call, and before every `nth` one after it.
async fn dies_before_calls(preset: &str, nth: usize) -> usize {
    let untouched = Site::new(preset).await;
    assert_eq!(untouched.live(u64::MAX, false).await, Life::Done);
    let wanted = untouched.end().await;
    assert!(wanted.bills == 1 && wanted.output.len() > 10 && wanted.ids.len() > 8, "{wanted:?}");
    let mut lives = 0;
    for last in (0..).step_by(nth) {
        let site = Site::new(preset).await;
        let first = site.live(last, false).await;
        if first == Life::Died {
            assert_eq!(site.live(u64::MAX, true).await, Life::Done, "died before step {last}");
        }
        assert_eq!(site.end().await, wanted, "died before step {last}");
        lives += 1;
        if first == Life::Done {
            break;
        }
    }
    println!("died before each of {lives} steps");
    lives
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_before_or_after_any_call_changes_nothing_of_the_end() {
    assert!(dies_before_calls("h264", 1).await > 100);
}

/// Twice as many calls: every third, to keep the time of both alike.
#[tokio::test(flavor = "multi_thread")]
async fn nor_does_it_where_content_decides() {
    assert!(dies_before_calls("narrowband-h264", 3).await > 60);
}
