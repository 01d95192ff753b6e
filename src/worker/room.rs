//! How full the scratch folder is, said now and then to whoever counts.

use crate::observe::Observer;
use crate::part::scratch::ScratchFolder;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often it is looked at: a walk through a few hundred files.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks for as long as it is polled.
pub(super) async fn watch(folder: ScratchFolder, observer: Arc<dyn Observer>) {
    let mut pace = tokio::time::interval(LOOK_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let folder = folder.clone();
        match tokio::task::spawn_blocking(move || folder.fill()).await {
            Ok(Ok((used_bytes, free_bytes))) => observer.scratch(used_bytes, free_bytes),
            Ok(Err(error)) => tracing::debug!(%error, "the scratch folder could not be looked at"),
            Err(error) => tracing::debug!(%error, "the scratch folder was not looked at"),
        }
    }
}
