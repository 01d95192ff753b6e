//! Events in the order of their time, and what each of them changes.

use super::arrivals::{Arrival, factor};
use super::costs::Costs;
use super::report::Report;
use super::scaling::Scaler;
use super::tally::Tally;
use super::titles::{Title, Titles};
use super::{Fleet, MAX_JOBS, MAX_WORKERS, Micros, SimulateError, micros};
use crate::broker::{Class, Queue};
use crate::job::Lane;
use crate::part::PartError;
use crate::plan::marker::PartId;
use crate::reconcile::{self, Step};
use crate::tenant::{Admission, Quota};
use crate::worker::lanes::Rota;
use crate::worker::{self, OPEN_PER_SLOT, Verdict};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::rc::Rc;

/// What is asked of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Submission,
    Part(PartId),
}

/// A message in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    job: u32,
    work: Work,
    attempt: u32,
}

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A message comes into its queue.
    Put(Message),
    /// A child ends, and its slot is free.
    ChildEnded { worker: u32, message: Message, crashed: bool },
    /// What the child made is handed over: the delivery is settled.
    Settled { worker: u32, message: Message, crashed: bool },
    /// A worker that was asked for is there.
    Up(u32),
    /// The number of workers is looked at.
    Scale,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Working,
    /// It takes nothing further.
    Draining,
    Gone,
}

struct Worker {
    state: State,
    rota: Rota<Queue>,
    busy: usize,
    open: usize,
    /// It found every queue empty.
    waits: bool,
}

/// A job that has not ended.
struct Running {
    title: Rc<Title>,
    done: BTreeSet<PartId>,
    crashes: BTreeMap<PartId, u32>,
}

#[derive(Default)]
struct Tenant {
    /// Jobs that have not ended.
    open: u64,
    /// Of these, those that wait for others.
    waiting: VecDeque<u32>,
}

/// What the fleet does with these jobs, in the order of their arrival. `slot_hour_price` is what a slot costs an hour.
///
/// # Errors
/// Nothing could work, a job cannot be planned, or nobody knows what its preset costs.
pub fn run(
    fleet: &Fleet,
    costs: &Costs,
    arrivals: &[Arrival],
    seed: u64,
    slot_hour_price: Option<f64>,
) -> Result<Report, SimulateError> {
    let titles = check(fleet, costs, arrivals)?;
    let mut simulation = Simulation::new(fleet, costs, arrivals, titles, seed);
    simulation.go();
    let begins = arrivals.first().map_or(0, |first| micros(first.at_s));
    Ok(simulation.tally.report(arrivals.len() as u64, begins, slot_hour_price))
}

/// Can it end? The titles of the jobs.
fn check(fleet: &Fleet, costs: &Costs, arrivals: &[Arrival]) -> Result<Vec<Rc<Title>>, SimulateError> {
    let most = fleet.scaling.as_ref().map_or(fleet.workers, |scaling| scaling.most.max(fleet.workers));
    if most == 0 || most > MAX_WORKERS || fleet.settings.slots == 0 {
        let reason = format!("{most} workers with {} slots each; allowed are 1 to {MAX_WORKERS} workers", fleet.settings.slots);
        return Err(SimulateError::Fleet(reason));
    }
    if arrivals.len() > MAX_JOBS {
        return Err(SimulateError::Fleet(format!("{} jobs; at most {MAX_JOBS} can be simulated", arrivals.len())));
    }
    let mut titles = Titles::default();
    let mut all = Vec::with_capacity(arrivals.len());
    for (place, arrival) in arrivals.iter().enumerate() {
        let wrong = |reason: String| SimulateError::Job { number: place + 1, reason };
        let title = titles.of(arrival).map_err(wrong)?;
        if title.plan.video.is_some() && !costs.encode.contains_key(&arrival.preset) {
            let reason = format!("nobody said what the preset {} costs ([encode] of --costs, or a --report)", arrival.preset);
            return Err(wrong(reason));
        }
        all.push(title);
    }
    Ok(all)
}

struct Simulation<'a> {
    fleet: &'a Fleet,
    costs: &'a Costs,
    arrivals: &'a [Arrival],
    random: StdRng,
    now: Micros,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    /// Events so far: of those at one moment the first one comes first.
    counted: u64,
    queues: Vec<(Queue, VecDeque<(Micros, Message)>)>,
    queued: usize,
    /// None has ended.
    jobs: Vec<Option<Running>>,
    left: usize,
    tenants: BTreeMap<&'a str, Tenant>,
    /// Jobs that wait for their tenants' others.
    held: usize,
    workers: Vec<Worker>,
    /// Workers that are paid for: all but those that are gone.
    present: usize,
    /// Those that found every queue empty, the one that waits longest first.
    idle: VecDeque<u32>,
    busy: usize,
    open: usize,
    scaler: Option<Scaler>,
    tally: Tally,
}

impl<'a> Simulation<'a> {
    fn new(fleet: &'a Fleet, costs: &'a Costs, arrivals: &'a [Arrival], titles: Vec<Rc<Title>>, seed: u64) -> Self {
        let begins = arrivals.first().map_or(0, |first| micros(first.at_s));
        let running = |title| Some(Running { title, done: BTreeSet::new(), crashes: BTreeMap::new() });
        let queues = Lane::ALL.into_iter().flat_map(|lane| [Queue::Jobs(lane), Queue::Work(Class::Cpu, lane)]);
        let mut simulation = Self {
            fleet,
            costs,
            arrivals,
            random: StdRng::seed_from_u64(seed),
            now: begins,
            events: BinaryHeap::new(),
            counted: 0,
            queues: queues.map(|queue| (queue, VecDeque::new())).collect(),
            queued: 0,
            jobs: titles.into_iter().map(running).collect(),
            left: arrivals.len(),
            tenants: BTreeMap::new(),
            held: 0,
            workers: Vec::new(),
            present: 0,
            idle: VecDeque::new(),
            busy: 0,
            open: 0,
            scaler: fleet.scaling.clone().map(Scaler::new),
            tally: Tally::new(begins, fleet.workers),
        };
        for _ in 0..fleet.workers {
            let worker = simulation.hire();
            simulation.up(worker);
        }
        for (job, arrival) in arrivals.iter().enumerate() {
            let message = Message { job: job as u32, work: Work::Submission, attempt: 1 };
            simulation.at(micros(arrival.at_s), Event::Put(message));
        }
        if simulation.scaler.is_some() {
            simulation.at(begins, Event::Scale);
        }
        simulation
    }

    fn at(&mut self, when: Micros, event: Event) {
        self.events.push(Reverse((when, self.counted, event)));
        self.counted += 1;
    }

    fn go(&mut self) {
        while self.left > 0
            && let Some(Reverse((when, _, event))) = self.events.pop()
        {
            self.tally.pass(when, self.queued + self.held, self.busy, self.present * self.fleet.settings.slots);
            self.now = when;
            match event {
                Event::Put(message) => self.put(message),
                Event::ChildEnded { worker, message, crashed } => self.child_ended(worker, message, crashed),
                Event::Settled { worker, message, crashed } => self.settled(worker, message, crashed),
                Event::Up(worker) => self.up(worker),
                Event::Scale => self.scale(),
            }
        }
    }

    /// A message is there: a worker that waits for one takes it, or it waits.
    fn put(&mut self, message: Message) {
        let lane = self.arrivals[message.job as usize].lane;
        let wanted = match message.work {
            Work::Submission => Queue::Jobs(lane),
            Work::Part(_) => Queue::Work(Class::Cpu, lane),
        };
        if let Some((_, queue)) = self.queues.iter_mut().find(|(queue, _)| *queue == wanted) {
            queue.push_back((self.now, message));
            self.queued += 1;
        }
        while let Some(worker) = self.idle.pop_front() {
            self.workers[worker as usize].waits = false;
            if self.may_take(worker) {
                return self.serve(worker);
            }
        }
    }

    fn may_take(&self, worker: u32) -> bool {
        let (slots, worker) = (self.fleet.settings.slots, &self.workers[worker as usize]);
        worker.state == State::Working && worker.busy < slots && worker.open < slots * OPEN_PER_SLOT
    }

    /// A worker takes what it may, by turns of its own.
    fn serve(&mut self, number: u32) {
        while self.may_take(number) {
            let order = self.workers[number as usize].rota.order();
            let full = |queue: &Queue| self.queues.iter().position(|(other, all)| other == queue && !all.is_empty());
            let Some(place) = order.iter().find_map(full) else {
                let worker = &mut self.workers[number as usize];
                if !worker.waits {
                    worker.waits = true;
                    self.idle.push_back(number);
                }
                return;
            };
            let queue = self.queues[place].0;
            let Some((since, message)) = self.queues[place].1.pop_front() else { return };
            self.queued -= 1;
            self.workers[number as usize].rota.served(queue);
            self.start(number, message, since);
        }
    }

    fn start(&mut self, number: u32, message: Message, since: Micros) {
        let Some(running) = &self.jobs[message.job as usize] else { return };
        let arrival = &self.arrivals[message.job as usize];
        self.tally.waited(arrival.lane, since, self.now);
        let (mean_s, varies) = match message.work {
            Work::Submission => (self.costs.submission_s, false),
            Work::Part(part) => cost(self.costs, &running.title, &arrival.preset, part),
        };
        let mut took_s = mean_s * if varies { factor(&mut self.random, self.costs.spread) } else { 1.0 };
        let is_part = message.work != Work::Submission;
        let crashed = is_part && self.costs.crash_share > 0.0 && self.random.random_bool(self.costs.crash_share);
        if crashed {
            took_s *= self.random.random_range(0.0..1.0);
        }
        let worker = &mut self.workers[number as usize];
        (worker.busy, worker.open) = (worker.busy + 1, worker.open + 1);
        (self.busy, self.open) = (self.busy + 1, self.open + 1);
        self.at(self.now + micros(took_s), Event::ChildEnded { worker: number, message, crashed });
    }

    fn child_ended(&mut self, worker: u32, message: Message, crashed: bool) {
        self.workers[worker as usize].busy -= 1;
        self.busy -= 1;
        let hand_over_s = if message.work == Work::Submission || crashed { 0.0 } else { self.costs.hand_over_s };
        self.at(self.now + micros(hand_over_s), Event::Settled { worker, message, crashed });
        self.serve(worker);
    }

    fn settled(&mut self, number: u32, message: Message, crashed: bool) {
        let worker = &mut self.workers[number as usize];
        worker.open -= 1;
        self.open -= 1;
        if worker.state == State::Draining && worker.open == 0 {
            worker.state = State::Gone;
            self.present -= 1;
        }
        match message.work {
            Work::Submission => self.submitted(message.job),
            Work::Part(part) if crashed => self.crashed(message, part),
            Work::Part(part) => self.done(message.job, part),
        }
        self.serve(number);
    }

    /// May the job be started?
    fn submitted(&mut self, job: u32) {
        let name = self.arrivals[job as usize].tenant.as_str();
        let quota = self.quota(name);
        let tenant = self.tenants.entry(name).or_default();
        match quota.admit(tenant.open) {
            Admission::Start => {
                tenant.open += 1;
                self.publish(job, &[PartId::Probe]);
            }
            Admission::Wait => {
                tenant.open += 1;
                tenant.waiting.push_back(job);
                self.held += 1;
            }
            Admission::Refuse(_) => {
                self.tally.refused += 1;
                self.forget(job);
            }
        }
    }

    fn quota(&self, tenant: &str) -> Quota {
        self.fleet.quotas.get(tenant).copied().unwrap_or_default()
    }

    fn publish(&mut self, job: u32, parts: &[PartId]) {
        for part in parts {
            self.at(self.now, Event::Put(Message { job, work: Work::Part(*part), attempt: 1 }));
        }
    }

    fn crashed(&mut self, message: Message, part: PartId) {
        let Some(running) = &mut self.jobs[message.job as usize] else { return };
        let crashes = running.crashes.entry(part).or_default();
        *crashes += 1;
        self.tally.crashes += 1;
        let error = PartError::Crash("simulated".into());
        match worker::of_part(error, message.attempt, *crashes, &self.fleet.settings) {
            Verdict::Again { after, .. } => {
                let again = Message { attempt: message.attempt + 1, ..message };
                self.at(self.now + after.as_micros() as Micros, Event::Put(again));
            }
            Verdict::GiveBack => self.at(self.now, Event::Put(message)),
            Verdict::Bury(_) | Verdict::Fail(_) => {
                self.tally.failed += 1;
                self.end(message.job);
            }
        }
    }

    /// A part is done: what it releases, as a worker finds it after it wrote the marker, or the end of the job.
    fn done(&mut self, job: u32, part: PartId) {
        let Some(running) = &mut self.jobs[job as usize] else { return };
        self.tally.parts += 1;
        running.done.insert(part);
        let (plan, window) = (&running.title.plan, self.fleet.window);
        if let Some(released) = reconcile::released_by(plan, part, window) {
            return self.publish(job, &[released]);
        }
        let finished = (part != PartId::Probe).then_some(part);
        match reconcile::reconcile(Some(plan), &running.done, finished, window) {
            Step::Publish(parts) => self.publish(job, &parts),
            Step::Wait => {}
            Step::Finish => {
                let (arrival, output_s) = (&self.arrivals[job as usize], running.title.output_s);
                self.tally.completed(&arrival.tenant, micros(arrival.at_s), self.now, output_s);
                self.end(job);
            }
        }
    }

    /// A job that was started ends, and its tenant's next ones may start: the oldest first, as the coordinators do it.
    fn end(&mut self, job: u32) {
        self.forget(job);
        let name = self.arrivals[job as usize].tenant.as_str();
        let quota = self.quota(name);
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        tenant.open -= 1;
        let active = tenant.open - tenant.waiting.len() as u64;
        let free = quota.active_jobs.map_or(u64::MAX, |most| u64::from(most).saturating_sub(active));
        let count = usize::try_from(free).unwrap_or(usize::MAX).min(tenant.waiting.len());
        let next: Vec<u32> = tenant.waiting.drain(..count).collect();
        self.held -= next.len();
        for job in next {
            self.publish(job, &[PartId::Probe]);
        }
    }

    /// Nothing of the job is worked on any more.
    fn forget(&mut self, job: u32) {
        self.jobs[job as usize] = None;
        self.left -= 1;
        self.tally.ended(self.now);
    }

    fn hire(&mut self) -> u32 {
        let rota = Rota::of_lanes(self.fleet.settings.lanes);
        self.present += 1;
        self.workers.push(Worker { state: State::Starting, rota, busy: 0, open: 0, waits: false });
        self.workers.len() as u32 - 1
    }

    fn up(&mut self, number: u32) {
        let worker = &mut self.workers[number as usize];
        if worker.state == State::Starting {
            worker.state = State::Working;
            self.serve(number);
        }
    }

    fn scale(&mut self) {
        let Some(mut scaler) = self.scaler.take() else { return };
        let staying = |worker: &Worker| matches!(worker.state, State::Starting | State::Working);
        let workers = self.workers.iter().filter(|worker| staying(worker)).count();
        // The broker counts what waits and what is in hand.
        let wanted = scaler.decide(self.now, self.queued + self.open, workers);
        for _ in workers..wanted {
            let worker = self.hire();
            self.at(self.now + scaler.start(), Event::Up(worker));
        }
        let newest = self.workers.iter_mut().rev().filter(|worker| staying(worker));
        let mut gone = 0;
        for worker in newest.take(workers.saturating_sub(wanted)) {
            worker.state = if worker.open == 0 { State::Gone } else { State::Draining };
            gone += usize::from(worker.open == 0);
        }
        self.present -= gone;
        self.tally.workers(self.present);
        self.at(self.now + scaler.every(), Event::Scale);
        self.scaler = Some(scaler);
    }
}

/// What a part takes, seconds of its slot, and whether that varies.
fn cost(costs: &Costs, title: &Title, preset: &str, part: PartId) -> (f64, bool) {
    let encode = costs.encode.get(preset).copied().unwrap_or_default();
    match part {
        PartId::Encode(chunk) => (encode * title.chunks_s.get(chunk as usize).copied().unwrap_or_default(), true),
        PartId::Audio(_) => (costs.audio * title.media_s, true),
        PartId::Package => (costs.package_s, false),
        // A probe, and whatever else is as long for every title.
        _ => (costs.probe_s, false),
    }
}
