//! `narrows submit`: gives the fleet a job, and waits for its end where asked to.

use super::exit::{Exit, Failed};
use super::exit_codes;
use super::fleet::{self, Settings};
use super::follow::{LEFT, ending, follow};
use super::presets::write_out;
use super::status;
use super::view::View;
use crate::coordinator::ops::{self, Scope};
use crate::job::{Job, MAX_DOCUMENT_BYTES};
use crate::part::accepted;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = concat!(
    "Examples:
  narrows submit job.json --config fleet.toml
  narrows submit job.json --wait
  jq '.id = \"talk-2\"' job.json | narrows submit - --json

Prints the job's id. The same document again is the same job; another one under its id is rejected.

",
    exit_codes!(
        "0 submitted, or with --wait completed; 2 misuse; 3 canceled while it was waited for; 64 configuration, or the job is \
         rejected or asks for what cannot be made; 65 its media; 70 our fault"
    )
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The job as a JSON document; - for stdin.
    #[arg(value_name = "FILE")]
    job: PathBuf,
    /// Show how it goes until it has ended, and end as it does.
    #[arg(long)]
    wait: bool,
    /// Print the id, or with --wait the last event, as one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let name = args.job.display();
    let document = read(&args.job).map_err(|e| Exit::Misuse.because(format!("{name}: {e}")))?;
    // Before anything is connected to: a document that is no job is told of at once, wherever it is written.
    let parsed = Job::parse(&document).and_then(|job| accepted::preset(&job));
    parsed.map_err(|e| Exit::Settings.because(format!("{name}: {e}")))?;
    fleet::run(&args.settings, LEFT, async |fleet| {
        let submitted = ops::submit(&fleet, Scope::All, &document, None).await.map_err(|error| {
            let failed = fleet::rejected(error);
            failed.exit.because(format!("{name}: {}", failed.message))
        })?;
        if !args.wait {
            if args.json {
                let text = serde_json::to_string(&submitted).map_err(|e| Exit::Internal.because(e))?;
                return write_out(&(text + "\n"));
            }
            if !submitted.is_new {
                eprintln!("{name}: was submitted before");
            }
            return write_out(&format!("{}\n", submitted.job));
        }
        let mut view = View::new(args.json, &BTreeMap::new());
        let last = follow(&fleet, &submitted.job, true, &mut view).await?;
        drop(view);
        if args.json {
            let text = serde_json::to_string(&last).map_err(|e| Exit::Internal.because(e))?;
            write_out(&(text + "\n"))?;
        } else {
            write_out(&status::text(&last.job, &last.tenant, &last.status, None))?;
        }
        ending(&last.job, &last.status)
    })
}

/// Reads a document of at most one byte more than a job may have: what is longer is told by the parser.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut document = Vec::new();
    let most = MAX_DOCUMENT_BYTES as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut document)?;
    } else {
        File::open(path)?.take(most).read_to_end(&mut document)?;
    }
    Ok(document)
}
