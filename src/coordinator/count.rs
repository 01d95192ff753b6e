//! What was recorded of jobs, said to whoever counts.
//!
//! An event is counted by who recorded it. What a dead coordinator recorded is not counted again by who takes over.

use crate::event::{Recorded, RenditionMedia, rfc3339};
use crate::observe::{JobEnd, Observer, Playable};
use std::time::Duration;

/// Counts new events.
pub(super) fn recorded(observer: &dyn Observer, events: &[Recorded]) {
    for event in events {
        observer.recorded(&event.kind);
        if event.kind == "rendition.completed" {
            playable(observer, event);
        }
        // A rejection is no end of a job; but nothing follows it, either.
        if let Some(state) = event.status.state.filter(|state| state.is_terminal()) {
            let usage = event.status.usage.as_ref();
            observer.job_ended(&JobEnd { state: state.name(), took: since_acceptance(event), usage });
        }
    }
}

fn playable(observer: &dyn Observer, event: &Recorded) {
    if let ([_], Some(after)) = (event.status.renditions.as_slice(), since_acceptance(event)) {
        observer.first_playable(after);
    }
    let media = event.data.get("media").cloned().and_then(|media| serde_json::from_value::<RenditionMedia>(media).ok());
    if let Some(RenditionMedia { codecs, height, duration_ms, bytes, .. }) = media {
        observer.playable(&Playable { codecs: &codecs, height, bytes, media_s: duration_ms as f64 / 1000.0 });
    }
}

/// From the job's acceptance to this event, by the clocks of whoever told of the two.
fn since_acceptance(event: &Recorded) -> Option<Duration> {
    let accepted = event.status.accepted_at.as_deref().and_then(rfc3339::parse)?;
    Some(Duration::from_millis(rfc3339::parse(&event.at)?.saturating_sub(accepted)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::fixture::{Site, id, whole_job};
    use crate::coordinator::write::Writer;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Notes {
        fn write(&self, note: String) {
            self.0.lock().unwrap().push(note);
        }
    }

    impl Observer for Notes {
        fn recorded(&self, kind: &str) {
            self.write(kind.into());
        }

        fn first_playable(&self, _after: Duration) {
            self.write("first playable".into());
        }

        fn job_ended(&self, end: &JobEnd<'_>) {
            self.write(format!("{} {} {}", end.state, end.took.is_some(), end.usage.is_some()));
        }
    }

    #[tokio::test]
    async fn a_job_is_counted_once_however_often_its_facts_are_told() {
        let (site, notes, job) = (Site::new(), Notes::default(), id("talk"));
        site.accept("talk").await;
        for _ in 0..2 {
            let written = Writer { fleet: &site.fleet, job: &job }.take(&whole_job(&job), true).await.unwrap();
            recorded(&notes, &written.recorded);
        }
        let notes = notes.0.into_inner().unwrap();
        let times = |note: &str| notes.iter().filter(|n| *n == note).count();
        assert_eq!((times("job.accepted"), times("first playable"), times("completed true true")), (1, 1, 1), "{notes:?}");
    }
}
