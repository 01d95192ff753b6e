//! What can be asked of the fleet, one file each: over HTTP by a tenant, on the command line by an operator.
//!
//! Every operation is safe to repeat. None keeps a state: the bucket and the broker do.

mod cancel;
mod found;
mod freeze;
mod list;
mod look;
mod metering;
mod purge;
mod replay;
mod submit;

pub use crate::tenant::Frozen;
pub use cancel::{Canceled, cancel};
pub use found::{OpError, Scope};
pub use freeze::{freeze, frozen, unfreeze};
pub use list::{ListQuery, MOST_JOBS, Page, list};
pub use look::{Detail, EventPage, MOST_EVENTS, detail, events};
pub use metering::{MOST_DAYS, UsageDay, UsageRecord, UsageReport, usage};
pub use purge::{PurgeReport, purge, purge_tenant};
pub use replay::{Replayed, replay};
pub use submit::{Submitted, submit};
