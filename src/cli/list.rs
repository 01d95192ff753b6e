//! `narrows list`.

use super::exit::{Exit, Failed};
use super::fleet::{self, ASKED, Settings};
use super::presets::write_out;
use super::rows::Rows;
use super::status::in_short;
use super::{exit_codes, words};
use crate::coordinator::ops::{self, ListQuery, Scope};
use crate::event::{State, Summary};

const EXAMPLES: &str = concat!(
    "Examples:
  narrows list --config fleet.toml
  narrows list --tenant acme --state failed --limit 20
  narrows list --tenant acme --json | jq -r '.jobs[].job'
  narrows list --cursor ZmZmZmZl

The newest come first, tenant by tenant. When there are more, the last line on stderr says how to go on.

",
    exit_codes!("0 done; 2 misuse; 64 configuration; 70 our fault")
);
/// Jobs of one page, at most.
const MOST: u16 = ops::MOST_JOBS as u16;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only this tenant's jobs.
    #[arg(long, value_name = "T")]
    tenant: Option<String>,
    /// Only jobs in this state: accepted, started, completed, failed, canceled or rejected.
    #[arg(long, value_name = "S", value_parser = words::state)]
    state: Option<State>,
    /// Jobs of one page.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST)))]
    limit: u16,
    /// Go on where another page ended.
    #[arg(long, value_name = "C")]
    cursor: Option<String>,
    /// Print the page as one JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    fleet::run(&args.settings, ASKED, async |fleet| {
        let scope = args.tenant.as_deref().map_or(Scope::All, Scope::Tenant);
        let query = ListQuery { state: args.state, limit: usize::from(args.limit), cursor: args.cursor.clone() };
        let page = ops::list(&fleet, scope, &query).await?;
        if args.json {
            let document = serde_json::to_string_pretty(&page).map_err(|e| Exit::Internal.because(e))?;
            return write_out(&(document + "\n"));
        }
        let written = write_out(&table(&page.jobs))?;
        if let Some(next) = &page.next {
            eprintln!("there are more: give --cursor {next} as well");
        }
        Ok(written)
    })
}

fn table(jobs: &[Summary]) -> String {
    let mut rows = Rows::new(["job", "tenant", "accepted", "state"], 4);
    for job in jobs {
        let accepted = job.status.accepted_at.clone().unwrap_or_else(|| "-".into());
        rows.push([job.job.to_string(), job.tenant.clone(), accepted, in_short(&job.status)]);
    }
    rows.table()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Status;
    use crate::job::JobId;

    #[test]
    fn a_job_is_one_line() {
        let job = |id: &str, state, accepted_at: Option<&str>| Summary {
            version: 1,
            job: JobId::try_from(id.to_string()).unwrap(),
            tenant: "acme".into(),
            sequence: 1,
            updated_at: None,
            status: Status { state: Some(state), accepted_at: accepted_at.map(str::to_string), ..Status::default() },
        };
        let jobs = [job("talk-10", State::Completed, Some("2026-11-30T10:00:00.000Z")), job("x", State::Rejected, None)];
        let expected = "\
job      tenant  accepted                  state
talk-10  acme    2026-11-30T10:00:00.000Z  completed
x        acme    -                         rejected
";
        assert_eq!(table(&jobs), expected);
    }
}
