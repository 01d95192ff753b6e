//! `narrows status`.

use super::exit::{Exit, Failed};
use super::fleet::{self, ASKED, Settings};
use super::meter::stage_name;
use super::presets::write_out;
use super::rows::plain;
use super::{exit_codes, words};
use crate::coordinator::ops::{self, Scope};
use crate::event::{ClassState, ClassStatus, Stage, State, Status, rfc3339};
use crate::job::{Job, JobId};

const EXAMPLES: &str = concat!(
    "Examples:
  narrows status talk-1 --config fleet.toml
  narrows status talk-1 --json

",
    exit_codes!("0 done, whatever the job's state; 2 misuse, or no such job; 64 configuration; 70 our fault")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The job.
    #[arg(value_name = "ID", value_parser = words::job_id)]
    id: JobId,
    /// Print the state as one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    fleet::run(&args.settings, ASKED, async |fleet| {
        let detail = ops::detail(&fleet, Scope::All, &args.id).await?;
        if args.json {
            let document = serde_json::to_string_pretty(&detail).map_err(|e| Exit::Internal.because(e))?;
            return write_out(&(document + "\n"));
        }
        let summary = &detail.summary;
        write_out(&text(&summary.job, &summary.tenant, &summary.status, detail.request.as_ref()))
    })
}

/// A job's state in a few lines, the most important first.
pub(super) fn text(job: &JobId, tenant: &str, status: &Status, request: Option<&Job>) -> String {
    let mut lines = vec![format!("{job}: {}", in_short(status))];
    let mut line = |name: &str, value: &str| lines.push(format!("  {name:<9} {}", plain(value)));
    line("tenant", tenant);
    if let Some(request) = request {
        line("lane", request.lane.name());
        line("input", &request.input.uri);
        line("output", &request.output.uri);
        line("preset", &request.preset);
    }
    for (name, at) in [("accepted", &status.accepted_at), ("started", &status.started_at), ("ended", &status.ended_at)] {
        if let Some(at) = at {
            line(name, at);
        }
    }
    if let Some(class) = &status.class {
        line("encoders", &encoders(class));
    }
    if !status.renditions.is_empty() {
        let names: Vec<&str> = status.renditions.iter().map(|rendition| rendition.name.as_str()).collect();
        line("playable", &names.join(", "));
    }
    if status.failed_attempts > 0 {
        line("repeated", &format!("{} attempts of parts failed", status.failed_attempts));
    }
    for address in status.outputs.values() {
        line("output", address);
    }
    if let Some(report) = status.report.as_ref().filter(|report| !status.outputs.contains_key(*report)) {
        line("report", report);
    }
    if let Some(usage) = &status.usage {
        line(
            "made",
            &format!("{:.2} minutes of output, {} frames, {:.1} CPU seconds", usage.minutes(), usage.frames, usage.cpu_s),
        );
    }
    lines.join("\n") + "\n"
}

/// The state in a person's words, on one line, with the reason of an unhappy end.
pub(super) fn in_short(status: &Status) -> String {
    let words = match status.state {
        None => "submitted; no coordinator has told of it yet".into(),
        Some(State::Accepted) => "accepted".into(),
        Some(State::Started) => progress(status),
        Some(State::Completed) => "completed".into(),
        Some(State::Canceled) => "canceled".into(),
        Some(State::Failed) => {
            format!("failed: {}", status.failure.as_ref().map_or("the reason was not told", |failure| failure.message.as_str()))
        }
        Some(State::Rejected) => match &status.rejection {
            Some(rejection) => format!("rejected: {}: {}", rejection.path, rejection.reason),
            None => "rejected".into(),
        },
    };
    plain(&words)
}

fn encoders(status: &ClassStatus) -> String {
    let class = status.class;
    match status.state {
        ClassState::Chosen => class.to_string(),
        ClassState::Waiting { since_ms } => {
            format!("{class}: waits for a device since {}", rfc3339::format(since_ms))
        }
        ClassState::FellBack => format!("{class}: no device took it in time, or none could encode it"),
    }
}

fn progress(status: &Status) -> String {
    let Some((stage, counted)) = status.stages.iter().rev().find(|(_, stage)| stage.started) else { return "started".into() };
    let name = stage_name(Some(*stage));
    if *stage == Stage::Encode {
        return format!("{name}, {} %, {} of {} parts", status.percent, counted.parts_done, counted.parts);
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cause, Failure, Rejection, Rendition, StageStatus};
    use crate::job::Class;
    use std::collections::BTreeMap;

    fn job() -> JobId {
        JobId::try_from("talk-1".to_string()).unwrap()
    }

    #[test]
    fn a_running_job_says_how_far_it_is_and_what_can_be_played() {
        let stage = StageStatus { started: true, parts: 30, parts_done: 12, ..StageStatus::default() };
        let status = Status {
            state: Some(State::Started),
            percent: 40,
            accepted_at: Some("2026-11-30T10:00:00.000Z".into()),
            stages: BTreeMap::from([(Stage::Probe, StageStatus { completed: true, ..stage.clone() }), (Stage::Encode, stage)]),
            renditions: vec![Rendition { name: "360p".into(), playlist: "360p/index.m3u8".into(), url: None, at: String::new() }],
            failed_attempts: 2,
            ..Status::default()
        };
        let request = br#"{"input":{"uri":"s3://media/talk.mp4"},"output":{"uri":"s3://media/out/"}}"#;
        let expected = "\
talk-1: encoding, 40 %, 12 of 30 parts
  tenant    acme
  lane      normal
  input     s3://media/talk.mp4
  output    s3://media/out/
  preset    h265
  accepted  2026-11-30T10:00:00.000Z
  playable  360p
  repeated  2 attempts of parts failed
";
        assert_eq!(text(&job(), "acme", &status, Some(&Job::parse(request).unwrap())), expected);
    }

    #[test]
    fn a_job_that_waits_for_a_device_says_so() {
        let of = |class, state| {
            let status = Status { class: Some(ClassStatus { class, state }), ..Status::default() };
            text(&job(), "acme", &status, None).lines().find(|line| line.contains("encoders")).unwrap().trim().to_string()
        };
        let waiting = of(Class::Nvenc, ClassState::Waiting { since_ms: 1_700_000_000_000 });
        assert_eq!(waiting, "encoders  nvenc: waits for a device since 2023-11-14T22:13:20.000Z");
        assert!(of(Class::Cpu, ClassState::FellBack).starts_with("encoders  cpu: no device"));
    }

    #[test]
    fn an_unhappy_end_gives_its_reason_in_words_that_cannot_drive_a_terminal() {
        let failure = Some(Failure { cause: Cause::Media, message: "no \u{1b}[31mmoov".into() });
        let failed = Status { state: Some(State::Failed), failure, ..Status::default() };
        assert_eq!(in_short(&failed), "failed: no  [31mmoov");
        let rejection = Some(Rejection { path: "lane".into(), reason: "there is none".into(), requested_id: None });
        let rejected = Status { state: Some(State::Rejected), rejection, ..Status::default() };
        assert_eq!(in_short(&rejected), "rejected: lane: there is none");
        assert!(in_short(&Status::default()).starts_with("submitted"));
    }
}
