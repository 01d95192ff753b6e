//! One request, with every limit named.

use super::guard::{Policy, Refused, Resolver};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the rest of an answer is read whose status is known. It decides nothing; it lets the receiver finish.
const LONGEST_DRAIN: Duration = Duration::from_secs(1);
/// Headers of an answer, at most.
const MOST_HEADERS: usize = 64;
/// Longest `Retry-After` that is looked at, bytes: the longest form of a date has 33.
const LONGEST_RETRY_AFTER: usize = 64;
/// Longest reason of a failure that is kept, characters.
const LONGEST_REASON: usize = 256;
const USER_AGENT: &str = concat!("narrows/", env!("CARGO_PKG_VERSION"));

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// As the customer wrote it.
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
}

/// Why nothing came back. No URL is named: it may hold a customer's secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    #[error("the callback URL {0}")]
    Refused(#[from] Refused),
    #[error("no answer within {0} s")]
    TimedOut(u64),
    #[error("no connection: {0}")]
    NoConnection(String),
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Limits of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From looking up the name to the answer's headers.
    pub timeout_s: u64,
    /// Of an answer's body, all of which is thrown away.
    pub response_bytes: u64,
}

/// Sends letters. Each has a connection of its own, to the addresses that were checked for it: a connection that were
/// kept for the next letter would have been admitted under another one's policy.
pub struct Deliverer {
    tls: ClientConfig,
    resolver: Arc<dyn Resolver>,
    limits: Limits,
}

impl Deliverer {
    /// Trusts the authorities of the operating system, and those of a PEM file.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate.
    pub fn new(resolver: Arc<dyn Resolver>, limits: Limits, authorities: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if let Some(path) = authorities {
            let wrong = |reason: String| format!("{}: {reason}", path.display());
            let certificates = CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))?;
            let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|e| wrong(e.to_string()))?;
            if certificates.is_empty() || roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(wrong("holds no certificate in PEM form".into()));
            }
        }
        if roots.is_empty() {
            tracing::warn!(
                "this machine trusts no certificate authority: every callback to https will fail; install ca-certificates"
            );
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS cannot be set up: {e}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls, resolver, limits })
    }

    /// Sends one letter, and waits for its answer.
    ///
    /// # Errors
    /// There was no answer, for a reason that may be gone the next time.
    pub async fn send(&self, policy: &Policy, letter: Letter) -> Result<Answer, Undelivered> {
        let deadline = Instant::now() + Duration::from_secs(self.limits.timeout_s);
        let late = || Undelivered::TimedOut(self.limits.timeout_s);
        let url = policy.check(&letter.url)?;
        let resolved = timeout_at(deadline, policy.resolve(&url, &*self.resolver)).await;
        let addresses = resolved.map_err(|_| late())??;
        let client = self.client(addresses).map_err(|e| Undelivered::NoConnection(reason(&e.without_url())))?;
        let mut request = client.post(url).body(letter.body);
        for (name, value) in &letter.headers {
            let value = HeaderValue::from_str(value).map_err(|_| Undelivered::Broken(format!("{name} is no header")))?;
            request = request.header(HeaderName::from_static(name), value);
        }
        let sent = timeout_at(deadline, request.send()).await.map_err(|_| late())?;
        let response = sent.map_err(|e| match e {
            e if e.is_connect() => Undelivered::NoConnection(reason(&e.without_url())),
            e => Undelivered::Broken(reason(&e.without_url())),
        })?;
        let wish = response.headers().get("retry-after").filter(|v| v.len() <= LONGEST_RETRY_AFTER);
        let answer =
            Answer { status: response.status().as_u16(), retry_after: wish.and_then(|v| v.to_str().ok()).map(str::to_string) };
        let _ = timeout_at(deadline.min(Instant::now() + LONGEST_DRAIN), drain(response, self.limits.response_bytes)).await;
        Ok(answer)
    }

    /// A client that can reach these addresses and nothing else, whatever name it is asked for.
    fn client(&self, addresses: Vec<SocketAddr>) -> reqwest::Result<reqwest::Client> {
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(Checked(addresses))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .http1_max_headers(MOST_HEADERS)
            .pool_max_idle_per_host(0)
            .user_agent(USER_AGENT)
            .build()
    }
}

/// Reads the rest of an answer, up to its limit.
async fn drain(mut response: reqwest::Response, limit: u64) {
    let mut read = 0_u64;
    while let Ok(Some(piece)) = response.chunk().await {
        read += piece.len() as u64;
        if read > limit {
            break;
        }
    }
}

/// The innermost cause. The outer ones repeat the URL.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().chars().take(LONGEST_REASON).collect()
}

struct Checked(Vec<SocketAddr>);

impl Resolve for Checked {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}
