use super::*;
use proptest::prelude::*;
use source::BLOCK_BYTES;

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
    let mut writer = store.writer(&key).await.unwrap();
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
async fn a_job_reaches_only_what_is_configured() {
    let (dir, store) = folder();
    let file = dir.path().join("talk.mp4");
    std::fs::write(&file, b"media").unwrap();
    let stores = Stores::new(store.clone()).with_output("out/", store).with_source("talk.mp4", file.clone());
    assert!(stores.output("out/").is_ok());
    assert_eq!(stores.source_file("talk.mp4").unwrap().bytes, 5);
    assert_eq!(stores.source_ranges("talk.mp4").await.unwrap().read(1, 99).await.unwrap(), b"edia");
    for uri in ["/etc/passwd", "out", file.to_str().unwrap()] {
        assert!(matches!(stores.output(uri), Err(StoreError::Denied { .. })));
        assert!(matches!(stores.source_file(uri), Err(StoreError::Denied { .. })));
        assert!(matches!(stores.source_ranges(uri).await, Err(StoreError::Denied { .. })));
    }
}

#[tokio::test]
async fn a_sequential_reader_fetches_every_byte_once_and_a_jump_one_block() {
    let (_dir, store) = folder();
    let key = Key::output("big.mp4").unwrap();
    let size = 40 * BLOCK_BYTES + 5;
    store.put(&key, noise(size as usize)).await.unwrap();
    let source = store.ranged(&key).await.unwrap();
    source.read(30 * BLOCK_BYTES + 9, 100).await.unwrap();
    assert_eq!(source.fetched_bytes(), BLOCK_BYTES);
    let mut at = 0;
    while at < size {
        at += source.read(at, 70_000).await.unwrap().len() as u64;
    }
    assert!(source.fetched_bytes() <= size + BLOCK_BYTES, "{} bytes", source.fetched_bytes());
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
