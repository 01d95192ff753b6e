//! A bucket in a folder, a broker in memory, a job with events, and the consumer of one partition.

use narrows::broker::memory::{Bounds, MemoryBroker};
use narrows::broker::{BrokerError, Queue};
use narrows::callback::cursor::Cursor;
use narrows::callback::guard::{Resolver, SystemResolver};
use narrows::callback::run::{self, Tools};
use narrows::callback::{self, CallbackSettings, EndpointId, Replay, TenantCallbacks, sign, vod2017};
use narrows::job::{Callback, CallbackFormat, JobId};
use narrows::shutdown::{self, Stopper};
use narrows::store::Store;
use narrows::store::key::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for a state that must come.
const PATIENCE: Duration = Duration::from_secs(20);
pub const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub const OLD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const VOD_KEY: &str = "a key of 2017";

pub struct Stage {
    pub broker: MemoryBroker,
    pub store: Store,
    /// Added to the clock, milliseconds.
    pub ahead_ms: Arc<AtomicU64>,
    pub settings: CallbackSettings,
    pub tenant: TenantCallbacks,
    pub resolver: Arc<dyn Resolver>,
    _folder: TempDir,
}

/// A consumer at work.
pub struct Running {
    pub stopper: Stopper,
    task: tokio::task::JoinHandle<Result<(), BrokerError>>,
}

impl Running {
    /// Asks it to stop, and waits until it has.
    pub async fn stop(self) {
        self.stopper.stop();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it did not stop").unwrap().unwrap();
    }

    /// Ends it between two instructions, as a crash does.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

pub fn job(name: &str) -> JobId {
    JobId::try_from(name.to_string()).unwrap()
}

/// Jobs of one partition.
pub fn neighbours(count: usize) -> Vec<JobId> {
    let wanted = Queue::callbacks_of("storm-0");
    (0..).map(|n| format!("storm-{n}")).filter(|id| Queue::callbacks_of(id) == wanted).take(count).map(|id| job(&id)).collect()
}

pub fn endpoint(url: &str) -> Callback {
    Callback { url: url.into(), events: Vec::new(), format: CallbackFormat::Standard }
}

impl Stage {
    /// Loopback is allowed, failed attempts are made again at once, and there are three of them.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(&folder.path().join("work"), &folder.path().join("temporary")).unwrap();
        let settings = toml::from_str(
            "schedule_s = [0, 0, 0]\ntimeout_s = 5\nmax_response_bytes = 65536\nallow_http = true\n\
             allow_private = [\"127.0.0.0/8\"]\nparallel = 4\n",
        );
        let keys = [SECRET, OLD_SECRET].map(|text| sign::Key::parse(text).unwrap()).to_vec();
        let vod_key = Some(vod2017::VodKey::new(VOD_KEY.as_bytes()));
        Self {
            broker: MemoryBroker::new(Bounds::default()),
            store,
            ahead_ms: Arc::default(),
            settings: settings.unwrap(),
            tenant: TenantCallbacks { keys, vod_key, ..TenantCallbacks::default() },
            resolver: Arc::new(SystemResolver),
            _folder: folder,
        }
    }

    /// The consumer of the partition that a job is in.
    pub fn run(&self, job: &JobId) -> Running {
        let Queue::Callbacks(partition) = Queue::callbacks_of(job.as_str()) else { unreachable!() };
        let (stopper, stop) = shutdown::channel();
        Running { stopper, task: tokio::spawn(run::run(self.tools().unwrap(), partition, stop)) }
    }

    pub fn tools(&self) -> Result<Tools, String> {
        let ahead = self.ahead_ms.clone();
        let clock = Arc::new(move || now_ms() + ahead.load(SeqCst));
        let tenants = BTreeMap::from([("acme".to_string(), self.tenant.clone())]);
        let broker = Arc::new(self.broker.clone());
        Tools::new(broker, self.store.clone(), tenants, self.settings.clone(), self.resolver.clone(), clock)
    }

    /// Writes `job.json`.
    pub async fn accept(&self, job: &JobId, endpoints: &[Callback]) {
        let document = json!({
            "id": job, "preset": {}, "source": {},
            "job": {
                "id": job, "tenant": "acme", "input": {"uri": "s3://in/a.mp4"}, "output": {"uri": "s3://out/a/"},
                "callbacks": endpoints, "extend": "order 7",
            },
        });
        self.store.put_json(&Key::job(job), &document).await.unwrap();
    }

    /// Writes one recorded event.
    pub async fn record(&self, job: &JobId, sequence: u64, kind: &str, data: Value) {
        let event = json!({
            "version": 1, "id": format!("{job}/{kind}/{sequence}"), "job": job, "tenant": "acme", "sequence": sequence,
            "at": "2026-11-20T21:04:05.678Z", "type": kind, "data": data, "status": {},
        });
        self.store.put_json(&Key::event(job, sequence), &event).await.unwrap();
    }

    /// So many events, the last of which ends the job.
    pub async fn record_all(&self, job: &JobId, events: u64) {
        for sequence in 1..events {
            self.record(job, sequence, "stage.completed", json!({"stage": "encode"})).await;
        }
        self.record(job, events, "job.completed", json!({"report": "report.json"})).await;
    }

    pub async fn nudge(&self, job: &JobId, endpoints: &[Callback]) {
        callback::nudge(&self.broker, job, endpoints).await.unwrap();
    }

    pub async fn replay(&self, job: &JobId, endpoint: &Callback, from_sequence: u64) {
        let asked_ms = now_ms() + self.ahead_ms.load(SeqCst);
        callback::replay(&self.broker, job, std::slice::from_ref(endpoint), Replay { from_sequence, asked_ms }).await.unwrap();
    }

    pub async fn cursor(&self, job: &JobId, endpoint: &Callback) -> Cursor {
        let key = Key::cursor(job, EndpointId::of(endpoint).as_str());
        self.store.get_json(&key).await.unwrap().unwrap_or_default()
    }

    /// The cursor, once it is as it must become.
    pub async fn cursor_when(&self, job: &JobId, endpoint: &Callback, is: impl Fn(&Cursor) -> bool) -> Cursor {
        let poll = async {
            loop {
                let cursor = self.cursor(job, endpoint).await;
                if is(&cursor) {
                    return cursor;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, poll).await {
            Ok(cursor) => cursor,
            Err(_) => panic!("the cursor stays {:?}", self.cursor(job, endpoint).await),
        }
    }

    /// Waits until every nudge of the job's partition was acked.
    pub async fn settled(&self, job: &JobId) {
        let queue = Queue::callbacks_of(job.as_str());
        let poll = async {
            while self.broker.unsettled(queue) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, poll).await.expect("a nudge is left in the queue");
    }

    pub async fn exists(&self, key: &Key) -> bool {
        self.store.size(key).await.unwrap().is_some()
    }
}

pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
