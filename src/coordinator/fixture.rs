//! A fleet for tests: the broker in memory, a folder as its bucket, two tenants.

use super::{CoordinatorSettings, Fleet};
use crate::broker::memory::{Bounds, MemoryBroker};
use crate::broker::{Broker, Queue};
use crate::callback::{CallbackSettings, TenantCallbacks, guard, run};
use crate::event::{Event, Fact, Projection, Recorded, Stage};
use crate::job::{Job, JobId};
use crate::part::accepted::Accepted;
use crate::part::finish::JobResult;
use crate::plan::marker::PartId;
use crate::store::key::Key;
use crate::store::{SourceIdentity, Store, Stores};
use crate::tenant::{SubmitRules, TenantSettings, Tenants};
use crate::usage::Usage;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The secret of both tenants and of the operator, each with its own id.
pub const SECRET: &str = "a-secret-of-32-bytes-for-tests-1";
pub const START_MS: u64 = 1_700_000_000_000;
/// Chunks of the job that [`whole_job`] tells of.
pub const CHUNKS: u32 = 10;

/// Where a fleet lives; dropped, it is removed.
pub struct Site {
    _dir: tempfile::TempDir,
    pub broker: MemoryBroker,
    pub fleet: Fleet,
}

/// Two tenants with access keys; `acme` is told of everything.
pub fn tenants(more: &str) -> Tenants {
    let text = format!(
        r#"
[acme]
access_key_id = "ak-acme"
secret_env = "SECRET"
allow_private_callbacks = true
callbacks = [{{ url = "http://127.0.0.1:1/hook", events = ["job.*"] }}]
{more}
[globex]
access_key_id = "ak-globex"
secret_env = "SECRET"
"#
    );
    let settings: BTreeMap<String, TenantSettings> = toml::from_str(&text).unwrap();
    Tenants::with_keys(&settings, SubmitRules::default(), |_| Ok(SECRET.into())).unwrap()
}

impl Site {
    pub fn new() -> Self {
        Self::of(tenants(""))
    }

    pub fn of(tenants: Tenants) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("talk.mp4"), b"media").unwrap();
        let at = |name: &str| dir.path().join(name);
        let work = Store::folder(&at("work"), &at("tmp")).unwrap();
        let output = Store::folder(&at("out"), &at("tmp")).unwrap();
        let stores = Stores::new(work).with_output("out", output).with_source("talk.mp4", at("talk.mp4"));
        let broker = MemoryBroker::new(Bounds::default());
        let (tenants, callbacks) = (Arc::new(tenants), Arc::new(callback_settings()));
        let (broker_of_all, observer) = (Arc::new(broker.clone()), crate::observe::nobody());
        let (devices, span) = (Arc::default(), crate::trace::Span::none());
        let fleet = Fleet { broker: broker_of_all, stores, tenants, callbacks, window: 4, devices, observer, span };
        Self { _dir: dir, broker, fleet }
    }

    /// Writes down a job as a worker does that accepts it.
    pub async fn accept(&self, id: &str) -> Accepted {
        let document = format!(
            r#"{{"id":"{id}","tenant":"acme","input":{{"uri":"talk.mp4"}},"output":{{"uri":"out"}},"preset":"h264",
                "callbacks":[{{"url":"http://127.0.0.1:1/job","events":["rendition.completed","job.completed"]}}]}}"#
        );
        let source = SourceIdentity { bytes: 5, modified_ms: 7, etag: None };
        let accepted = Accepted::new(Job::parse(document.as_bytes()).unwrap(), source).unwrap();
        let accepted = Accepted { accepted_ms: START_MS, ..accepted };
        let work = self.fleet.stores.work();
        work.put(&Key::open("acme", &accepted.id), Vec::new()).await.unwrap();
        work.put(&Key::index("acme", START_MS, &accepted.id), Vec::new()).await.unwrap();
        work.put_json(&Key::job(&accepted.id), &accepted).await.unwrap();
        accepted
    }

    /// The same of one that waits for its tenant's others.
    pub async fn accept_waiting(&self, id: &str) -> Accepted {
        let accepted = self.accept(id).await;
        let key = Key::waiting("acme", accepted.accepted_ms, &accepted.id);
        self.fleet.stores.work().put(&key, Vec::new()).await.unwrap();
        accepted
    }

    pub async fn tell(&self, events: &[Event]) {
        for event in events {
            let body = serde_json::to_vec(event).unwrap();
            self.broker.publish(Queue::events_of(event.job.as_str()), body).await.unwrap();
        }
    }

    /// What the bucket says of a job, every rule of it checked: numbers without gaps, ids once, one end, one bill, and a
    /// state and a result that say the same.
    pub async fn recorded(&self, id: &JobId) -> Vec<Recorded> {
        let work = self.fleet.stores.work();
        let mut recorded: Vec<Recorded> = Vec::new();
        while let Some(event) = work.get_json(&Key::event(id, recorded.len() as u64 + 1)).await.unwrap() {
            recorded.push(event);
        }
        assert_eq!(work.list(&Key::events(id)).await.unwrap().len(), recorded.len(), "a gap in the events of {id}");
        assert!(recorded.iter().enumerate().all(|(n, r)| r.sequence == n as u64 + 1 && r.job == *id));
        let ids: BTreeSet<&str> = recorded.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids.len(), recorded.len(), "an event twice: {:?}", kinds(&recorded));
        let ends = recorded.iter().filter(|r| matches!(r.kind.as_str(), "job.completed" | "job.failed" | "job.canceled"));
        let state = work.get_json::<Projection>(&Key::status(id)).await.unwrap();
        if let Some(last) = recorded.last() {
            let state = state.unwrap();
            assert_eq!((state.sequence, state.status.state), (last.sequence, last.status.state));
        }
        let ends = ends.count();
        assert!(ends <= 1, "{:?}", kinds(&recorded));
        let paths = work.list(&Key::usage_folder("acme", None)).await.unwrap();
        let bills = paths.iter().filter(|path| path.ends_with(&format!("/{id}.json")));
        assert_eq!(bills.count(), ends, "bills of {id}");
        recorded
    }

    pub async fn result(&self, id: &JobId) -> Option<JobResult> {
        self.fleet.stores.work().get_json(&Key::result(id)).await.unwrap()
    }

    /// Delivers callbacks of this fleet; none of its endpoints answers.
    pub fn callbacks(&self) -> run::Tools {
        let (broker, work) = (Arc::new(self.broker.clone()), self.fleet.stores.work().clone());
        let tenants = TenantCallbacks::of_all(&self.fleet.tenants).unwrap();
        run::Tools::new(broker, work, tenants, callback_settings(), Arc::new(guard::SystemResolver), Arc::new(super::now_ms))
            .unwrap()
    }
}

pub fn callback_settings() -> CallbackSettings {
    let text =
        "schedule_s = [0, 3600]\ntimeout_s = 1\nmax_response_bytes = 0\nallow_http = true\nallow_private = []\nparallel = 1\n";
    toml::from_str(text).unwrap()
}

pub fn settings() -> CoordinatorSettings {
    CoordinatorSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        stall_after_s: 60,
        settle_after_s: 30,
        sweep_every_s: 3600,
        batch_events: 16,
        batch_linger_ms: 0,
        max_connections: 64,
        max_requests: 32,
        max_streams: 2,
        header_timeout_s: 1,
        request_timeout_s: 20,
        operator: None,
    }
}

pub fn id(text: &str) -> JobId {
    JobId::try_from(text.to_string()).unwrap()
}

pub fn kinds(recorded: &[Recorded]) -> Vec<&str> {
    recorded.iter().map(|r| r.kind.as_str()).collect()
}

pub fn event(job: &JobId, fact: Fact) -> Event {
    Event::new(job.clone(), "acme".into(), START_MS, fact)
}

pub fn part(part: PartId, frames: u64) -> Fact {
    Fact::PartCompleted { part, attempt: 1, frames, wall_s: 1.0, cpu_s: 1.0 }
}

pub fn completed() -> Fact {
    let outputs = BTreeMap::from([("master.m3u8".into(), "https://cdn.example.com/talk/master.m3u8".into())]);
    let usage = Usage { frames: 100, cpu_s: 12.0, ..Usage::default() };
    Fact::JobCompleted { report: "report.json".into(), outputs, usage }
}

/// Everything that is told of a job that goes well, in order.
pub fn whole_job(job: &JobId) -> Vec<Event> {
    let started = |stage, parts, frames| Fact::StageStarted { stage, parts, frames, media_s: 4.0 };
    let mut facts = vec![Fact::JobAccepted, Fact::JobStarted, started(Stage::Probe, 1, 0), part(PartId::Probe, 0)];
    facts.extend([Fact::StageCompleted { stage: Stage::Probe }, started(Stage::Encode, u64::from(CHUNKS), 100)]);
    facts.extend((0..CHUNKS).map(|n| part(PartId::Encode(n), 10)));
    facts.extend([Fact::StageCompleted { stage: Stage::Encode }, started(Stage::Package, 1, 0)]);
    let (playlist, url) = ("720p/index.m3u8".into(), Some("https://cdn.example.com/talk/720p/index.m3u8".into()));
    facts.push(Fact::RenditionCompleted { rendition: "720p".into(), playlist, url, media: None });
    facts.extend([part(PartId::Package, 0), Fact::StageCompleted { stage: Stage::Package }, completed()]);
    facts.into_iter().map(|fact| event(job, fact)).collect()
}
