//! A source on the web, read by ranges.
//!
//! Not through the object layer of the other stores: a customer's URL may be a signed one, whose query must reach the
//! server as it is and which answers to GET only; and a server that answers a range with the whole file must be
//! noticed, or the wrong bytes would be transcoded.

use super::StoreError;
use super::guard::{Guard, Refused, refusal};
use super::source::SourceIdentity;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::sync::Semaphore;
use url::Url;

/// One store of the web.
#[derive(Clone)]
pub(super) struct Web {
    guard: Guard,
    client: reqwest::Client,
    permits: Arc<Semaphore>,
    timeout: Duration,
    io_timeout: Duration,
}

/// Why bytes were not had, and may it be better the next time?
#[derive(Debug)]
pub(super) struct WebError {
    pub temporary: bool,
    pub missing: bool,
    pub reason: String,
}

impl WebError {
    fn permanent(reason: impl Into<String>) -> Self {
        Self { temporary: false, missing: false, reason: reason.into() }
    }

    pub fn of(self, path: &str) -> StoreError {
        let (path, reason) = (path.to_string(), self.reason);
        match (self.missing, self.temporary) {
            (true, _) => StoreError::Missing(path),
            (_, true) => StoreError::Failed { path, reason },
            (_, false) => StoreError::Denied { path, reason },
        }
    }
}

impl From<Refused> for WebError {
    fn from(refused: Refused) -> Self {
        Self::permanent(refused.to_string())
    }
}

impl From<reqwest::Error> for WebError {
    fn from(error: reqwest::Error) -> Self {
        if let Some(refused) = refusal(&error) {
            return refused.clone().into();
        }
        // Without the URL: its query may be a signature.
        let error = error.without_url();
        Self { temporary: true, missing: false, reason: super::scrub::chain(&error) }
    }
}

/// An object of the web that was found.
pub(super) struct WebObject {
    web: Web,
    url: Url,
    identity: SourceIdentity,
}

impl Web {
    pub fn new(guard: Guard, concurrency: usize, timeout: Duration, io_timeout: Duration) -> reqwest::Result<Self> {
        let client = guard.client()?;
        Ok(Self { guard, client, permits: Arc::new(Semaphore::new(concurrency)), timeout, io_timeout })
    }

    /// May this URL be asked at all?
    pub fn admits(&self, url: &Url) -> Result<(), Refused> {
        self.guard.admits(url)
    }

    /// Asks for one byte: a signed URL answers to nothing but GET.
    pub async fn find(&self, url: &Url) -> Result<WebObject, WebError> {
        let response = tokio::time::timeout(self.timeout, self.get(url, 0, 1, None)).await;
        let response = response.map_err(|_| self.late(self.timeout))??;
        let bytes = match response.status() {
            // An empty file has no first byte (RFC 9110 14.4).
            StatusCode::RANGE_NOT_SATISFIABLE if whole(response.headers()) == Some(0) => 0,
            StatusCode::PARTIAL_CONTENT => {
                whole(response.headers()).ok_or_else(|| WebError::permanent("the server does not tell the size of the file"))?
            }
            StatusCode::OK => return Err(WebError::permanent("the server does not serve ranges of the file")),
            status => return Err(refused(status)),
        };
        let identity = identity(bytes, response.headers());
        Ok(WebObject { web: self.clone(), url: url.clone(), identity })
    }

    async fn get(&self, url: &Url, start: u64, end: u64, same: Option<&str>) -> Result<Response, WebError> {
        self.guard.admits(url)?;
        let range = format!("bytes={start}-{}", end - 1);
        let mut request = self.client.get(url.clone()).header(RANGE, range);
        if let Some(etag) = same {
            request = request.header(IF_RANGE, etag);
        }
        Ok(request.send().await?)
    }

    fn late(&self, after: Duration) -> WebError {
        let reason = format!("no answer within {} s", after.as_secs());
        WebError { temporary: true, missing: false, reason }
    }
}

impl WebObject {
    pub fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    /// The bytes from `start` to `end`: these, and of the file that was found.
    pub async fn read(&self, start: u64, end: u64) -> Result<Vec<u8>, WebError> {
        let _permit = self.web.permits.acquire().await.map_err(|e| WebError::permanent(e.to_string()))?;
        let read = tokio::time::timeout(self.web.io_timeout, self.fetch(start, end)).await;
        read.unwrap_or_else(|_| Err(self.web.late(self.web.io_timeout)))
    }

    async fn fetch(&self, start: u64, end: u64) -> Result<Vec<u8>, WebError> {
        let changed = || WebError::permanent("the file changed while it was being read");
        let mut response = self.web.get(&self.url, start, end, self.identity.etag.as_deref()).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PRECONDITION_FAILED => return Err(changed()),
            status => return Err(refused(status)),
        }
        let now = identity(whole(response.headers()).unwrap_or_default(), response.headers());
        if now != self.identity || first(response.headers()) != Some(start) {
            return Err(changed());
        }
        let bytes = (end - start) as usize;
        let mut body = Vec::with_capacity(bytes);
        while let Some(piece) = response.chunk().await? {
            if body.len() + piece.len() > bytes {
                return Err(WebError::permanent("the server sent more bytes than it was asked for"));
            }
            body.extend_from_slice(&piece);
        }
        if body.len() < bytes {
            let reason = format!("{} of {bytes} bytes came", body.len());
            return Err(WebError { temporary: true, missing: false, reason });
        }
        Ok(body)
    }
}

fn refused(status: StatusCode) -> WebError {
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    WebError {
        temporary: status.is_server_error() || again.contains(&status),
        missing: matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE),
        reason: format!("the server answered {status}"),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &reqwest::header::HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The size of the whole file: `bytes 0-0/1234` (RFC 9110 14.4).
fn whole(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_RANGE)?.strip_prefix("bytes ")?.rsplit_once('/')?.1.parse().ok()
}

fn first(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn identity(bytes: u64, headers: &HeaderMap) -> SourceIdentity {
    let modified = text(headers, &LAST_MODIFIED).and_then(|t| OffsetDateTime::parse(&t.replace("GMT", "+0000"), &Rfc2822).ok());
    let modified_ms = modified.map_or(0, |t| t.unix_timestamp().saturating_mul(1000));
    // A weak ETag promises no equal bytes (RFC 9110 8.8.1).
    let etag = text(headers, &ETAG).filter(|e| e.starts_with('"')).map(str::to_string);
    SourceIdentity { bytes, modified_ms, etag }
}
