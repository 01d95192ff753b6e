//! Where a callback may go. A customer names the host, and must not reach with it what only we can reach.
//!
//! The rules, each tested: the URL is one of ours to call (https unless allowed, no user information, no port of another
//! service); its name is resolved once; every address it has must be public or allowed by configuration; the connection is
//! made to those very addresses, so a name that changes its mind in between changes nothing. Redirects are not followed
//! ([`super::deliver`]). Spellings of addresses (octal, hexadecimal, decimal, a trailing dot, full-width digits) need no
//! rule of their own: what is checked and what is connected to is the address that the URL standard reads in them.

use crate::address;
use async_trait::async_trait;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use url::{Host, Url};

/// Longest callback URL, bytes.
pub const LONGEST_URL: usize = 2048;
/// Addresses of one name that are considered; a name with more is refused.
const MOST_ADDRESSES: usize = 32;
/// Ports of services that are not HTTP and could be misused by a request (Fetch Standard, "port blocking").
const BLOCKED_PORTS: [u16; 83] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111,
    113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554,
    556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666,
    6667, 6668, 6669, 6679, 6697, 10080,
];

/// What the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Plain `http` too.
    pub allow_http: bool,
    /// Networks that may be called although they are not public.
    pub allow: Vec<IpNet>,
}

/// Why a callback does not go there. Names the host at most: the rest of a URL may hold a customer's secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("is no absolute URL: {0}")]
    NotAUrl(String),
    #[error("has {0} bytes; at most {LONGEST_URL} are allowed")]
    TooLong(usize),
    #[error("begins with '{0}:'; callbacks go to https")]
    Scheme(String),
    #[error("holds a user name or password; put a secret into the path or check the signature instead")]
    UserInformation,
    #[error("names port {0}, which belongs to another service than HTTP")]
    Port(u16),
    #[error("the host {0} has no address: {1}")]
    NoAddress(String, String),
    #[error("the host {0} has more than {MOST_ADDRESSES} addresses")]
    TooManyAddresses(String),
    #[error("the host {host} is at {address}, which is not public: {why}")]
    NotPublic { host: String, address: IpAddr, why: &'static str },
}

impl Policy {
    /// Is this URL one that may be called, as far as it can be told without asking anybody?
    ///
    /// # Errors
    /// Says what to change.
    pub fn check(&self, url: &str) -> Result<Url, Refused> {
        if url.len() > LONGEST_URL {
            return Err(Refused::TooLong(url.len()));
        }
        let url = Url::parse(url).map_err(|e| Refused::NotAUrl(e.to_string()))?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            other => return Err(Refused::Scheme(other.to_string())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::UserInformation);
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if BLOCKED_PORTS.binary_search(&port).is_ok() {
            return Err(Refused::Port(port));
        }
        if let Some(address) = literal(&url) {
            self.admit(&url, address)?;
        }
        Ok(url)
    }

    /// The addresses to connect to: all that the host has, each of them admitted. One that is not refuses the host, or
    /// the choice between them would be an attacker's.
    ///
    /// # Errors
    /// The name cannot be resolved, or leads to a place that is not public.
    pub async fn resolve(&self, url: &Url, resolver: &dyn Resolver) -> Result<Vec<SocketAddr>, Refused> {
        let host = host(url);
        let found = match literal(url) {
            Some(address) => vec![address],
            None => resolver.resolve(&host).await.map_err(|e| Refused::NoAddress(host.clone(), e.to_string()))?,
        };
        if found.is_empty() {
            return Err(Refused::NoAddress(host, "the name is there, but has none".into()));
        }
        if found.len() > MOST_ADDRESSES {
            return Err(Refused::TooManyAddresses(host));
        }
        found.iter().try_for_each(|address| self.admit(url, *address))?;
        let port = url.port_or_known_default().unwrap_or_default();
        Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    fn admit(&self, url: &Url, address: IpAddr) -> Result<(), Refused> {
        match address::why_not_public(address) {
            Some(why) if !self.allow.iter().any(|network| network.contains(&address)) => {
                Err(Refused::NotPublic { host: host(url), address, why })
            }
            _ => Ok(()),
        }
    }
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_string()
}

/// The address that a URL names instead of a host.
fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// Who knows the addresses of names.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// # Errors
    /// There is no such name, or nobody who knows can be asked.
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        let mut found: Vec<IpAddr> = tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect();
        found.dedup();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Book(Vec<IpAddr>);

    #[async_trait]
    impl Resolver for Book {
        async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
            Ok(self.0.clone())
        }
    }

    fn strict() -> Policy {
        Policy::default()
    }

    fn plain() -> Policy {
        Policy { allow_http: true, allow: Vec::new() }
    }

    fn is_private(result: Result<Url, Refused>) -> bool {
        matches!(result, Err(Refused::NotPublic { .. }))
    }

    #[test]
    fn blocked_ports_are_sorted_as_the_search_needs_them() {
        assert!(BLOCKED_PORTS.is_sorted());
        for port in [22, 25, 6667] {
            assert_eq!(strict().check(&format!("https://example.com:{port}/")), Err(Refused::Port(port)));
        }
        for port in [443, 8443, 8080, 3000] {
            assert!(strict().check(&format!("https://example.com:{port}/")).is_ok());
        }
    }

    #[test]
    fn only_https_is_called_unless_http_is_allowed() {
        assert_eq!(strict().check("http://example.com/"), Err(Refused::Scheme("http".into())));
        assert!(plain().check("http://example.com/").is_ok());
        for url in ["ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)", "data:,x"] {
            assert!(matches!(plain().check(url), Err(Refused::Scheme(_))), "{url}");
        }
        for url in
            ["", "example.com", "//example.com/", "https://", "https:///", "https://[::1", "https://a b/", "https://a:99999/"]
        {
            assert!(strict().check(url).is_err(), "{url}");
        }
        let long = format!("https://example.com/{}", "a".repeat(LONGEST_URL));
        assert!(matches!(strict().check(&long), Err(Refused::TooLong(_))));
    }

    #[test]
    fn names_and_passwords_in_a_url_are_refused_and_not_repeated() {
        for url in ["https://user@example.com/", "https://user:hunter2@example.com/", "https://:hunter2@example.com/"] {
            let refused = strict().check(url).unwrap_err();
            assert_eq!(refused, Refused::UserInformation);
            assert!(!refused.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn every_spelling_of_an_inner_address_is_that_address() {
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://017700000001/",
            "https://127.0.0.1./",
            "https://127.0.0.1.:8443/",
            "https://0/",
            "https://１２７.0.0.1/",
            "https://127。0。0。1/",
            "https://%31%32%37.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[0:0:0:0:0:0:0:1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://169.254.169.254/latest/meta-data/",
            "https://0xa9fea9fe/",
            "https://[fd00:ec2::254]/",
            "https://10.0.0.1/",
            "https://100.64.0.1/",
            "https://[fe80::1]/",
        ] {
            assert!(is_private(strict().check(url)), "{url}: {:?}", strict().check(url));
        }
        assert!(strict().check("https://1.1.1.1/").is_ok());
        assert!(strict().check("https://[2606:4700:4700::1111]/").is_ok());
    }

    #[test]
    fn allowed_networks_are_allowed_and_only_those() {
        let policy = Policy { allow_http: false, allow: vec!["10.1.0.0/16".parse().unwrap()] };
        assert!(policy.check("https://10.1.2.3/").is_ok());
        assert!(is_private(policy.check("https://10.2.0.1/")));
        assert!(is_private(policy.check("https://[::ffff:10.1.2.3]/")));
    }

    #[tokio::test]
    async fn one_inner_address_among_public_ones_refuses_the_name() {
        let addresses = |texts: &[&str]| Book(texts.iter().map(|t| t.parse().unwrap()).collect());
        let url = strict().check("https://hooks.example.com:8443/x?y").unwrap();
        let good = strict().resolve(&url, &addresses(&["93.184.216.34", "2606:4700::1"])).await.unwrap();
        assert_eq!(good, ["93.184.216.34:8443".parse().unwrap(), "[2606:4700::1]:8443".parse().unwrap()]);
        let refused = strict().resolve(&url, &addresses(&["93.184.216.34", "10.0.0.7"])).await.unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("hooks.example.com") && said.contains("10.0.0.7") && said.contains("RFC 1918"), "{said}");
        assert!(matches!(strict().resolve(&url, &addresses(&[])).await, Err(Refused::NoAddress(..))));
        let many = Book(vec!["93.184.216.34".parse().unwrap(); 33]);
        assert!(matches!(strict().resolve(&url, &many).await, Err(Refused::TooManyAddresses(_))));
    }

    #[tokio::test]
    async fn an_address_in_the_url_is_never_looked_up() {
        let url = strict().check("https://1.1.1.1/").unwrap();
        let liar = Book(vec!["10.0.0.1".parse().unwrap()]);
        assert_eq!(strict().resolve(&url, &liar).await.unwrap(), ["1.1.1.1:443".parse().unwrap()]);
    }

    #[tokio::test]
    async fn localhost_is_found_to_be_inside_by_its_address() {
        for url in ["https://localhost/", "https://LOCALHOST./", "https://ⓛocalhost/"] {
            let url = strict().check(url).unwrap();
            let refused = strict().resolve(&url, &SystemResolver).await.unwrap_err();
            assert!(matches!(refused, Refused::NotPublic { .. } | Refused::NoAddress(..)), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_checked_is_inside(text in "https?://[a-z0-9.\\[\\]:@x%]{1,24}(:[0-9]{1,5})?/") {
            if let Ok(url) = strict().check(&text) {
                prop_assert_eq!(url.scheme(), "https");
                prop_assert!(literal(&url).is_none_or(address::is_public), "{}", url);
            }
        }

        #[test]
        fn every_number_is_judged_as_the_address_it_is(bits: u32) {
            let address = IpAddr::from(bits.to_be_bytes());
            for text in [format!("https://{bits}/"), format!("https://{bits:#x}/"), format!("https://0{bits:o}/")] {
                prop_assert_eq!(strict().check(&text).is_ok(), address::is_public(address), "{}", text);
            }
        }
    }
}
