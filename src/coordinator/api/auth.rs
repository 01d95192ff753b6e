//! Who asks: a tenant by its access key, an operator by its own, or, where nobody has a key, whoever is on this machine.

use super::operator::Operator;
use super::problem::Problem;
use super::state::Api;
use crate::coordinator::ops::Scope;
use crate::tenant::{LOCAL, Tenants};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::SocketAddr;

/// Paths that answer everybody, besides those that nothing stands before at all.
const PUBLIC: [&str; 2] = ["/readyz", "/openapi.json"];
/// Longest credentials, bytes.
const MAX_CREDENTIALS_BYTES: usize = 8 * 1024;
/// Places at which a bearer token may be cut into id and secret: both may hold dots.
const MOST_CUTS: usize = 8;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Tenant(String),
    Operator,
    /// Nobody has credentials, and this is somebody on the coordinator's own machine: its one tenant, and its operator.
    Local,
}

impl Caller {
    /// Whose jobs this one may see and touch.
    pub fn scope(&self) -> Scope<'_> {
        match self {
            Caller::Tenant(name) => Scope::Tenant(name),
            Caller::Operator => Scope::All,
            Caller::Local => Scope::Tenant(LOCAL),
        }
    }

    /// The tenant to work for; an operator must name it.
    ///
    /// # Errors
    /// An operator named none, or a tenant another one.
    pub fn tenant<'a>(&'a self, named: Option<&'a str>) -> Result<&'a str, Problem> {
        match (self.scope(), named) {
            (Scope::Tenant(own), None) => Ok(own),
            (Scope::Tenant(own), Some(named)) if named == own => Ok(own),
            (Scope::Tenant(_), Some(_)) => Err(Problem::forbidden("the tenant is not yours")),
            (Scope::All, Some(named)) => Ok(named),
            (Scope::All, None) => Err(Problem::parameter("tenant", "is missing; an operator names one")),
        }
    }

    /// # Errors
    /// It is no operator.
    pub fn must_operate(&self) -> Result<(), Problem> {
        match self {
            Caller::Operator | Caller::Local => Ok(()),
            Caller::Tenant(_) => Err(Problem::forbidden("only an operator may do this")),
        }
    }
}

/// Finds out who asks, and lets nobody else through.
pub(super) async fn identify(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    if PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Extension<Peer>>().map(|peer| peer.0).or(request.extensions().get::<Peer>().copied());
    match caller(&api, peer, request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn caller(api: &Api, peer: Option<Peer>, headers: &HeaderMap) -> Result<Caller, Problem> {
    let tenants = &api.fleet.tenants;
    if !has_credentials(tenants, api.operator.as_deref()) {
        return local(peer, headers);
    }
    let wrong = || Problem::unauthorized("send your access key: Basic <id>:<secret>, or Bearer <id>.<secret>");
    let header = headers.get(header::AUTHORIZATION).ok_or_else(wrong)?;
    let header = header.to_str().ok().filter(|text| text.len() <= MAX_CREDENTIALS_BYTES).ok_or_else(wrong)?;
    let (scheme, token) = header.trim().split_once(' ').ok_or_else(wrong)?;
    let pairs = pairs(scheme, token.trim()).ok_or_else(wrong)?;
    let known = pairs.iter().find_map(|(id, secret)| {
        let operator = api.operator.as_ref().filter(|operator| operator.is(id, secret)).map(|_| Caller::Operator);
        operator.or_else(|| tenants.authenticate(id, secret).map(|tenant| Caller::Tenant(tenant.name.clone())))
    });
    known.ok_or_else(|| Problem::unauthorized("there is no such access key, or its secret is another one"))
}

/// Does anybody have a key? Without, the coordinator may listen on its own machine only.
pub(in crate::coordinator) fn has_credentials(tenants: &Tenants, operator: Option<&Operator>) -> bool {
    operator.is_some() || tenants.have_credentials() || tenants.get(LOCAL).is_none()
}

/// Without keys whoever reaches the coordinator from its own machine is let in, but no web page that such a person looks
/// at: a page cannot leave out `Origin`, nor give another `Host` than the name it was loaded by.
fn local(peer: Option<Peer>, headers: &HeaderMap) -> Result<Caller, Problem> {
    let is_own = |text: &str| {
        let host = text.rsplit_once("://").map_or(text, |(_, host)| host);
        let name =
            host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
        matches!(name, "localhost" | "127.0.0.1" | "[::1]")
    };
    let is_near = peer.is_some_and(|Peer(address)| address.ip().to_canonical().is_loopback());
    let is_meant = |name| headers.get(name).is_none_or(|value| value.to_str().is_ok_and(is_own));
    if is_near && is_meant(header::HOST) && is_meant(header::ORIGIN) {
        return Ok(Caller::Local);
    }
    Err(Problem::forbidden("no tenant has an access key, so only programs on the coordinator's own machine are answered"))
}

/// Id and secret, in every way in which the token can be read.
fn pairs(scheme: &str, token: &str) -> Option<Vec<(String, Vec<u8>)>> {
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(token).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let id = String::from_utf8(decoded[..colon].to_vec()).ok()?;
        return Some(vec![(id, decoded[colon + 1..].to_vec())]);
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        let cut = |(at, _)| (token[..at].to_string(), token.as_bytes()[at + 1..].to_vec());
        return Some(token.match_indices('.').take(MOST_CUTS).map(cut).collect());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_two_forms() {
        let pair = |id: &str, secret: &str| (id.to_string(), secret.as_bytes().to_vec());
        assert_eq!(pairs("Basic", &STANDARD.encode("ak:s:1")), Some(vec![pair("ak", "s:1")]));
        assert_eq!(pairs("bearer", "a.k.s"), Some(vec![pair("a", "k.s"), pair("a.k", "s")]));
        assert_eq!((pairs("Basic", "%%"), pairs("Digest", "x")), (None, None));
        assert_eq!(pairs("Basic", &STANDARD.encode("no colon")), None);
    }

    #[test]
    fn without_keys_only_programs_on_this_machine_are_let_in() {
        let peer = |address: &str| Some(Peer(address.parse().unwrap()));
        let from = |peer, pairs: &[(header::HeaderName, &str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            local(peer, &headers).is_ok()
        };
        let near = peer("127.0.0.1:5000");
        assert!(from(near, &[(header::HOST, "127.0.0.1:8480")]) && from(near, &[(header::HOST, "localhost")]));
        assert!(from(peer("[::ffff:127.0.0.1]:1"), &[(header::HOST, "[::1]:8480")]));
        assert!(!from(peer("10.0.0.7:5000"), &[(header::HOST, "127.0.0.1:8480")]));
        assert!(!from(near, &[(header::HOST, "rebound.example:8480")]), "a name that was bound to this machine");
        assert!(!from(near, &[(header::HOST, "localhost:8480"), (header::ORIGIN, "https://evil.example")]));
        assert!(!from(None, &[]));
    }
}
