use super::*;
use crate::job::JobId;
use cache::BLOCK_BYTES;
use proptest::prelude::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn folder() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::folder(&dir.path().join("out"), &dir.path().join("tmp")).unwrap();
    (dir, store)
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() { found.extend(files_in(&entry)) } else { found.push(entry) }
    }
    found
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[tokio::test]
async fn an_object_is_whole_or_absent_while_it_is_written() {
    let (dir, store) = folder();
    let key = Key::output("1080p/00000.3fa9c1d2.m4s").unwrap();
    let place = dir.path().join("out/1080p/00000.3fa9c1d2.m4s");
    let mut writer = store.writer(&key, 3 * PIECE_BYTES as u64).await.unwrap();
    writer.write(vec![1; 3 * PIECE_BYTES]).await.unwrap();
    assert!(!place.exists());
    assert_eq!(store.size(&key).await.unwrap(), None);
    writer.close().await.unwrap();
    assert_eq!(std::fs::metadata(&place).unwrap().len(), 3 * PIECE_BYTES as u64);
    assert_eq!(files_in(&dir.path().join("tmp")), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_write_that_is_given_up_leaves_nothing_behind() {
    let (dir, store) = folder();
    let key = Key::output("1080p.mp4").unwrap();
    assert!(matches!(store.put_file(&key, &dir.path().join("none")).await, Err(StoreError::Missing(_))));
    assert!(store.put_file(&key, dir.path()).await.is_err(), "a folder is no file");
    assert_eq!(files_in(dir.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_file_is_uploaded_whole_and_replaces_what_was_there() {
    let (dir, store) = folder();
    let key = Key::output("1080p.mp4").unwrap();
    store.put(&key, b"old".to_vec()).await.unwrap();
    let file = dir.path().join("new");
    let content = noise(2 * PIECE_BYTES + 17);
    std::fs::write(&file, &content).unwrap();
    store.put_file(&key, &file).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), content);
    let digested = digest(file).await.unwrap();
    assert_eq!(digested.bytes, content.len() as u64);
    assert_eq!(digested.sha256, hex::encode(Sha256::digest(&content)));
}

#[tokio::test]
async fn documents_come_back_and_a_broken_one_is_named() {
    let (_dir, store) = folder();
    let job = crate::job::JobId::try_from("j".to_string()).unwrap();
    let key = Key::result(&job);
    assert_eq!(store.get_json::<Vec<u32>>(&key).await.unwrap(), None);
    store.put_json(&key, &[1, 2]).await.unwrap();
    assert_eq!(store.get_json::<Vec<u32>>(&key).await.unwrap(), Some(vec![1, 2]));
    store.put(&key, b"{".to_vec()).await.unwrap();
    let error = store.get_json::<Vec<u32>>(&key).await.unwrap_err();
    assert!(error.to_string().starts_with("jobs/j/result.json: "), "{error}");
    assert!(!error.is_temporary());
    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(store.size(&key).await.unwrap(), None);
}

#[tokio::test]
async fn all_markers_are_listed_and_nothing_else() {
    let (_dir, store) = folder();
    let job = crate::job::JobId::try_from("j".to_string()).unwrap();
    use crate::plan::marker::PartId::{Encode, Probe};
    assert_eq!(store.list(&Key::markers(&job)).await.unwrap(), Vec::<String>::new());
    for key in [Key::marker(&job, Probe), Key::marker(&job, Encode(3)), Key::plan(&job)] {
        store.put(&key, b"{}".to_vec()).await.unwrap();
    }
    let mut parts: Vec<_> = store.list(&Key::markers(&job)).await.unwrap();
    parts.sort();
    let parts: Vec<_> = parts.iter().filter_map(|path| Key::part_of_marker(&job, path)).collect();
    assert_eq!(parts, [Encode(3), Probe]);
}

#[tokio::test]
async fn pages_follow_each_other_in_the_order_of_paths() {
    let (_dir, store) = folder();
    let job = crate::job::JobId::try_from("j".to_string()).unwrap();
    for sequence in (1..=25).rev() {
        store.put(&Key::event(&job, sequence), vec![b'x'; sequence as usize]).await.unwrap();
    }
    let folder = Key::events(&job);
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = store.list_after(&folder, after.as_deref(), 10).await.unwrap();
        let Some(last) = page.last().cloned() else { break };
        seen.extend(page);
        after = Some(last);
    }
    let all: Vec<String> = (1..=25).map(|n| Key::event(&job, n).path().to_string()).collect();
    assert_eq!(seen, all);
    let none: Vec<String> = Vec::new();
    assert_eq!(store.list_after("events/none/", None, 10).await.unwrap(), none);
    assert_eq!(store.list_after("", Some("events/j/00000024.json"), 10).await.unwrap(), all[24..]);
}

#[tokio::test]
async fn what_lies_under_a_folder_is_deleted_and_named_and_nothing_else() {
    let (dir, store) = folder();
    let (job, other) = (JobId::try_from("j".to_string()).unwrap(), JobId::try_from("j2".to_string()).unwrap());
    for sequence in 1..=3 {
        store.put(&Key::event(&job, sequence), vec![0; 7]).await.unwrap();
    }
    store.put(&Key::event(&other, 1), b"stays".to_vec()).await.unwrap();
    let deleted = store.delete_under(&Key::events(&job)).await.unwrap();
    assert_eq!(deleted.iter().map(|entry| entry.bytes).sum::<u64>(), 21);
    let names: Vec<&str> = deleted.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(names, ["events/j/00000001.json", "events/j/00000002.json", "events/j/00000003.json"]);
    assert_eq!(store.delete_under(&Key::events(&job)).await.unwrap(), []);
    assert_eq!(files_in(&dir.path().join("out")).len(), 1);
    assert!(!dir.path().join("out/events/j").exists(), "no empty folders are left");
}

#[tokio::test]
async fn a_job_of_one_process_reaches_its_source_and_its_output_only() {
    let (dir, store) = folder();
    let file = dir.path().join("talk.mp4");
    std::fs::write(&file, b"media").unwrap();
    let stores = Stores::new(store.clone()).with_output("out/", store).with_source("talk.mp4", file.clone());
    assert!(stores.output("local", "out/").is_ok());
    let source = stores.source("local", "talk.mp4").unwrap();
    assert_eq!(source.identity().await.unwrap().bytes, 5);
    assert_eq!(source.file().unwrap().unwrap().bytes, 5);
    assert_eq!(source.ranges().await.unwrap().read(1, 99).await.unwrap(), b"edia");
    for uri in ["/etc/passwd", "file:///etc/passwd", "out", "s3://b/a", "http://127.0.0.1/a", file.to_str().unwrap()] {
        assert!(matches!(stores.output("local", uri), Err(StoreError::Denied { .. })), "{uri}");
        assert!(matches!(stores.source("local", uri), Err(StoreError::Denied { .. })), "{uri}");
    }
}

/// The stores of a configuration; `{}` is a folder of its own.
fn configured(dir: &Path, text: &str) -> Stores {
    #[derive(serde::Deserialize)]
    struct File {
        stores: StoresConfig,
    }
    let work = dir.join("work");
    std::fs::create_dir_all(&work).unwrap();
    let text = format!("[stores.work]\ntype = \"fs\"\nroot = \"{}\"\n{text}", work.display());
    let file: File = toml::from_str(&text.replace("{}", dir.to_str().unwrap())).unwrap();
    Stores::open(&file.stores, "work", &|name| (name == "KEY").then(|| "hush".into())).unwrap()
}

#[tokio::test]
async fn no_path_and_no_link_leads_out_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["media/films", "secret"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    std::fs::write(at("media/films/a.mp4"), b"film").unwrap();
    std::fs::write(at("secret/key"), b"hush").unwrap();
    std::os::unix::fs::symlink(at("secret"), at("media/out")).unwrap();
    std::os::unix::fs::symlink(at("secret/key"), at("media/key.mp4")).unwrap();
    std::os::unix::fs::symlink("films/a.mp4", at("media/inner.mp4")).unwrap();
    nix::unistd::mkfifo(&at("media/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let stores = configured(dir.path(), "[stores.media]\ntype = \"fs\"\nroot = \"{}/media\"");
    let root = at("media").display().to_string();
    for name in ["films/a.mp4", "inner.mp4"] {
        let source = stores.source("local", &format!("{root}/{name}")).unwrap();
        assert_eq!(source.file().unwrap().unwrap().bytes, 4, "{name}");
        assert_eq!(source.ranges().await.unwrap().read(0, 9).await.unwrap(), b"film");
    }
    for name in ["out/key", "key.mp4", "pipe", "films", "none.mp4"] {
        let source = stores.source("local", &format!("file://{root}/{name}")).unwrap();
        assert!(source.file().is_err() && source.ranges().await.is_err(), "{name}");
    }
    for uri in [format!("{root}/../secret/key"), format!("{root}ly/a"), "/etc/passwd".into(), root.clone()] {
        assert!(stores.source("local", &uri).is_err(), "{uri}");
    }
    for name in ["out/new", "out"] {
        assert!(stores.output("local", &format!("{root}/{name}")).is_err(), "{name}");
    }
    let output = stores.output("local", &format!("{root}/new/talk/")).unwrap();
    output.put(&Key::output("master.m3u8").unwrap(), b"#".to_vec()).await.unwrap();
    assert_eq!(std::fs::read(at("media/new/talk/master.m3u8")).unwrap(), b"#");
    assert_eq!(output.list_after("", None, 9).await.unwrap(), ["master.m3u8"]);
    assert!(stores.work().list("jobs/").await.unwrap().is_empty());
}

const BUCKETS: &str = r#"
    [stores.all]
    type = "s3"
    bucket = "media"
    region = "r"
    endpoint = "http://127.0.0.1:1"
    access_key_id = { env = "KEY" }
    secret_access_key = { env = "KEY" }
    [stores.acme]
    type = "s3"
    bucket = "media"
    root = "acme"
    region = "r"
    endpoint = "http://127.0.0.1:1"
    access_key_id = { env = "KEY" }
    secret_access_key = { env = "KEY" }
    tenants = ["acme"]
    [stores.reads]
    type = "s3"
    bucket = "archive"
    region = "r"
    endpoint = "http://127.0.0.1:1"
    access_key_id = { env = "KEY" }
    secret_access_key = { env = "KEY" }
    roles = ["source"]
    [stores.web]
    type = "http"
    hosts = ["media.example.com", "127.0.0.1"]
"#;

#[test]
fn a_uri_resolves_by_scheme_and_bucket_to_what_its_tenant_may_use() {
    let dir = tempfile::tempdir().unwrap();
    let stores = configured(dir.path(), BUCKETS);
    let stores = stores.with_tenant("narrow", std::collections::BTreeSet::from(["reads".to_string()]));
    let output = |tenant: &str, uri: &str| stores.output(tenant, uri).map(|store| store.name.to_string()).ok();
    assert_eq!(output("acme", "s3://media/acme/out").as_deref(), Some("acme"), "the longest root answers");
    assert_eq!(output("acme", "s3://media/acmes/out").as_deref(), Some("all"));
    assert_eq!(output("other", "s3://media/acme/out").as_deref(), Some("all"));
    for (tenant, uri) in [
        ("acme", "s3://archive/out"),
        ("acme", "s3://elsewhere/out"),
        ("acme", "gs://media/out"),
        ("acme", "http://media.example.com/out"),
        ("narrow", "s3://media/out"),
    ] {
        assert_eq!(output(tenant, uri), None, "{tenant} {uri}");
    }
    assert!(stores.source("narrow", "s3://archive/a.mp4").is_ok());
    assert!(stores.source("narrow", "https://media.example.com/a.mp4").is_err());
    assert!(stores.source("acme", "https://media.example.com/a.mp4?sig=x").is_ok());
    let refused = |uri: &str| stores.source("acme", uri).err().map(|e| e.to_string()).unwrap();
    let private = refused("http://127.0.0.1/a.mp4?sig=hush");
    assert_eq!(private, "http://127.0.0.1/a.mp4: 127.0.0.1 has no public address");
    assert!(refused("https://u:hush@media.example.com/a").starts_with("https://media.example.com/a: holds a user"));
    assert!(refused("https://evil.example/a").contains("none of the store's hosts"));
    assert!(!format!("{:?} {:?}", stores.work(), stores.output("acme", "s3://media/a").unwrap()).contains("hush"));
}

#[test]
fn an_output_is_named_by_the_public_url_of_its_store_and_by_its_own_uri_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let published = BUCKETS.replace("root = \"acme\"", "root = \"acme\"\n    public_url = \"https://cdn.example.com/m\"");
    std::fs::create_dir_all(dir.path().join("disk")).unwrap();
    let folder = "[stores.disk]\ntype = \"fs\"\nroot = \"{}/disk\"\npublic_url = \"http://files.example.com:8080\"\n";
    let stores = configured(dir.path(), &format!("{published}{folder}"));
    let address = |tenant: &str, uri: &str, path: &str| stores.address(tenant, uri, path);
    assert_eq!(address("acme", "s3://media/acme/out/", "master.m3u8"), "https://cdn.example.com/m/out/master.m3u8");
    assert_eq!(address("acme", "s3://media/acme", "a/b.m3u8"), "https://cdn.example.com/m/a/b.m3u8", "the root itself");
    assert_eq!(
        address("acme", "s3://media/acme/talk 1+2/ü%20", "1080p?/index.m3u8"),
        "https://cdn.example.com/m/talk%201%2B2/%C3%BC%2520/1080p%3F/index.m3u8"
    );
    assert_eq!(address("other", "s3://media/acme/out/", "a.mp4"), "s3://media/acme/out/a.mp4", "of another store");
    assert_eq!(address("acme", "s3://media/acmes", "a.mp4"), "s3://media/acmes/a.mp4");
    let disk = dir.path().join("disk/out put");
    assert_eq!(address("acme", disk.to_str().unwrap(), "a.mp4"), "http://files.example.com:8080/out%20put/a.mp4");
    let uri = format!("file://{}", disk.to_str().unwrap().replace(' ', "%20"));
    assert_eq!(address("acme", &uri, "a.mp4"), "http://files.example.com:8080/out%20put/a.mp4");
}

#[tokio::test]
async fn a_store_that_works_is_found_to_work_and_is_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("media")).unwrap();
    let stores = configured(dir.path(), "[stores.media]\ntype = \"fs\"\nroot = \"{}/media\"\nroles = [\"source\"]");
    let found = stores.check().await;
    let said: Vec<_> = found.iter().map(|f| (f.store.as_str(), f.what, f.outcome.is_ok())).collect();
    let work = ["list", "write", "read back", "delete"].map(|what| ("work", what, true));
    assert_eq!(said, [&[("media", "list", true)][..], &work].concat());
    assert_eq!(files_in(dir.path()), Vec::<PathBuf>::new());
}

fn source_of(dir: &Path, bytes: u64) -> Stores {
    std::fs::write(dir.join("big"), noise(bytes as usize)).unwrap();
    let store = Store::folder(&dir.join("out"), &dir.join("tmp")).unwrap();
    Stores::new(store).with_source("big", dir.join("big"))
}

#[tokio::test]
async fn a_sequential_reader_fetches_every_byte_once_in_large_pieces_and_a_jump_one_block() {
    let dir = tempfile::tempdir().unwrap();
    let size = 640 * BLOCK_BYTES + 5;
    let stores = source_of(dir.path(), size);
    let source = stores.source("local", "big").unwrap().ranges().await.unwrap();
    source.read(600 * BLOCK_BYTES + 9, 100).await.unwrap();
    assert_eq!(source.fetched_bytes(), BLOCK_BYTES);
    let mut at = 0;
    while at < size {
        at += source.read(at, 70_000).await.unwrap().len() as u64;
    }
    assert!(source.fetched_bytes() <= size + BLOCK_BYTES, "{}", source.fetched_bytes());
    assert!(stores.cache().requests() < 128, "{} requests", stores.cache().requests());
}

#[tokio::test]
async fn a_reader_that_leaves_out_a_little_again_and_again_costs_few_requests() {
    let dir = tempfile::tempdir().unwrap();
    let stores = source_of(dir.path(), 640 * BLOCK_BYTES);
    let source = stores.source("local", "big").unwrap().ranges().await.unwrap();
    for n in 0..160 {
        source.read(4 * n * BLOCK_BYTES + 9, 100).await.unwrap();
    }
    assert!(stores.cache().requests() < 100, "{} requests", stores.cache().requests());
    assert!(source.fetched_bytes() <= 640 * BLOCK_BYTES);
}

#[tokio::test]
async fn a_reader_that_stops_has_asked_for_little_more_than_it_read() {
    let dir = tempfile::tempdir().unwrap();
    let stores = source_of(dir.path(), 640 * BLOCK_BYTES);
    for (start, bytes) in [(0, 3 * BLOCK_BYTES), (50 * BLOCK_BYTES + 77, 90 * BLOCK_BYTES), (500, 500 * BLOCK_BYTES)] {
        let source = stores.source("local", "big").unwrap().ranges().await.unwrap();
        let before = source.fetched_bytes();
        let mut read = 0;
        while read < bytes {
            read += source.read(start + read, 64 * 1024).await.unwrap().len() as u64;
        }
        let fetched = source.fetched_bytes() - before;
        assert!(fetched <= bytes + bytes / 16 + 2 * BLOCK_BYTES, "{fetched} for {bytes}");
    }
}

#[tokio::test]
async fn what_one_part_fetched_the_next_one_finds() {
    let dir = tempfile::tempdir().unwrap();
    let stores = source_of(dir.path(), 100 * BLOCK_BYTES);
    for _ in 0..5 {
        let source = stores.source("local", "big").unwrap().ranges().await.unwrap();
        source.read(0, 10 * BLOCK_BYTES as usize).await.unwrap();
    }
    assert_eq!(stores.cache().fetched_bytes(), 10 * BLOCK_BYTES);
    std::fs::write(dir.path().join("big"), noise(90 * BLOCK_BYTES as usize)).unwrap();
    let changed = stores.source("local", "big").unwrap().ranges().await.unwrap();
    changed.read(0, 10).await.unwrap();
    assert_eq!(stores.cache().fetched_bytes(), 11 * BLOCK_BYTES, "another file is not the one that was read before");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn ranges_read_what_the_file_holds(
        cuts in proptest::collection::vec(0_usize..3_000_000, 1..4),
        reads in proptest::collection::vec((0_u64..9_500_000, 0_usize..2_500_000), 1..12),
    ) {
        runtime().block_on(async {
            let (_dir, store) = folder();
            let mut whole = Vec::new();
            let mut sources = Vec::new();
            for (n, bytes) in cuts.iter().enumerate() {
                let key = Key::output(&format!("piece-{n}.m4s")).unwrap();
                let mut content = noise(*bytes);
                content.iter_mut().for_each(|b| *b = b.wrapping_add(n as u8));
                store.put(&key, content.clone()).await.unwrap();
                whole.extend(content);
                sources.push(store.ranged(&key).await.unwrap());
            }
            let joined = Concatenated::new(sources);
            assert_eq!(joined.bytes(), whole.len() as u64);
            for (offset, bytes) in reads {
                let from = whole.len().min(offset as usize);
                let to = whole.len().min(from + bytes);
                assert!(joined.read(offset, bytes).await.unwrap() == whole[from..to], "{offset} {bytes}");
            }
        });
    }
}
