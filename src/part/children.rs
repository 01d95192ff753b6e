//! Who runs the tasks that touch media bytes.

use crate::sandbox::protocol::{Limits, Task};
use crate::sandbox::{Finished, InputSource, RangeRead, Sandbox};
use crate::store::{Concatenated, RangedSource};
use async_trait::async_trait;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;

/// Something a running child is to be ended for.
pub type StopFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the tasks that touch media bytes.
#[async_trait]
pub trait Children: Send + Sync {
    /// Runs one task to its end, whichever it is. The files it makes are in `scratch`.
    async fn run(
        &self,
        task: Task,
        inputs: Vec<InputSource>,
        limits: &Limits,
        scratch: &Path,
        on_progress: &mut (dyn FnMut(u64) + Send),
        stop: StopFuture,
    ) -> Finished;
}

/// Runs them as jailed processes.
pub struct JailedChildren(pub Sandbox);

#[async_trait]
impl Children for JailedChildren {
    async fn run(
        &self,
        task: Task,
        inputs: Vec<InputSource>,
        limits: &Limits,
        scratch: &Path,
        on_progress: &mut (dyn FnMut(u64) + Send),
        stop: StopFuture,
    ) -> Finished {
        self.0.run(task, inputs, limits.clone(), scratch, on_progress, stop).await
    }
}

#[async_trait]
impl RangeRead for RangedSource {
    fn bytes(&self) -> u64 {
        RangedSource::bytes(self)
    }

    async fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        RangedSource::read(self, offset, bytes).await
    }
}

#[async_trait]
impl RangeRead for Concatenated {
    fn bytes(&self) -> u64 {
        Concatenated::bytes(self)
    }

    async fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        Concatenated::read(self, offset, bytes).await
    }
}
