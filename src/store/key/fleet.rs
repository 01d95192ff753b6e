//! Where a fleet keeps what is no single job's work: what is open, what there is in order, what was told, what is owed.
//!
//! `<endpoint>` is the name of a callback's endpoint, `<tenant>` a safe path element; both are checked where they are
//! read.

use super::{Key, Kind};
use crate::job::JobId;

impl Key {
    fn of_fleet(path: String) -> Self {
        Self { path, kind: Kind::Work }
    }

    /// All that the coordinators know of a job.
    pub fn status(job: &JobId) -> Self {
        Self::work(job, "status.json")
    }

    /// The folder of everything of a job in the work store, but its events and callbacks.
    pub fn job_folder(job: &JobId) -> String {
        format!("jobs/{job}/")
    }

    /// Says that a job has not ended.
    pub fn open(tenant: &str, job: &JobId) -> Self {
        Self::of_fleet(format!("open/{tenant}/{job}"))
    }

    /// The folder of the open jobs of one tenant, or of all.
    pub fn open_folder(tenant: Option<&str>) -> String {
        tenant.map_or("open/".into(), |tenant| format!("open/{tenant}/"))
    }

    /// Says that a job has ended, and is looked after for a while yet.
    pub fn settling(tenant: &str, job: &JobId) -> Self {
        Self::of_fleet(format!("{}{tenant}/{job}", Self::settling_folder()))
    }

    /// The folder of those of all tenants.
    pub fn settling_folder() -> String {
        "settling/".into()
    }

    /// Tenant and job of a path under [`Key::open_folder`] or [`Key::settling_folder`].
    pub fn of_looked_after(path: &str) -> Option<(String, JobId)> {
        let below = path.strip_prefix("open/").or_else(|| path.strip_prefix("settling/"))?;
        let (tenant, job) = below.split_once('/')?;
        Some((tenant.into(), JobId::try_from(job.to_string()).ok()?))
    }

    /// Says that an open job waits for its tenant's others; the name puts the oldest first.
    pub fn waiting(tenant: &str, accepted_ms: u64, job: &JobId) -> Self {
        Self::of_fleet(format!("{}{accepted_ms:016x}.{job}", Self::waiting_folder(tenant)))
    }

    /// The folder of a tenant's waiting jobs.
    pub fn waiting_folder(tenant: &str) -> String {
        format!("waiting/{tenant}/")
    }

    /// When it was accepted, and the job, of a path under [`Key::waiting_folder`].
    pub fn of_waiting(path: &str) -> Option<(u64, JobId)> {
        let (place, job) = path.strip_prefix("waiting/")?.split_once('/')?.1.split_once('.')?;
        Some((u64::from_str_radix(place, 16).ok()?, JobId::try_from(job.to_string()).ok()?))
    }

    /// A job's place in the list of its tenant's jobs, the newest first.
    pub fn index(tenant: &str, accepted_ms: u64, job: &JobId) -> Self {
        Self::of_fleet(format!("{}{:016x}.{job}", Self::index_folder(tenant), u64::MAX - accepted_ms))
    }

    /// The folder of a tenant's list.
    pub fn index_folder(tenant: &str) -> String {
        format!("index/{tenant}/")
    }

    /// The job of a path under [`Key::index_folder`].
    pub fn of_index(path: &str) -> Option<JobId> {
        let name = path.strip_prefix("index/")?.split_once('/')?.1;
        let (place, job) = name.split_once('.')?;
        (place.len() == 16).then_some(())?;
        JobId::try_from(job.to_string()).ok()
    }

    /// What customers are told: one event, numbered from 1.
    pub fn event(job: &JobId, sequence: u64) -> Self {
        Self::of_fleet(format!("{}{sequence:08}.json", Self::events(job)))
    }

    /// The folder of a job's events.
    pub fn events(job: &JobId) -> String {
        format!("events/{job}/")
    }

    /// What one job is billed by. `day` is that of its end, `2023-11-14`.
    pub fn usage(tenant: &str, day: &str, job: &JobId) -> Self {
        Self::of_fleet(format!("{}{job}.json", Self::usage_folder(tenant, Some(day))))
    }

    /// The folder of what a tenant is billed by, on one day or ever.
    pub fn usage_folder(tenant: &str, day: Option<&str>) -> String {
        day.map_or(format!("usage/{tenant}/"), |day| format!("usage/{tenant}/{day}/"))
    }

    /// How far an endpoint has been told of a job.
    pub fn cursor(job: &JobId, endpoint: &str) -> Self {
        Self::of_fleet(format!("{}{endpoint}.json", Self::cursors(job)))
    }

    /// The folder of a job's cursors.
    pub fn cursors(job: &JobId) -> String {
        format!("callbacks/{job}/")
    }

    /// An event that an endpoint could not be told in all the time it was tried.
    pub fn exhausted(tenant: &str, job: &JobId, endpoint: &str, sequence: u64) -> Self {
        Self::of_fleet(format!("{}{endpoint}/{sequence:08}.json", Self::exhausted_folder(tenant, job)))
    }

    /// The folder of those of one job.
    pub fn exhausted_folder(tenant: &str, job: &JobId) -> String {
        format!("exhausted/{tenant}/{job}/")
    }

    /// Says that an endpoint wants no more events.
    pub fn disabled(tenant: &str, endpoint: &str) -> Self {
        Self::of_fleet(format!("disabled/{tenant}/{endpoint}.json"))
    }

    /// Says that a tenant may not start new work.
    pub fn frozen(tenant: &str) -> Self {
        Self::of_fleet(format!("tenants/{tenant}/frozen.json"))
    }

    /// An object that is written and deleted to see whether that works.
    pub fn trial(name: &str) -> Self {
        Self::of_fleet(format!("narrows-trial/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        JobId::try_from("talk-1".to_string()).unwrap()
    }

    #[test]
    fn objects_of_the_fleet_lie_where_the_design_lists_them() {
        for (key, path) in [
            (Key::status(&job()), "jobs/talk-1/status.json"),
            (Key::open("acme", &job()), "open/acme/talk-1"),
            (Key::settling("acme", &job()), "settling/acme/talk-1"),
            (Key::waiting("acme", 1_700_000_000_000, &job()), "waiting/acme/0000018bcfe56800.talk-1"),
            (Key::index("acme", 1_700_000_000_000, &job()), "index/acme/fffffe74301a97ff.talk-1"),
            (Key::event(&job(), 7), "events/talk-1/00000007.json"),
            (Key::usage("acme", "2023-11-14", &job()), "usage/acme/2023-11-14/talk-1.json"),
            (Key::cursor(&job(), "00ff"), "callbacks/talk-1/00ff.json"),
            (Key::exhausted("acme", &job(), "00ff", 7), "exhausted/acme/talk-1/00ff/00000007.json"),
            (Key::disabled("acme", "00ff"), "disabled/acme/00ff.json"),
            (Key::frozen("acme"), "tenants/acme/frozen.json"),
        ] {
            assert_eq!((key.path(), key.cache_control()), (path, "no-store"));
        }
    }

    #[test]
    fn what_is_listed_is_read_back() {
        for key in [Key::open("acme", &job()), Key::settling("acme", &job())] {
            assert_eq!(Key::of_looked_after(key.path()), Some(("acme".into(), job())));
        }
        assert_eq!(Key::of_index(Key::index("acme", 5, &job()).path()), Some(job()));
        let dotted = JobId::try_from("a.b".to_string()).unwrap();
        assert_eq!(Key::of_index(Key::index("acme", 5, &dotted).path()), Some(dotted.clone()));
        assert!(Key::index("acme", 6, &job()).path() < Key::index("acme", 5, &job()).path(), "the newest is first");
        assert_eq!(Key::of_waiting(Key::waiting("acme", 5, &dotted).path()), Some((5, dotted)));
        assert!(Key::waiting("acme", 5, &job()).path() < Key::waiting("acme", 16, &job()).path(), "the oldest is first");
        assert_eq!((Key::of_looked_after("open/acme/"), Key::of_index("index/acme/x.y")), (None, None));
        assert_eq!((Key::of_looked_after("index/acme/x"), Key::of_waiting("waiting/acme/x.y")), (None, None));
    }
}
