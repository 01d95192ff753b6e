//! Sources on the web: read by ranges, and only from where the configuration and the guard let them.

use crate::common::proxy::Background;
use crate::{noise, open};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use narrows::store::{StoreError, Stores};
use std::sync::{Arc, Mutex};

/// A server of files whose answers a test changes.
struct Site {
    _background: Background,
    port: u16,
    shared: Arc<Mutex<Shared>>,
    folder: tempfile::TempDir,
}

#[derive(Default)]
struct Shared {
    content: Vec<u8>,
    etag: String,
    /// Where `/moved` leads.
    moved_to: String,
    /// Answers that are 503 before the next good one.
    busy: u32,
    requests: Vec<String>,
}

impl Site {
    fn start(content: Vec<u8>) -> Self {
        let shared = Shared { content, etag: "\"one\"".into(), ..Shared::default() };
        let shared = Arc::new(Mutex::new(shared));
        let background = Background::new();
        let (listener, port) = background.listen();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        background.spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        let folder = tempfile::tempdir().unwrap();
        Self { _background: background, port, shared, folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn stores(&self, more: &str) -> Stores {
        let work = self.folder.path().display();
        let text = format!("[stores.work]\ntype = \"fs\"\nroot = \"{work}\"\n[stores.web]\ntype = \"http\"\n{more}");
        open(&text, &|_| None)
    }

    /// Stores that let this very server be asked.
    fn allowed(&self) -> Stores {
        self.stores("hosts = [\"127.0.0.1\", \"localhost\"]\nallow_networks = [\"127.0.0.0/8\"]\n")
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, request: Request<Body>) -> Response<Body> {
    let mut shared = shared.lock().unwrap();
    shared.requests.push(format!("{} {}", request.method(), request.uri()));
    let status = |status| Response::builder().status(status);
    if shared.busy > 0 {
        shared.busy -= 1;
        return status(StatusCode::SERVICE_UNAVAILABLE).body(Body::empty()).unwrap();
    }
    match request.uri().path() {
        "/moved" => status(StatusCode::FOUND).header(header::LOCATION, &shared.moved_to).body(Body::empty()).unwrap(),
        "/none" => status(StatusCode::NOT_FOUND).body(Body::from("no signature=hush")).unwrap(),
        "/whole" => status(StatusCode::OK).body(Body::from(shared.content.clone())).unwrap(),
        _ => ranged(&shared, request.headers()),
    }
}

fn ranged(shared: &Shared, headers: &HeaderMap) -> Response<Body> {
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let (from, to): (usize, usize) = asked.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())).unwrap();
    let other = headers.get(header::IF_RANGE).is_some_and(|etag| etag.to_str().unwrap() != shared.etag);
    let response = Response::builder().header(header::ETAG, &shared.etag);
    let size = shared.content.len();
    if other {
        return response.status(StatusCode::OK).body(Body::from(shared.content.clone())).unwrap();
    }
    if from >= size {
        let range = format!("bytes */{size}");
        return response.status(416).header(header::CONTENT_RANGE, range).body(Body::empty()).unwrap();
    }
    let to = to.min(size - 1);
    let response = response.status(StatusCode::PARTIAL_CONTENT);
    let range = format!("bytes {from}-{to}/{size}");
    response.header(header::CONTENT_RANGE, range).body(Body::from(shared.content[from..=to].to_vec())).unwrap()
}

async fn why(stores: &Stores, url: &str) -> String {
    match stores.source("local", url) {
        Ok(source) => source.identity().await.unwrap_err().to_string(),
        Err(e) => e.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_url_is_read_by_ranges_with_its_signature_which_nobody_else_sees() {
    let content = noise(3_000_000);
    let site = Site::start(content.clone());
    let stores = site.allowed();
    let url = site.url("/a%20b.mp4?X-Amz-Signature=hush&part=1");
    let reference = stores.source("local", &url).unwrap();
    let identity = reference.identity().await.unwrap();
    assert_eq!((identity.bytes, identity.etag.as_deref()), (3_000_000, Some("\"one\"")));
    let source = reference.ranges().await.unwrap();
    site.shared.lock().unwrap().busy = 2;
    assert!(source.read(1_000_000, 500_000).await.unwrap() == content[1_000_000..1_500_000]);
    assert!(source.read(2_999_999, 500).await.unwrap() == content[2_999_999..]);
    let requests = site.shared.lock().unwrap().requests.clone();
    assert!(requests.iter().all(|r| r == "GET /a%20b.mp4?X-Amz-Signature=hush&part=1"), "{requests:?}");
    assert_eq!(reference.name(), site.url("/a%20b.mp4"));
    let missing = stores.source("local", &site.url("/none?sig=hush")).unwrap().identity().await.unwrap_err();
    assert!(matches!(missing, StoreError::Missing(_)) && !format!("{missing:?}").contains("hush"), "{missing:?}");
    site.shared.lock().unwrap().content.clear();
    let empty = stores.source("local", &url).unwrap().ranges().await.unwrap();
    assert_eq!((empty.bytes(), empty.read(0, 10).await.unwrap()), (0, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_is_noticed() {
    let site = Site::start(noise(1_000_000));
    let source = site.allowed().source("local", &site.url("/a.mp4")).unwrap().ranges().await.unwrap();
    source.read(0, 10).await.unwrap();
    site.shared.lock().unwrap().etag = "\"two\"".into();
    let error = source.read(500_000, 10).await.unwrap_err();
    assert!(error.to_string().contains("changed while it was being read"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_everything_for_a_range_is_refused() {
    let site = Site::start(noise(1000));
    let said = why(&site.allowed(), &site.url("/whole")).await;
    assert!(said.contains("does not serve ranges"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_inside_is_reached_by_address_by_name_or_by_redirect() {
    let site = Site::start(noise(1000));
    let public = site.stores("public = true\n");
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001"] {
        let said = why(&public, &format!("http://{host}:{}/a.mp4", site.port)).await;
        assert!(said.contains("has no public address"), "{host}: {said}");
    }
    assert_eq!(site.shared.lock().unwrap().requests, Vec::<String>::new(), "the server was asked");
    let allowed = site.stores("hosts = [\"127.0.0.1\"]\nallow_networks = [\"127.0.0.1/32\"]\n");
    for (place, refusal) in [
        ("http://169.254.169.254/latest/meta-data".to_string(), "none of the store's hosts"),
        (format!("http://localhost:{}/a.mp4", site.port), "none of the store's hosts"),
        ("file:///etc/passwd".into(), ""),
        (site.url("/moved"), "redirects"),
    ] {
        site.shared.lock().unwrap().moved_to = place.clone();
        let said = why(&allowed, &site.url("/moved")).await;
        assert!(said.contains(refusal), "{place}: {said}");
    }
    let open = site.stores("public = true\nallow_networks = [\"127.0.0.1/32\"]\n");
    site.shared.lock().unwrap().moved_to = "http://127.0.0.2/a.mp4".into();
    let said = why(&open, &site.url("/moved")).await;
    assert!(said.contains("127.0.0.2 has no public address"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_an_allowed_host_is_followed() {
    let content = noise(100_000);
    let site = Site::start(content.clone());
    site.shared.lock().unwrap().moved_to = format!("http://localhost:{}/a.mp4", site.port);
    let source = site.allowed().source("local", &site.url("/moved")).unwrap().ranges().await.unwrap();
    assert!(source.read(7, 100).await.unwrap() == content[7..107]);
}
