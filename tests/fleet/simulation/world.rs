//! The store, the broker, chance, and what must hold.

use super::actors::Actors;
use narrows::event::{Event, Fact, Projection, Recorded, State};
use narrows::job::{Class, JobId};
use narrows::plan::marker::PartId;
use narrows::plan::{CalibrationPlan, NarrowbandPlan, Plan, ProbePlan, RepairPlan, VideoPlan};
use narrows::reconcile::{self, classes};
use narrows::usage::Usage;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};

/// Steps of the stormy beginning, at most.
const STORM_STEPS: u64 = 600;
/// Steps in which everything must have ended once it is calm.
const CALM_STEPS: u64 = 20_000;
/// Ticks of the sweeper in which everything must have ended once it is calm.
const CALM_TICKS: u64 = 40;
/// What happened last, kept for the story of a failure.
const STORY_LINES: usize = 400;

/// In one schedule of so many content decides the ladder.
const CONTENT_DECIDES_EVERY: u64 = 3;

/// One job in so many may begin on a device; for a third of these there is none.
const DEVICE_EVERY: u64 = 4;
/// Of a thousand turns of such a job, those in which the device dies.
const DEVICE_DIES: u32 = 6;

/// How often what goes wrong, in a thousand steps.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    pub request_lost: u32,
    pub reply_lost: u32,
    pub doubled: u32,
    pub child_dies: u32,
    /// Of a thousand turns, those in which some process dies, sleeps or wakes.
    pub crash: u32,
    pub freeze: u32,
    pub cancel: u32,
    /// Of a thousand turns, those in which the device goes for good.
    pub device_dies: u32,
}

/// How one call to the store or the broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// Not done, and the caller sees an error.
    RequestLost,
    /// Done, and the caller sees an error.
    ReplyLost,
}

/// How a schedule went.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub state: State,
    pub steps: u64,
    pub faults: u64,
    pub ticks: u64,
    pub callbacks: u64,
}

/// What is in the bucket.
#[derive(Default)]
pub struct Store {
    pub accepted: bool,
    pub open: bool,
    pub planned: bool,
    /// Revisions of the plan that stand beside it.
    pub revisions: usize,
    pub markers: BTreeSet<PartId>,
    /// Those of chunks that the device encoded.
    pub on_device: BTreeSet<PartId>,
    /// The job is encoded in software.
    pub fell_back: bool,
    /// Of which class the chunks are that the manifests name.
    pub manifests: Option<Class>,
    pub cancel: bool,
    pub result: Option<State>,
    pub status: Option<Projection>,
    pub events: BTreeMap<u64, Arc<Recorded>>,
    pub usage: Option<State>,
    /// Of the one endpoint: the next event to deliver.
    pub cursor: u64,
}

/// A message with the broker's mark that it was out before.
#[derive(Clone, Debug)]
pub struct Letter<T> {
    pub body: T,
    pub attempt: u32,
    pub redelivered: bool,
}

impl<T> Letter<T> {
    pub fn new(body: T) -> Self {
        Self { body, attempt: 1, redelivered: false }
    }
}

/// What a worker is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Submit,
    Part(Class, PartId),
}

/// What lies in the events partition.
#[derive(Clone, Debug)]
pub enum Told {
    Fact(Arc<Event>),
    Tick,
}

/// Everything.
pub struct World {
    chance: StdRng,
    pub storm: Storm,
    pub calm: bool,
    /// The plan in all its revisions, at least one.
    pub plans: Vec<Plan>,
    pub window: u32,
    /// The class that the job begins with.
    pub began_with: Class,
    /// Some worker has a device.
    pub has_device: bool,
    pub store: Store,
    pub work: Vec<Letter<Order>>,
    pub partition: VecDeque<Letter<Told>>,
    pub nudges: Vec<Letter<()>>,
    /// Coordinators that sleep, or that have just woken up.
    pub sleepers: usize,
    /// Events as the receiver got them.
    pub received: Vec<u64>,
    /// Whoever told a fact told it at a time of its own.
    clock: u64,
    faults: u64,
    ticks: u64,
    canceled: bool,
    story: VecDeque<String>,
    tell_story: bool,
}

pub fn id() -> JobId {
    JobId::try_from("talk".to_string()).expect("it is one")
}

/// A plan in all its revisions.
fn plans(chunks: u32, audio: usize, content_decides: bool) -> Vec<Plan> {
    let plan = plan(chunks, audio);
    if !content_decides {
        return vec![plan];
    }
    let video = plan.video.as_ref().expect("the kept plan has video");
    let probe = ProbePlan { rungs: Vec::new(), crf: vec![24.0, 34.0], scored_every: 6, frames: None, halved: true };
    let draft = NarrowbandPlan {
        reference: video.rungs[0].clone(),
        probe,
        calibrations: None,
        crf: Vec::new(),
        pilots: Vec::new(),
        adjusted: false,
        verified_every: Some(12),
        repairs: None,
    };
    let calibration = |chunk| CalibrationPlan { chunk, weight: 0.5, frames: 24, rungs: Vec::new(), crf: Vec::new() };
    let chosen = (0..chunks).filter(|chunk| chunk % 3 == 0);
    let surveyed = NarrowbandPlan { calibrations: Some(chosen.map(calibration).collect()), ..draft.clone() };
    let pilots = (0..chunks).filter(|chunk| chunk % 5 == 1).collect();
    let decided = NarrowbandPlan { crf: vec![vec![27.5]; chunks as usize], pilots, ..surveyed.clone() };
    let adjusted = NarrowbandPlan { adjusted: true, ..decided.clone() };
    let repair = |chunk| RepairPlan { chunk, crf: 22.0 };
    let missed = (0..chunks).filter(|chunk| chunk % 4 == 1);
    let verified = NarrowbandPlan { repairs: Some(missed.map(repair).collect()), ..adjusted.clone() };
    let with = |narrowband| Plan { video: Some(VideoPlan { narrowband: Some(narrowband), ..video.clone() }), ..plan.clone() };
    [draft, surveyed, decided, adjusted, verified].into_iter().map(with).collect()
}

fn plan(chunks: u32, audio: usize) -> Plan {
    static KEPT: OnceLock<Plan> = OnceLock::new();
    let kept = KEPT.get_or_init(|| {
        let text = include_str!("../../plans/h264-portrait.json");
        serde_json::from_str(text).expect("the kept plan is one")
    });
    let mut plan = kept.clone();
    let video = plan.video.as_mut().expect("the kept plan has video");
    let chunk = video.chunks[0].clone();
    video.chunks = (0..chunks).map(|index| narrows::plan::Chunk { index, ..chunk.clone() }).collect();
    plan.audio.truncate(1);
    plan.audio = plan.audio.iter().cycle().take(audio).cloned().collect();
    plan
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let force = [0, 2, 10, 40, 120][chance.random_range(0..5)];
        let mut rate = |most: u32| if most == 0 { 0 } else { chance.random_range(0..=most) };
        let storm = Storm {
            request_lost: rate(force),
            reply_lost: rate(force),
            doubled: rate(force),
            child_dies: rate(force * 2),
            crash: rate(30),
            freeze: rate(30),
            cancel: rate(3),
            device_dies: DEVICE_DIES,
        };
        let (chunks, audio, window) = (chance.random_range(1..8), chance.random_range(0..3), chance.random_range(1..5));
        let plans = plans(chunks, audio, seed % CONTENT_DECIDES_EVERY == 1);
        let began_with = if plans.len() == 1 && seed % DEVICE_EVERY == 2 { Class::Nvenc } else { Class::Cpu };
        // Of its own chance, so that the schedules of all other seeds stay what they were.
        let has_device = !(seed / DEVICE_EVERY).is_multiple_of(3);
        Self {
            chance,
            storm,
            calm: false,
            plans,
            window,
            began_with,
            has_device,
            store: Store { cursor: 1, ..Store::default() },
            work: vec![Letter::new(Order::Submit)],
            partition: VecDeque::new(),
            nudges: Vec::new(),
            sleepers: 0,
            received: Vec::new(),
            clock: 0,
            faults: 0,
            ticks: 0,
            canceled: false,
            story: VecDeque::new(),
            tell_story: std::env::var_os("STORY").is_some(),
        }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.chance.random_range(0..end.max(1))
    }

    pub fn in_a_thousand(&mut self, rate: u32) -> bool {
        let happens = !self.calm && rate > 0 && self.chance.random_range(0..1000) < rate;
        self.faults += u64::from(happens);
        happens
    }

    pub fn fate(&mut self) -> Fate {
        if self.in_a_thousand(self.storm.request_lost) {
            Fate::RequestLost
        } else if self.in_a_thousand(self.storm.reply_lost) {
            Fate::ReplyLost
        } else {
            Fate::Done
        }
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.tell_story {
            if self.story.len() >= STORY_LINES {
                self.story.pop_front();
            }
            self.story.push_back(line());
        }
    }

    /// What happened, where the environment variable `STORY` asks for it.
    pub fn story(&self) -> String {
        let hint = if self.tell_story { "" } else { "run this seed with STORY=1 to see how\n" };
        hint.to_string() + &self.story.iter().map(|line| format!("  {line}\n")).collect::<String>()
    }

    pub fn plan_if_known(&self) -> Option<&Plan> {
        self.store.planned.then_some(&self.plans[self.store.revisions])
    }

    /// The class in which the job is encoded now.
    pub fn in_force(&self) -> Class {
        if self.store.fell_back { Class::Cpu } else { self.began_with }
    }

    /// What counts as done in a class.
    pub fn done(&self, class: Class) -> BTreeSet<PartId> {
        classes::counted(self.store.markers.clone(), self.store.on_device.clone(), class)
    }

    /// Is there a message that anybody takes?
    pub fn has_work(&self) -> bool {
        self.work.iter().any(|letter| self.has_device || !matches!(letter.body, Order::Part(Class::Nvenc, _)))
    }

    /// The last revision of the plan.
    pub fn plan(&self) -> &Plan {
        self.plans.last().expect("there is one")
    }

    pub fn tell(&mut self, fact: Fact) {
        self.clock += 1;
        let event = Event::new(id(), "local".into(), 1_700_000_000_000 + self.clock, fact);
        self.partition.push_back(Letter::new(Told::Fact(Arc::new(event))));
    }

    pub fn tick(&mut self) {
        self.ticks += 1;
        self.partition.push_back(Letter::new(Told::Tick));
    }

    /// The customer changes his mind: his tool writes the wish, then proposes the end; it may die in between.
    pub fn cancel(&mut self) {
        if self.canceled || !self.store.accepted {
            return;
        }
        self.canceled = true;
        self.note(|| "canceled by the customer".into());
        self.store.cancel = true;
        if !self.in_a_thousand(300) {
            self.tell(Fact::JobCanceled { usage: Usage::default() });
        }
    }

    /// Two writers of one record must agree to the byte.
    pub fn put_event(&mut self, recorded: &Arc<Recorded>) -> Result<(), String> {
        if let Some(there) = self.store.events.insert(recorded.sequence, recorded.clone())
            && there != *recorded
        {
            return Err(format!("event {} was written as\n{there:?}\nand as\n{recorded:?}", recorded.sequence));
        }
        Ok(())
    }

    pub fn run(&mut self) -> Result<Outcome, String> {
        let mut actors = Actors::new();
        let mut steps = 0;
        let stormy = self.below(STORM_STEPS as usize) as u64;
        while steps < stormy {
            steps += 1;
            actors.turn(self)?;
        }
        self.calm = true;
        self.note(|| "calm".into());
        actors.wake(self);
        let mut quiet_ticks = 0;
        while !self.is_settled() || quiet_ticks < 3 {
            if actors.is_idle(self) {
                if self.is_settled() {
                    quiet_ticks += 1;
                }
                if self.ticks > stormy + CALM_TICKS {
                    return Err("the sweeper could not end it".into());
                }
                self.tick();
            }
            steps += 1;
            if steps > stormy + CALM_STEPS {
                return Err("it did not end".into());
            }
            actors.turn(self)?;
        }
        while !actors.is_idle(self) {
            actors.turn(self)?;
        }
        self.check()?;
        let state = self.store.result.expect("checked");
        let callbacks = self.received.len() as u64;
        Ok(Outcome { state, steps, faults: self.faults, ticks: self.ticks, callbacks })
    }

    /// Has the job ended, and is nobody looking after it any more?
    fn is_settled(&self) -> bool {
        self.store.accepted && !self.store.open
    }

    /// What must hold at the end.
    fn check(&self) -> Result<(), String> {
        let must = |holds: bool, what: &dyn Fn() -> String| if holds { Ok(()) } else { Err(what()) };
        let events: Vec<&Arc<Recorded>> = self.store.events.values().collect();
        let ends = events.iter().filter(|r| is_end(&r.kind)).count();
        must(ends == 1, &|| format!("{ends} terminal events: {:?}", kinds(&events)))?;
        let gapless = self.store.events.keys().copied().eq(1..=events.len() as u64);
        must(gapless, &|| format!("gaps: {:?}", self.store.events.keys()))?;
        let ids: BTreeSet<&str> = events.iter().map(|r| r.id.as_str()).collect();
        must(ids.len() == events.len(), &|| format!("an event twice: {:?}", kinds(&events)))?;
        let last = events.last().ok_or("nothing was told")?;
        must(last.is_last(), &|| format!("something was told after the end: {:?}", kinds(&events)))?;
        let told = last.status.state;
        let status = self.store.status.as_ref().ok_or("no status")?;
        must(status.status.state == told, &|| format!("status {:?}, told {told:?}", status.status.state))?;
        must(status.sequence == last.sequence, &|| format!("status at {}, told {}", status.sequence, last.sequence))?;
        must(self.store.result == told, &|| format!("result {:?}, told {told:?}", self.store.result))?;
        must(self.store.usage == told, &|| format!("usage of {:?}, told {told:?}", self.store.usage))?;
        if told == Some(State::Completed) {
            let made_in = match self.began_with {
                Class::Cpu => Class::Cpu,
                _ => self.store.manifests.ok_or("completed without manifests")?,
            };
            let missing = reconcile::missing(self.plan(), &self.done(made_in), u32::MAX);
            must(missing.is_empty(), &|| format!("completed of {made_in} without {missing:?}"))?;
        }
        must(!self.has_work() && self.partition.is_empty() && self.nudges.is_empty(), &|| "messages are left".into())?;
        self.check_callbacks(events.len() as u64)
    }

    /// Each at least once, and the first time in order.
    fn check_callbacks(&self, events: u64) -> Result<(), String> {
        let mut next = 1;
        for sequence in &self.received {
            if *sequence > next {
                return Err(format!("callback {sequence} came before {next}: {:?}", self.received));
            }
            next = next.max(sequence + 1);
        }
        if next == events + 1 { Ok(()) } else { Err(format!("{} of {events} events were delivered", next - 1)) }
    }
}

fn is_end(kind: &str) -> bool {
    ["job.completed", "job.failed", "job.canceled", "job.rejected"].contains(&kind)
}

fn kinds<'a>(events: &[&'a Arc<Recorded>]) -> Vec<&'a str> {
    events.iter().map(|r| r.kind.as_str()).collect()
}
