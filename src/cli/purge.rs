//! `narrows purge`: everything that a job or a tenant stored, gone for good.

use super::confirm::confirm;
use super::exit::{Exit, Failed};
use super::fleet::{self, ORDERED, Settings};
use super::presets::write_out;
use super::rows::{plain, size};
use super::status::in_short;
use super::{exit_codes, words};
use crate::coordinator::ops::{self, PurgeReport, Scope};
use crate::job::JobId;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows purge talk-1 --config fleet.toml
  narrows purge talk-1 --yes --json > purged.json
  narrows purge --tenant acme --yes > purged.txt

Deletes what the job wrote under its output URI, its plan, markers, events and undelivered callbacks. The record it is billed
by stays. A job that has not ended is left alone: cancel it first. Broken off, the same command deletes the rest.

",
    exit_codes!("0 done; 2 misuse, no such job, one that has not ended, or not confirmed; 64 configuration; 70 our fault")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("whose").required(true).args(["id", "tenant"]))]
pub(super) struct Args {
    /// The job.
    #[arg(value_name = "ID", value_parser = words::job_id)]
    id: Option<JobId>,
    /// All jobs of this tenant.
    #[arg(long, value_name = "T")]
    tenant: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Print the report as one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    fleet::run(&args.settings, ORDERED, async |fleet| {
        let report = match (&args.id, &args.tenant) {
            (Some(id), _) => {
                let found = ops::detail(&fleet, Scope::All, id).await?.summary;
                if !args.yes {
                    let what = format!("everything of {id} of {}, which is {}", found.tenant, in_short(&found.status));
                    confirm(&what, id.as_str())?;
                }
                ops::purge(&fleet, Scope::All, id).await?
            }
            (None, tenant) => {
                let tenant = tenant.as_deref().unwrap_or_default();
                if !args.yes {
                    confirm(&format!("everything of every ended job of tenant {tenant}"), tenant)?;
                }
                ops::purge_tenant(&fleet, tenant).await?
            }
        };
        if args.json {
            let document = serde_json::to_string_pretty(&report).map_err(|e| Exit::Internal.because(e))?;
            return write_out(&(document + "\n"));
        }
        write_out(&text(&report))
    })
}

/// What was deleted, object by object, the sum at the end.
fn text(report: &PurgeReport) -> String {
    let mut lines: Vec<String> = report.deleted.iter().map(|path| format!("deleted {}", plain(path))).collect();
    let unnamed = report.objects.saturating_sub(report.deleted.len() as u64);
    if unnamed > 0 {
        lines.push(format!("deleted {unnamed} more"));
    }
    lines.extend(report.kept.iter().map(|path| format!("kept {}", plain(path))));
    lines.extend(report.skipped.iter().map(|what| format!("left alone {}", plain(what))));
    lines.push(format!("{} jobs, {} objects, {}", report.jobs.len(), report.objects, size(report.bytes)));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_what_is_gone_what_stays_and_what_was_left_alone() {
        let report = PurgeReport {
            jobs: vec![JobId::try_from("talk-1".to_string()).unwrap()],
            objects: 12,
            bytes: 1_500_000,
            deleted: vec!["output:master.m3u8".into(), "work:jobs/talk-1/plan.json".into()],
            kept: vec!["usage/acme/2026-11-30/talk-1.json".into()],
            skipped: vec!["talk-2: has not ended".into()],
        };
        let expected = "\
deleted output:master.m3u8
deleted work:jobs/talk-1/plan.json
deleted 10 more
kept usage/acme/2026-11-30/talk-1.json
left alone talk-2: has not ended
1 jobs, 12 objects, 1.5 MB
";
        assert_eq!(text(&report), expected);
    }
}
