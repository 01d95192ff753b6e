//! A worker, step by step: objects, marker, event, further parts, ack.

use super::world::{Fate, Letter, Order, World};
use narrows::event::{Cause, ClassState, Fact, Failure, Stage, State};
use narrows::job::Class;
use narrows::plan::Revision;
use narrows::plan::marker::PartId;
use narrows::reconcile::classes::{self, Misplaced};
use narrows::reconcile::{self, Step, stages};
use narrows::usage::Usage;
use std::collections::VecDeque;

/// Attempts of one part before its job fails.
const ATTEMPTS: u32 = 5;

/// The worker that has the device.
const WITH_DEVICE: usize = 1;

/// One call to the outside, or one run of a child.
#[derive(Clone, Debug)]
enum Op {
    Submit,
    PutOpen,
    PutJob,
    Look(Class, PartId),
    Child(Class, PartId),
    PutPlan,
    PutRevision(Revision),
    /// Is the job still encoded in this class? Then its manifests are written.
    Fence(Class),
    PutManifests(Class),
    PutMarker(Class, PartId),
    After(Class, PartId),
    List(Option<PartId>),
    Publish(Class, PartId),
    FallBack,
    Tell(Fact),
    /// Does the job have an end? If not, this one is written; told is the one it has.
    End(State),
    PutResult(State),
    Ack,
}

#[derive(Default)]
pub struct Worker {
    held: Option<Letter<Order>>,
    ops: VecDeque<Op>,
    pub frozen: bool,
    /// The broker has given the message to another: no settlement counts.
    detached: bool,
}

pub fn end_of(state: State) -> Fact {
    let usage = Usage::default();
    match state {
        State::Completed => Fact::JobCompleted { report: "report.json".into(), outputs: Default::default(), usage },
        State::Canceled => Fact::JobCanceled { usage },
        _ => Fact::JobFailed { failure: Failure { cause: Cause::Internal, message: "lost".into() }, usage },
    }
}

impl Worker {
    pub fn is_idle(&self) -> bool {
        self.held.is_none()
    }

    pub fn step(&mut self, world: &mut World, me: usize) -> Result<(), String> {
        if self.frozen {
            return Ok(());
        }
        let Some(op) = self.ops.pop_front() else {
            if !world.work.is_empty() {
                // Retried messages come back in no order.
                let place = world.below(world.work.len());
                let letter = world.work.swap_remove(place);
                if matches!(letter.body, Order::Part(Class::Nvenc, _)) && !(world.has_device && me == WITH_DEVICE) {
                    // That queue is another's.
                    world.work.push(letter);
                    return Ok(());
                }
                self.ops.push_back(match letter.body {
                    Order::Submit => Op::Submit,
                    Order::Part(class, part) => Op::Look(class, part),
                });
                self.held = Some(letter);
            }
            return Ok(());
        };
        let fate = world.fate();
        world.note(|| format!("worker {me}: {op:?} {fate:?}"));
        if fate == Fate::RequestLost {
            self.failed(world);
            return Ok(());
        }
        let follow = self.act(&op, world)?;
        match follow {
            Some(follow) if fate == Fate::Done => {
                for op in follow.into_iter().rev() {
                    self.ops.push_front(op);
                }
            }
            _ => self.failed(world),
        }
        Ok(())
    }

    /// Does it, and says what comes next; nothing when a child died.
    fn act(&mut self, op: &Op, world: &mut World) -> Result<Option<Vec<Op>>, String> {
        let store = &mut world.store;
        let follow = match op {
            Op::Submit => match store.result {
                Some(end) => vec![Op::Tell(end_of(end)), Op::Ack],
                None => {
                    let told = Op::Tell(Fact::JobAccepted);
                    vec![Op::PutOpen, Op::PutJob, told, Op::Publish(Class::Cpu, PartId::Probe), Op::Ack]
                }
            },
            Op::PutOpen => {
                store.open = true;
                Vec::new()
            }
            Op::PutJob => {
                store.accepted = true;
                Vec::new()
            }
            Op::Look(class, part) => look(*class, *part, world),
            Op::Child(class, part) => return self.child(*class, *part, world),
            // Tried again, it is packaged of what is in force then.
            Op::Fence(class) => return Ok((world.in_force() == *class).then(|| vec![Op::PutManifests(*class)])),
            Op::PutManifests(class) => {
                world.store.manifests = Some(*class);
                vec![Op::PutMarker(Class::Cpu, PartId::Package)]
            }
            Op::FallBack => {
                store.fell_back = true;
                vec![Op::Tell(Fact::JobClass { class: Class::Cpu, state: ClassState::FellBack }), Op::List(None)]
            }
            Op::PutPlan => {
                store.planned = true;
                Vec::new()
            }
            Op::PutRevision(revision) => {
                store.revisions = store.revisions.max(*revision as usize);
                Vec::new()
            }
            Op::PutMarker(class, part) => {
                let markers = if class.is_device() { &mut store.on_device } else { &mut store.markers };
                markers.insert(*part);
                vec![Op::Tell(completed(*part)), Op::After(*class, *part), Op::Ack]
            }
            Op::After(class, part) => after(*class, *part, world),
            Op::List(finished) => list(*finished, world),
            Op::Publish(class, part) => {
                world.work.push(Letter::new(Order::Part(part.class(*class), *part)));
                Vec::new()
            }
            Op::Tell(fact) => {
                world.tell(fact.clone());
                Vec::new()
            }
            Op::End(end) => match store.result {
                Some(end) => vec![Op::Tell(end_of(end))],
                None if store.cancel => vec![Op::PutResult(State::Canceled)],
                None => vec![Op::PutResult(*end)],
            },
            Op::PutResult(end) => {
                store.result = Some(*end);
                vec![Op::Tell(end_of(*end))]
            }
            Op::Ack => {
                self.held = None;
                self.detached = false;
                Vec::new()
            }
        };
        Ok(Some(follow))
    }

    fn child(&mut self, class: Class, part: PartId, world: &mut World) -> Result<Option<Vec<Op>>, String> {
        let before = reconcile::before(world.plan(), part);
        let done = world.done(class);
        let missing: Vec<PartId> = before.into_iter().filter(|p| !done.contains(p)).collect();
        if !missing.is_empty() {
            return Err(format!("{part} without {missing:?}"));
        }
        let is_known = part == PartId::Probe || world.plan_if_known().is_some_and(|plan| plan.revision() >= part.works_by());
        if !is_known {
            return Err(format!("{part} before its plan"));
        }
        if world.in_a_thousand(world.storm.child_dies) {
            return Ok(None);
        }
        Ok(Some(match part {
            PartId::Probe => vec![Op::PutPlan, Op::PutMarker(class, part)],
            PartId::Package if world.began_with.is_device() => vec![Op::Fence(class)],
            _ => part.revises().map(Op::PutRevision).into_iter().chain([Op::PutMarker(class, part)]).collect(),
        }))
    }

    /// An error: the message goes back to be tried later, or the job fails.
    fn failed(&mut self, world: &mut World) {
        self.ops.clear();
        let Some(letter) = self.held.take() else { return };
        if std::mem::take(&mut self.detached) {
            return;
        }
        // The settlement is a publish and an ack: between the two a message is there twice.
        if world.in_a_thousand(world.storm.doubled) {
            world.work.push(Letter { redelivered: true, ..letter.clone() });
        }
        if letter.attempt >= ATTEMPTS && matches!(letter.body, Order::Part(..)) {
            // What fails on a device is encoded in software.
            let is_of_device = matches!(letter.body, Order::Part(class, _) if class.is_device());
            self.held = Some(letter);
            self.ops.extend([if is_of_device { Op::FallBack } else { Op::End(State::Failed) }, Op::Ack]);
            if world.in_a_thousand(100) {
                self.back(world);
            }
            return;
        }
        world.work.push(Letter { attempt: letter.attempt + 1, ..letter });
    }

    /// The broker takes back what is out.
    fn back(&mut self, world: &mut World) {
        self.ops.clear();
        if let Some(letter) = self.held.take()
            && !std::mem::take(&mut self.detached)
        {
            world.work.push(Letter { redelivered: true, ..letter });
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
            world.work.push(Letter { redelivered: true, ..letter.clone() });
            self.detached = true;
        }
    }
}

fn completed(part: PartId) -> Fact {
    Fact::PartCompleted { part, attempt: 1, frames: 100, wall_s: 1.0, cpu_s: 1.0 }
}

fn look(class: Class, part: PartId, world: &World) -> Vec<Op> {
    let store = &world.store;
    if store.result.is_some() {
        return vec![Op::Ack];
    }
    if store.cancel {
        return vec![Op::End(State::Canceled), Op::Ack];
    }
    match classes::misplaced(part, class, world.began_with, world.in_force()) {
        None => {}
        Some(Misplaced::Stale) => return vec![Op::Ack],
        Some(Misplaced::To(class)) => return vec![Op::Publish(class, part), Op::Ack],
    }
    let is_early = || !world.plan_if_known().is_some_and(|plan| classes::may_package(plan, &world.done(world.in_force())));
    if part == PartId::Package && world.began_with.is_device() && is_early() {
        return vec![Op::List(None), Op::Ack];
    }
    let mut ops = Vec::new();
    if part == PartId::Probe {
        let started = Fact::StageStarted { stage: Stage::Probe, parts: 1, frames: 0, media_s: 0.0 };
        ops.extend([Op::Tell(Fact::JobStarted), Op::Tell(started)]);
    }
    let markers = if class.is_device() { &store.on_device } else { &store.markers };
    if markers.contains(&part) && part.revises().is_none() {
        ops.extend([Op::Tell(completed(part)), Op::After(class, part), Op::Ack]);
    } else {
        // What is packaged is what was in force when that was looked up.
        ops.push(Op::Child(if part == PartId::Package { world.in_force() } else { class }, part));
    }
    ops
}

fn after(made_in: Class, part: PartId, world: &World) -> Vec<Op> {
    let plan = world.plan_if_known().unwrap_or(&world.plans[0]);
    let class = world.in_force();
    if part.class(class) != made_in {
        return Vec::new();
    }
    if let Some(released) = reconcile::released_by(plan, part, world.window) {
        return vec![Op::Publish(class, released)];
    }
    let told = stages::passed(plan, part).into_iter().map(Op::Tell);
    told.chain([Op::List((part != PartId::Probe).then_some(part))]).collect()
}

fn list(finished: Option<PartId>, world: &World) -> Vec<Op> {
    let class = world.in_force();
    match reconcile::reconcile(world.plan_if_known(), &world.done(class), finished, world.window) {
        Step::Publish(parts) => {
            let plan = world.plan_if_known().unwrap_or(&world.plans[0]);
            let told = stages::begun(plan, &parts).into_iter().map(Op::Tell);
            told.chain(parts.into_iter().map(|part| Op::Publish(class, part))).collect()
        }
        Step::Finish => vec![Op::Tell(Fact::StageCompleted { stage: Stage::Package }), Op::End(State::Completed)],
        Step::Wait => Vec::new(),
    }
}
