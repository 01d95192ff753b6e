//! What the service manager is told: ready, alive, leaving (sd_notify(3)). Where there is none, nobody is told.

use sd_notify::NotifyState;
use std::time::Duration;

/// So many words fit into the time after which the service manager gives a silent service up: two may be late.
const WORDS_A_PERIOD: u32 = 3;
/// The longest time between two words.
const EVERY: Duration = Duration::from_secs(10);

/// How a role gets on.
pub(super) struct Said {
    /// False: it hangs, and only another start helps.
    pub is_alive: bool,
    /// What it does, in a few words.
    pub status: String,
}

/// From now on it does its work.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It was asked to stop, and is leaving.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says again and again how a role gets on, for as long as it is waited for. What hangs is not said to be alive, and then the
/// service manager starts it again; nor is anything said where the runtime itself hangs.
pub(super) async fn keep_telling(look: impl Fn() -> Said) {
    let every = sd_notify::watchdog_enabled().map_or(EVERY, |patience| EVERY.min(patience / WORDS_A_PERIOD));
    let mut clock = tokio::time::interval(every);
    let mut was_alive = true;
    loop {
        clock.tick().await;
        let said = look();
        if was_alive && !said.is_alive {
            tracing::error!(said.status, "it hangs; the service manager is no longer told that it is alive");
        }
        was_alive = said.is_alive;
        tell(&words(&said));
    }
}

/// What hangs is not said to be alive.
fn words(said: &Said) -> Vec<NotifyState<'_>> {
    let alive = said.is_alive.then_some(NotifyState::Watchdog);
    [NotifyState::Status(&said.status)].into_iter().chain(alive).collect()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_not_said_to_be_alive() {
        let words = |is_alive| {
            let said = Said { is_alive, status: "working, 2 open".into() };
            words(&said).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(words(true), ["STATUS=working, 2 open", "WATCHDOG=1"]);
        assert_eq!(words(false), ["STATUS=working, 2 open"]);
    }
}
