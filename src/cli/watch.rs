//! `narrows watch`: one job of a fleet, live.

use super::exit::{Exit, Failed};
use super::fleet::{self, Settings};
use super::follow::{Audience, LEFT, ending, follow};
use super::presets::write_out;
use super::status;
use super::view::View;
use super::{exit_codes, words};
use crate::coordinator::Fleet;
use crate::coordinator::ops::{self, Scope};
use crate::event::Recorded;
use crate::job::JobId;
use std::collections::BTreeMap;
use std::io::Write;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows watch talk-1 --config fleet.toml
  narrows watch talk-1 --json | jq -r .type

With --json every recorded event is one line, from the first on, as callbacks carry it.

",
    exit_codes!(
        "0 the job completed; 2 misuse, or no such job; 3 it was canceled; 64 configuration, or the job was rejected or asks for \
         what cannot be made; 65 its media; 70 our fault"
    )
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The job.
    #[arg(value_name = "ID", value_parser = words::job_id)]
    id: JobId,
    /// Print every recorded event as one line of JSON, and nothing else.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    fleet::run(&args.settings, LEFT, async |fleet| {
        let is_accepted = ops::detail(&fleet, Scope::All, &args.id).await?.request.is_some();
        let last = watch(&fleet, &args.id, is_accepted, args.json).await?;
        if !args.json {
            write_out(&status::text(&last.job, &last.tenant, &last.status, None))?;
        }
        ending(&last.job, &last.status)
    })
}

/// Shows a job to its end: as a bar or lines on stderr, or as lines of JSON on stdout.
async fn watch(fleet: &Fleet, job: &JobId, is_accepted: bool, json: bool) -> Result<Recorded, Failed> {
    if json {
        return follow(fleet, job, is_accepted, &mut Lines).await;
    }
    let mut view = View::new(false, &BTreeMap::new());
    follow(fleet, job, is_accepted, &mut view).await
}

/// Every recorded event as a line of JSON.
struct Lines;

impl Audience for Lines {
    fn recorded(&mut self, event: &Recorded) -> Result<(), Failed> {
        let line = serde_json::to_string(event).map_err(|e| Exit::Internal.because(e))? + "\n";
        match std::io::stdout().write_all(line.as_bytes()) {
            // Who reads has seen enough.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Exit::Done.because("")),
            written => written.map_err(|e| Exit::Internal.because(format!("stdout: {e}"))),
        }
    }
}
