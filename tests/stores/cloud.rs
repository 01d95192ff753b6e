//! What only the stores of the large clouds have: public containers, and what they tell whoever fetches an object.

use crate::common::azurite::{self, Azurite};
use crate::common::http::Client;
use crate::{Bench, Changes, file_of, noise, open};
use narrows::store::key::Key;

/// Longer than one piece.
const TWO_PIECES: usize = 9 * 1024 * 1024;

/// A manifest, a segment, and a file in two pieces where the server takes such, uploaded to `out/`.
async fn upload(bench: &Bench) {
    let output = bench.stores(&Changes::default()).output("local", &bench.uri("media/out")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    output.put(&Key::output("master.m3u8").unwrap(), b"#EXTM3U".to_vec()).await.unwrap();
    output.put(&Key::output("00001.3fa9c1d2.m4s").unwrap(), b"segment".to_vec()).await.unwrap();
    let file = file_of(folder.path(), &noise(bench.longest(TWO_PIECES)));
    output.put_file(&Key::output("1080p.mp4").unwrap(), &file).await.unwrap();
}

/// Do these objects of `out/` come with their types and cache policies?
fn served(port: u16, target: impl Fn(&str) -> String) {
    for (name, content_type, cache) in [
        ("master.m3u8", "application/vnd.apple.mpegurl", "no-cache"),
        ("00001.3fa9c1d2.m4s", "video/iso.segment", "public, max-age=31536000, immutable"),
        ("1080p.mp4", "video/mp4", "no-cache"),
    ] {
        let answer = Client::new(port).get(&target(name)).unwrap();
        let told = (answer.status, answer.header("content-type"), answer.header("cache-control"));
        assert_eq!(told, (200, Some(content_type), Some(cache)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_serves_what_was_uploaded_with_its_type_and_cache_policy() {
    let bench = Bench::azure();
    upload(&bench).await;
    let signature = azurite::signature_of("media");
    served(bench.port(), |name| format!("/{}/media/out/{name}?{signature}", azurite::ACCOUNT));
}

#[tokio::test(flavor = "multi_thread")]
async fn google_serves_what_was_uploaded_with_its_type_and_cache_policy() {
    let bench = Bench::google();
    upload(&bench).await;
    served(bench.port(), |name| format!("/storage/v1/b/media/o/out%2F{name}?alt=media"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_container_is_read_without_credentials_and_a_private_one_is_not() {
    let server = Azurite::start();
    server.create_container("public", true);
    server.create_container("private", false);
    let at = |name: &str, bucket: &str, credentials: &str| {
        let (account, endpoint) = (azurite::ACCOUNT, Azurite::endpoint_at(server.port()));
        format!(
            "[stores.{name}]\ntype = \"azblob\"\nbucket = \"{bucket}\"\naccount = \"{account}\"\n\
             endpoint = \"{endpoint}\"\n{credentials}\n"
        )
    };
    let key = "account_key = { env = \"KEY\" }";
    let environment = |name: &str| (name == "KEY").then(|| azurite::ACCOUNT_KEY.to_string());
    let owner = open(&format!("{}{}", at("work", "private", key), at("media", "public", key)), &environment);
    let content = noise(100_000);
    for place in ["public", "private"] {
        let root = if place == "public" { owner.output("local", "az://public").unwrap() } else { owner.work().clone() };
        root.put(&Key::output("in/a.mp4").unwrap(), content.clone()).await.unwrap();
    }
    let work = "[stores.work]\ntype = \"s3\"\nbucket = \"b\"\nregion = \"r\"\nanonymous = true\n";
    let reader = |bucket: &str| format!("{}roles = [\"source\"]\n", at(bucket, bucket, "anonymous = true"));
    let anybody = open(&format!("{work}{}{}", reader("public"), reader("private")), &|_| None);
    let source = anybody.source("local", "az://public/in/a.mp4").unwrap().ranges().await.unwrap();
    assert!(source.read(0, content.len()).await.unwrap() == content);
    let refused = anybody.source("local", "az://private/in/a.mp4").unwrap().identity().await.unwrap_err();
    println!("{refused:?}");
    assert!(!refused.is_temporary(), "{refused}");
}
