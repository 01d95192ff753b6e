//! Which servers a source may be read from. A job's URL is a customer's text, and the worker stands inside the
//! operator's network: only hosts of the configuration, only public addresses.
//!
//! A name is resolved once, by [`Guard`] itself, and the connection goes to one of the addresses that were checked: a
//! second answer of the name server is never asked for. Redirects pass the same check, hop by hop.

use crate::address::is_public;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The hosts and networks of one store of the web.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Any host, if its address is admitted.
    pub any_host: bool,
    pub hosts: Vec<String>,
    /// Networks that are not public, but admitted.
    pub networks: Vec<IpNet>,
}

/// Why a server is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("'{0}' is no http or https URL")]
    Scheme(String),
    #[error("the host '{0}' is none of the store's hosts")]
    Host(String),
    #[error("{0} has no public address")]
    Address(String),
    #[error("a redirect leads from https to http")]
    Downgrade,
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
}

impl Guard {
    /// May this URL be asked? Of a host that is an address, the address is checked; a name's are when it is resolved.
    pub fn admits(&self, url: &Url) -> Result<(), Refused> {
        let host = match (url.scheme(), url.host()) {
            ("http" | "https", Some(host)) => host,
            _ => return Err(Refused::Scheme(url.scheme().into())),
        };
        let name = host.to_string();
        if !self.any_host && !self.hosts.iter().any(|pattern| matches_host(pattern, &name)) {
            return Err(Refused::Host(name));
        }
        let literal = match host {
            Host::Domain(_) => return Ok(()),
            Host::Ipv4(address) => IpAddr::V4(address),
            Host::Ipv6(address) => IpAddr::V6(address),
        };
        // An address needs no resolving, so the resolver would never see it.
        if self.admits_address(literal) { Ok(()) } else { Err(Refused::Address(name)) }
    }

    fn admits_address(&self, address: IpAddr) -> bool {
        is_public(address) || self.networks.iter().any(|network| network.contains(&address))
    }

    /// A client that reaches nothing else.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn client(&self) -> reqwest::Result<reqwest::Client> {
        let guard = self.clone();
        let policy = redirect::Policy::custom(move |attempt| match guard.admits_redirect(&attempt) {
            Ok(()) => attempt.follow(),
            Err(refused) => attempt.error(refused),
        });
        // A proxy would resolve the names itself; compression would move the ranges.
        reqwest::Client::builder()
            .dns_resolver(Arc::new(self.clone()))
            .redirect(policy)
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT)
            .user_agent(concat!("narrows/", env!("CARGO_PKG_VERSION")))
            .build()
    }

    fn admits_redirect(&self, attempt: &redirect::Attempt<'_>) -> Result<(), Refused> {
        if attempt.previous().len() > MAX_REDIRECTS {
            return Err(Refused::Redirects);
        }
        let from = attempt.previous().last();
        if from.is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() == "http" {
            return Err(Refused::Downgrade);
        }
        self.admits(attempt.url())
    }

    async fn addresses(self, name: String) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
        let admitted: Vec<SocketAddr> = found.filter(|address| self.admits_address(address.ip())).collect();
        if admitted.is_empty() {
            return Err(Refused::Address(name).into());
        }
        Ok(admitted)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, name) = (self.clone(), name.as_str().to_string());
        Box::pin(async move {
            let addresses = guard.addresses(name).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The refusal somewhere below an error, if that is what it is.
pub(super) fn refusal<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Refused> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Some(refused);
        }
        next = error.source();
    }
    None
}

/// `media.example.com`, `*.example.com`, or an address.
pub(super) fn is_host_pattern(pattern: &str) -> bool {
    let host = pattern.strip_prefix("*.").unwrap_or(pattern);
    !host.contains('*') && Host::parse(host).is_ok_and(|parsed| parsed.to_string() == host.to_ascii_lowercase())
}

fn matches_host(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|sub| sub.len() > 1 && sub.ends_with('.')),
        None => host == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(hosts: &[&str], networks: &[&str]) -> Guard {
        Guard {
            any_host: hosts.is_empty(),
            hosts: hosts.iter().map(|h| (*h).to_string()).collect(),
            networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        }
    }

    fn admits(guard: &Guard, url: &str) -> Result<(), Refused> {
        guard.admits(&Url::parse(url).unwrap())
    }

    #[test]
    fn only_hosts_of_the_configuration_are_asked() {
        let guard = guard(&["media.example.com", "*.cdn.example.com"], &[]);
        for url in ["https://media.example.com/a", "http://MEDIA.example.com:8080/a", "https://eu.cdn.example.com/a"] {
            assert_eq!(admits(&guard, url), Ok(()), "{url}");
        }
        for host in ["example.com", "cdn.example.com", "evilcdn.example.com", "media.example.com.evil.net"] {
            let refused = Err(Refused::Host(host.into()));
            assert_eq!(admits(&guard, &format!("https://{host}/a")), refused);
        }
        assert_eq!(admits(&guard, "ftp://media.example.com/a"), Err(Refused::Scheme("ftp".into())));
    }

    #[test]
    fn an_address_written_in_any_way_is_checked_as_the_address_it_is() {
        let open = guard(&[], &[]);
        for host in ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "10.1.2.3", "169.254.169.254", "[::1]"] {
            let refused = admits(&open, &format!("http://{host}/latest/meta-data"));
            assert!(matches!(refused, Err(Refused::Address(_))), "{host}: {refused:?}");
        }
        for host in ["[::ffff:10.0.0.1]", "[fd00::1]", "[fe80::1]", "[64:ff9b::a00:1]", "0.0.0.0", "100.64.0.1"] {
            assert!(matches!(admits(&open, &format!("http://{host}/")), Err(Refused::Address(_))), "{host}");
        }
        assert_eq!(admits(&open, "http://93.184.215.14/a"), Ok(()));
        let inside = guard(&[], &["10.0.0.0/8"]);
        assert_eq!(admits(&inside, "http://10.1.2.3/a"), Ok(()));
        assert!(admits(&inside, "http://127.0.0.1/a").is_err());
    }

    #[tokio::test]
    async fn a_name_is_connected_to_only_where_its_checked_address_is() {
        let refused = guard(&[], &[]).addresses("localhost".into()).await.unwrap_err();
        assert_eq!(refused.downcast_ref::<Refused>(), Some(&Refused::Address("localhost".into())));
        let admitted = guard(&[], &["127.0.0.0/8"]).addresses("localhost".into()).await.unwrap();
        assert!(!admitted.is_empty() && admitted.iter().all(|a| a.ip() == IpAddr::from([127, 0, 0, 1])), "{admitted:?}");
    }

    #[test]
    fn host_patterns_are_hosts() {
        for good in ["media.example.com", "*.example.com", "localhost", "192.0.2.1"] {
            assert!(is_host_pattern(good), "{good}");
        }
        for bad in ["", "*", "http://a", "a/b", "a b", "*.*.com", "a:80"] {
            assert!(!is_host_pattern(bad), "{bad}");
        }
    }
}
