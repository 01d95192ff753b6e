//! Objects on their way into a store. A writer that erred is aborted and the object begun again, never continued; and what
//! counts is the store's own word: its size, and its digest where it has one.

use super::key::Key;
use super::{PIECE_BYTES, Store, StoreError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};
use opendal::{Buffer, Metadata};
use std::path::Path;
use std::time::Duration;

/// How often a write is tried from the beginning before its error is given up to the caller.
const WRITE_TRIES: u32 = 3;
/// Wait before the second try; the third waits twice as long. Jittered.
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// Bytes of one piece of an object that is too long to be sent at once. What is shorter is one request.
pub const CHUNK_BYTES: u64 = 8 * 1024 * 1024;
/// Pieces of one object; S3 takes 10,000.
const MAX_CHUNKS: u64 = 9_000;

/// What a store proves about an upload beside its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proofs {
    /// Long objects are sent in pieces of [`CHUNK_BYTES`].
    pub chunked: bool,
    /// The ETag of an object sent at once is its MD5.
    pub etag_is_md5: bool,
}

/// Trying from the beginning, until waiting would not help.
struct Again {
    tries: u32,
    wait: Duration,
}

impl Again {
    fn new() -> Self {
        Self { tries: 1, wait: FIRST_WAIT }
    }

    /// Waits, unless this was the last try.
    async fn after(&mut self, error: &StoreError) -> bool {
        if !error.is_temporary() || self.tries >= WRITE_TRIES {
            return false;
        }
        tracing::debug!(%error, tries = self.tries, "write begun again");
        tokio::time::sleep(self.wait.mul_f64(rand::random_range(0.5..1.0))).await;
        (self.tries, self.wait) = (self.tries + 1, self.wait * 2);
        true
    }
}

/// What was sent.
struct Sent {
    bytes: u64,
    md5: Md5,
    /// In one request.
    at_once: bool,
}

impl Store {
    /// Writes an object and checks that the store has all of it.
    ///
    /// # Errors
    /// After three tries; the object is then absent, or whole from an earlier time.
    pub async fn put(&self, key: &Key, body: Vec<u8>) -> Result<(), StoreError> {
        let body = Buffer::from(body);
        let mut again = Again::new();
        loop {
            match self.watched("put", self.put_once(key, body.clone())).await {
                Err(e) if again.after(&e).await => {}
                result => return result,
            }
        }
    }

    /// Writes a JSON document.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put_json<T: serde::Serialize>(&self, key: &Key, value: &T) -> Result<(), StoreError> {
        let malformed = |e: serde_json::Error| StoreError::Malformed { path: key.path().into(), reason: e.to_string() };
        self.put(key, serde_json::to_vec(value).map_err(malformed)?).await
    }

    /// Uploads a file and checks that the store has all of it.
    ///
    /// # Errors
    /// As [`Store::put`]; also when the file cannot be read.
    pub async fn put_file(&self, key: &Key, file: &Path) -> Result<(), StoreError> {
        let mut again = Again::new();
        loop {
            match self.watched("upload", self.put_file_once(key, file)).await {
                Err(e) if again.after(&e).await => {}
                result => return result,
            }
        }
    }

    async fn put_once(&self, key: &Key, body: Buffer) -> Result<(), StoreError> {
        let mut sent = self.sending(body.len() as u64);
        let mut writer = self.writer(key, sent.bytes).await?;
        if self.proofs.etag_is_md5 {
            body.clone().for_each(|piece| sent.md5.update(piece));
        }
        let written = match writer.write(body).await {
            Ok(()) => writer.close().await.map(|_| ()),
            Err(e) => Err(e),
        };
        self.finish(key, writer, written, sent).await
    }

    async fn put_file_once(&self, key: &Key, file: &Path) -> Result<(), StoreError> {
        use tokio::io::AsyncReadExt;
        let unreadable = |e: std::io::Error| StoreError::io(file, &e);
        let mut input = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let size = input.metadata().await.map_err(unreadable)?.len();
        let mut sent = self.sending(size);
        sent.bytes = 0;
        let mut writer = self.writer(key, size).await?;
        let written = loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let read = (&mut input).take(PIECE_BYTES as u64).read_to_end(&mut piece).await;
            match read {
                Err(e) => {
                    // Aborting is cleaning up; the error that matters is the file's.
                    let _ = writer.abort().await;
                    return Err(unreadable(e));
                }
                Ok(0) => break writer.close().await.map(|_| ()),
                Ok(n) => sent.bytes += n as u64,
            }
            if self.proofs.etag_is_md5 {
                sent.md5.update(&piece);
            }
            if let Err(e) = writer.write(piece).await {
                break Err(e);
            }
        };
        self.finish(key, writer, written, sent).await
    }

    fn sending(&self, bytes: u64) -> Sent {
        Sent { bytes, md5: Md5::new(), at_once: !self.proofs.chunked || bytes <= CHUNK_BYTES }
    }

    pub(super) async fn writer(&self, key: &Key, bytes: u64) -> Result<opendal::Writer, StoreError> {
        let capability = self.writing.info().capability();
        let path = self.at(key.path());
        let mut write = self.writing.writer_with(&path).concurrent(1);
        if self.proofs.chunked {
            let least = bytes.div_ceil(MAX_CHUNKS).next_multiple_of(1024 * 1024);
            write = write.chunk(least.max(CHUNK_BYTES) as usize);
        }
        if capability.write_with_content_type {
            write = write.content_type(key.content_type());
        }
        if capability.write_with_cache_control {
            write = write.cache_control(key.cache_control());
        }
        write.await.map_err(|e| self.error_of_place(key.path(), &e))
    }

    /// A writer that erred is aborted, never continued: a second `close` may lie.
    async fn finish(
        &self,
        key: &Key,
        mut writer: opendal::Writer,
        written: opendal::Result<()>,
        sent: Sent,
    ) -> Result<(), StoreError> {
        if let Err(e) = written {
            let _ = writer.abort().await;
            return Err(self.error_of_place(key.path(), &e));
        }
        // It holds one of the store's permits; the question below needs one, too.
        drop(writer);
        let failed = |reason: String| Err(StoreError::Failed { path: key.path().into(), reason });
        let Some(there) = self.stat(key.path()).await? else {
            return failed(format!("wrote {} bytes, but the store has none", sent.bytes));
        };
        if there.content_length() != sent.bytes {
            return failed(format!("wrote {} bytes, but the store has {}", sent.bytes, there.content_length()));
        }
        let bytes = sent.bytes;
        match self.mismatch(&there, sent) {
            None => {
                self.observer.store_written(bytes);
                Ok(())
            }
            Some((ours, theirs)) => {
                let hint = match &*self.name {
                    "" => String::new(),
                    name => format!("; where the bucket is encrypted with KMS, set stores.{name}.etag_is_md5 = false"),
                };
                failed(format!("wrote content of MD5 {ours}, but the store has {theirs}{hint}"))
            }
        }
    }

    /// Our MD5 and the store's, where it tells one and they differ.
    fn mismatch(&self, there: &Metadata, sent: Sent) -> Option<(String, String)> {
        if !self.proofs.etag_is_md5 || !sent.at_once {
            return None;
        }
        let ours = hex::encode(sent.md5.finalize());
        // A store that has no digest of an object may say so with an empty one.
        let of_content = there.content_md5().filter(|md5| !md5.is_empty());
        let of_content = of_content.and_then(|md5| BASE64_STANDARD.decode(md5).ok()).map(hex::encode);
        let of_etag = || {
            let etag = there.etag()?.trim_matches('"').to_ascii_lowercase();
            (etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_hexdigit())).then_some(etag)
        };
        let theirs = of_content.or_else(of_etag)?;
        (ours != theirs).then_some((ours, theirs))
    }
}
