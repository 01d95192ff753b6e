//! The request to stop, and its phases.
//!
//! Every wait in the program also listens to a [`Stop`]: nothing has to be interrupted, everything looks up.

use tokio::sync::watch;

/// How urgently everything is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nobody asked.
    #[default]
    Running,
    /// Stop children, hand deliveries back, leave.
    Stopping,
    /// Asked a second time: leave at once.
    AtOnce,
}

/// Holds the power to stop; dropping it leaves every [`Stop`] running for ever.
pub struct Stopper(watch::Sender<Phase>);

/// Listens for the request to stop. Clones listen to the same request.
#[derive(Clone)]
pub struct Stop(watch::Receiver<Phase>);

/// A new pair.
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Asks to stop; asked again, asks to stop at once.
    pub fn stop(&self) {
        self.0.send_modify(|phase| *phase = if *phase == Phase::Running { Phase::Stopping } else { Phase::AtOnce });
    }

    /// A further listener.
    pub fn listener(&self) -> Stop {
        Stop(self.0.subscribe())
    }
}

impl Stop {
    /// Has anybody asked?
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() > Phase::Running
    }

    /// Ends when somebody asks.
    pub async fn requested(&mut self) {
        self.reached(Phase::Stopping).await;
    }

    /// Ends when somebody asks a second time.
    pub async fn at_once(&mut self) {
        self.reached(Phase::AtOnce).await;
    }

    async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|now| *now >= phase).await.is_err() {
            // The stopper is gone, so nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    /// The exit code by which a shell knows that this signal ended the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

/// The signals of this process as a stream; from the first call on they no longer end it by themselves.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// # Errors
    /// The operating system would not take the handlers.
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_listener_hears_the_first_request_and_the_second() {
        let (stopper, mut early) = channel();
        assert!(!early.is_requested());
        stopper.stop();
        early.requested().await;
        let mut late = stopper.listener();
        late.requested().await;
        assert!(late.is_requested());
        stopper.stop();
        late.at_once().await;
    }
}
