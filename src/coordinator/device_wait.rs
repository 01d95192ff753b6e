//! Jobs whose chunks wait for a device that does not come.
//!
//! A job that leaves its encoders open is then encoded in software: that is written once and for good, and its chunks are asked
//! for anew. One that asked for a device waits on, and its status says so.

use super::clock::now_ms;
use super::fleet::Fleet;
use super::write::WriteError;
use crate::event::{ClassState, Fact};
use crate::job::Class;
use crate::part::accepted::Accepted;
use crate::part::class;
use crate::plan::Plan;
use crate::reconcile::{Step, classes, reconcile};
use crate::store::key::Key;

/// Sees to a job of which nothing was heard since `heard_ms`, while its chunks go to devices of `class`. False: there is
/// nothing to be done about devices.
pub(super) async fn see_to(fleet: &Fleet, accepted: &Accepted, class: Class, heard_ms: u64) -> Result<bool, WriteError> {
    let (job, work) = (&accepted.id, fleet.stores.work());
    // Where content decides there is no device, so the first plan is the last.
    let Some(plan) = work.get_json::<Plan>(&Key::plan(job)).await? else { return Ok(false) };
    let done = class::done(work, job, class).await?;
    if !classes::waits_for_encoders(&plan, &done, fleet.window) {
        return Ok(false);
    }
    if !class::may_fall_back(accepted) {
        tell(fleet, accepted, class, ClassState::Waiting { since_ms: heard_ms }).await?;
        return Ok(false);
    }
    let reason = format!("no device of class {class} took its chunks within {} s", fleet.devices.wait_s);
    class::write_fall_back(work, accepted, &reason).await?;
    tell(fleet, accepted, Class::Cpu, ClassState::FellBack).await?;
    let done = class::done(work, job, Class::Cpu).await?;
    if let Step::Publish(parts) = reconcile(Some(&plan), &done, None, fleet.window) {
        class::publish(&*fleet.broker, job, accepted.job.lane, Class::Cpu, &parts).await?;
    }
    Ok(true)
}

async fn tell(fleet: &Fleet, accepted: &Accepted, class: Class, state: ClassState) -> Result<(), WriteError> {
    let fact = Fact::JobClass { class, state };
    Ok(fleet.tell(&accepted.id, &accepted.job.tenant, now_ms(), fact).await?)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Site;
    use super::*;
    use crate::broker::{Broker, Queue};
    use crate::job::{ClassChoice, Job};
    use crate::plan::marker::PartId;

    /// A job that begins on a device and whose probe is done.
    async fn begun(site: &Site, choice: ClassChoice) -> Accepted {
        let accepted = site.accept("talk").await;
        let job = Job { class: choice, ..accepted.job.clone() };
        let accepted = Accepted { job, class: Class::Nvenc, ..accepted };
        let (id, work) = (&accepted.id, site.fleet.stores.work());
        let plan: Plan = serde_json::from_str(include_str!("../../tests/plans/h265-1080p25.json")).unwrap();
        work.put_json(&Key::job(id), &accepted).await.unwrap();
        work.put_json(&Key::plan(id), &plan).await.unwrap();
        work.put(&Key::marker(id, PartId::Probe), Vec::new()).await.unwrap();
        accepted
    }

    async fn asked_for(site: &Site, class: Class, accepted: &Accepted) -> u64 {
        site.broker.depth(Queue::Work(class, accepted.job.lane)).await.unwrap()
    }

    #[tokio::test]
    async fn a_job_that_leaves_it_open_starts_over_in_software_and_stays_there() {
        let site = Site::new();
        let accepted = begun(&site, ClassChoice::Auto).await;
        let work = site.fleet.stores.work();
        work.put(&Key::marker_in(&accepted.id, Class::Nvenc, PartId::Encode(0)), Vec::new()).await.unwrap();
        assert!(see_to(&site.fleet, &accepted, Class::Nvenc, 7).await.unwrap());
        assert_eq!(class::in_force(work, &accepted).await.unwrap(), Class::Cpu);
        let done = class::done(work, &accepted.id, Class::Cpu).await.unwrap();
        assert!(!done.contains(&PartId::Encode(0)), "what a device made does not count");
        // The window: one rendition of sound, three chunks.
        assert_eq!(asked_for(&site, Class::Cpu, &accepted).await, 4);
    }

    #[tokio::test]
    async fn a_job_that_asked_for_a_device_waits_on_and_says_so() {
        let site = Site::new();
        let accepted = begun(&site, ClassChoice::Gpu).await;
        assert!(!see_to(&site.fleet, &accepted, Class::Nvenc, 7).await.unwrap());
        assert_eq!(class::in_force(site.fleet.stores.work(), &accepted).await.unwrap(), Class::Nvenc);
        assert_eq!(asked_for(&site, Class::Cpu, &accepted).await, 0);
        let mut told = site.broker.consume(Queue::events_of("talk"), 1).await.unwrap();
        let event: crate::event::Event = serde_json::from_slice(&told.next().await.unwrap().body).unwrap();
        assert_eq!(event.fact, Fact::JobClass { class: Class::Nvenc, state: ClassState::Waiting { since_ms: 7 } });
    }

    #[tokio::test]
    async fn a_job_whose_chunks_are_all_encoded_waits_for_no_device() {
        let site = Site::new();
        let accepted = begun(&site, ClassChoice::Auto).await;
        let work = site.fleet.stores.work();
        let plan: Plan = work.get_json(&Key::plan(&accepted.id)).await.unwrap().unwrap();
        for part in crate::reconcile::work(&plan) {
            work.put(&Key::marker_in(&accepted.id, Class::Nvenc, part), Vec::new()).await.unwrap();
        }
        assert!(!see_to(&site.fleet, &accepted, Class::Nvenc, 7).await.unwrap());
        assert_eq!(class::in_force(work, &accepted).await.unwrap(), Class::Nvenc);
    }
}
