//! What a child reads from.

use std::fs::File;
use std::io;
use std::sync::Arc;

/// Bytes of an object that is read by ranges.
#[async_trait::async_trait]
pub trait RangeRead: Send + Sync {
    /// Size of the object.
    fn bytes(&self) -> u64;
    /// Exactly `bytes` bytes from `offset`; the range lies within the object.
    async fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>>;
}

/// Where an input comes from.
#[derive(Clone)]
pub enum InputSource {
    /// A regular file; the child gets a read-only descriptor of its own.
    File(Arc<File>),
    /// Anything else; the child asks, the parent reads.
    Ranges(Arc<dyn RangeRead>),
}
