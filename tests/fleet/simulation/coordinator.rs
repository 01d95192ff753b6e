//! A coordinator and a deliverer of callbacks, step by step.

use super::worker::end_of;
use super::world::{Fate, Letter, Order, Told, World, id};
use narrows::event::{ClassState, Fact, Projection, Recorded, State};
use narrows::job::Class;
use narrows::plan::marker::PartId;
use narrows::reconcile::{self, Step, classes};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most events taken at once.
const BATCH: usize = 4;
/// Ticks for which a job that has ended is looked after.
const SETTLE_TICKS: u32 = 2;

#[derive(Clone, Debug)]
enum Op {
    /// Reads the state.
    Begin,
    /// Applies the facts, and looks whether the place of the first new event is free.
    Record,
    /// Takes over the events that stand beyond the state.
    Adopt,
    PutEvent(Arc<Recorded>),
    /// What follows from the state.
    Follow,
    PutUsage(State),
    PutResult(State),
    PutStatus,
    Nudge,
    /// The facts are taken in: now the open job is looked at.
    Sweep,
    Visit,
    RemoveOpen,
    Propose(State),
    Publish(Class, PartId),
    FallBack,
    /// Everything that should be out in this class.
    AskAgain(Class),
    Ack,
}

/// A coordinator: takes batches of the partition, and sweeps when it is told to.
#[derive(Default)]
pub struct Coordinator {
    held: Vec<Letter<Told>>,
    ops: VecDeque<Op>,
    /// The state as it was read, as it is with the adopted events, and as it will be.
    stored: Option<Projection>,
    base: Option<Projection>,
    next: Option<Projection>,
    news: bool,
    repeated: bool,
    /// The sweep comes after the facts of a batch.
    sweeping: bool,
    settled: u32,
    pub frozen: bool,
    detached: bool,
}

impl Coordinator {
    pub fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// It sleeps, or has woken up and goes on with what another has been given.
    pub fn is_behind(&self) -> bool {
        self.frozen || self.detached
    }

    pub fn step(&mut self, world: &mut World, me: usize, is_active: bool) -> Result<(), String> {
        if self.frozen {
            return Ok(());
        }
        let Some(op) = self.ops.pop_front() else {
            if is_active && self.held.is_empty() && !world.partition.is_empty() {
                self.take(world);
            }
            return Ok(());
        };
        let fate = world.fate();
        world.note(|| format!("coordinator {me}: {} {fate:?}", brief(&op)));
        if fate != Fate::RequestLost {
            self.act(op, world)?;
        }
        if fate != Fate::Done && !self.held.is_empty() {
            self.again();
        }
        Ok(())
    }

    fn take(&mut self, world: &mut World) {
        let count = (1 + world.below(BATCH)).min(world.partition.len());
        self.held.extend(world.partition.drain(..count));
        self.repeated = self.held.iter().any(|letter| letter.redelivered);
        self.begin();
    }

    fn begin(&mut self) {
        (self.news, self.sweeping) = (false, false);
        self.ops.extend([Op::Begin, Op::Record]);
    }

    /// An error: what was done is not known, so all of it is done again; a sweep is left to the next tick.
    fn again(&mut self) {
        self.ops.clear();
        if self.sweeping {
            self.ops.push_back(Op::Ack);
            return;
        }
        self.repeated = true;
        self.begin();
    }

    fn act(&mut self, op: Op, world: &mut World) -> Result<(), String> {
        match op {
            Op::Begin => {
                let new = || world.store.accepted.then(|| Projection::new(id(), "local".into()));
                self.stored = world.store.status.clone().or_else(new);
                (self.base, self.next) = (self.stored.clone(), self.stored.clone());
            }
            Op::Record => self.record(world),
            Op::Sweep => {
                (self.sweeping, self.news) = (true, false);
                self.ops.extend([Op::Begin, Op::Adopt, Op::Follow]);
            }
            Op::Adopt => self.adopt(world),
            Op::PutEvent(recorded) => world.put_event(&recorded)?,
            Op::Follow => self.follow(world),
            Op::PutStatus => world.store.status = self.next.clone(),
            Op::PutUsage(end) => world.store.usage = Some(end),
            Op::PutResult(end) => world.store.result = Some(end),
            Op::Nudge => world.nudges.push(Letter::new(())),
            Op::Visit => self.visit(world),
            Op::RemoveOpen => world.store.open = false,
            Op::Propose(end) => world.tell(end_of(end)),
            Op::Publish(class, part) => world.work.push(Letter::new(Order::Part(part.class(class), part))),
            Op::FallBack => {
                world.store.fell_back = true;
                world.tell(Fact::JobClass { class: Class::Cpu, state: ClassState::FellBack });
            }
            Op::AskAgain(class) => self.ask_again(class, world),
            Op::Ack => {
                self.held.clear();
                self.detached = false;
            }
        }
        Ok(())
    }

    fn record(&mut self, world: &World) {
        let Some(mut next) = self.base.clone() else {
            // Facts of a job that does not exist.
            return self.ops.push_back(Op::Ack);
        };
        let mut recorded = Vec::new();
        for letter in &self.held {
            if let Told::Fact(event) = &letter.body {
                // A second, different end is refused, and that is all that happens to it.
                recorded.extend(next.apply(event).unwrap_or_default());
            }
        }
        if recorded.first().is_some_and(|first| world.store.events.contains_key(&first.sequence)) {
            return self.ops.extend([Op::Adopt, Op::Record]);
        }
        self.news |= !recorded.is_empty();
        self.next = Some(next);
        self.ops.extend(recorded.into_iter().map(|r| Op::PutEvent(Arc::new(r))));
        self.ops.push_back(Op::Follow);
    }

    fn adopt(&mut self, world: &World) {
        let Some(base) = &mut self.base else { return };
        while let Some(event) = world.store.events.get(&(base.sequence + 1)) {
            self.news |= base.adopt(event);
        }
        self.next = Some(base.clone());
    }

    fn follow(&mut self, world: &World) {
        let (Some(stored), Some(next)) = (&self.stored, &self.next) else { return };
        let end = next.status.state.filter(|state| state.is_terminal());
        if let Some(end) = end.filter(|_| !stored.is_terminal() || self.repeated || self.sweeping) {
            self.ops.push_back(Op::PutUsage(end));
            self.ops.extend((world.store.result != Some(end)).then_some(Op::PutResult(end)));
        }
        self.ops.extend((stored != next).then_some(Op::PutStatus));
        self.ops.extend((self.news || self.repeated && !self.sweeping).then_some(Op::Nudge));
        let has_tick = self.held.iter().any(|letter| matches!(letter.body, Told::Tick));
        if self.sweeping {
            self.ops.push_back(Op::Visit);
        } else if has_tick && world.store.open {
            self.ops.push_back(Op::Sweep);
        } else {
            self.ops.push_back(Op::Ack);
        }
    }

    /// What a job that is open needs: its parts again, its end, or to be left alone.
    fn visit(&mut self, world: &World) {
        let end = self.next.as_ref().and_then(|next| next.status.state).filter(|state| state.is_terminal());
        if end.is_some() {
            // Jobs are looked after for longer than any process sleeps.
            self.settled = if world.sleepers == 0 { self.settled + 1 } else { 0 };
            self.ops.extend((self.settled >= SETTLE_TICKS).then_some(Op::RemoveOpen));
            return self.ops.push_back(Op::Ack);
        }
        self.settled = 0;
        match world.store.result {
            // The worker died before it could tell.
            Some(result) => self.ops.push_back(Op::Propose(result)),
            None if world.store.cancel => self.ops.push_back(Op::Propose(State::Canceled)),
            None if !world.store.accepted => {}
            None => {
                let class = world.in_force();
                let waits = |plan: &narrows::plan::Plan| classes::waits_for_encoders(plan, &world.done(class), world.window);
                // When a wait is over is anybody's guess: sooner or later a sweep thinks so.
                if class.is_device() && world.plan_if_known().is_some_and(waits) {
                    self.ops.extend([Op::FallBack, Op::AskAgain(Class::Cpu)]);
                } else {
                    self.ops.push_back(Op::AskAgain(class));
                }
            }
        }
        self.ops.push_back(Op::Ack);
    }

    fn ask_again(&mut self, class: Class, world: &World) {
        let parts = match reconcile::reconcile(world.plan_if_known(), &world.done(class), None, world.window) {
            Step::Publish(parts) => parts,
            Step::Finish => vec![PartId::Package],
            Step::Wait => Vec::new(),
        };
        for part in parts.into_iter().rev() {
            self.ops.push_front(Op::Publish(class, part));
        }
    }

    pub fn strike(&mut self, world: &mut World, freezes: bool) {
        if !freezes {
            (self.frozen, self.settled) = (false, 0);
            self.ops.clear();
            let held = std::mem::take(&mut self.held);
            if !std::mem::take(&mut self.detached) {
                requeue(world, &held);
            }
            return;
        }
        self.frozen = !self.frozen;
        if self.frozen && !self.detached && !self.held.is_empty() {
            requeue(world, &self.held);
            self.detached = true;
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
