//! The span above all others of a job: from its acceptance to its end, shown by whoever records the end.

use super::fleet::Fleet;
use crate::event::{Recorded, rfc3339};
use crate::part::accepted::Accepted;
use crate::store::key::Key;
use crate::trace::WholeJob;

/// Shows the whole of a job of which the end was recorded just now. A trace without its top is no failure.
pub(super) async fn show(fleet: &Fleet, recorded: &[Recorded]) {
    let observer = &fleet.observer;
    let Some((end, state)) = recorded.iter().find_map(ended).filter(|_| observer.traces()) else { return };
    let accepted = match fleet.stores.work().get_json::<Accepted>(&Key::job(&end.job)).await {
        Ok(Some(accepted)) => accepted,
        Ok(None) => return,
        Err(error) => return tracing::debug!(job = %end.job, %error, "the span of a whole job is not shown"),
    };
    let since = end.status.accepted_at.as_deref().and_then(rfc3339::parse).unwrap_or(accepted.accepted_ms);
    let ended_ms = rfc3339::parse(&end.at).unwrap_or(since);
    let (job, tenant, begun) = (end.job.as_str(), end.tenant.as_str(), accepted.trace);
    observer.whole_job(&WholeJob { job, tenant, state, begun, accepted_ms: since, ended_ms: ended_ms.max(since) });
}

/// The event, if it is the end of a job; a rejection is of none.
fn ended(event: &Recorded) -> Option<(&Recorded, &'static str)> {
    let state = event.status.state.filter(|state| state.is_terminal() && event.status.accepted_at.is_some())?;
    Some((event, state.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, Class, Delivery, EVENT_PARTITIONS, Queue};
    use crate::coordinator::fixture::{START_MS, Site, event, id, settings, whole_job};
    use crate::coordinator::sweep::Sweeper;
    use crate::coordinator::write::Writer;
    use crate::event::Fact;
    use crate::job::Lane;
    use crate::observe::Observer;
    use crate::trace::{Begun, Parent, Span, TraceContext};
    use std::sync::{Arc, Mutex};

    fn customer() -> Option<TraceContext> {
        TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    }

    /// Notes what is shown, and hands on the span of the job itself where nobody sent one.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Observer for Notes {
        fn traces(&self) -> bool {
            true
        }

        fn whole_job(&self, whole: &WholeJob<'_>) {
            let WholeJob { job, tenant, state, begun, accepted_ms, ended_ms } = whole;
            let note = format!("{job} {tenant} {state} {} {accepted_ms} {ended_ms}", *begun == customer());
            self.0.lock().unwrap().push(note);
        }

        fn span(&self, begun: &Begun<'_>) -> Span {
            let context = match begun.parent {
                Parent::Sender(Some(context)) => context,
                Parent::Sender(None) => TraceContext::of_job(begun.job, None),
                Parent::Job(context) => TraceContext::of_job(begun.job, context),
            };
            Span::passing(Some(context))
        }
    }

    async fn traced(site: &Site, trace: Option<TraceContext>) {
        let accepted = site.accept("talk").await;
        let accepted = Accepted { trace, ..accepted };
        site.fleet.stores.work().put_json(&Key::job(&accepted.id), &accepted).await.unwrap();
    }

    #[tokio::test]
    async fn a_job_is_shown_as_a_whole_once_by_whoever_records_its_end() {
        let (site, notes, job) = (Site::new(), Arc::new(Notes::default()), id("talk"));
        traced(&site, customer()).await;
        let fleet = Fleet { observer: notes.clone(), ..site.fleet.clone() };
        let told = whole_job(&job);
        for events in [&told[..5], &told[5..], &told[..]] {
            let written = Writer { fleet: &fleet, job: &job }.take(events, true).await.unwrap();
            show(&fleet, &written.recorded).await;
        }
        assert_eq!(*notes.0.lock().unwrap(), [format!("talk acme completed true {START_MS} {START_MS}")]);
    }

    async fn asked_for_again(site: &Site, fleet: Fleet) -> Delivery {
        let job = id("talk");
        let partition = (0..EVENT_PARTITIONS).find(|n| Queue::Events(*n) == Queue::events_of("talk")).unwrap();
        let started = [event(&job, Fact::JobAccepted), event(&job, Fact::JobStarted)];
        Writer { fleet: &fleet, job: &job }.take(&started, false).await.unwrap();
        let mut sweeper = Sweeper::new(fleet, &settings(), partition);
        sweeper.sweep(START_MS).await;
        sweeper.sweep(START_MS + 3_600_000).await;
        site.broker.consume(Queue::Work(Class::Cpu, Lane::Normal), 1).await.unwrap().next().await.unwrap()
    }

    #[tokio::test]
    async fn what_is_asked_for_again_is_in_the_trace_that_its_customer_began_or_in_the_jobs_own() {
        for begun in [customer(), None] {
            let site = Site::new();
            traced(&site, begun).await;
            let fleet = Fleet { observer: Arc::new(Notes::default()), ..site.fleet.clone() };
            assert_eq!(asked_for_again(&site, fleet).await.trace, Some(TraceContext::of_job("talk", begun)));
        }
    }

    #[tokio::test]
    async fn where_nothing_is_recorded_a_customers_trace_is_handed_on_and_none_is_made() {
        for begun in [customer(), None] {
            let site = Site::new();
            traced(&site, begun).await;
            assert_eq!(asked_for_again(&site, site.fleet.clone()).await.trace, begun);
        }
    }
}
