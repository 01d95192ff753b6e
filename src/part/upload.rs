//! The files a child made, taken to where they belong under names that hold their content.
//!
//! What the child says of its files is not trusted: a name must lead to a regular file in its own scratch folder, and
//! the sizes must be the files' own.

use super::error::PartError;
use super::scratch::Scratch;
use super::tools::{Planned, Tools};
use crate::observe::Observer;
use crate::plan::marker::Object;
use crate::sandbox::protocol::{InitSegment, Segment};
use crate::store::key::{Key, content_named};
use crate::store::{Store, digest};
use crate::trace::{Begun, Parent, SpanRole, TraceContext};
use futures::{StreamExt, TryStreamExt, stream};
use std::path::PathBuf;
use std::sync::Arc;

/// Files of one part that are uploaded at once.
const UPLOADS_AT_ONCE: usize = 4;

/// Where a job's media goes: to the customer where a playlist names it, else to the work store until it has become a
/// progressive file.
pub(super) struct MediaPlace {
    store: Store,
    intermediate: bool,
    observer: Arc<dyn Observer>,
    trace: Option<TraceContext>,
}

impl MediaPlace {
    pub fn of(tools: &Tools, planned: &Planned) -> Result<Self, PartError> {
        let packaging = &planned.plan.packaging;
        let intermediate = !packaging.hls && !packaging.dash;
        let store = if intermediate { tools.stores.work().clone() } else { tools.output(&planned.accepted)? };
        Ok(Self { store, intermediate, observer: tools.observer.clone(), trace: tools.span.context() })
    }

    /// Is the media of no use once the job is done?
    pub fn is_intermediate(&self) -> bool {
        self.intermediate
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The key of an object named by its path in a marker.
    pub fn key(&self, planned: &Planned, path: &str) -> Result<Key, PartError> {
        let key = if self.intermediate { Key::intermediate(planned.id(), path) } else { Key::output(path) };
        key.map_err(|e| PartError::Crash(e.to_string()))
    }
}

/// Uploads the segments of one rendition and puts their paths where the file names were.
pub(super) async fn rendition(
    place: &MediaPlace,
    planned: &Planned,
    scratch: &Scratch,
    name: &str,
    init: &mut InitSegment,
    segments: &mut [Segment],
) -> Result<Vec<Object>, PartError> {
    let begun = Begun::now("upload", "", SpanRole::Client, Parent::Sender(place.trace), planned.id().as_str());
    let span = place.observer.span(&begun);
    span.note("rendition", name);
    let header = (format!("{name}/init.mp4"), init.file.clone(), init.bytes);
    let media = segments.iter().map(|s| (format!("{name}/{:05}.m4s", s.index), s.file.clone(), s.bytes));
    let files: Vec<_> = std::iter::once(header).chain(media).collect();
    let uploads = files.into_iter().map(|(path, file, bytes)| one(place, planned, scratch, path, file, bytes));
    let uploaded: Result<Vec<Object>, PartError> = stream::iter(uploads).buffered(UPLOADS_AT_ONCE).try_collect().await;
    let objects = uploaded.inspect_err(|_| span.fail())?;
    span.note("bytes", objects.iter().map(|object| object.bytes).sum::<u64>());
    init.file.clone_from(&objects[0].path);
    for (segment, object) in segments.iter_mut().zip(&objects[1..]) {
        segment.file.clone_from(&object.path);
    }
    Ok(objects)
}

async fn one(
    place: &MediaPlace,
    planned: &Planned,
    scratch: &Scratch,
    path: String,
    file: String,
    bytes: u64,
) -> Result<Object, PartError> {
    let file = inside(scratch, &file)?;
    let digested = digest(file.clone()).await?;
    if digested.bytes != bytes {
        let found = digested.bytes;
        return Err(PartError::Crash(format!("{}: the child said {bytes} bytes, there are {found}", file.display())));
    }
    let object = Object { path: content_named(&path, &digested.sha256), bytes, sha256: digested.sha256 };
    let key = place.key(planned, &object.path)?;
    // The name holds the content: what is there already is this.
    if place.store.size(&key).await? != Some(bytes) {
        place.store.put_file(&key, &file).await?;
    }
    Ok(object)
}

/// The file of that name, if it is one in the child's own folder.
pub(super) fn inside(scratch: &Scratch, name: &str) -> Result<PathBuf, PartError> {
    let wrong = |why: String| PartError::Crash(format!("the child named a file '{name}': {why}"));
    let path = scratch.path().join(name);
    let meta = std::fs::symlink_metadata(&path).map_err(|e| wrong(e.to_string()))?;
    let real = path.canonicalize().map_err(|e| wrong(e.to_string()))?;
    if !meta.is_file() || !real.starts_with(scratch.path()) {
        return Err(wrong("it is no regular file in its scratch folder".into()));
    }
    Ok(real)
}
