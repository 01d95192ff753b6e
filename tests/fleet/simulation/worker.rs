//! A worker, step by step: objects, marker, event, further parts, ack.

use super::world::{Fate, Letter, Order, World};
use narrows::event::{Cause, Fact, Failure, Stage, State};
use narrows::plan::Revision;
use narrows::plan::marker::PartId;
use narrows::reconcile::{self, Step, stages};
use narrows::usage::Usage;
use std::collections::VecDeque;

/// Attempts of one part before its job fails.
const ATTEMPTS: u32 = 5;

/// One call to the outside, or one run of a child.
#[derive(Clone, Debug)]
enum Op {
    Submit,
    PutOpen,
    PutJob,
    Look(PartId),
    Child(PartId),
    PutPlan,
    PutRevision(Revision),
    PutMarker(PartId),
    After(PartId),
    List(Option<PartId>),
    Publish(PartId),
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
                self.ops.push_back(match letter.body {
                    Order::Submit => Op::Submit,
                    Order::Part(part) => Op::Look(part),
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
                    vec![Op::PutOpen, Op::PutJob, told, Op::Publish(PartId::Probe), Op::Ack]
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
            Op::Look(part) => {
                if store.result.is_some() {
                    vec![Op::Ack]
                } else if store.cancel {
                    vec![Op::End(State::Canceled), Op::Ack]
                } else {
                    let mut ops = Vec::new();
                    if *part == PartId::Probe {
                        let started = Fact::StageStarted { stage: Stage::Probe, parts: 1, frames: 0, media_s: 0.0 };
                        ops.extend([Op::Tell(Fact::JobStarted), Op::Tell(started)]);
                    }
                    if store.markers.contains(part) && part.revises().is_none() {
                        ops.extend([Op::Tell(completed(*part)), Op::After(*part), Op::Ack]);
                    } else {
                        ops.push(Op::Child(*part));
                    }
                    ops
                }
            }
            Op::Child(part) => return self.child(*part, world),
            Op::PutPlan => {
                store.planned = true;
                Vec::new()
            }
            Op::PutRevision(revision) => {
                store.revisions = store.revisions.max(*revision as usize);
                Vec::new()
            }
            Op::PutMarker(part) => {
                store.markers.insert(*part);
                vec![Op::Tell(completed(*part)), Op::After(*part), Op::Ack]
            }
            Op::After(part) => after(*part, world),
            Op::List(finished) => list(*finished, world),
            Op::Publish(part) => {
                world.work.push(Letter::new(Order::Part(*part)));
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

    fn child(&mut self, part: PartId, world: &mut World) -> Result<Option<Vec<Op>>, String> {
        let before = reconcile::before(world.plan(), part);
        let missing: Vec<PartId> = before.into_iter().filter(|p| !world.store.markers.contains(p)).collect();
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
        let plan = match part {
            PartId::Probe => Some(Op::PutPlan),
            _ => part.revises().map(Op::PutRevision),
        };
        Ok(Some(plan.into_iter().chain([Op::PutMarker(part)]).collect()))
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
        if letter.attempt >= ATTEMPTS && matches!(letter.body, Order::Part(_)) {
            self.held = Some(letter);
            self.ops.extend([Op::End(State::Failed), Op::Ack]);
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

fn after(part: PartId, world: &World) -> Vec<Op> {
    let plan = world.plan_if_known().unwrap_or(&world.plans[0]);
    if let Some(released) = reconcile::released_by(plan, part, world.window) {
        return vec![Op::Publish(released)];
    }
    let told = stages::passed(plan, part).into_iter().map(Op::Tell);
    told.chain([Op::List((part != PartId::Probe).then_some(part))]).collect()
}

fn list(finished: Option<PartId>, world: &World) -> Vec<Op> {
    match reconcile::reconcile(world.plan_if_known(), &world.store.markers, finished, world.window) {
        Step::Publish(parts) => {
            let plan = world.plan_if_known().unwrap_or(&world.plans[0]);
            let told = stages::begun(plan, &parts).into_iter().map(Op::Tell);
            told.chain(parts.into_iter().map(Op::Publish)).collect()
        }
        Step::Finish => vec![Op::Tell(Fact::StageCompleted { stage: Stage::Package }), Op::End(State::Completed)],
        Step::Wait => Vec::new(),
    }
}
