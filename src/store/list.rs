//! Many objects at once: listing in pages, and deleting a folder.

use super::{Store, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use opendal::ErrorKind;

/// Objects listed or deleted by one request.
const PAGE: usize = 1000;
/// Objects that are being deleted at a time, where each takes a request.
const DELETIONS: usize = 16;
/// Folder in the root of a store of files that holds what is being written.
pub(super) const TEMPORARY: &str = ".narrows";

/// One object of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Path in the store.
    pub path: String,
    pub bytes: u64,
}

impl Store {
    /// Paths of all objects under a folder (with its slash at the end), in no order.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.entries(folder, None, usize::MAX).await?.into_iter().map(|entry| entry.path).collect())
    }

    /// Paths of the first `limit` objects under a folder (with its slash at the end; empty for the whole store) in the order of
    /// their paths' bytes, after the path `start_after`, which need not exist. Fewer only at the end.
    ///
    /// A store of files has no order of its own and is listed whole for every page. Azure's has one, but cannot be entered in
    /// the middle: it is listed from the beginning up to the end of the page.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub async fn list_after(&self, folder: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        Ok(self.page(folder, start_after, limit).await?.into_iter().map(|entry| entry.path).collect())
    }

    async fn page(&self, folder: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        let most = if self.lists_in_order() { limit } else { usize::MAX };
        let mut found = self.entries(folder, start_after, most).await?;
        found.sort_unstable();
        found.truncate(limit);
        Ok(found)
    }

    fn is_azure(&self) -> bool {
        self.operator.info().scheme() == "azblob"
    }

    /// Does a list come in the order of the paths' bytes?
    fn lists_in_order(&self) -> bool {
        // Microsoft, "List Blobs": in alphabetical order, capital letters first.
        self.operator.info().capability().list_with_start_after || self.is_azure()
    }

    /// Objects of a folder after a path; the first `limit` of them where lists come in order.
    async fn entries(&self, folder: &str, after: Option<&str>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        self.watched("list", self.listed(folder, after, limit)).await
    }

    async fn listed(&self, folder: &str, after: Option<&str>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        debug_assert!(folder.is_empty() || folder.ends_with('/'), "a folder's path ends with a slash");
        let capability = self.operator.info().capability();
        let path = self.at(folder);
        let path = if path.is_empty() { "/" } else { path.as_str() };
        let mut list = self.operator.lister_with(path).recursive(true);
        if capability.list_with_limit {
            list = list.limit(limit.min(PAGE));
        } else if self.is_azure() {
            // The object layer passes it on, though it does not say so. What comes before the page is listed, too.
            list = list.limit(if after.is_none() { limit.min(PAGE) } else { PAGE });
        }
        if let Some(after) = after.filter(|_| capability.list_with_start_after) {
            list = list.start_after(&self.at(after));
        }
        let wrong = |e: opendal::Error| self.error_of_place(folder, &e);
        // A folder that nobody has written to is not there; a bucket always is.
        let is_empty = |e: &opendal::Error| e.kind() == ErrorKind::NotFound && self.is_folder();
        let mut entries = match list.await {
            Err(e) if is_empty(&e) => return Ok(Vec::new()),
            entries => entries.map_err(wrong)?,
        };
        let mut found = Vec::new();
        while found.len() < limit {
            let entry = match entries.try_next().await {
                Err(e) if is_empty(&e) => break,
                entry => entry.map_err(wrong)?,
            };
            let Some(entry) = entry else { break };
            let Some(path) = entry.path().strip_prefix(&*self.prefix) else { continue };
            let is_after = after.is_none_or(|after| path > after);
            if is_after && entry.metadata().is_file() && !path.starts_with(TEMPORARY) {
                found.push(Listed { path: path.to_string(), bytes: entry.metadata().content_length() });
            }
        }
        Ok(found)
    }

    /// Many at once only where the object layer's batches hold: of those that it makes for Azure and Google each part lacks
    /// its query, in which a shared access signature is, and its empty line at the end.
    async fn delete_all(&self, paths: Vec<String>) -> opendal::Result<()> {
        if self.operator.info().scheme() == "s3" {
            return self.operator.delete_iter(paths).await;
        }
        let delete = |path: String| async move { self.operator.delete(&path).await };
        stream::iter(paths).map(delete).buffer_unordered(DELETIONS).try_for_each(|()| async { Ok(()) }).await
    }

    /// Deletes everything under a folder (with its slash at the end), and says what that was. Begun again after a
    /// failure, it goes on with the rest.
    ///
    /// # Errors
    /// The store cannot be asked, or refuses.
    pub async fn delete_under(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        debug_assert!(folder.ends_with('/'), "a folder's path ends with a slash");
        let most = if self.lists_in_order() { PAGE } else { usize::MAX };
        let mut deleted: Vec<Listed> = Vec::new();
        loop {
            // After the last one, not from the beginning: a store may list what it has just deleted.
            let after = deleted.last().map(|entry| entry.path.clone());
            let page = self.page(folder, after.as_deref(), most).await?;
            if page.is_empty() {
                break;
            }
            let paths: Vec<String> = page.iter().map(|entry| self.at(&entry.path)).collect();
            self.delete_all(paths).await.map_err(|e| self.error(folder, &e))?;
            deleted.extend(page);
        }
        if self.is_folder() {
            let folders = self.operator.delete_with(&self.at(folder)).recursive(true).await;
            folders.map_err(|e| self.error(folder, &e))?;
        }
        Ok(deleted)
    }
}
