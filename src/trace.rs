//! In which trace something is done (W3C Trace Context), and what is recorded of it.
//!
//! Whoever publishes a message sends along the span that it works in; whoever takes the message begins a span below that
//! one. So a job is one tree over all queues, whoever worked on it. Whether anything is recorded is the process's business
//! (`telemetry`): where nothing is, what was carried is handed on as it came.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The header that carries a context, of messages as of requests (W3C Trace Context 3.2).
pub const TRACEPARENT: &str = "traceparent";
/// Length of the header of version 00; later versions may be longer (3.2.4).
const LENGTH: usize = 55;
/// The one flag that there is: whoever sent this records it (3.2.2.5).
const SAMPLED: u8 = 1;

/// One span of one trace, as others are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceContext {
    /// Never all zero, and neither is the span's.
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// It is recorded.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Reads a header; none where it is not one, which is as if none had come (W3C Trace Context 4.3).
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
        let head = text.get(..LENGTH).filter(|head| head.bytes().all(|b| is_hex(&b)))?;
        let [version, trace_id, span_id, flags] = head.split('-').collect::<Vec<_>>()[..] else { return None };
        let is_whole = match version {
            "ff" => false,
            "00" => text.len() == LENGTH,
            _ => matches!(text.as_bytes().get(LENGTH), None | Some(b'-')),
        };
        let (mut context, mut flag) = (Self { trace_id: [0; 16], span_id: [0; 8], is_sampled: false }, [0]);
        hex::decode_to_slice(version, &mut flag).ok()?;
        hex::decode_to_slice(flags, &mut flag).ok()?;
        hex::decode_to_slice(trace_id, &mut context.trace_id).ok()?;
        hex::decode_to_slice(span_id, &mut context.span_id).ok()?;
        context.is_sampled = flag[0] & SAMPLED != 0;
        (is_whole && context.trace_id != [0; 16] && context.span_id != [0; 8]).then_some(context)
    }

    /// The span of a whole job, in the trace that its customer began; where none was begun, in one that is made of its id.
    /// The same wherever and however often it is asked for: work that is asked for again falls in the same trace.
    pub fn of_job(job: &str, begun: Option<TraceContext>) -> Self {
        let digest = Sha256::digest(format!("narrows job {job}"));
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&digest[..16]);
        span_id.copy_from_slice(&digest[16..24]);
        match begun {
            Some(begun) => Self { span_id, ..begun },
            None => Self { trace_id, span_id, is_sampled: true },
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.is_sampled { SAMPLED } else { 0 };
        write!(f, "00-{}-{}-{flags:02x}", hex::encode(self.trace_id), hex::encode(self.span_id))
    }
}

impl TryFrom<String> for TraceContext {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| "is no traceparent of W3C Trace Context".into())
    }
}

impl From<TraceContext> for String {
    fn from(context: TraceContext) -> Self {
        context.to_string()
    }
}

/// Below what a span begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Whoever sent the message; where it says nothing, the job.
    Sender(Option<TraceContext>),
    /// The job, which is in the trace that its customer began, if one did.
    Job(Option<TraceContext>),
}

/// Who else has to do with a span (OpenTelemetry, "SpanKind").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanRole {
    /// Nobody.
    Internal,
    /// Somebody asked for it, and waits.
    Server,
    /// Somebody else is asked, and waited for.
    Client,
    /// Somebody left a message.
    Consumer,
}

/// The beginning of a span. Its names are bounded as labels are; job and tenant are attributes.
#[derive(Clone, Copy, Debug)]
pub struct Begun<'a> {
    /// `part`, `child`, ...
    pub name: &'static str,
    /// Which of them: `encode`, ...; may be empty.
    pub kind: &'static str,
    pub role: SpanRole,
    pub parent: Parent,
    pub job: &'a str,
    /// So long before now.
    pub ago: Duration,
}

impl<'a> Begun<'a> {
    /// What goes on where nothing is recorded: what came, as it came.
    pub fn unrecorded(&self) -> Span {
        let (Parent::Sender(context) | Parent::Job(context)) = self.parent;
        Span::passing(context)
    }

    /// It begins now.
    pub fn now(name: &'static str, kind: &'static str, role: SpanRole, parent: Parent, job: &'a str) -> Self {
        Self { name, kind, role, parent, job, ago: Duration::ZERO }
    }
}

/// A job from its acceptance to its end: the span above all others of it.
#[derive(Clone, Copy, Debug)]
pub struct WholeJob<'a> {
    pub job: &'a str,
    pub tenant: &'a str,
    /// How it ended.
    pub state: &'static str,
    /// What its customer began, if one did.
    pub begun: Option<TraceContext>,
    /// Milliseconds since 1970.
    pub accepted_ms: u64,
    pub ended_ms: u64,
}

/// An attribute of a span. Free text is none: what was wrong is said by the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Whole(i64),
    Real(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Whole(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Real(number)
    }
}

/// What is recorded of a span. Dropped, the span has ended. Must not wait.
pub trait Recording: Send + Sync {
    fn note(&self, name: &'static str, value: Value);
    /// It did not do what it was to do.
    fn fail(&self);
}

/// Something that is being done. Dropped, it has ended.
pub struct Span {
    context: Option<TraceContext>,
    recording: Option<Box<dyn Recording>>,
}

impl Span {
    /// One of which nothing is recorded: what was carried is handed on.
    pub fn passing(context: Option<TraceContext>) -> Self {
        Self { context, recording: None }
    }

    /// In no trace.
    pub fn none() -> Arc<Self> {
        Arc::new(Self::passing(None))
    }

    pub fn recorded(context: TraceContext, recording: Box<dyn Recording>) -> Self {
        Self { context: Some(context), recording: Some(recording) }
    }

    /// What others are told, so that what they do is below it.
    pub fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// The trace, as the log names it.
    pub fn trace_id(&self) -> Option<String> {
        self.context.map(|context| hex::encode(context.trace_id))
    }

    pub fn note(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(recording) = &self.recording {
            recording.note(name, value.into());
        }
    }

    /// It did not do what it was to do.
    pub fn fail(&self) {
        if let Some(recording) = &self.recording {
            recording.fail();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of W3C Trace Context 3.2.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written_as_it_came() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!((context.to_string().as_str(), context.is_sampled), (EXAMPLE, true));
        assert_eq!((context.trace_id[0], context.span_id[7]), (0x4b, 0xb7));
        let unsampled = TraceContext::parse(&EXAMPLE.replace("-01", "-00")).unwrap();
        assert_eq!(unsampled, TraceContext { is_sampled: false, ..context });
        let later = TraceContext::parse(&format!("{}-more", EXAMPLE.replacen("00", "01", 1)));
        assert_eq!(later, Some(context), "a later version is read as far as this one goes");
        let text = serde_json::to_string(&context).unwrap();
        assert_eq!(text, format!("\"{EXAMPLE}\""));
        assert_eq!(serde_json::from_str::<TraceContext>(&text).unwrap(), context);
    }

    #[test]
    fn what_is_no_header_is_as_if_none_had_come() {
        let zero = |from: &str| EXAMPLE.replace(from, &"0".repeat(from.len()));
        let bad = [
            String::new(),
            EXAMPLE[..54].into(),
            format!("{EXAMPLE}-more"),
            EXAMPLE.to_uppercase(),
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.replacen("00", "01", 1) + "more",
            EXAMPLE.replace("-01", "-0g"),
            EXAMPLE.replacen('-', "0", 1),
            zero("4bf92f3577b34da6a3ce929d0e0e4736"),
            zero("00f067aa0ba902b7"),
            "\u{e9}".repeat(40),
        ];
        for text in bad {
            assert_eq!(TraceContext::parse(&text), None, "{text}");
        }
        assert!(serde_json::from_str::<TraceContext>("\"00-1-2-01\"").is_err());
    }

    #[test]
    fn a_job_is_in_its_customers_trace_or_in_one_of_its_own_for_ever() {
        let carried = TraceContext::parse(EXAMPLE).unwrap();
        let (own, theirs) = (TraceContext::of_job("talk", None), TraceContext::of_job("talk", Some(carried)));
        assert_eq!((theirs.trace_id, theirs.span_id), (carried.trace_id, own.span_id));
        assert_eq!(own, TraceContext::of_job("talk", None));
        assert_ne!(own.trace_id, TraceContext::of_job("talks", None).trace_id);
        // Every process, whatever its version, must find the same one.
        assert_eq!(own.to_string(), "00-94d1bc2a96710ea1f0d991762b695b4a-b2ef91a12bd54017-01");
    }

    #[test]
    fn of_what_nobody_records_the_context_is_handed_on() {
        let carried = TraceContext::parse(EXAMPLE);
        let span = Span::passing(carried);
        span.note("kind", "encode");
        span.fail();
        assert_eq!((span.context(), span.trace_id().as_deref()), (carried, Some(&EXAMPLE[3..35])));
        assert_eq!(Span::none().context(), None);
    }
}
