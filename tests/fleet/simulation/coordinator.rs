//! A coordinator and a deliverer of callbacks, step by step.

use super::worker::end_of;
use super::world::{Fate, Letter, Order, Told, World, id};
use narrows::event::{Projection, Recorded, State};
use narrows::plan::marker::PartId;
use narrows::reconcile;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most events taken at once.
const BATCH: usize = 4;
/// Ticks for which a job that has ended is looked after.
const SETTLE_TICKS: u32 = 2;

#[derive(Clone, Debug)]
enum Op {
    /// Reads the state, and the events that are recorded beyond it.
    Load,
    Apply,
    PutEvent(Arc<Recorded>),
    PutStatus,
    PutUsage(State),
    PutResult(State),
    RemoveOpen,
    Propose(State),
    Publish(PartId),
    Submit,
    Nudge,
    Ack,
}

#[derive(Default)]
pub struct Coordinator {
    held: Vec<Letter<Told>>,
    ops: VecDeque<Op>,
    cache: Option<Projection>,
    /// Ticks since the job ended, as far as this process has seen.
    settled: u32,
    pub frozen: bool,
    detached: bool,
}

impl Coordinator {
    pub fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    pub fn step(&mut self, world: &mut World, me: usize, is_active: bool) -> Result<(), String> {
        if self.frozen {
            return Ok(());
        }
        let Some(op) = self.ops.pop_front() else {
            if is_active && self.held.is_empty() && !world.partition.is_empty() {
                let count = 1 + world.below(BATCH);
                let count = count.min(world.partition.len());
                self.held.extend(world.partition.drain(..count));
                let sweeps = self.held.iter().any(|letter| matches!(letter.body, Told::Tick));
                // The sweeper trusts the bucket and not its memory.
                if self.cache.is_none() || sweeps {
                    self.ops.push_back(Op::Load);
                }
                self.ops.push_back(Op::Apply);
            }
            return Ok(());
        };
        let fate = world.fate();
        world.note(|| format!("coordinator {me}: {} {fate:?}", brief(&op)));
        if fate == Fate::RequestLost {
            self.failed(world);
            return Ok(());
        }
        self.act(op, world)?;
        if fate == Fate::ReplyLost {
            self.failed(world);
        }
        Ok(())
    }

    fn act(&mut self, op: Op, world: &mut World) -> Result<(), String> {
        match op {
            Op::Load => self.load(world),
            Op::Apply => self.apply(world),
            Op::PutEvent(recorded) => world.put_event(&recorded)?,
            Op::PutStatus => world.store.status = self.cache.clone(),
            Op::PutUsage(end) => world.store.usage = Some(end),
            Op::PutResult(end) => world.store.result = Some(end),
            Op::RemoveOpen => world.store.open = false,
            Op::Propose(end) => world.tell(end_of(end)),
            Op::Publish(part) => world.work.push(Letter::new(Order::Part(part))),
            Op::Submit => world.work.push(Letter::new(Order::Submit)),
            Op::Nudge => world.nudges.push(Letter::new(())),
            Op::Ack => {
                self.held.clear();
                // Whoever lost the partition forgets what he believed.
                if std::mem::take(&mut self.detached) {
                    self.cache = None;
                }
            }
        }
        Ok(())
    }

    fn load(&mut self, world: &World) {
        let known = world.store.status.clone();
        let mut projection = known.unwrap_or_else(|| Projection::new(id(), "local".into()));
        while let Some(next) = world.store.events.get(&(projection.sequence + 1)) {
            projection.adopt(next);
        }
        self.cache = Some(projection);
    }

    fn apply(&mut self, world: &mut World) {
        let projection = self.cache.as_mut().expect("it is loaded before");
        let before = world.store.status.clone();
        let mut recorded = Vec::new();
        for letter in &self.held {
            if let Told::Fact(event) = &letter.body {
                // A second, different end is refused, and that is all that happens to it.
                recorded.extend(projection.apply(event).unwrap_or_default());
            }
        }
        let again = self.held.iter().any(|letter| letter.redelivered);
        let sweeps = self.held.iter().filter(|letter| matches!(letter.body, Told::Tick)).count() as u32;
        let end = projection.status.state.filter(|state| state.is_terminal());
        let changed = before.as_ref() != Some(&*projection) && projection.sequence > 0;
        let news = !recorded.is_empty() || again || sweeps > 0 && world.store.open;
        self.ops.extend(recorded.into_iter().map(|r| Op::PutEvent(Arc::new(r))));
        self.ops.extend(changed.then_some(Op::PutStatus));
        if let Some(end) = end {
            self.ops.extend((world.store.usage != Some(end)).then_some(Op::PutUsage(end)));
            self.ops.extend((world.store.result != Some(end)).then_some(Op::PutResult(end)));
        }
        if news && projection.sequence > 0 {
            self.ops.push_back(Op::Nudge);
        }
        if sweeps > 0 {
            self.sweep(world, end, sweeps);
        }
        self.ops.push_back(Op::Ack);
    }

    /// What a job that is open needs: its parts again, its end, or to be left alone.
    fn sweep(&mut self, world: &World, end: Option<State>, ticks: u32) {
        if !world.store.open {
            return;
        }
        if end.is_some() {
            self.settled += ticks;
            self.ops.extend((self.settled >= SETTLE_TICKS).then_some(Op::RemoveOpen));
            return;
        }
        self.settled = 0;
        match world.store.result {
            // The worker died before it could tell.
            Some(result) => self.ops.push_back(Op::Propose(result)),
            None if world.store.cancel => self.ops.push_back(Op::Propose(State::Canceled)),
            None if !world.store.accepted => self.ops.push_back(Op::Submit),
            None => {
                let missing = match world.plan_if_known() {
                    Some(plan) if world.store.markers.contains(&PartId::Probe) => {
                        let missing = reconcile::missing(plan, &world.store.markers, world.window);
                        if missing.is_empty() { vec![PartId::Package] } else { missing }
                    }
                    _ => vec![PartId::Probe],
                };
                self.ops.extend(missing.into_iter().map(Op::Publish));
            }
        }
    }

    /// An error: nothing is believed any more, and the batch comes again.
    fn failed(&mut self, world: &mut World) {
        self.ops.clear();
        self.cache = None;
        let held = std::mem::take(&mut self.held);
        if !std::mem::take(&mut self.detached) {
            requeue(world, &held);
        }
    }

    pub fn strike(&mut self, world: &mut World, freezes: bool) {
        if !freezes {
            self.frozen = false;
            self.settled = 0;
            return self.failed(world);
        }
        self.frozen = !self.frozen;
        if self.frozen && !self.detached {
            requeue(world, &self.held);
            self.detached = true;
        }
        if !self.frozen && self.held.is_empty() {
            self.detached = false;
            self.cache = None;
        }
    }
}

/// Back to the front, in their order.
fn requeue(world: &mut World, held: &[Letter<Told>]) {
    for letter in held.iter().rev() {
        world.partition.push_front(Letter { redelivered: true, ..letter.clone() });
    }
}

fn brief(op: &Op) -> String {
    match op {
        Op::PutEvent(recorded) => format!("PutEvent({} {})", recorded.sequence, recorded.id),
        op => format!("{op:?}"),
    }
}

/// Delivers the events of the job to its one endpoint, in order.
#[derive(Default)]
pub struct Deliverer {
    held: Option<Letter<()>>,
    /// The event to deliver, once the cursor is read; and whether the receiver has it.
    next: Option<(u64, bool)>,
    pub frozen: bool,
    detached: bool,
}

impl Deliverer {
    pub fn is_idle(&self) -> bool {
        self.held.is_none()
    }

    pub fn step(&mut self, world: &mut World, me: usize) {
        if self.frozen {
            return;
        }
        if self.held.is_none() {
            if !world.nudges.is_empty() {
                let place = world.below(world.nudges.len());
                self.held = Some(world.nudges.swap_remove(place));
            }
            return;
        }
        let fate = world.fate();
        world.note(|| format!("deliverer {me}: {:?} {fate:?}", self.next));
        if fate == Fate::RequestLost {
            return self.back(world);
        }
        match self.next {
            None => self.next = Some((world.store.cursor, false)),
            Some((sequence, false)) if world.store.events.contains_key(&sequence) => {
                world.received.push(sequence);
                self.next = Some((sequence, true));
            }
            Some((_, false)) => {
                (self.held, self.next, self.detached) = (None, None, false);
                return;
            }
            Some((sequence, true)) => {
                world.store.cursor = sequence + 1;
                self.next = Some((sequence + 1, false));
            }
        }
        if fate == Fate::ReplyLost {
            self.back(world);
        }
    }

    fn back(&mut self, world: &mut World) {
        self.next = None;
        if let Some(letter) = self.held.take()
            && !std::mem::take(&mut self.detached)
        {
            world.nudges.push(Letter { redelivered: true, ..letter });
        }
    }

    pub fn strike(&mut self, world: &mut World, freezes: bool) {
        if !freezes {
            self.frozen = false;
            return self.back(world);
        }
        self.frozen = !self.frozen;
        if self.frozen
            && !self.detached
            && let Some(letter) = &self.held
        {
            world.nudges.push(Letter { redelivered: true, ..letter.clone() });
            self.detached = true;
        }
    }
}
