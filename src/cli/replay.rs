//! `narrows replay`: tell a job's endpoints again what they were told, or what they missed.

use super::exit::{Exit, Failed};
use super::fleet::{self, ORDERED, Settings};
use super::presets::write_out;
use super::{exit_codes, words};
use crate::coordinator::ops::{self, Scope};
use crate::job::JobId;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows replay talk-1 --config fleet.toml
  narrows replay talk-1 --from 12

Every endpoint of the job gets the events from that number on, in order, with the ids they had. An endpoint that was turned
off by a 410 answer is tried again.

",
    exit_codes!("0 done; 2 misuse, or no such job; 64 configuration; 70 our fault")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The job.
    #[arg(value_name = "ID", value_parser = words::job_id)]
    id: JobId,
    /// Number of the first event to send.
    #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// Print what became of it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    fleet::run(&args.settings, ORDERED, async |fleet| {
        let replayed = ops::replay(&fleet, Scope::All, &args.id, args.from).await?;
        if args.json {
            let document = serde_json::to_string(&replayed).map_err(|e| Exit::Internal.because(e))?;
            return write_out(&(document + "\n"));
        }
        let (from, to) = (replayed.from_sequence, replayed.to_sequence);
        write_out(&format!("{}: events {from} to {to} go again to {} endpoints\n", args.id, replayed.endpoints.len()))
    })
}
