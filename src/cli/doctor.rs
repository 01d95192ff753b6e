//! `narrows doctor`: everything a worker and a coordinator need, looked at from this machine.

mod finding;
mod machine;

use super::exit::{Exit, Failed};
use super::presets::write_out;
use super::rows::plain;
use super::{configure, exit_codes, runtime};
use crate::config::Config;
use crate::sandbox::Sandbox;
use crate::shutdown::Signals;
use finding::Finding;
use machine::Bench;
use std::path::PathBuf;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows doctor --config fleet.toml
  narrows doctor --config fleet.toml --json

Objects and messages that it writes to see whether it may are removed again; jobs are not touched.

",
    exit_codes!("0 everything is fine; 2 misuse; 64 configuration; 70 something is wrong: each line says what and the fix")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Settings file of the fleet.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON document at the end, and nothing else.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let config = configure(args.config.as_deref())?;
    let runtime = runtime()?;
    let mut report = Report { json: args.json, findings: Vec::new() };
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|e| Exit::Internal.because(e))?;
        tokio::select! {
            done = examine(&config, &mut report) => done,
            signal = signals.next() => Err(Exit::Signalled(signal).because("interrupted")),
        }
    })?;
    report.end()
}

/// Looks at everything, one line each, the cheapest first.
async fn examine(config: &Config, report: &mut Report) -> Result<(), Failed> {
    for finding in machine::library_findings() {
        report.take(finding)?;
    }
    Ok(())
}

/// What was found so far. A person reads each line when it is known.
struct Report {
    json: bool,
    findings: Vec<Finding>,
}

impl Report {
    fn take(&mut self, finding: Finding) -> Result<(), Failed> {
        if !self.json {
            write_out(&finding.line())?;
        }
        self.findings.push(finding);
        Ok(())
    }

    fn end(self) -> Result<Exit, Failed> {
        let wrong = self.findings.iter().filter(|finding| !finding.ok).count();
        if self.json {
            let document = serde_json::json!({ "ok": wrong == 0, "findings": self.findings });
            write_out(&format!("{document:#}\n"))?;
        }
        match wrong {
            0 => Ok(Exit::Done),
            1 => Err(Exit::Internal.because("one thing is wrong")),
            n => Err(Exit::Internal.because(format!("{n} things are wrong"))),
        }
    }
}
