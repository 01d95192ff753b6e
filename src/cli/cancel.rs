//! `narrows cancel`.

use super::exit::{Exit, Failed};
use super::fleet::{self, ORDERED, Settings};
use super::presets::write_out;
use super::{exit_codes, words};
use crate::coordinator::ops::{self, Canceled, Scope};
use crate::job::JobId;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows cancel talk-1 --config fleet.toml

Workers stop within seconds. What the job made so far stays until it is purged.

",
    exit_codes!("0 done; 2 misuse, no such job, or one that has ended otherwise; 64 configuration; 70 our fault")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The job.
    #[arg(value_name = "ID", value_parser = words::job_id)]
    id: JobId,
    /// Print what became of it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    fleet::run(&args.settings, ORDERED, async |fleet| {
        let canceled = ops::cancel(&fleet, Scope::All, &args.id).await?;
        write_out(&match (args.json, canceled) {
            (true, _) => format!("{}\n", serde_json::json!({ "job": args.id, "canceled": canceled })),
            (false, Canceled::Asked) => format!("{}: its workers are told to stop\n", args.id),
            (false, Canceled::Already) => format!("{}: was canceled before\n", args.id),
        })
    })
}
