//! The families of metrics, by who has them. Names and units are Prometheus' conventions: base units, `_total` for what only
//! grows; every label has few values, all of them known.

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// Upper bounds of a request to a store or of the API, seconds.
const REQUEST_S: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Of a part or a child, seconds: a part has 20 minutes.
const WORK_S: [f64; 14] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1200.0];
/// Of a wait in a queue, seconds.
const WAIT_S: [f64; 11] = [0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
/// Of a whole job, seconds.
const JOB_S: [f64; 14] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0];
/// Of the resident memory of a child, bytes: 32 MiB to 8 GiB, two to an octave where most are.
const MEMORY_BYTES: [f64; 13] = [
    33_554_432.0,
    67_108_864.0,
    100_663_296.0,
    134_217_728.0,
    201_326_592.0,
    268_435_456.0,
    402_653_184.0,
    536_870_912.0,
    805_306_368.0,
    1_073_741_824.0,
    2_147_483_648.0,
    4_294_967_296.0,
    8_589_934_592.0,
];

/// Of a quality that was missed, VMAF: half a point is not seen, six are one step of the ladder.
const QUALITY_VMAF: [f64; 13] = [-12.0, -6.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 12.0];

/// Makes families, and registers those of the role that this process has.
pub(super) struct Maker<'a> {
    pub registry: &'a Registry,
    pub is_wanted: bool,
}

impl Maker<'_> {
    fn made<C: Collector + Clone + 'static>(&self, family: prometheus::Result<C>) -> C {
        let family = family.expect("the names are ones that Prometheus admits");
        if self.is_wanted {
            self.registry.register(Box::new(family.clone())).expect("no family is made twice");
        }
        family
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.made(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.made(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// Of what is no whole number.
    fn sum(&self, name: &str, help: &str) -> Counter {
        self.made(Counter::new(name, help))
    }

    fn sums(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.made(CounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.made(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.made(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.made(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
        self.made(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels))
    }
}

/// What every process has: its version, its broker, its stores.
pub(super) struct Common {
    pub build_info: GaugeVec,
    pub broker_connected: IntGaugeVec,
    pub broker_lost: IntCounterVec,
    pub publishes: IntCounterVec,
    pub deliveries: IntCounterVec,
    pub queue_wait: HistogramVec,
    pub store_operations: IntCounterVec,
    pub store_seconds: HistogramVec,
    pub store_read: IntCounter,
    pub store_written: IntCounter,
    pub trace_spans: IntCounterVec,
}

impl Common {
    pub fn new(make: &Maker<'_>) -> Self {
        let queue = ["queue", "class", "lane"];
        let info = Opts::new("narrows_build_info", "Version and role of this process; always 1.");
        Self {
            build_info: make.made(GaugeVec::new(info, &["version", "role"])),
            broker_connected: make.gauges(
                "narrows_broker_connected",
                "Whether this connection to the broker is there: 1, or 0.",
                &["connection"],
            ),
            broker_lost: make.counters(
                "narrows_broker_connections_lost_total",
                "Connections to the broker that were there and were lost; each is made again.",
                &["connection"],
            ),
            publishes: make.counters(
                "narrows_broker_publishes_total",
                "Messages sent to the broker, by its answer; what was not confirmed is sent again or told as a failure.",
                &["outcome"],
            ),
            deliveries: make.counters("narrows_deliveries_total", "Messages taken off the queues.", &queue),
            queue_wait: make.histograms(
                "narrows_queue_wait_seconds",
                "How long messages lay in their queue since they were due, when they were taken.",
                &queue,
                &WAIT_S,
            ),
            store_operations: make.counters(
                "narrows_store_operations_total",
                "What was asked of stores, by how it ended. To find nothing is no failure.",
                &["operation", "outcome"],
            ),
            store_seconds: make.histograms(
                "narrows_store_operation_duration_seconds",
                "How long stores took to answer, requests that were sent again among it.",
                &["operation"],
                &REQUEST_S,
            ),
            store_read: make.counter("narrows_store_read_bytes_total", "Bytes read from stores."),
            store_written: make.counter("narrows_store_written_bytes_total", "Bytes written to stores."),
            trace_spans: make.counters(
                "narrows_trace_spans_total",
                "Spans that ended: exported; dropped, as the queue was full; or failed, as the collector did not take them.",
                &["outcome"],
            ),
        }
    }
}

/// What a worker has.
pub(super) struct Work {
    pub slots: IntGaugeVec,
    pub slots_busy: IntGaugeVec,
    pub encoders: IntGaugeVec,
    pub quarantines: IntCounterVec,
    pub draining: IntGauge,
    pub parts_started: IntCounterVec,
    pub parts_ended: IntCounterVec,
    pub part_seconds: HistogramVec,
    pub children_ended: IntCounterVec,
    pub child_seconds: HistogramVec,
    pub child_cpu: CounterVec,
    pub child_memory: HistogramVec,
    pub sandbox_level: IntGaugeVec,
    pub encoded_frames: IntCounterVec,
    pub encoded_media: CounterVec,
    pub encoded_source: Counter,
    pub quality_error: HistogramVec,
    pub scratch_used: IntGauge,
    pub scratch_free: IntGauge,
    pub scratch_short: IntGauge,
}

impl Work {
    pub fn new(make: &Maker<'_>) -> Self {
        let rung = ["codec", "height"];
        Self {
            slots: make.gauges("narrows_slots", "Children that may run at once.", &["class"]),
            slots_busy: make.gauges("narrows_slots_busy", "Slots that are at work.", &["class"]),
            encoders: make.gauges(
                "narrows_encoder_available",
                "Whether this encoder passed its last self-test and is used: 1, or 0.",
                &["encoder", "class"],
            ),
            quarantines: make.counters(
                "narrows_device_quarantines_total",
                "How often a device failed at a chunk and was left alone until a self-test.",
                &["class"],
            ),
            draining: make.gauge("narrows_worker_draining", "Whether nothing further is taken: 1, or 0."),
            parts_started: make.counters("narrows_parts_started_total", "Deliveries of parts that were begun.", &["kind"]),
            parts_ended: make.counters(
                "narrows_parts_ended_total",
                "Deliveries of parts that ended, by how; retried ones come again.",
                &["kind", "outcome"],
            ),
            part_seconds: make.histograms(
                "narrows_part_duration_seconds",
                "How long parts took that were completed, uploads among it.",
                &["kind"],
                &WORK_S,
            ),
            children_ended: make.counters(
                "narrows_children_ended_total",
                "Jailed processes that ended, by how.",
                &["task", "outcome"],
            ),
            child_seconds: make.histograms(
                "narrows_child_duration_seconds",
                "How long jailed processes ran that did their work.",
                &["task"],
                &WORK_S,
            ),
            child_cpu: make.sums(
                "narrows_child_cpu_seconds_total",
                "CPU time of jailed processes, however they ended.",
                &["task"],
            ),
            child_memory: make.histograms(
                "narrows_child_peak_memory_bytes",
                "Largest resident memory of jailed processes.",
                &["task"],
                &MEMORY_BYTES,
            ),
            sandbox_level: make.gauges(
                "narrows_sandbox_level",
                "The jail that the last child worked in: 1 for its level, 0 for the others.",
                &["level"],
            ),
            encoded_frames: make.counters(
                "narrows_encoded_frames_total",
                "Frames encoded; the height is the next standard one.",
                &rung,
            ),
            encoded_media: make.sums(
                "narrows_encoded_media_seconds_total",
                "Length of the video encoded; the height is the next standard one.",
                &rung,
            ),
            encoded_source: make.sum(
                "narrows_encoded_source_seconds_total",
                "Length of the source that was encoded, all renditions of it being one.",
            ),
            quality_error: make.histograms(
                "narrows_quality_measured_minus_planned_vmaf",
                "VMAF-NEG of chunks of the top rung as measured, less planned. Of values below zero, too: its sum is no counter.",
                &["preset", "height"],
                &QUALITY_VMAF,
            ),
            scratch_used: make.gauge("narrows_scratch_used_bytes", "Bytes in the worker's scratch folder."),
            scratch_free: make.gauge("narrows_scratch_free_bytes", "Bytes that the scratch folder's disk still has."),
            scratch_short: make
                .gauge("narrows_scratch_short", "Whether there is too little room to start a part, and none is taken: 1, or 0."),
        }
    }
}

/// What a coordinator has.
pub(super) struct Jobs {
    pub queue_messages: IntGaugeVec,
    pub open: IntGauge,
    pub events: IntCounterVec,
    pub ended: IntCounterVec,
    pub first_playable: Histogram,
    pub completion: Histogram,
    pub stalled: IntCounter,
    pub rendition_bytes: IntCounterVec,
    pub rendition_media: CounterVec,
    pub usage_output: CounterVec,
    pub usage_cpu: CounterVec,
    pub usage_source: IntCounter,
    pub usage_kept: IntCounter,
    pub usage_wasted: IntCounter,
    pub requests: IntCounterVec,
    pub request_seconds: HistogramVec,
    pub callbacks: IntCounterVec,
    pub callback_seconds: Histogram,
    pub callback_delay: Histogram,
    pub callback_oldest: Gauge,
}

impl Jobs {
    pub fn new(make: &Maker<'_>) -> Self {
        let rung = ["codec", "height"];
        Self {
            queue_messages: make.gauges(
                "narrows_queue_messages",
                "Messages that are ready in the broker's queues; partitions are summed. Every coordinator asks: do not add them up.",
                &["queue", "class", "lane"],
            ),
            open: make.gauge("narrows_jobs_open", "Jobs that have not ended. Every coordinator counts: do not add them up."),
            events: make.counters("narrows_job_events_total", "Events recorded, by their type.", &["type"]),
            ended: make.counters("narrows_jobs_ended_total", "Jobs that ended, by how.", &["state"]),
            first_playable: make.histogram(
                "narrows_job_first_playable_seconds",
                "From the acceptance of a job to its first rendition that can be played.",
                &JOB_S,
            ),
            completion: make.histogram(
                "narrows_job_completion_seconds",
                "From the acceptance of a job to its completion.",
                &JOB_S,
            ),
            stalled: make.counter(
                "narrows_jobs_asked_again_total",
                "Times that nothing was heard of a job for long, and its parts were asked for again.",
            ),
            rendition_bytes: make.counters("narrows_rendition_bytes_total", "Bytes of the renditions made.", &rung),
            rendition_media: make.sums("narrows_rendition_media_seconds_total", "Length of the renditions made.", &rung),
            usage_output: make.sums(
                "narrows_usage_output_seconds_total",
                "Length of the output of ended jobs, as it is billed.",
                &["codec", "class"],
            ),
            usage_cpu: make.sums(
                "narrows_usage_cpu_seconds_total",
                "CPU time of the children of ended jobs: kept, or wasted because the work was thrown away.",
                &["use"],
            ),
            usage_source: make.counter("narrows_usage_source_bytes_total", "Bytes of the sources of ended jobs."),
            usage_kept: make.counter("narrows_usage_output_bytes_total", "Bytes of the output of ended jobs."),
            usage_wasted: make.counter("narrows_usage_wasted_attempts_total", "Times that work on ended jobs was thrown away."),
            requests: make.counters("narrows_http_requests_total", "Requests answered.", &["route", "status"]),
            request_seconds: make.histograms(
                "narrows_http_request_duration_seconds",
                "How long answers took; of event streams, until they began.",
                &["route"],
                &REQUEST_S,
            ),
            callbacks: make.counters("narrows_callback_attempts_total", "Attempts to deliver an event, by how they ended.", &["outcome"]),
            callback_seconds: make.histogram("narrows_callback_duration_seconds", "How long attempts took.", &REQUEST_S),
            callback_delay: make.histogram(
                "narrows_callback_delay_seconds",
                "From the telling of an event to its arrival at an endpoint.",
                &WAIT_S,
            ),
            callback_oldest: make.made(Gauge::new(
                "narrows_callback_oldest_undelivered_seconds",
                "Age of the oldest event that was tried here and did not arrive yet; 0 when there is none.",
            )),
        }
    }
}
