//! Objects: a folder or a bucket, by typed keys. Nothing half-written is ever visible.
//!
//! A [`Store`] is one place; [`Stores`] are those of the configuration, and what a job's URIs resolve to.

mod blame;
pub mod cache;
mod check;
pub mod config;
mod guard;
pub mod key;
mod list;
mod open;
mod scrub;
pub mod source;
mod stores;
pub mod upload;
mod uri;
mod watch;
mod web;

use crate::observe::{self, Observer};
use blame::Blame;
use cache::BlockCache;
use futures::TryStreamExt;
use key::Key;
use opendal::{ErrorKind, Operator, services};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use upload::Proofs;

// The layer that tests put around a store.
pub use check::Finding;
pub use config::{SettingError, StoresConfig, WorkConfig};
pub use list::Listed;
#[cfg(test)]
pub(crate) use opendal::layers::{ConcurrentLimitLayer, ConcurrentLimitSemaphore};
pub use source::{Concatenated, LocalFile, RangedSource, SourceIdentity};
pub use stores::{SourceRef, Stores};

/// Bytes read or written at once when a file is hashed or uploaded.
const PIECE_BYTES: usize = 1024 * 1024;
/// Largest JSON document read into memory, bytes: a plan of ten hours has a tenth of it.
pub const MAX_DOCUMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Why a store did not do it. Each names the object.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}: no such object")]
    Missing(String),
    /// Configuration or permissions: trying again will not help.
    #[error("{path}: {reason}")]
    Denied { path: String, reason: String },
    /// A document that is not what its key says.
    #[error("{path}: {reason}")]
    Malformed { path: String, reason: String },
    /// Anything that may be better the next time.
    #[error("{path}: {reason}")]
    Failed { path: String, reason: String },
}

impl StoreError {
    /// May the same call succeed later?
    pub fn is_temporary(&self) -> bool {
        matches!(self, StoreError::Failed { .. })
    }

    fn of(path: &str, error: &opendal::Error) -> Self {
        let (path, reason) = (path.to_string(), scrub::reason(error));
        match error.kind() {
            ErrorKind::NotFound => StoreError::Missing(path),
            ErrorKind::PermissionDenied
            | ErrorKind::ConfigInvalid
            | ErrorKind::Unsupported
            | ErrorKind::ConditionNotMatch
            | ErrorKind::RangeNotSatisfied => StoreError::Denied { path, reason },
            _ => StoreError::Failed { path, reason },
        }
    }

    fn io(path: &Path, error: &std::io::Error) -> Self {
        let (path, reason) = (path.display().to_string(), error.to_string());
        match error.kind() {
            std::io::ErrorKind::NotFound => StoreError::Missing(path),
            std::io::ErrorKind::PermissionDenied => StoreError::Denied { path, reason },
            _ => StoreError::Failed { path, reason },
        }
    }
}

/// Size and digest of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// One folder or bucket, or what lies under one prefix of it. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    /// As in the configuration; empty for a folder of the one-process mode.
    name: Arc<str>,
    operator: Operator,
    /// For writers: without the layer that would go on with one that erred.
    writing: Operator,
    /// Empty, or ends with a slash.
    prefix: Arc<str>,
    proofs: Proofs,
    /// Blocks of our own objects.
    cache: Arc<BlockCache>,
    observer: Arc<dyn Observer>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("name", &self.name).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Store {
    /// A folder of this machine. Objects are written in `temporary`, which must be on the same file system, and
    /// renamed to their place when they are whole and on the disk.
    ///
    /// # Errors
    /// One of the folders cannot be made or used.
    pub fn folder(root: &Path, temporary: &Path) -> Result<Self, StoreError> {
        let text = |path: &Path| {
            path.to_str().map(str::to_string).ok_or_else(|| StoreError::Denied {
                path: path.display().to_string(),
                reason: "the folder's name is not UTF-8".into(),
            })
        };
        for path in [root, temporary] {
            std::fs::create_dir_all(path).map_err(|e| StoreError::io(path, &e))?;
        }
        let builder = services::Fs::default().root(&text(root)?).atomic_write_dir(&text(temporary)?);
        let operator = Operator::new(builder).map_err(|e| StoreError::of(&root.display().to_string(), &e))?;
        Ok(Self::of("", operator.clone(), operator, Proofs::default()))
    }

    fn of(name: &str, operator: Operator, writing: Operator, proofs: Proofs) -> Self {
        let (cache, observer) = (Arc::default(), observe::nobody());
        Self { name: name.into(), operator, writing, prefix: "".into(), proofs, cache, observer }
    }

    /// The same store with a layer around everything it does: faults, in tests.
    #[cfg(test)]
    pub(crate) fn layered(self, layer: impl opendal::raw::Layer + Clone) -> Self {
        let operator = self.operator.layer(layer.clone());
        Self { operator, writing: self.writing.layer(layer), ..self }
    }

    /// What lies under `prefix` (without slashes at its ends) as a store of its own.
    fn under(&self, prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { prefix: format!("{}{prefix}", self.prefix).into(), ..self.clone() }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// A failure, with what the operator of a named store can do about it.
    fn error(&self, path: &str, error: &opendal::Error) -> StoreError {
        let (name, path, reason) = (&self.name, path.to_string(), scrub::reason(error));
        let hint = match blame::of(error) {
            Some(_) if name.is_empty() => None,
            Some(Blame::Credentials) => Some(format!("check the credentials in stores.{name}, and what they are allowed to do")),
            Some(Blame::Place) => Some(self.place_hint()),
            None => None,
        };
        if let Some(hint) = hint {
            return StoreError::Denied { path, reason: format!("store '{name}': {reason}; {hint}") };
        }
        match StoreError::of(&path, error) {
            StoreError::Denied { path, reason } if !name.is_empty() => {
                StoreError::Denied { path, reason: format!("store '{name}': {reason}") }
            }
            StoreError::Failed { path, reason } if !name.is_empty() => {
                StoreError::Failed { path, reason: format!("store '{name}': {reason}") }
            }
            other => other,
        }
    }

    /// A failure of what needs nothing but the place to be there: listing, and writing. In a bucket "not found" means that
    /// there is no such bucket then, not that it is empty.
    fn error_of_place(&self, path: &str, error: &opendal::Error) -> StoreError {
        match self.error(path, error) {
            StoreError::Missing(path) if blame::lost_upload(error) => {
                StoreError::Failed { path, reason: format!("store '{}': {}", self.name, scrub::reason(error)) }
            }
            StoreError::Missing(path) if !self.is_folder() => {
                let reason = format!("store '{}': {}; {}", self.name, scrub::reason(error), self.place_hint());
                StoreError::Denied { path, reason }
            }
            other => other,
        }
    }

    fn place_hint(&self) -> String {
        format!("check {} in stores.{}", blame::places(self.operator.info().scheme()), self.name)
    }

    /// Is it a folder of a file system, not a bucket?
    fn is_folder(&self) -> bool {
        self.operator.info().scheme() == "fs"
    }

    /// A small object, whole.
    ///
    /// # Errors
    /// It is missing, larger than [`MAX_DOCUMENT_BYTES`], or cannot be read.
    pub async fn get(&self, key: &Key) -> Result<Vec<u8>, StoreError> {
        let body = self.watched("get", self.fetch(key)).await?;
        self.observer.store_read(body.len() as u64);
        Ok(body)
    }

    async fn fetch(&self, key: &Key) -> Result<Vec<u8>, StoreError> {
        let wrong = |e: opendal::Error| self.error(key.path(), &e);
        // One request: the size is counted while it comes, not asked for before.
        let reader = self.operator.reader(&self.at(key.path())).await.map_err(wrong)?;
        let mut pieces = reader.into_stream(..).await.map_err(wrong)?;
        let mut body = Vec::new();
        while let Some(piece) = pieces.try_next().await.map_err(wrong)? {
            if (body.len() + piece.len()) as u64 > MAX_DOCUMENT_BYTES {
                let reason = format!("has more than {MAX_DOCUMENT_BYTES} bytes, and is no document of ours");
                return Err(StoreError::Malformed { path: key.path().into(), reason });
            }
            body.extend_from_slice(&piece.to_bytes());
        }
        Ok(body)
    }

    /// A JSON document; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not a `T`.
    pub async fn get_json<T: serde::de::DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        let body = match self.get(key).await {
            Err(StoreError::Missing(_)) => return Ok(None),
            body => body?,
        };
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|e| StoreError::Malformed { path: key.path().into(), reason: e.to_string() })
    }

    /// Size in bytes; `None` when there is no such object.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        Ok(self.stat(key.path()).await?.map(|meta| meta.content_length()))
    }

    async fn stat(&self, path: &str) -> Result<Option<opendal::Metadata>, StoreError> {
        let asked = async {
            match self.operator.stat(&self.at(path)).await {
                Ok(meta) if meta.is_file() => Ok(Some(meta)),
                Ok(_) => Ok(None),
                Err(e) if e.kind() == ErrorKind::NotFound && blame::of(&e).is_none() => Ok(None),
                Err(e) => Err(self.error(path, &e)),
            }
        };
        self.watched("stat", asked).await
    }

    async fn identity(&self, path: &str) -> Result<Option<SourceIdentity>, StoreError> {
        let Some(meta) = self.stat(path).await? else { return Ok(None) };
        let modified_ms = meta.last_modified().map_or(0, |t| t.into_inner().as_millisecond());
        let etag = meta.etag().filter(|etag| !etag.starts_with("W/")).map(str::to_string);
        Ok(Some(SourceIdentity { bytes: meta.content_length(), modified_ms, etag }))
    }

    /// Removes an object; one that is not there is fine.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.at(key.path());
        self.watched("delete", async { self.operator.delete(&path).await.map_err(|e| self.error(key.path(), &e)) }).await
    }

    /// An object to be read to its end by ranges.
    ///
    /// # Errors
    /// It is missing or cannot be asked for.
    pub async fn ranged(&self, key: &Key) -> Result<RangedSource, StoreError> {
        Ok(self.random_access(key).await?.whole())
    }

    /// An object of which a few places are read.
    ///
    /// # Errors
    /// It is missing or cannot be asked for.
    pub async fn random_access(&self, key: &Key) -> Result<RangedSource, StoreError> {
        let missing = || StoreError::Missing(key.path().into());
        let identity = self.identity(key.path()).await?.ok_or_else(missing)?;
        let (path, cache) = (self.at(key.path()), self.cache.clone());
        let source = RangedSource::of_object(&self.operator, path, key.path().into(), &identity, cache);
        Ok(source.observed_by(&self.observer))
    }
}

/// Size and digest of a file.
///
/// # Errors
/// It cannot be read.
pub async fn digest(file: PathBuf) -> Result<Digested, StoreError> {
    let name = file.clone();
    let task = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut input = std::fs::File::open(&file)?;
        let mut hash = Sha256::new();
        let (mut piece, mut bytes) = (vec![0; PIECE_BYTES], 0);
        loop {
            let n = input.read(&mut piece)?;
            if n == 0 {
                return Ok(Digested { bytes, sha256: hex::encode(hash.finalize()) });
            }
            hash.update(&piece[..n]);
            bytes += n as u64;
        }
    });
    let joined = task.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    joined.map_err(|e| StoreError::io(&name, &e))
}

#[cfg(test)]
mod tests;
