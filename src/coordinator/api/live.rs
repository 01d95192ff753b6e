//! One subscription to the topic of progress for all event streams of a coordinator.

use crate::broker::{Broker, Topic};
use crate::coordinator::write::Hint;
use crate::event::{Event, Fact};
use crate::job::JobId;
use crate::plan::marker::PartId;
use crate::shutdown::Stop;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// Messages that a slow stream may fall behind; then it looks into the bucket.
const BEHIND: usize = 1024;
/// Wait before the topic is subscribed to again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Something that was told live, and may be missed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Live {
    pub job: JobId,
    pub kind: LiveKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum LiveKind {
    /// A new event was recorded.
    Recorded,
    /// Frames of one part so far.
    Progress { part: PartId, frames: u64, at_ms: u64 },
}

/// Passes on what is told live. Clones are the same hub.
#[derive(Clone)]
pub(in crate::coordinator) struct Hub(broadcast::Sender<Arc<Live>>);

impl Hub {
    pub fn new() -> Self {
        Self(broadcast::channel(BEHIND).0)
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<Arc<Live>> {
        self.0.subscribe()
    }

    /// Listens to the topic until asked to stop.
    pub async fn run(self, broker: Arc<dyn Broker>, mut stop: Stop) {
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = self.pass_on(&*broker) => {}
            }
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(AGAIN_AFTER) => {}
            }
        }
    }

    async fn pass_on(&self, broker: &dyn Broker) {
        let mut topic = match broker.subscribe(Topic::Progress).await {
            Ok(topic) => topic,
            Err(error) => {
                tracing::warn!(%error, "live progress is not heard; event streams look into the bucket");
                return;
            }
        };
        while let Some(body) = topic.next().await {
            // Nobody may be listening, which is no error.
            let _ = read(&body).map(|live| self.0.send(Arc::new(live)));
        }
    }
}

fn read(body: &[u8]) -> Option<Live> {
    if let Ok(hint) = serde_json::from_slice::<Hint>(body) {
        return Some(Live { job: hint.recorded, kind: LiveKind::Recorded });
    }
    let event: Event = serde_json::from_slice(body).ok()?;
    let Fact::Progress { part, frames } = event.fact else { return None };
    Some(Live { job: event.job, kind: LiveKind::Progress { part, frames, at_ms: event.at_ms } })
}
