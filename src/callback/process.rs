//! One nudge: everything that an endpoint is to hear of a job now, in order.
//!
//! Each step that matters is in the bucket before the next is taken: an event that was given up lies among the exhausted
//! before the cursor passes it, and the cursor is written before the nudge is settled. Killed between any two steps, the
//! nudge comes again and finds out where it was; the most that happens is that an event is delivered twice.

use super::cursor::{Cursor, Next, Outcome, Step};
use super::deliver::{Answer, Deliverer, Letter, Undelivered};
use super::guard::{Policy, Resolver};
use super::record::Told;
use super::schedule::{self, Schedule};
use super::waitlist::Waitlist;
use super::{CallbackSettings, EndpointId, Nudge, TenantCallbacks, sign, vod2017, wants};
use crate::broker::{Broker, Settlement};
use crate::event::rfc3339;
use crate::job::{Callback, CallbackFormat, Job, JobId};
use crate::observe::{self, CallbackEnd, Observer};
use crate::shutdown::Stop;
use crate::store::key::Key;
use crate::store::{Store, StoreError};
use crate::trace::{Begun, Parent, Span, SpanRole, TRACEPARENT, TraceContext};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Events that one nudge delivers before it goes to the end of its queue: with each of them late by its whole time, the
/// broker still waits less than 20 minutes.
const MOST_DELIVERIES: u32 = 16;
/// How long a nudge waits that cannot be worked on now; it doubles with each attempt of the nudge, up to the longest. A
/// message is put off a limited number of times, and a bucket may be away for a day.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// An endpoint is slow that takes more than this part of the time it has.
const SLOW_PART: u32 = 4;
/// Events looked through for renditions, for the one message that lists them all.
const MOST_LISTED: u64 = 1000;
/// The status by which an endpoint says that it wants no more (RFC 9110 15.5.11).
const GONE: u16 = 410;
/// Version of the documents that lie in `exhausted/` and `disabled/`.
const VERSION: u32 = 1;

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What deliveries work with. Clones share it all.
#[derive(Clone)]
pub struct Tools {
    pub(super) broker: Arc<dyn Broker>,
    store: Store,
    tenants: Arc<BTreeMap<String, TenantCallbacks>>,
    pub(super) settings: Arc<CallbackSettings>,
    schedule: Schedule,
    deliverer: Arc<Deliverer>,
    clock: Clock,
    pub(super) observer: Arc<dyn Observer>,
    waitlist: Arc<Waitlist>,
}

impl Tools {
    /// Works on the events in `store`, for the tenants of these names.
    ///
    /// # Errors
    /// The settings cannot be used; the message names the field.
    pub fn new(
        broker: Arc<dyn Broker>,
        store: Store,
        tenants: BTreeMap<String, TenantCallbacks>,
        settings: CallbackSettings,
        resolver: Arc<dyn Resolver>,
        clock: Clock,
    ) -> Result<Self, String> {
        settings.check().map_err(|(field, reason)| format!("callbacks.{field}: {reason}"))?;
        let schedule = Schedule::new(&settings.schedule_s)?;
        let deliverer = Deliverer::new(resolver, settings.limits(), settings.ca_file.as_deref())
            .map_err(|reason| format!("callbacks.ca_file: {reason}"))?;
        let (tenants, settings, deliverer) = (Arc::new(tenants), Arc::new(settings), Arc::new(deliverer));
        let (observer, waitlist) = (observe::nobody(), Arc::default());
        Ok(Self { broker, store, tenants, settings, schedule, deliverer, clock, observer, waitlist })
    }

    /// Tells somebody how deliveries end.
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Of the events that were tried here and did not arrive yet, the age of the oldest; zero when there is none.
    pub fn oldest_undelivered(&self, now_ms: u64) -> Duration {
        self.waitlist.oldest(now_ms)
    }

    fn now_ms(&self) -> u64 {
        (self.clock)()
    }
}

/// What lies in `exhausted/` for an event that an endpoint could not be told. The event itself lies with the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exhausted {
    pub version: u32,
    pub job: JobId,
    pub tenant: String,
    pub endpoint: EndpointId,
    pub sequence: u64,
    /// Id of the event.
    pub event: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub attempts: u32,
    /// RFC 3339.
    pub given_up_at: String,
    pub reason: String,
}

/// What lies in `disabled/`: the endpoint answered 410, and nothing of the tenant goes there any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    pub version: u32,
    pub tenant: String,
    pub endpoint: EndpointId,
    /// The job that it was to hear of.
    pub job: JobId,
    /// RFC 3339.
    pub at: String,
}

/// Where a job's events go.
struct Place {
    endpoint: Callback,
    tenant: TenantCallbacks,
    policy: Policy,
    /// None for what was rejected: it never was a job.
    job: Option<Job>,
    /// The trace that its customer began, if one did.
    begun: Option<TraceContext>,
}

impl Place {
    fn wants(&self, told: &Told) -> bool {
        wants(&self.endpoint, &told.kind) && (self.endpoint.format == CallbackFormat::Standard || vod2017::tells(told))
    }
}

/// How a nudge ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// None when it is to go back as it is.
    pub settlement: Option<Settlement>,
    /// Did the endpoint take long over the last attempt? None when there was no attempt.
    pub was_slow: Option<bool>,
}

/// How long a nudge waits that could not be worked on, when it came for the `attempt`th time.
pub(super) fn put_off(attempt: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST_WAIT)
}

/// A nudge as it came.
pub(super) struct Came {
    /// For the how-manieth time, from 1.
    pub attempt: u32,
    /// What it was sent in.
    pub trace: Option<TraceContext>,
}

/// Works on a nudge.
pub(super) async fn process(tools: &Tools, nudge: &Nudge, came: &Came, stop: &Stop) -> Ended {
    let mut was_slow = None;
    let settlement = work(tools, nudge, came, stop, &mut was_slow).await.unwrap_or_else(|error| {
        tracing::warn!(job = %nudge.job, endpoint = %nudge.endpoint, %error, "callbacks wait for the bucket");
        Some(Settlement::Retry(put_off(came.attempt)))
    });
    Ended { settlement, was_slow }
}

async fn work(
    tools: &Tools,
    nudge: &Nudge,
    came: &Came,
    stop: &Stop,
    was_slow: &mut Option<bool>,
) -> Result<Option<Settlement>, StoreError> {
    let mut round = Round::open(tools, nudge).await?;
    let mut place = None;
    for _ in 0..MOST_DELIVERIES {
        // Skipping is not delivering: what an endpoint does not want costs it no turn.
        let (told, body) = loop {
            if stop.is_requested() {
                return round.save(None).await;
            }
            let sequence = match round.cursor.step(tools.now_ms()) {
                Step::Wait(wait) => return round.save(Some(Settlement::Retry(wait))).await,
                Step::Deliver(sequence) => sequence,
            };
            let Some((told, body)) = event(tools, &nudge.job, sequence).await? else {
                return round.save(Some(Settlement::Ack)).await;
            };
            if place.is_none() {
                place = find(tools, nudge, &told.tenant).await?;
            }
            let Some(place) = &place else { return round.save(Some(Settlement::Ack)).await };
            if place.wants(&told) {
                break (told, body);
            }
            round.cursor.skip();
        };
        let Some(place) = &place else { break };
        let began = Instant::now();
        tools.waitlist.waits(&nudge.job, &nudge.endpoint, round.since_ms(&told), tools.now_ms());
        let span = span(tools, nudge, &told, came.trace.map_or(Parent::Job(place.begun), |trace| Parent::Sender(Some(trace))));
        span.note("attempt", round.cursor.attempt + 1);
        let outcome = attempt(tools, place, &told, body, &span).await?;
        ended(&span, &outcome);
        drop(span);
        let took = began.elapsed();
        *was_slow = Some(took * SLOW_PART >= Duration::from_secs(tools.settings.timeout_s));
        if let Some(settlement) = round.after(&told, outcome, took).await? {
            return Ok(Some(settlement));
        }
    }
    round.save(Some(Settlement::Retry(Duration::ZERO))).await
}

/// The recorded event and its bytes, if it has been recorded.
async fn event(tools: &Tools, job: &JobId, sequence: u64) -> Result<Option<(Told, Vec<u8>)>, StoreError> {
    let key = Key::event(job, sequence);
    let body = match tools.store.get(&key).await {
        Err(StoreError::Missing(_)) => return Ok(None),
        body => body?,
    };
    let malformed = |e: serde_json::Error| StoreError::Malformed { path: key.path().into(), reason: e.to_string() };
    Ok(Some((serde_json::from_slice(&body).map_err(malformed)?, body)))
}

/// The endpoint that a nudge means; none when it is configured no more, or disabled.
async fn find(tools: &Tools, nudge: &Nudge, tenant: &str) -> Result<Option<Place>, StoreError> {
    /// `job.json`, of which only the request matters here.
    #[derive(Deserialize)]
    struct Accepted {
        job: Job,
        #[serde(default)]
        trace: Option<TraceContext>,
    }
    let name = tenant;
    let tenant = tools.tenants.get(name).cloned().unwrap_or_default();
    let accepted = tools.store.get_json::<Accepted>(&Key::job(&nudge.job)).await?;
    // An id that another tenant's document asked for leads to a rejection under that id, never to the job's endpoints.
    let accepted = accepted.filter(|accepted| accepted.job.tenant == name);
    let (job, begun) = accepted.map_or((None, None), |Accepted { job, trace }| (Some(job), trace));
    let of_job = job.iter().flat_map(|job| &job.callbacks);
    let Some(endpoint) = of_job.chain(&tenant.endpoints).find(|e| EndpointId::of(e) == nudge.endpoint).cloned() else {
        tracing::info!(job = %nudge.job, endpoint = %nudge.endpoint, "the endpoint is configured no more");
        return Ok(None);
    };
    if tools.store.size(&Key::disabled(name, nudge.endpoint.as_str())).await?.is_some() {
        return Ok(None);
    }
    let policy = tools.settings.policy(&tenant);
    Ok(Some(Place { endpoint, tenant, policy, job, begun }))
}

/// One attempt to deliver one event. Its endpoint is known by its id: a URL may hold a secret.
fn span(tools: &Tools, nudge: &Nudge, told: &Told, parent: Parent) -> Span {
    let span = tools.observer.span(&Begun::now("callback", "", SpanRole::Client, parent, nudge.job.as_str()));
    span.note("tenant", told.tenant.as_str());
    span.note("endpoint", nudge.endpoint.as_str());
    span.note("type", told.kind.as_str());
    span.note("sequence", told.sequence);
    span
}

fn ended(span: &Span, outcome: &Outcome) {
    let word = match outcome {
        Outcome::Arrived => "arrived",
        Outcome::Gone => "gone",
        Outcome::Failed { .. } => "failed",
    };
    span.note("outcome", word);
    if !matches!(outcome, Outcome::Arrived) {
        span.fail();
    }
}

/// Tries once to deliver one event. Whoever gets it may go on in its trace.
async fn attempt(tools: &Tools, place: &Place, told: &Told, body: Vec<u8>, span: &Span) -> Result<Outcome, StoreError> {
    let timestamp_s = tools.now_ms() / 1000;
    let letter = match place.endpoint.format {
        CallbackFormat::Standard => standard(place, told, body, timestamp_s),
        CallbackFormat::Vod2017 => vod(place, told, &renditions(tools, told).await?, timestamp_s),
    };
    let mut letter = match letter {
        Ok(letter) => letter,
        Err(reason) => return Ok(Outcome::Failed { reason, retry_after: None }),
    };
    letter.headers.extend(span.context().map(|context| (TRACEPARENT, context.to_string())));
    let answer = tools.deliverer.send(&place.policy, letter).await;
    Ok(judge(place.endpoint.format, answer, tools.now_ms()))
}

fn standard(place: &Place, told: &Told, body: Vec<u8>, timestamp_s: u64) -> Result<Letter, String> {
    if place.tenant.keys.is_empty() {
        return Err(format!("tenant {} has no key to sign with; configure webhook_secret_files", told.tenant));
    }
    let id = sign::message_id(&told.id);
    let signature = sign::sign(&place.tenant.keys, &id, timestamp_s, &body);
    let headers = vec![
        ("content-type", "application/json".into()),
        ("webhook-id", id),
        ("webhook-timestamp", timestamp_s.to_string()),
        ("webhook-signature", signature),
    ];
    Ok(Letter { url: place.endpoint.url.clone(), headers, body })
}

fn vod(place: &Place, told: &Told, renditions: &[Told], timestamp_s: u64) -> Result<Letter, String> {
    let job = place.job.as_ref();
    let around = vod2017::Surroundings {
        extend: job.and_then(|job| job.extend.as_deref()),
        output: job.map_or("", |job| &job.output.uri),
        renditions,
    };
    let body = vod2017::body(told, &around).ok_or_else(|| format!("{} has no counterpart in this format", told.kind))?;
    let url = place.endpoint.url.clone();
    let mut headers = vec![("content-type", "application/json".into())];
    // That service signs only where the customer has set a key.
    if let Some(key) = &place.tenant.vod_key {
        headers.push(("x-vod-timestamp", timestamp_s.to_string()));
        headers.push(("x-vod-signature", vod2017::sign(key, &url, timestamp_s)));
    }
    Ok(Letter { url, headers, body })
}

/// The renditions told of before the end, where the message lists them.
async fn renditions(tools: &Tools, told: &Told) -> Result<Vec<Told>, StoreError> {
    let mut found = Vec::new();
    if !vod2017::is_last(&told.kind) {
        return Ok(found);
    }
    for sequence in told.sequence.saturating_sub(MOST_LISTED).max(1)..told.sequence {
        let earlier = event(tools, &told.job, sequence).await?;
        found.extend(earlier.map(|(earlier, _)| earlier).filter(|earlier| earlier.kind == "rendition.completed"));
    }
    Ok(found)
}

/// What an answer means in this format.
fn judge(format: CallbackFormat, answer: Result<Answer, Undelivered>, now_ms: u64) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Outcome::Failed { reason: error.to_string(), retry_after: None },
    };
    let arrived = match format {
        CallbackFormat::Standard => (200..300).contains(&answer.status),
        CallbackFormat::Vod2017 => answer.status == vod2017::ARRIVED,
    };
    match answer.status {
        _ if arrived => Outcome::Arrived,
        GONE => Outcome::Gone,
        status => Outcome::Failed {
            reason: format!("the endpoint answered {status}"),
            retry_after: answer.retry_after.and_then(|value| schedule::retry_after(&value, now_ms)),
        },
    }
}

/// A cursor in hand, and as it lies in the bucket.
struct Round<'a> {
    tools: &'a Tools,
    nudge: &'a Nudge,
    key: Key,
    cursor: Cursor,
    written: Option<Cursor>,
}

impl<'a> Round<'a> {
    async fn open(tools: &'a Tools, nudge: &'a Nudge) -> Result<Self, StoreError> {
        let key = Key::cursor(&nudge.job, nudge.endpoint.as_str());
        let written = match tools.store.get_json::<Cursor>(&key).await {
            // Everything again is better than nothing ever again.
            Err(error @ StoreError::Malformed { .. }) => {
                tracing::error!(job = %nudge.job, endpoint = %nudge.endpoint, %error, "a cursor was lost; from the beginning");
                None
            }
            written => written?,
        };
        let mut cursor = written.clone().unwrap_or_default();
        if let Some(replay) = nudge.replay
            && cursor.replay(replay.from_sequence, replay.asked_ms)
        {
            tracing::info!(job = %nudge.job, endpoint = %nudge.endpoint, from = cursor.next_sequence, "callbacks replayed");
        }
        Ok(Self { tools, nudge, key, cursor, written })
    }

    /// Writes the cursor if it has changed; then what is to follow.
    async fn save(&mut self, then: Option<Settlement>) -> Result<Option<Settlement>, StoreError> {
        if self.written.as_ref() != Some(&self.cursor) && self.cursor != Cursor::default() {
            self.tools.store.put_json(&self.key, &self.cursor).await?;
            self.written = Some(self.cursor.clone());
        }
        Ok(then)
    }

    /// Since when an event is to be delivered, milliseconds since 1970: since it was told, or asked for again.
    fn since_ms(&self, told: &Told) -> u64 {
        let asked_ms = self.nudge.replay.map(|replay| replay.asked_ms);
        asked_ms.or_else(|| rfc3339::parse(&told.at)).unwrap_or_else(|| self.tools.now_ms())
    }

    /// Says how an attempt ended, to whoever counts.
    fn count(&self, told: &Told, next: &Next, took: Duration) {
        let (tools, Nudge { job, endpoint, .. }, now_ms) = (self.tools, self.nudge, self.tools.now_ms());
        let since_ms = self.since_ms(told);
        let end = match next {
            Next::Arrived { .. } => {
                tools.observer.callback_arrived(Duration::from_millis(now_ms.saturating_sub(since_ms)));
                CallbackEnd::Arrived
            }
            Next::Again(_) => CallbackEnd::Failed,
            Next::GivenUp => CallbackEnd::GivenUp,
            Next::Disabled => CallbackEnd::Disabled,
        };
        tools.observer.callback(end, took);
        match next {
            Next::Again(wait) => {
                let due_ms = now_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                tools.waitlist.waits(job, endpoint, since_ms, due_ms);
            }
            Next::Arrived { .. } | Next::GivenUp | Next::Disabled => tools.waitlist.settled(job, endpoint),
        }
    }

    /// Writes down how an attempt ended; the nudge's end, if it has one now. Every failure is logged here.
    async fn after(&mut self, told: &Told, outcome: Outcome, took: Duration) -> Result<Option<Settlement>, StoreError> {
        let (tools, nudge) = (self.tools, self.nudge);
        let (job, endpoint, sequence) = (&nudge.job, &nudge.endpoint, told.sequence);
        let (attempts, now_ms) = (self.cursor.attempt + 1, tools.now_ms());
        let next = self.cursor.after(outcome, &tools.schedule, now_ms);
        let reason = self.cursor.last_failure.clone().unwrap_or_default();
        self.count(told, &next, took);
        let exhausted = Key::exhausted(&told.tenant, job, endpoint.as_str(), sequence);
        match next {
            Next::Arrived { again } => {
                if again {
                    tools.store.delete(&exhausted).await?;
                }
                tracing::debug!(%job, %endpoint, sequence, kind = told.kind, "callback delivered");
                self.save(None).await
            }
            Next::Again(wait) => {
                let wait_s = wait.as_secs();
                tracing::info!(%job, %endpoint, sequence, kind = told.kind, attempts, reason, wait_s, "callback failed; again");
                self.save(Some(Settlement::Retry(wait))).await
            }
            Next::GivenUp => {
                tracing::warn!(%job, %endpoint, sequence, kind = told.kind, attempts, reason, "callback given up; kept for replay");
                let (tenant, event, kind) = (told.tenant.clone(), told.id.clone(), told.kind.clone());
                let (job, endpoint, given_up_at) = (job.clone(), endpoint.clone(), rfc3339::format(now_ms));
                let version = VERSION;
                let document = Exhausted { version, job, tenant, endpoint, sequence, event, kind, attempts, given_up_at, reason };
                tools.store.put_json(&exhausted, &document).await?;
                self.save(None).await
            }
            Next::Disabled => {
                tracing::warn!(%job, %endpoint, tenant = told.tenant, "the endpoint wants no more callbacks and is disabled");
                let (tenant, at) = (told.tenant.clone(), rfc3339::format(now_ms));
                let key = Key::disabled(&tenant, endpoint.as_str());
                let document = Disabled { version: VERSION, tenant, endpoint: endpoint.clone(), job: job.clone(), at };
                tools.store.put_json(&key, &document).await?;
                self.save(Some(Settlement::Ack)).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Result<Answer, Undelivered> {
        Ok(Answer { status, retry_after: retry_after.map(str::to_string) })
    }

    #[test]
    fn the_status_decides_and_each_format_reads_it_in_its_own_way() {
        let of = |format, status| judge(format, answer(status, None), 0);
        for status in [200, 201, 204, 299] {
            assert_eq!(of(CallbackFormat::Standard, status), Outcome::Arrived);
        }
        assert_eq!(of(CallbackFormat::Vod2017, 200), Outcome::Arrived);
        for (format, status) in [(CallbackFormat::Vod2017, 204), (CallbackFormat::Standard, 302), (CallbackFormat::Standard, 404)]
        {
            assert!(matches!(of(format, status), Outcome::Failed { .. }), "{status}");
        }
        for format in [CallbackFormat::Standard, CallbackFormat::Vod2017] {
            assert_eq!(of(format, 410), Outcome::Gone);
        }
    }

    #[test]
    fn a_nudge_that_is_put_off_outlives_a_day_without_a_bucket() {
        let waited: Duration = (1..crate::broker::MAX_ATTEMPTS).map(put_off).sum();
        assert_eq!((put_off(1), put_off(2), put_off(u32::MAX)), (FIRST_WAIT, FIRST_WAIT * 2, LONGEST_WAIT));
        assert!(waited > Duration::from_secs(3 * 86_400), "{waited:?}");
    }

    #[test]
    fn a_receiver_that_names_a_time_is_heard() {
        let Outcome::Failed { reason, retry_after } = judge(CallbackFormat::Standard, answer(503, Some("120")), 0) else {
            panic!("503 is a failure");
        };
        assert_eq!((reason.as_str(), retry_after), ("the endpoint answered 503", Some(Duration::from_secs(120))));
        let late = judge(CallbackFormat::Standard, Err(Undelivered::TimedOut(15)), 0);
        assert_eq!(late, Outcome::Failed { reason: "no answer within 15 s".into(), retry_after: None });
    }
}
