//! `narrows tenant freeze` and `unfreeze`.

use super::exit::{Exit, Failed};
use super::fleet::{self, ORDERED, Settings};
use super::presets::write_out;
use super::{exit_codes, rows::plain};
use crate::coordinator::ops;
use crate::event::rfc3339;
use clap::Subcommand;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows tenant freeze acme --reason \"invoice 7 unpaid\" --config fleet.toml
  narrows tenant unfreeze acme --reason \"invoice 7 paid\" --config fleet.toml

A frozen tenant's new jobs are rejected; what runs goes on. The tenant is told of both by an event, with the reason.

",
    exit_codes!("0 done, or done before; 2 misuse, or no such tenant; 64 configuration; 70 our fault")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    settings: Settings,
    /// Print what became of it as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Take no new jobs of a tenant.
    #[command(after_help = EXAMPLES)]
    Freeze {
        /// The tenant.
        #[arg(value_name = "ID")]
        tenant: String,
        /// Why, in a line: the tenant is told.
        #[arg(long)]
        reason: String,
    },
    /// Take a tenant's jobs again.
    #[command(after_help = EXAMPLES)]
    Unfreeze {
        /// The tenant.
        #[arg(value_name = "ID")]
        tenant: String,
        /// Why, in a line: the tenant is told.
        #[arg(long)]
        reason: Option<String>,
    },
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    match &args.action {
        Action::Freeze { tenant, reason } => fleet::run(&args.settings, ORDERED, async |fleet| {
            let frozen = ops::freeze(&fleet, tenant, reason).await?;
            let since = rfc3339::format(frozen.since_ms);
            write_out(&if args.json {
                let document = serde_json::json!({ "tenant": tenant, "frozen": true, "since": since, "reason": frozen.reason });
                format!("{document}\n")
            } else {
                format!("{tenant}: frozen since {since}: {}\n", plain(&frozen.reason))
            })
        }),
        Action::Unfreeze { tenant, reason } => fleet::run(&args.settings, ORDERED, async |fleet| {
            let was_frozen = ops::unfreeze(&fleet, tenant, reason.as_deref()).await?;
            tracing::info!(tenant, was_frozen, reason, "tenant unfrozen");
            write_out(&match (args.json, was_frozen) {
                (true, _) => format!("{}\n", serde_json::json!({ "tenant": tenant, "frozen": false, "was_frozen": was_frozen })),
                (false, true) => format!("{tenant}: its jobs are taken again\n"),
                (false, false) => format!("{tenant}: was not frozen\n"),
            })
        }),
    }
}
