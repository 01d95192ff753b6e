//! What tenants used, summed over days. A job is one object, written under the day of its end, however often its end is
//! told: nothing is counted twice.

use super::found::OpError;
use crate::coordinator::fleet::Fleet;
use crate::event::State;
use crate::event::rfc3339;
use crate::job::JobId;
use crate::store::key::Key;
use crate::usage::Usage;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

/// Days of one request, at most.
pub const MOST_DAYS: u64 = 400;
/// Records read at once.
const READS_AT_ONCE: usize = 32;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// `usage/<tenant>/<day>/<id>.json`: what one job is billed by. Written at its end, and final when it is settled: until then
/// its workers may note what they had to throw away because it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageRecord {
    pub version: u32,
    pub job: JobId,
    pub tenant: String,
    pub state: State,
    /// RFC 3339; the record lies under this day.
    pub ended_at: String,
    pub usage: Usage,
}

/// What a tenant used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UsageReport {
    pub tenant: String,
    /// First and last day, both counted, in UTC.
    pub from: String,
    pub to: String,
    pub jobs: u64,
    pub total: Usage,
    /// Days on which jobs ended.
    pub days: Vec<UsageDay>,
}

/// What a tenant used on one day.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UsageDay {
    pub day: String,
    pub jobs: u64,
    pub usage: Usage,
}

/// Sums a tenant's usage from one day to another, both counted.
///
/// # Errors
/// A day is none, the days are in the wrong order or too many, or the store cannot be asked.
pub async fn usage(fleet: &Fleet, tenant: &str, from: &str, to: &str) -> Result<UsageReport, OpError> {
    let (first, last) = (day_ms("from", from)?, day_ms("to", to)?);
    if last < first {
        return Err(OpError::invalid("to", "is before 'from'"));
    }
    let count = (last - first) / DAY_MS + 1;
    if count > MOST_DAYS {
        return Err(OpError::invalid("to", format!("{count} days; at most {MOST_DAYS} are summed at once")));
    }
    let mut report = UsageReport {
        tenant: tenant.into(),
        from: from.into(),
        to: to.into(),
        jobs: 0,
        total: Usage::default(),
        days: Vec::new(),
    };
    for n in 0..count {
        let day = rfc3339::day(first + n * DAY_MS);
        let summed = sum_day(fleet, tenant, &day).await?;
        if summed.jobs > 0 {
            report.jobs += summed.jobs;
            report.total.add(&summed.usage);
            report.days.push(summed);
        }
    }
    Ok(report)
}

async fn sum_day(fleet: &Fleet, tenant: &str, day: &str) -> Result<UsageDay, OpError> {
    let mut paths = fleet.stores.work().list(&Key::usage_folder(tenant, Some(day))).await?;
    paths.sort();
    let jobs = paths.into_iter().filter_map(|path| {
        let name = path.rsplit('/').next()?.strip_suffix(".json")?;
        JobId::try_from(name.to_string()).ok()
    });
    let read = |job: JobId| async move { fleet.stores.work().get_json::<UsageRecord>(&Key::usage(tenant, day, &job)).await };
    let mut records = stream::iter(jobs.map(read)).buffered(READS_AT_ONCE);
    let mut summed = UsageDay { day: day.into(), jobs: 0, usage: Usage::default() };
    while let Some(record) = records.try_next().await? {
        if let Some(record) = record {
            summed.jobs += 1;
            summed.usage.add(&record.usage);
        }
    }
    Ok(summed)
}

/// Milliseconds of the beginning of a day.
fn day_ms(field: &str, text: &str) -> Result<u64, OpError> {
    let at = if text.len() == 10 { rfc3339::parse(&format!("{text}T00:00:00Z")) } else { None };
    at.ok_or_else(|| OpError::invalid(field, "is no day; write it like 2023-11-14"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_in_one_way() {
        assert_eq!(day_ms("from", "1970-01-02").unwrap(), DAY_MS);
        for text in ["", "2023-2-3", "2023-02-30", "14.11.2023", "2023-11-14T00:00:00Z", "tomorrow"] {
            assert!(day_ms("from", text).unwrap_err().to_string().starts_with("from"), "{text}");
        }
    }
}
