//! Children that do as they are told, and a folder with a source that nobody looks into.

use super::health::Health;
pub use super::settings::fixture::settings;
use super::{Worker, WorkerSettings};
use crate::broker::memory::{Bounds, MemoryBroker};
use crate::broker::{Broker, BrokerError, Consumer, EVENT_PARTITIONS, Queue, Topic};
use crate::event::{Event, Fact, State, Status};
use crate::job::{Job, JobId, Lane};
use crate::part::finish::Control;
use crate::part::scratch::ScratchFolder;
use crate::part::{Children, Mode, Settings, StopFuture, Tools};
use crate::plan::marker::PartId;
use crate::plan::narrowband::ProbePoint;
use crate::plan::narrowband::grid::SceneCut;
use crate::plan::time::Rational;
use crate::plan::{Chunk, Rung};
use crate::probe::{Probe, Scan, VideoStream};
use crate::sandbox::protocol::{
    AnalyseReport, AnalyseSpent, AnalyseTask, CalibrateReport, CalibrateTask, Damage, EncodeReport, EncodeTask, EncodedRung,
    FrameProof, InitSegment, Limits, Measured, Refusal, RefusalReason, RemuxReport, Report, Segment, SizedPoint, Task,
};
use crate::sandbox::{Finished, InputSource, Outcome};
use crate::shutdown::{self, Stopper};
use crate::store::{Store, Stores};
use crate::tenant::Tenants;
use async_trait::async_trait;
use futures::future::select_all;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

/// Frames of the source, at 25 a second; 96 s, a keyframe every 2 s.
pub const FRAMES: i64 = 2400;

/// What a task is to do this time.
pub type Script = dyn Fn(PartId, u32) -> Act + Send + Sync;

/// How a child behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Work,
    Die,
    Refuse,
    /// Runs until it is stopped.
    Hang,
    /// Works when it is let go by [`FakeChildren::go_on`].
    Hold,
    /// Fails in the worker itself.
    Panic,
    /// Names a file that is a link out of its folder.
    Escape,
}

/// Children after a script, which is given the part and how often it was run before.
pub struct FakeChildren {
    script: Box<Script>,
    pub runs: Mutex<BTreeMap<PartId, u32>>,
    at_once: AtomicUsize,
    pub most_at_once: AtomicUsize,
    /// Told by every child that hangs or holds.
    pub hanging: Notify,
    held: Semaphore,
}

impl FakeChildren {
    pub fn new(script: impl Fn(PartId, u32) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            script: Box::new(script),
            runs: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            hanging: Notify::new(),
            held: Semaphore::new(0),
        })
    }

    /// Lets every child go on that holds, now or later.
    pub fn go_on(&self) {
        self.held.add_permits(1000);
    }

    pub fn ran(&self) -> BTreeMap<PartId, u32> {
        self.runs.lock().unwrap().clone()
    }

    async fn act(&self, task: &Task, scratch: &Path, stop: StopFuture) -> Outcome {
        let part = part_of(task);
        let before = {
            let mut runs = self.runs.lock().unwrap();
            let count = runs.entry(part).or_default();
            *count += 1;
            *count - 1
        };
        match (self.script)(part, before) {
            Act::Work => {
                // Let others in, so that what can run at once does.
                tokio::task::yield_now().await;
                Outcome::Done(Box::new(report(task, scratch)))
            }
            Act::Die => Outcome::Signalled(libc::SIGSEGV),
            Act::Refuse => Outcome::Refused(Refusal { reason: RefusalReason::Media, message: "truncated at 12.5 s".into() }),
            Act::Panic => panic!("as the test asks"),
            Act::Hold => {
                self.hanging.notify_one();
                tokio::select! {
                    () = stop => Outcome::Stopped,
                    _ = self.held.acquire() => Outcome::Done(Box::new(report(task, scratch))),
                }
            }
            Act::Hang => {
                self.hanging.notify_one();
                stop.await;
                Outcome::Stopped
            }
            Act::Escape => {
                let mut report = report(task, scratch);
                if let Report::Encode(encode) = &mut report {
                    std::os::unix::fs::symlink("/etc/hostname", scratch.join("link")).unwrap();
                    encode.rungs[0].init.file = "link".into();
                }
                Outcome::Done(Box::new(report))
            }
        }
    }
}

#[async_trait]
impl Children for FakeChildren {
    async fn run(
        &self,
        task: Task,
        _inputs: Vec<InputSource>,
        _limits: &Limits,
        scratch: &Path,
        on_progress: &mut (dyn FnMut(u64) + Send),
        stop: StopFuture,
    ) -> Finished {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        on_progress(1);
        let outcome = self.act(&task, scratch, stop).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let (wall, cpu) = (Duration::from_millis(20), Duration::from_millis(10));
        Finished { outcome, jail: None, stderr_tail: String::new(), wall, cpu, peak_bytes: 1000, pid: None }
    }
}

fn part_of(task: &Task) -> PartId {
    match task {
        Task::Probe => PartId::Probe,
        // Of a chunk's rungs only the top one is ever encoded alone.
        Task::Encode(task) if task.verification.is_some() && task.rungs.len() == 1 => PartId::Repair(task.chunk.index),
        Task::Encode(task) => PartId::Encode(task.chunk.index),
        Task::Analyse(task) => PartId::Analyse(task.encode.chunk.index),
        Task::Calibrate(task) => PartId::Calibrate(task.encode.chunk.index),
        Task::Audio(_) => PartId::Audio(0),
        Task::Remux(_) => PartId::Package,
        Task::Measure(_) | Task::Still(_) => unreachable!("no part compares, and none shows pictures"),
    }
}

fn report(task: &Task, scratch: &Path) -> Report {
    match task {
        Task::Probe => Report::Probe(probe()),
        Task::Encode(task) => Report::Encode(encode(task, scratch)),
        Task::Analyse(task) => Report::Analyse(analyse(task)),
        Task::Calibrate(task) => Report::Calibrate(calibrate(task)),
        Task::Audio(_) => unreachable!("the source has no audio"),
        Task::Measure(_) | Task::Still(_) => unreachable!("no part compares, and none shows pictures"),
        Task::Remux(task) => {
            std::fs::write(scratch.join(&task.file), b"progressive").unwrap();
            Report::Remux(RemuxReport { file: task.file.clone(), bytes: 11, packets: 1 })
        }
    }
}

fn probe() -> Probe {
    let keyframes: Vec<i64> = (0..FRAMES).step_by(50).collect();
    let even = VideoStream::even(Rational::new(1, 25), Rational::new(25, 1), 0, FRAMES, &keyframes);
    let video = VideoStream { width: 640, height: 360, ..even };
    Probe {
        container: "mov".into(),
        bytes: 5,
        claimed_duration_us: None,
        video: vec![video],
        audio: Vec::new(),
        ignored: Vec::new(),
        scan: Scan::Index,
        bytes_read: 5,
        notes: Vec::new(),
    }
}

fn proof(pts: i64) -> FrameProof {
    FrameProof { pts, pixels: format!("{pts:016x}") }
}

/// Every chunk is a little harder than the one before, and a scene begins with the next one.
fn analyse(task: &AnalyseTask) -> AnalyseReport {
    let Chunk { index, segments, end, .. } = &task.encode.chunk;
    let (from, to) = (segments[0], end.unwrap_or(FRAMES));
    let probe = |n: usize, crf: f64| {
        let kbps = (200 + 10 * u64::from(*index)) >> (2 * n);
        ProbePoint { crf, bits: kbps * 1000 * (to - from) as u64 / 25, vmaf_neg: [94.0, 80.0][n % 2] }
    };
    AnalyseReport {
        chunk: *index,
        frames: (to - from) as u64,
        ticks: (to - from) * task.encode.ticks_per_tick,
        probes: task.crf.iter().enumerate().map(|(n, crf)| probe(n, *crf)).collect(),
        cuts: vec![SceneCut { at: to, strength: 0.9 }],
        texture: None,
        notes: Vec::new(),
        spent: AnalyseSpent::default(),
    }
}

fn encode(task: &EncodeTask, scratch: &Path) -> EncodeReport {
    let Chunk { index, first_segment, segments: starts, end, .. } = &task.chunk;
    let end = end.unwrap_or(FRAMES);
    let time = |pts: i64| (pts - task.origin) * task.ticks_per_tick;
    let ends: Vec<i64> = starts.iter().skip(1).copied().chain([end]).collect();
    let write = |name: String, body: String| {
        std::fs::write(scratch.join(&name), &body).unwrap();
        (name, body.len() as u64)
    };
    let by = if task.device.is_some() { " by a device" } else { "" };
    let rungs = task.rungs.iter().map(|rung| {
        let (file, bytes) = write(format!("{}-init.mp4", rung.name), format!("init of {}{by}", rung.name));
        let init = InitSegment { file, bytes, codecs: "avc1.64001f".into(), timescale: task.timescale };
        let segments = starts.iter().zip(&ends).zip(*first_segment..).map(|((from, to), index)| {
            let (file, bytes) = write(format!("{}-{index}.m4s", rung.name), format!("{} from {from} to {to}{by}", rung.name));
            Segment { index, file, bytes, time: time(*from), duration: time(*to) - time(*from), samples: (to - from) as u64 }
        });
        let segments: Vec<Segment> = segments.collect();
        let bytes = segments.iter().map(|s| s.bytes).sum();
        EncodedRung { name: rung.name.clone(), init, frames: (end - starts[0]) as u64, bytes, cpu_s: 0.01, segments }
    });
    EncodeReport {
        chunk: *index,
        frames: (end - starts[0]) as u64,
        first_time: Some(time(starts[0])),
        end_time: Some(time(end)),
        head: Some(proof(starts[0])),
        next: (end < FRAMES).then(|| proof(end)),
        damage: Damage::default(),
        preroll_frames: 0,
        rungs: rungs.collect(),
        measured: task.verification.as_ref().map(|verification| measured(task, verification.scored_every)),
        unmeasured: None,
    }
}

/// Every chunk misses its plan by a little, and the first by much, until it is repaired.
fn measured(task: &EncodeTask, scored_every: u32) -> Measured {
    let crf: f64 = task.rungs[0].encoder.options["crf"].parse().expect("a CRF");
    let vmaf_neg = if task.chunk.index == 0 && task.rungs.len() > 1 { 60.0 } else { 100.0 - crf / 3.5 };
    Measured { vmaf_neg, scores: vec![vmaf_neg; 3], scored_every, cpu_s: 0.01 }
}

/// The final settings take twice the bits of a probe's, for the same quality.
fn calibrate(task: &CalibrateTask) -> CalibrateReport {
    let frames = task.frames.min(24);
    let point = |crf: f64, kbps: u64| ProbePoint { crf, bits: kbps * 1000 * frames / 25, vmaf_neg: 94.0 - 1.4 * (crf - 24.0) };
    let (rungs, finals) = (&task.encode.rungs[1..], &task.finals);
    let sized = |(rung, crf): (&Rung, &f64)| SizedPoint {
        width: rung.width,
        height: rung.height,
        point: point(*crf, u64::from(rung.height)),
    };
    CalibrateReport {
        chunk: task.encode.chunk.index,
        frames,
        ticks: frames as i64 * task.encode.ticks_per_tick,
        finals: rungs.iter().zip(finals).map(sized).collect(),
        probes: task.probes.iter().map(|crf| point(*crf, if *crf < 30.0 { 200 } else { 50 })).collect(),
        scaled: Vec::new(),
        notes: Vec::new(),
        spent: AnalyseSpent::default(),
    }
}

/// One folder, over which several processes may come and go.
pub struct Site {
    pub dir: tempfile::TempDir,
}

/// One process at a [`Site`]: its own broker and worker.
pub struct Process {
    pub tools: Tools,
    pub broker: MemoryBroker,
    pub events: Vec<Event>,
    pub status: Status,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("talk.mp4"), b"media").unwrap();
        Self { dir }
    }

    /// A process that is one of a fleet, for these tenants.
    pub fn start_fleet(&self, children: &Arc<FakeChildren>, tenants: Tenants) -> Process {
        let mut process = self.start(children);
        let settings = Settings { mode: Mode::Fleet, ..(*process.tools.settings).clone() };
        let Tools { broker, stores, children, .. } = process.tools;
        process.tools = Tools::new(broker, stores, children, settings).with_tenants(tenants);
        process
    }

    pub fn start(&self, children: &Arc<FakeChildren>) -> Process {
        let at = |name: &str| self.dir.path().join(name);
        let work = Store::folder(&at("work"), &at("tmp")).unwrap();
        let output = Store::folder(&at("out"), &at("tmp")).unwrap();
        let stores = Stores::new(work).with_output("out", output).with_source("talk.mp4", at("talk.mp4"));
        let broker = MemoryBroker::new(Bounds::default());
        let tools = tools(self.dir.path(), Arc::new(broker.clone()), stores, children, Mode::OneProcess);
        Process { tools, broker, events: Vec::new(), status: Status::default() }
    }
}

/// A worker at work.
pub struct Working {
    pub stopper: Stopper,
    pub health: Health,
    pub task: JoinHandle<Result<(), BrokerError>>,
}

impl Working {
    pub async fn stop(self) {
        self.stopper.stop();
        self.ended().await;
    }

    pub async fn ended(self) {
        tokio::time::timeout(LONG, self.task).await.expect("the worker ends").unwrap().unwrap();
    }
}

/// The events of all jobs, those of one in order.
pub struct Told {
    consumers: Vec<Box<dyn Consumer>>,
}

impl Told {
    pub async fn next(&mut self) -> Event {
        let next = select_all(self.consumers.iter_mut().map(|consumer| consumer.next()));
        let (delivery, _, _) = tokio::time::timeout(LONG, next).await.expect("something is told");
        let delivery = delivery.unwrap();
        let event = serde_json::from_slice(&delivery.body).unwrap();
        delivery.ack().await.unwrap();
        event
    }

    /// The first event for which `is` holds.
    pub async fn find(&mut self, is: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next().await;
            if is(&event) {
                return event;
            }
        }
    }

    /// The rejection that is told next.
    pub async fn rejection(&mut self) -> (Event, String, Option<String>) {
        let event = self.find(|event| matches!(event.fact, Fact::JobRejected { .. })).await;
        let Fact::JobRejected { path, requested_id, .. } = event.fact.clone() else { unreachable!("it was looked for") };
        (event, path, requested_id)
    }
}

/// Tools of a worker whose children are not real, with their scratch in `folder`.
pub fn tools(folder: &Path, broker: Arc<dyn Broker>, stores: Stores, children: &Arc<FakeChildren>, mode: Mode) -> Tools {
    let limits =
        Limits { max_pixels: 1, max_streams: 1, max_duration_s: 1, max_frames: 1, memory_bytes: 1, scratch_bytes: 1, cpu_s: 1 };
    let scratch = ScratchFolder::unlimited(folder.join("scratch"));
    let settings = Settings { mode, limits, scratch, threads_per_slot: 1, ranges: false, window: 3 };
    Tools::new(broker, stores, children.clone(), settings)
}

/// The job of all tests.
pub fn job(preset: &str) -> Job {
    let text = format!(r#"{{"id":"talk","input":{{"uri":"talk.mp4"}},"output":{{"uri":"out"}},"preset":"{preset}"}}"#);
    Job::parse(text.as_bytes()).unwrap()
}

pub fn id() -> JobId {
    JobId::try_from("talk".to_string()).unwrap()
}

impl Process {
    pub fn worker(&self) -> Worker {
        Worker::new(self.tools.clone(), settings())
    }

    /// Submits the job and works until it has ended, and then until nothing is left to do.
    pub async fn until_ended(&mut self, job: &Job) -> State {
        let (stopper, stop) = shutdown::channel();
        let worker = tokio::spawn(self.worker().run(stop));
        let mut events = self.submit(job).await;
        let state = tokio::time::timeout(Duration::from_secs(60), self.follow(&mut events)).await.expect("the job ends");
        while self.depth() > 0 {
            tokio::task::yield_now().await;
        }
        stopper.stop();
        worker.await.unwrap().unwrap();
        state
    }

    /// Submits a document and works until it is rejected, and then until nothing is left to do.
    pub async fn until_rejected(&self, document: &[u8]) -> Event {
        let mut told = self.told().await;
        self.submit_document(document).await;
        let working = self.work(settings());
        let (event, ..) = told.rejection().await;
        self.quiet().await;
        working.stop().await;
        event
    }

    pub async fn submit(&self, job: &Job) -> Box<dyn Consumer> {
        self.broker.publish(Queue::Jobs(job.lane), serde_json::to_vec(job).unwrap()).await.unwrap();
        self.broker.consume(Queue::events_of("talk"), 1).await.unwrap()
    }

    async fn follow(&mut self, events: &mut Box<dyn Consumer>) -> State {
        loop {
            let delivery = events.next().await.unwrap();
            let event: Event = serde_json::from_slice(&delivery.body).unwrap();
            delivery.ack().await.unwrap();
            self.status.apply(&event).unwrap();
            self.events.push(event);
            if let Some(state) = self.status.state.filter(|s| s.is_terminal()) {
                return state;
            }
        }
    }

    /// Messages that are not settled, events apart.
    pub fn depth(&self) -> usize {
        Queue::all().filter(|queue| !queue.has_single_consumer()).map(|queue| self.broker.unsettled(queue)).sum()
    }

    /// Waits until every message is settled.
    pub async fn quiet(&self) {
        let quiet = async {
            while self.depth() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, quiet).await.expect("the queues run empty");
    }

    /// Waits until `is` holds.
    pub async fn wait_until(&self, what: &str, is: impl AsyncFn() -> bool) {
        let holds = async {
            while !is().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, holds).await.unwrap_or_else(|_| panic!("{what} in time"));
    }

    /// Messages that nobody has taken.
    pub async fn waiting(&self, queue: Queue) -> u64 {
        self.broker.depth(queue).await.unwrap()
    }

    /// Starts a worker of these settings.
    pub fn work(&self, settings: WorkerSettings) -> Working {
        let (stopper, stop) = shutdown::channel();
        let worker = Worker::new(self.tools.clone(), settings);
        let health = worker.health();
        Working { stopper, health, task: tokio::spawn(worker.run(stop)) }
    }

    /// Listens to everything that is told from now on.
    pub async fn told(&self) -> Told {
        let mut consumers = Vec::new();
        for queue in (0..EVENT_PARTITIONS).map(Queue::Events) {
            consumers.push(self.broker.consume(queue, 1).await.unwrap());
        }
        Told { consumers }
    }

    pub async fn submit_document(&self, document: &[u8]) {
        self.broker.publish(Queue::Jobs(Lane::Normal), document.to_vec()).await.unwrap();
    }

    pub async fn control(&self, control: &Control) {
        self.broker.broadcast(Topic::Control, serde_json::to_vec(control).unwrap()).await.unwrap();
    }

    pub fn facts(&self) -> Vec<&Fact> {
        self.events.iter().map(|e| &e.fact).collect()
    }
}
