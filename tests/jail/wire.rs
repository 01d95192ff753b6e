//! The protocol kept, and broken.

use crate::bench::{Bench, Test, assert_done, run};
use narrows::sandbox::{Disposition, InputSource, Outcome, RangeRead};
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("garbage_is_a_breach", || assert_breach(&run("garbage").outcome, "does not parse")),
    ("an_unknown_kind_is_a_breach", || assert_breach(&run("unknown-kind").outcome, "unknown kind")),
    ("an_overlong_frame_is_a_breach", || assert_breach(&run("overlong").outcome, "bytes; at most")),
    ("bytes_unasked_are_a_breach", || assert_breach(&run("bytes-unasked").outcome, "nobody asked")),
    ("entering_the_jail_twice_is_a_breach", || assert_breach(&run("jailed-twice").outcome, "twice")),
    ("closing_the_socket_is_a_breach", || assert_breach(&run("close-socket").outcome, "closed its socket")),
    ("work_outside_the_jail_is_a_breach", work_outside_the_jail_is_a_breach),
    ("two_requests_at_once_are_a_breach", || assert_breach(&with_object("read-twice").outcome, "before it took")),
    ("a_request_over_the_limit_is_a_breach", || assert_breach(&with_object("read-too-much").outcome, "4294967295 bytes")),
    ("a_request_past_the_end_is_a_breach", || assert_breach(&with_object("read-past-the-end").outcome, "of an input of")),
    ("a_request_for_no_input_is_a_breach", || assert_breach(&with_object("read-no-input").outcome, "input 7")),
    ("ranges_give_the_bytes_of_the_object", ranges_give_the_bytes_of_the_object),
    ("a_file_gives_its_bytes", a_file_gives_its_bytes),
    ("threads_may_read_at_the_same_time", threads_may_read_at_the_same_time),
    ("a_failing_input_ends_as_such", || assert_input_fails(Object { failing: true, ..Object::new() }, "the store is down")),
    ("an_answer_that_is_too_short_ends_as_such", || {
        assert_input_fails(Object { short: true, ..Object::new() }, "were asked for")
    }),
    ("a_slow_input_is_no_stall", a_slow_input_is_no_stall),
    ("an_input_that_never_comes_ends_at_the_deadline", an_input_that_never_comes_ends_at_the_deadline),
    ("progress_is_coalesced_and_the_last_word_is_said", progress_is_coalesced_and_the_last_word_is_said),
];

/// An object store of one object, with faults.
struct Object {
    content: Vec<u8>,
    failing: bool,
    short: bool,
    hanging: bool,
    delay: Duration,
    largest: AtomicUsize,
}

impl Object {
    /// More than two requests of the largest size hold; no two stretches of it are alike.
    fn new() -> Self {
        let content = (0_u32..2_400_000).flat_map(|number| number.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect();
        let (failing, short, hanging) = (false, false, false);
        Object { content, failing, short, hanging, delay: Duration::ZERO, largest: AtomicUsize::new(0) }
    }
}

#[async_trait::async_trait]
impl RangeRead for Object {
    fn bytes(&self) -> u64 {
        self.content.len() as u64
    }

    async fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.largest.fetch_max(bytes, Ordering::Relaxed);
        if self.failing {
            return Err(io::Error::other("the store is down"));
        }
        if self.hanging {
            pending::<()>().await;
        }
        tokio::time::sleep(self.delay).await;
        let from = usize::try_from(offset).unwrap();
        Ok(self.content[from..from + bytes - usize::from(self.short)].to_vec())
    }
}

fn bench_with(object: Arc<Object>) -> Bench {
    let mut bench = Bench::new();
    bench.inputs = vec![InputSource::Ranges(object)];
    bench
}

fn with_object(deed: &str) -> narrows::sandbox::Finished {
    bench_with(Arc::new(Object::new())).run(deed)
}

#[track_caller]
fn assert_breach(outcome: &Outcome, of: &str) {
    assert!(matches!(outcome, Outcome::Protocol(what) if what.contains(of)), "{outcome}");
    assert_eq!(outcome.disposition(), Disposition::Crash);
}

fn work_outside_the_jail_is_a_breach() {
    assert_breach(&Bench::new().started_as("child-without-jail").run("nothing").outcome, "outside the jail");
}

fn ranges_give_the_bytes_of_the_object() {
    let object = Arc::new(Object::new());
    let bench = bench_with(Arc::clone(&object));
    assert_done(&bench.run("copy-input"), object.bytes());
    assert_eq!(std::fs::read(bench.scratch().join("copy")).unwrap(), object.content);
    assert_eq!(object.largest.load(Ordering::Relaxed), 4 * 1024 * 1024, "larger reads are split");
}

fn a_file_gives_its_bytes() {
    let (mut bench, object) = (Bench::new(), Object::new());
    let path = bench.home.path().join("input");
    std::fs::write(&path, &object.content).unwrap();
    bench.inputs = vec![InputSource::File(Arc::new(std::fs::File::open(&path).unwrap()))];
    assert_done(&bench.run("copy-input"), object.bytes());
    assert_eq!(std::fs::read(bench.scratch().join("copy")).unwrap(), object.content);
}

fn threads_may_read_at_the_same_time() {
    let object = Arc::new(Object::new());
    let bench = bench_with(Arc::clone(&object));
    assert_done(&bench.run("read-by-many-threads"), 4 * 64 * 1024);
    assert_eq!(std::fs::read(bench.scratch().join("copy")).unwrap(), object.content[..4 * 64 * 1024]);
}

fn assert_input_fails(object: Object, because: &str) {
    let finished = bench_with(Arc::new(object)).run("copy-input");
    assert!(matches!(&finished.outcome, Outcome::InputFailed(what) if what.contains(because)), "{}", finished.outcome);
    assert_eq!(finished.outcome.disposition(), Disposition::Retry);
}

fn a_slow_input_is_no_stall() {
    let object = Arc::new(Object { delay: Duration::from_millis(1100), ..Object::new() });
    let mut bench = bench_with(Arc::clone(&object));
    bench.sandbox.stall = Duration::from_secs(1);
    assert_done(&bench.run("copy-input"), object.bytes());
}

fn an_input_that_never_comes_ends_at_the_deadline() {
    let mut bench = bench_with(Arc::new(Object { hanging: true, ..Object::new() }));
    bench.sandbox.deadline = Duration::from_millis(500);
    let finished = bench.run("copy-input");
    assert!(matches!(finished.outcome, Outcome::Deadline), "{}", finished.outcome);
}

fn progress_is_coalesced_and_the_last_word_is_said() {
    let mut heard = Vec::new();
    let finished = Bench::new().run_until("progress", &mut |frames| heard.push(frames), pending());
    assert_done(&finished, 0);
    assert_eq!(heard.first(), Some(&1));
    assert_eq!(heard.last(), Some(&100_000));
    assert!(heard.is_sorted());
    let at_most = finished.wall.as_millis() / 100 + 2;
    assert!(heard.len() as u128 <= at_most, "{} messages in {:?}", heard.len(), finished.wall);
}
