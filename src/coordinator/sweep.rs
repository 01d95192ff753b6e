//! Looking after jobs that nobody tells of: now and then, in the order of the events, by whoever has the partition.
//!
//! A message is lost only together with whoever had it, and then the broker gives it out again. What is left for the
//! sweep is what should not be: a part that was never asked for, an end that was written and not told, a state that a
//! paused coordinator wrote over a newer one, an endpoint that was not told although nothing reminds anybody of it. All of
//! it is found by looking, and put right by asking again.

use super::clock::now_ms;
use super::fleet::Fleet;
use super::progress::Progress;
use super::settings::CoordinatorSettings;
use super::write::{WriteError, Writer};
use super::{debts, device_wait};
use crate::broker::Queue;
use crate::callback;
use crate::event::{Projection, State, rfc3339, tenant_stream};
use crate::job::{Class, JobId};
use crate::part::accepted::Accepted;
use crate::part::finish::JobResult;
use crate::part::{class, latest_revision};
use crate::plan::Plan;
use crate::plan::marker::PartId;
use crate::reconcile::{Step, reconcile};
use crate::store::key::Key;
use crate::trace::{Begun, Parent, SpanRole};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// Open jobs listed by one request.
const OPEN_AT_A_TIME: usize = 1000;
/// Jobs of one partition whose waits are remembered; of more than that, some are looked at in every sweep.
const MOST_WATCHED: usize = 16_384;
/// The wait of a job that stays silent doubles so many times.
const MOST_DOUBLINGS: u32 = 8;
/// Parts that may wait in a lane, while a silent job is thought to wait among them.
const BUSY_LANE: u64 = 1;
/// So many doublings on, a job is asked for again however long its lane is.
const PATIENCE: u32 = 3;
/// Jobs of one tenant that are started in one sweep.
const MOST_STARTED: usize = 100;

/// An endpoint is looked after for a week longer than twice the time in which its callbacks are tried: by then it was told,
/// or given up, or what it was to be told is gone.
const OWED_FOR_MS: u64 = 7 * 24 * 3600 * 1000;

/// A message on a partition of events: look after its jobs now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tick {
    /// Milliseconds since 1970.
    pub tick: u64,
}

/// What is remembered of an open job.
struct Watched {
    /// When it was told of last.
    updated_ms: u64,
    /// How often it was asked for again since.
    asked: u32,
    due_ms: u64,
    /// For how long nothing need be heard of it.
    patience_ms: u64,
}

/// Looks after the open jobs of one partition.
pub(super) struct Sweeper {
    fleet: Fleet,
    partition: u8,
    stall_ms: u64,
    settle_ms: u64,
    /// Sweeps are at least so far apart: every coordinator sends ticks.
    apart_ms: u64,
    last_ms: u64,
    /// When it last looked at what has ended, which is not as pressing.
    last_settling_ms: u64,
    watched: HashMap<JobId, Watched>,
    progress: Progress,
}

impl Sweeper {
    pub fn new(fleet: Fleet, settings: &CoordinatorSettings, partition: u8) -> Self {
        Self {
            fleet,
            partition,
            stall_ms: settings.stall_after_s * 1000,
            settle_ms: settings.settle_after_s * 1000,
            apart_ms: settings.sweep_every_s * 500,
            last_ms: 0,
            last_settling_ms: 0,
            watched: HashMap::new(),
            progress: Progress::default(),
        }
    }

    /// From now on says there that it gets on.
    pub fn watched(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Facts of a job came in.
    pub fn heard_of(&mut self, job: &JobId, projection: &Projection) {
        if let Some(watched) = self.watched.get_mut(job) {
            (watched.updated_ms, watched.asked) = (projection.updated_ms, 0);
            watched.due_ms = now_ms() + if projection.is_terminal() { self.settle_ms } else { watched.patience_ms };
        }
    }

    /// Looks at every open job of the partition that is due. What cannot be done now is done by a later sweep.
    pub async fn sweep(&mut self, now_ms: u64) {
        if now_ms < self.last_ms.saturating_add(self.apart_ms) {
            return;
        }
        self.last_ms = now_ms;
        if let Err(error) = self.open_jobs(now_ms).await {
            tracing::warn!(partition = self.partition, %error, "open jobs could not be looked through");
        }
        let tenants = self.fleet.tenants.clone();
        for tenant in tenants.iter().filter(|tenant| self.is_ours(&tenant_stream(&tenant.name))) {
            self.wake(&tenant.name).await;
        }
    }

    /// Starts what waits of a tenant and need not any more. What cannot be done now is done by a later sweep.
    pub async fn wake(&self, tenant: &str) {
        let Some(most) = self.fleet.most_active(tenant) else { return };
        if let Err(error) = self.start_waiting(tenant, most as usize).await {
            tracing::warn!(tenant, %error, "waiting jobs could not be started");
        }
    }

    fn is_ours(&self, job: &JobId) -> bool {
        Queue::events_of(job.as_str()) == Queue::Events(self.partition)
    }

    /// Looks at what has not ended, and at what ended a little while ago.
    async fn open_jobs(&mut self, now_ms: u64) -> Result<(), WriteError> {
        let mut seen = BTreeSet::new();
        self.look_through(&Key::open_folder(None), now_ms, &mut seen).await?;
        if now_ms >= self.last_settling_ms.saturating_add(self.settle_ms / 2) {
            self.look_through(&Key::settling_folder(), now_ms, &mut seen).await?;
            self.last_settling_ms = now_ms;
            self.watched.retain(|job, _| seen.contains(job));
        }
        Ok(())
    }

    async fn look_through(&mut self, folder: &str, now_ms: u64, seen: &mut BTreeSet<JobId>) -> Result<(), WriteError> {
        let mut after = None;
        loop {
            self.progress.step(self.partition);
            let page = self.fleet.stores.work().list_after(folder, after.as_deref(), OPEN_AT_A_TIME).await?;
            let is_last = page.len() < OPEN_AT_A_TIME;
            after = page.last().cloned();
            let ours = |(_, job): &(String, JobId)| self.is_ours(job);
            let jobs: Vec<_> = page.iter().filter_map(|path| Key::of_looked_after(path)).filter(ours).collect();
            for (tenant, job) in jobs {
                self.progress.step(self.partition);
                if self.watched.get(&job).is_none_or(|watched| watched.due_ms <= now_ms)
                    && let Err(error) = self.visit(&tenant, &job, now_ms).await
                {
                    tracing::warn!(%job, %error, "an open job could not be looked after");
                }
                seen.insert(job);
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// One open job that is due, or that is seen for the first time.
    async fn visit(&mut self, tenant: &str, job: &JobId, now_ms: u64) -> Result<(), WriteError> {
        let writer = Writer { fleet: &self.fleet, job };
        let projection = writer.repair().await?;
        let accepted = self.fleet.stores.work().get_json::<Accepted>(&Key::job(job)).await?;
        let accepted = match (accepted, &projection) {
            (Some(accepted), _) => accepted,
            (None, Some(projection)) => return self.settle(projection, now_ms).await,
            // Purged: nothing is left of it but this.
            (None, None) if self.watched.contains_key(job) => return self.forget(tenant, job).await,
            (None, None) => {
                // Or being accepted at this moment: what is no job the next time will never be one.
                self.watch(&Projection::new(job.clone(), tenant.into()), now_ms + self.settle_ms, self.stall_ms);
                return Ok(());
            }
        };
        let projection = projection.unwrap_or_else(|| Projection::new(job.clone(), tenant.into()));
        // What was rejected and is a job all the same was mended; that is still to be told.
        if projection.is_terminal() && projection.status.state != Some(State::Rejected) {
            return self.settle(&projection, now_ms).await;
        }
        let known = self.watched.get(job);
        let is_silent = known.is_some_and(|watched| watched.updated_ms == projection.updated_ms);
        if !is_silent {
            // By our own clock from now on, unless the teller's says that it is late already.
            let patience = self.patience_ms(&accepted);
            let due = projection.updated_ms.saturating_add(patience).clamp(now_ms, now_ms + patience);
            self.watch(&projection, due, patience);
            return Ok(());
        }
        let asked = known.map_or(0, |watched| watched.asked);
        let class = class::in_force(self.fleet.stores.work(), &accepted).await?;
        let is_seen_to = class.is_device() && device_wait::see_to(&self.fleet, &accepted, class, projection.updated_ms).await?;
        let asked = asked + u32::from(!is_seen_to && self.ask_again(&accepted, class, asked).await?);
        if let Some(watched) = self.watched.get_mut(job) {
            watched.asked = asked;
            watched.due_ms = now_ms + self.stall_ms * (1 << watched.asked.min(MOST_DOUBLINGS));
        }
        Ok(())
    }

    /// What has ended, or never was a job: it is looked after for a while, and for as long as somebody is to be told of it.
    async fn settle(&mut self, projection: &Projection, now_ms: u64) -> Result<(), WriteError> {
        let job = &projection.job;
        let ended = projection.status.ended_at.as_deref().and_then(rfc3339::parse).unwrap_or(projection.updated_ms);
        let settled = ended.saturating_add(self.settle_ms);
        if settled > now_ms {
            self.watch(projection, settled, self.stall_ms);
            return Ok(());
        }
        let tried_ms = self.fleet.callbacks.schedule_s.iter().sum::<u64>() * 1000;
        let is_old = ended.saturating_add(2 * tried_ms + OWED_FOR_MS) <= now_ms;
        let debts = if is_old { Vec::new() } else { debts::of(&self.fleet, projection).await? };
        if debts.is_empty() {
            return self.forget(&projection.tenant, job).await;
        }
        // As with parts: a message may be on its way for so long before it is thought lost.
        let (late, waiting): (Vec<_>, Vec<_>) = debts.into_iter().partition(|debt| debt.due_ms + self.stall_ms <= now_ms);
        let mut asked = self.watched.get(job).map_or(0, |watched| watched.asked);
        let mut due = waiting.iter().map(|debt| debt.due_ms + self.stall_ms).min().unwrap_or(u64::MAX);
        if !late.is_empty() {
            let endpoints: Vec<_> = late.into_iter().map(|debt| debt.endpoint).collect();
            tracing::info!(%job, endpoints = endpoints.len(), "callbacks are owed and nobody is at it; they are asked for again");
            callback::nudge(&*self.fleet.broker, job, &endpoints).await?;
            asked += 1;
            due = due.min(now_ms + self.stall_ms * (1 << asked.min(MOST_DOUBLINGS)));
        }
        self.watch(projection, due, self.stall_ms);
        if let Some(watched) = self.watched.get_mut(job) {
            watched.asked = asked;
        }
        Ok(())
    }

    /// Nobody has to look after the job any more.
    async fn forget(&mut self, tenant: &str, job: &JobId) -> Result<(), WriteError> {
        self.watched.remove(job);
        let work = self.fleet.stores.work();
        work.delete(&Key::open(tenant, job)).await?;
        Ok(work.delete(&Key::settling(tenant, job)).await?)
    }

    /// How long nothing need be heard of an open job: less where its chunks wait for a device.
    fn patience_ms(&self, accepted: &Accepted) -> u64 {
        let waits_ms = self.fleet.devices.wait_s * 1000;
        if accepted.class.is_device() { waits_ms.min(self.stall_ms) } else { self.stall_ms }
    }

    fn watch(&mut self, projection: &Projection, due_ms: u64, patience_ms: u64) {
        let job = &projection.job;
        if self.watched.len() < MOST_WATCHED || self.watched.contains_key(job) {
            self.watched.insert(job.clone(), Watched { updated_ms: projection.updated_ms, asked: 0, due_ms, patience_ms });
        }
    }

    /// A job of which nothing was heard: whatever should be out is asked for once more. False: it waits for its turn, and
    /// nothing should be.
    async fn ask_again(&self, accepted: &Accepted, class: Class, asked: u32) -> Result<bool, WriteError> {
        let (job, work) = (&accepted.id, self.fleet.stores.work());
        if let Some(result) = work.get_json::<JobResult>(&Key::result(job)).await? {
            tracing::info!(%job, "its end was written and not told");
            return self.propose(accepted, result).await.map(|()| true);
        }
        if work.size(&Key::cancel(job)).await?.is_some() {
            return self.propose(accepted, JobResult::Canceled).await.map(|()| true);
        }
        let (tenant, at) = (&accepted.job.tenant, accepted.accepted_ms);
        if self.fleet.most_active(tenant).is_some() && work.size(&Key::waiting(tenant, at, job)).await?.is_some() {
            return Ok(false);
        }
        let lane = accepted.job.lane;
        // Of its class, and of what is of none.
        for class in BTreeSet::from([class, Class::Cpu]) {
            if asked < PATIENCE && self.fleet.broker.depth(Queue::Work(class, lane)).await? >= BUSY_LANE {
                return Ok(true);
            }
        }
        let plan = match work.get_json::<Plan>(&Key::plan(job)).await? {
            Some(plan) => Some(latest_revision(work, job, plan).await?.plan),
            None => None,
        };
        let done = class::done(work, job, class).await?;
        let parts = match reconcile(plan.as_ref(), &done, None, self.fleet.window) {
            Step::Publish(parts) => parts,
            // Its worker finds the marker, and goes on from there.
            Step::Finish => vec![PartId::Package],
            Step::Wait => Vec::new(),
        };
        tracing::info!(%job, parts = parts.len(), "nothing was heard of it; its parts are asked for again");
        self.fleet.observer.job_stalled();
        let fleet = self.within("ask", accepted);
        class::publish(&*fleet.broker, job, lane, class, &parts).await?;
        Ok(true)
    }

    /// The fleet, in a span of a job that nobody's message is about.
    fn within(&self, what: &'static str, accepted: &Accepted) -> Fleet {
        let parent = Parent::Job(accepted.trace);
        self.fleet.within(self.fleet.observer.span(&Begun::now(what, "", SpanRole::Internal, parent, accepted.id.as_str())))
    }

    async fn propose(&self, accepted: &Accepted, result: JobResult) -> Result<(), WriteError> {
        let fleet = self.within("propose", accepted);
        let usage = fleet.measure(accepted).await?;
        let fact = result.fact(&fleet.stores, accepted, usage);
        Ok(fleet.tell(&accepted.id, &accepted.job.tenant, now_ms(), fact).await?)
    }

    /// Starts jobs of a tenant that wait for others to end, the oldest first. By whoever has the tenant's partition, so that
    /// no two jobs are given one place; a second coordinator that thinks it has it, too, starts the same ones.
    async fn start_waiting(&self, tenant: &str, most_active: usize) -> Result<(), WriteError> {
        let work = self.fleet.stores.work();
        // What waits first: every job is among the open ones before it is among those that wait.
        let mut waiting: Vec<_> =
            work.list(&Key::waiting_folder(tenant)).await?.iter().filter_map(|path| Key::of_waiting(path)).collect();
        if waiting.is_empty() || work.size(&Key::frozen(tenant)).await?.is_some() {
            return Ok(());
        }
        let paths = work.list(&Key::open_folder(Some(tenant))).await?;
        let open: BTreeSet<JobId> = paths.iter().filter_map(|path| Key::of_looked_after(path)).map(|(_, job)| job).collect();
        // Canceled, or purged, before its turn came.
        let gone: Vec<_> = waiting.extract_if(.., |(_, job)| !open.contains(job)).collect();
        for (at, job) in gone {
            work.delete(&Key::waiting(tenant, at, &job)).await?;
        }
        let jobs: BTreeSet<&JobId> = waiting.iter().map(|(_, job)| job).collect();
        let free = most_active.saturating_sub(open.len() - jobs.len());
        waiting.sort();
        for (at, job) in waiting.into_iter().take(free.min(MOST_STARTED)) {
            self.progress.step(self.partition);
            // It is being accepted at this moment; whoever does that says so when it is done.
            let Some(accepted) = work.get_json::<Accepted>(&Key::job(&job)).await? else { continue };
            let fleet = self.within("ask", &accepted);
            class::publish(&*fleet.broker, &job, accepted.job.lane, Class::Cpu, &[PartId::Probe]).await?;
            work.delete(&Key::waiting(tenant, at, &job)).await?;
        }
        Ok(())
    }
}
