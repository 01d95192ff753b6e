//! `narrows status`.

use super::exit::{Exit, Failed};
use super::fleet::{self, Settings};
use super::meter::stage_name;
use super::presets::write_out;
use super::rows::plain;
use super::{exit_codes, words};
use crate::event::{Stage, State, Status, Summary};
use crate::job::JobId;

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

/// A job's state in a few lines, the most important first.
pub(super) fn text(summary: &Summary) -> String {
    let status = &summary.status;
    let mut lines = vec![format!("{}: {}", summary.job, in_short(status))];
    let mut line = |name: &str, value: &str| lines.push(format!("  {name:<9} {}", plain(value)));
    line("tenant", &summary.tenant);
    for (name, at) in [("accepted", &status.accepted_at), ("started", &status.started_at), ("ended", &status.ended_at)] {
        if let Some(at) = at {
            line(name, at);
        }
    }
    if !status.renditions.is_empty() {
        let names: Vec<&str> = status.renditions.iter().map(|rendition| rendition.name.as_str()).collect();
        line("playable", &names.join(", "));
    }
    if status.failed_attempts > 0 {
        line("repeated", &format!("{} attempts of parts failed", status.failed_attempts));
    }
    if let Some(report) = &status.report {
        line("report", report);
    }
    lines.join("\n") + "\n"
}

/// The state in a person's words, on one line, with the reason of an unhappy end.
pub(super) fn in_short(status: &Status) -> String {
    let words = match status.state {
        None => "known, but nothing has been told of it yet".into(),
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

fn progress(status: &Status) -> String {
    let Some((stage, counted)) = status.stages.iter().rev().find(|(_, stage)| stage.started) else { return "started".into() };
    let name = stage_name(Some(*stage));
    if *stage == Stage::Encode {
        return format!("{name}, {} %, {} of {} parts", status.percent, counted.parts_done, counted.parts);
    }
    name.into()
}
