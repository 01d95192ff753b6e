//! `narrows doctor`: everything a worker and a coordinator need, looked at from this machine.

mod finding;
mod machine;
mod services;

use super::exit::{Exit, Failed};
use super::fleet;
use super::presets::write_out;
use super::rows::plain;
use super::{exit_codes, load, runtime};
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

/// Seconds that a broker may take to answer; a worker waits longer.
const BROKER_WITHIN_S: u16 = 10;

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
    let mut config = load(args.config.as_deref())?;
    if config.log.level == "warn" {
        // What goes wrong here is a finding, and is not said twice.
        config.log.level = "error".into();
    }
    crate::telemetry::start(&config.log);
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

/// Looks at everything, one line each: this machine first, then the servers.
async fn examine(config: &Config, report: &mut Report) -> Result<(), Failed> {
    let stores = fleet::stores(config, &crate::observe::nobody())?;
    for finding in machine::library_findings() {
        report.take(finding)?;
    }
    children(config, report).await?;
    let scratch = config.scratch.folder.clone().unwrap_or_else(std::env::temp_dir);
    report.take(machine::scratch_finding(&scratch, super::local::slots(config)))?;
    broker(config, report).await?;
    for finding in services::stores(&stores).await {
        report.take(finding)?;
    }
    report.take(services::clock(stores.work()).await)?;
    report.take(services::traces(config).await)
}

async fn broker(config: &Config, report: &mut Report) -> Result<(), Failed> {
    let mut config = config.clone();
    config.broker.publish_timeout_s = config.broker.publish_timeout_s.min(BROKER_WITHIN_S);
    let broker = match fleet::broker(&config, &crate::observe::nobody()).await {
        Ok(broker) => broker,
        Err(error) => return report.take(Finding::wrong("broker", error.to_string(), services::broker_fix(&error))),
    };
    report.take(Finding::ok("broker", broker.server().unwrap_or_else(|| "connected".into())))?;
    for finding in services::topology(&broker).await {
        report.take(finding)?;
    }
    Ok(())
}

/// The jail and the encoders in it.
async fn children(config: &Config, report: &mut Report) -> Result<(), Failed> {
    let bench = match Bench::new(Sandbox::from(&config.sandbox), config.limits.clone(), &std::env::temp_dir()) {
        Ok(bench) => bench,
        Err(error) => {
            let found = format!("no folder for a child could be made in {}: {error}", std::env::temp_dir().display());
            return report.take(Finding::wrong("jail", found, "let this user write there, or set TMPDIR"));
        }
    };
    let (jail, works) = bench.jail().await;
    report.take(jail)?;
    if !works {
        return Ok(());
    }
    for finding in bench.encoders(&config.worker.devices).await {
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
