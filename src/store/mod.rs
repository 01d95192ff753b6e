//! Objects: a folder or a bucket, by typed keys. Nothing half-written is ever visible.

pub mod key;
pub mod source;

use key::Key;
use opendal::{ErrorKind, Operator, services};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use source::{Concatenated, LocalFile, RangedSource};

/// Bytes read or written at once when a file is hashed or uploaded.
const PIECE_BYTES: usize = 1024 * 1024;
/// How often a write is tried from the beginning before its error is given up to the caller.
const WRITE_TRIES: u32 = 3;
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
        let (path, reason) = (path.to_string(), error.to_string());
        match error.kind() {
            ErrorKind::NotFound => StoreError::Missing(path),
            ErrorKind::PermissionDenied | ErrorKind::ConfigInvalid | ErrorKind::Unsupported => {
                StoreError::Denied { path, reason }
            }
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

/// One folder or bucket. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    operator: Operator,
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
        Ok(Self { operator })
    }

    /// Writes an object and checks that the store has all of it.
    ///
    /// # Errors
    /// After three tries; the object is then absent, or whole from an earlier time.
    pub async fn put(&self, key: &Key, body: Vec<u8>) -> Result<(), StoreError> {
        let body = opendal::Buffer::from(body);
        let mut tries = 1;
        loop {
            match self.put_once(key, body.clone()).await {
                Err(e) if e.is_temporary() && tries < WRITE_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    async fn put_once(&self, key: &Key, body: opendal::Buffer) -> Result<(), StoreError> {
        let bytes = body.len() as u64;
        let mut writer = self.writer(key).await?;
        let written = match writer.write(body).await {
            Ok(()) => writer.close().await.map(|_| ()),
            Err(e) => Err(e),
        };
        self.finish(key, writer, written, bytes).await
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
        let mut tries = 1;
        loop {
            match self.put_file_once(key, file).await {
                Err(e) if e.is_temporary() && tries < WRITE_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    async fn put_file_once(&self, key: &Key, file: &Path) -> Result<(), StoreError> {
        use tokio::io::AsyncReadExt;
        let unreadable = |e: std::io::Error| StoreError::io(file, &e);
        let mut input = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let mut writer = self.writer(key).await?;
        let mut bytes = 0;
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
                Ok(n) => bytes += n as u64,
            }
            if let Err(e) = writer.write(piece).await {
                break Err(e);
            }
        };
        self.finish(key, writer, written, bytes).await
    }

    async fn writer(&self, key: &Key) -> Result<opendal::Writer, StoreError> {
        let capability = self.operator.info().capability();
        let mut write = self.operator.writer_with(key.path()).concurrent(1);
        if capability.write_with_content_type {
            write = write.content_type(key.content_type());
        }
        if capability.write_with_cache_control {
            write = write.cache_control(key.cache_control());
        }
        write.await.map_err(|e| StoreError::of(key.path(), &e))
    }

    /// A writer that erred is aborted, never continued: a second `close` may lie. Only the store's own word on the
    /// size counts.
    async fn finish(
        &self,
        key: &Key,
        mut writer: opendal::Writer,
        written: opendal::Result<()>,
        bytes: u64,
    ) -> Result<(), StoreError> {
        if let Err(e) = written {
            let _ = writer.abort().await;
            return Err(StoreError::of(key.path(), &e));
        }
        match self.size(key).await? {
            Some(there) if there == bytes => Ok(()),
            there => Err(StoreError::Failed {
                path: key.path().into(),
                reason: format!("wrote {bytes} bytes, but the store has {}", there.map_or("none".into(), |n| n.to_string())),
            }),
        }
    }

    /// A small object, whole.
    ///
    /// # Errors
    /// It is missing, larger than [`MAX_DOCUMENT_BYTES`], or cannot be read.
    pub async fn get(&self, key: &Key) -> Result<Vec<u8>, StoreError> {
        let bytes = self.size(key).await?.ok_or_else(|| StoreError::Missing(key.path().into()))?;
        if bytes > MAX_DOCUMENT_BYTES {
            let reason = format!("{bytes} bytes; a document has at most {MAX_DOCUMENT_BYTES}");
            return Err(StoreError::Malformed { path: key.path().into(), reason });
        }
        let body = self.operator.read(key.path()).await.map_err(|e| StoreError::of(key.path(), &e))?;
        Ok(body.to_vec())
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
        match self.operator.stat(key.path()).await {
            Ok(meta) if meta.is_file() => Ok(Some(meta.content_length())),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::of(key.path(), &e)),
        }
    }

    /// Paths of all objects under a folder (with its slash at the end), in no order.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        debug_assert!(folder.ends_with('/'), "a folder's path ends with a slash");
        let entries = match self.operator.list_with(folder).recursive(true).await {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| StoreError::of(folder, &e))?,
        };
        Ok(entries.into_iter().filter(|e| e.metadata().is_file()).map(|e| e.path().to_string()).collect())
    }

    /// Removes an object; one that is not there is fine.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.operator.delete(key.path()).await.map_err(|e| StoreError::of(key.path(), &e))
    }

    /// An object to be read by ranges.
    ///
    /// # Errors
    /// It is missing or cannot be asked for.
    pub async fn ranged(&self, key: &Key) -> Result<RangedSource, StoreError> {
        let bytes = self.size(key).await?.ok_or_else(|| StoreError::Missing(key.path().into()))?;
        RangedSource::open(&self.operator, key.path(), bytes).await
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

/// The stores a worker may use. A job's URIs resolve to these and to nothing else.
#[derive(Clone)]
pub struct Stores {
    work: Store,
    outputs: Arc<BTreeMap<String, Store>>,
    sources: Arc<BTreeMap<String, PathBuf>>,
}

impl Stores {
    /// Only a work store.
    pub fn new(work: Store) -> Self {
        Self { work, outputs: Arc::default(), sources: Arc::default() }
    }

    /// Lets jobs write to `uri`.
    pub fn with_output(mut self, uri: &str, store: Store) -> Self {
        Arc::make_mut(&mut self.outputs).insert(uri.to_string(), store);
        self
    }

    /// Lets jobs read `uri`, a file of this machine.
    pub fn with_source(mut self, uri: &str, path: PathBuf) -> Self {
        Arc::make_mut(&mut self.sources).insert(uri.to_string(), path);
        self
    }

    /// Where jobs, plans and markers are.
    pub fn work(&self) -> &Store {
        &self.work
    }

    /// The store behind a job's output URI.
    ///
    /// # Errors
    /// No configured store answers to it.
    pub fn output(&self, uri: &str) -> Result<Store, StoreError> {
        self.outputs.get(uri).cloned().ok_or_else(|| unknown(uri))
    }

    /// The file behind a job's input URI.
    ///
    /// # Errors
    /// No configured store answers to it, or the file cannot be opened.
    pub fn source_file(&self, uri: &str) -> Result<LocalFile, StoreError> {
        let path = self.sources.get(uri).ok_or_else(|| unknown(uri))?;
        LocalFile::open(path).map_err(|e| StoreError::io(path, &e))
    }

    /// The object behind a job's input URI, to be read by ranges.
    ///
    /// # Errors
    /// No configured store answers to it, or the object cannot be opened.
    pub async fn source_ranges(&self, uri: &str) -> Result<RangedSource, StoreError> {
        let path = self.sources.get(uri).ok_or_else(|| unknown(uri))?;
        source::of_file(path).await
    }
}

fn unknown(uri: &str) -> StoreError {
    StoreError::Denied { path: uri.into(), reason: "no configured store answers to this URI".into() }
}

#[cfg(test)]
mod tests;
