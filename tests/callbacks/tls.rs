//! https: only to a server that proves its name.

use super::certificates::Authority;
use super::receiver::Receiver;
use super::stage::{SECRET, Stage, endpoint, job};
use async_trait::async_trait;
use narrows::callback::cursor::Cursor;
use narrows::callback::guard::Resolver;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

struct Loopback;

#[async_trait]
impl Resolver for Loopback {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}

fn server(certificate: &PathBuf, key: &PathBuf) -> ServerConfig {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
}

async fn deliver(stage: &Stage, url: &str) -> Cursor {
    let (talk, hook) = (job("talk"), endpoint(url));
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 1).await;
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    let cursor = stage.cursor_when(&talk, &hook, |c| c.next_sequence == 2).await;
    running.stop().await;
    cursor
}

#[tokio::test]
async fn a_server_is_called_by_https_when_its_certificate_is_trusted_and_bears_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let (certificate, key) = authority.issue("receiver");
    let mut receiver = Receiver::start_secure(server(&certificate, &key)).await;
    let mut stage = Stage::new();
    stage.settings.schedule_s = vec![0];
    stage.settings.allow_http = false;
    let url = format!("https://127.0.0.1:{}/hook", receiver.port);

    let stranger = deliver(&stage, &url).await.last_failure.unwrap();
    assert!(stranger.starts_with("no connection: ") && stranger.contains("UnknownIssuer"), "{stranger}");

    stage.settings.ca_file = Some(authority.certificate.clone());
    stage.resolver = Arc::new(Loopback);
    let other = deliver(&stage, &format!("https://other.example.com:{}/hook", receiver.port)).await.last_failure.unwrap();
    assert!(other.starts_with("no connection: ") && other.contains("other.example.com"), "{other}");
    assert!(receiver.rest().is_empty(), "nothing was said to whom was not trusted");

    let cursor = deliver(&stage, &format!("{url}?trusted")).await;
    assert_eq!((cursor.delivered, cursor.last_failure), (1, None));
    let taken = receiver.next().await;
    standardwebhooks::Webhook::new(SECRET).unwrap().verify(&taken.body, &taken.headers).unwrap();
}

#[tokio::test]
async fn a_file_without_certificates_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("ca.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    let mut stage = Stage::new();
    for path in [empty, folder.path().join("none.pem")] {
        stage.settings.ca_file = Some(path.clone());
        let error = stage.tools().err().unwrap();
        assert!(error.starts_with("callbacks.ca_file: ") && error.contains(path.to_str().unwrap()), "{error}");
    }
}
