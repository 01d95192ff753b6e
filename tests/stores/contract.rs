//! What every store must do, whichever server it is.

use crate::common::store_proxy::StoreFault;
use crate::common::{Fault, FaultProxy, StoreFaults, StoreProxy};
use crate::{Bench, Changes, file_of, noise};
use futures::{StreamExt, stream};
use narrows::job::JobId;
use narrows::store::key::Key;
use narrows::store::{Store, StoreError, digest};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// Two pieces of an upload and a bit.
const LONG: usize = 17 * 1024 * 1024 + 17;
/// Longer than one piece.
const TWO_PIECES: usize = 9 * 1024 * 1024;
const SEED: u64 = 20_261_120;

fn key(name: &str) -> Key {
    Key::output(name).unwrap()
}

fn job(name: &str) -> JobId {
    JobId::try_from(name.to_string()).unwrap()
}

async fn is_there(store: &Store, key: &Key, content: &[u8]) {
    assert_eq!(store.size(key).await.unwrap(), Some(content.len() as u64));
    assert!(store.get(key).await.unwrap() == content, "another content is there");
}

pub async fn objects_come_back_whole_and_are_replaced(bench: &Bench) {
    let stores = bench.stores(&Changes::default());
    let output = stores.output("local", &bench.uri("media/talks/one/")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for content in [noise(bench.longest(LONG)), noise(3 * 1024 * 1024), b"small".to_vec(), Vec::new()] {
        let file = file_of(folder.path(), &content);
        output.put_file(&key("1080p.mp4"), &file).await.unwrap();
        is_there(&output, &key("1080p.mp4"), &content).await;
        output.put(&key("master.m3u8"), content.clone()).await.unwrap();
        is_there(&output, &key("master.m3u8"), &content).await;
        assert_eq!(digest(file).await.unwrap().bytes, content.len() as u64);
    }
    assert_eq!(output.list_after("", None, 9).await.unwrap(), ["1080p.mp4", "master.m3u8"]);
    let whole = stores.output("local", &bench.uri("media")).unwrap();
    assert_eq!(whole.list_after("", None, 9).await.unwrap(), ["talks/one/1080p.mp4", "talks/one/master.m3u8"]);
    assert_eq!(stores.work().get_json::<u32>(&Key::result(&job("a"))).await.unwrap(), None);
    stores.work().put_json(&Key::result(&job("a")), &7_u32).await.unwrap();
    assert_eq!(stores.work().get_json::<u32>(&Key::result(&job("a"))).await.unwrap(), Some(7));
    stores.work().delete(&Key::result(&job("a"))).await.unwrap();
    stores.work().delete(&Key::result(&job("a"))).await.unwrap();
    assert_eq!(stores.work().size(&Key::result(&job("a"))).await.unwrap(), None);
}

pub async fn an_upload_survives_every_way_in_which_one_request_can_fail(bench: &Bench) {
    let proxy = StoreProxy::start(bench.port(), SEED);
    proxy.set(StoreFaults { per_cent: 0, slow: Duration::from_millis(100) });
    let stores = bench.stores(&Changes { port: Some(proxy.port()), ..Changes::default() });
    let output = stores.output("local", &bench.uri("media/out")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let plan = bench.requests();
    for (n, fault) in StoreFault::ALL.into_iter().enumerate() {
        let content = noise(100_000 + n);
        proxy.plan(plan.of_a_short_one, fault);
        output.put(&key("one.m4s"), content.clone()).await.unwrap();
        is_there(&output, &key("one.m4s"), &content).await;
        for &(method, before) in plan.of_a_long_one {
            (0..before).for_each(|_| proxy.plan(method, StoreFault::Slow));
            ["GET", "LIST", method].into_iter().for_each(|method| proxy.plan(method, fault));
            let long = noise(bench.longest(TWO_PIECES) + n);
            output.put_file(&key("long.mp4"), &file_of(folder.path(), &long)).await.unwrap();
            is_there(&output, &key("long.mp4"), &long).await;
            assert_eq!(output.list("").await.unwrap().len(), 2, "{fault:?} of {method}");
        }
    }
    let failed = proxy.requests().failed;
    assert!(StoreFault::ALL.iter().all(|fault| failed.get(fault).is_some_and(|n| *n >= 8)), "{failed:?}");
}

pub async fn a_long_upload_whose_connection_breaks_is_begun_again_and_whole(bench: &Bench) {
    let proxy = FaultProxy::start(bench.port(), SEED);
    let stores = bench.stores(&Changes { port: Some(proxy.port()), ..Changes::default() });
    let output = stores.output("local", &bench.uri("media/out")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let content = noise(LONG);
    let file = file_of(folder.path(), &content);
    let before = proxy.traffic();
    let long = key("long.mp4");
    let upload = output.put_file(&long, &file);
    let breaking = async {
        // In the middle of the second piece.
        while proxy.traffic().bytes_up < before.bytes_up + 10 * 1024 * 1024 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy.reset_all();
    };
    let (uploaded, ()) = tokio::join!(upload, breaking);
    uploaded.unwrap();
    assert!(proxy.traffic().resets > before.resets, "nothing was broken");
    is_there(&output, &long, &content).await;
}

pub async fn a_store_that_is_gone_is_a_temporary_failure_and_leaves_what_was_there(bench: &Bench) {
    let proxy = FaultProxy::start(bench.port(), SEED);
    let stores = bench.stores(&Changes { port: Some(proxy.port()), ..Changes::default() });
    let output = stores.output("local", &bench.uri("media/out")).unwrap();
    output.put(&key("kept.mpd"), b"kept".to_vec()).await.unwrap();
    proxy.set(Fault::Reset);
    for error in [
        output.put(&key("kept.mpd"), b"new".to_vec()).await.unwrap_err(),
        output.put(&key("none.mpd"), b"new".to_vec()).await.unwrap_err(),
        output.get(&key("kept.mpd")).await.unwrap_err(),
        output.list("").await.unwrap_err(),
    ] {
        assert!(error.is_temporary(), "{error}");
        assert!(error.to_string().contains("store 'media'"), "{error}");
        assert!(!format!("{error:?}").contains("sig="), "{error:?}");
    }
    proxy.set(Fault::Pass);
    is_there(&output, &key("kept.mpd"), b"kept").await;
    assert_eq!(output.list("").await.unwrap(), ["kept.mpd"]);
}

pub async fn a_source_is_read_by_ranges_and_a_change_of_it_is_noticed(bench: &Bench) {
    let stores = bench.stores(&Changes::default());
    let bucket = stores.output("local", &bench.uri("media")).unwrap();
    let (content, uri) = (noise(bench.longest(LONG)), bench.uri("media/in/a b.mp4"));
    bucket.put(&key("in/a b.mp4"), content.clone()).await.unwrap();
    let reference = stores.source("local", &uri).unwrap();
    assert!(reference.file().unwrap().is_none());
    let identity = reference.identity().await.unwrap();
    assert_eq!(identity.bytes, content.len() as u64);
    assert!(identity.etag.is_some() && identity.modified_ms > 1_700_000_000_000, "{identity:?}");
    let source = reference.ranges().await.unwrap();
    assert_eq!(source.identity(), &identity);
    println!("seed {SEED}");
    let mut random = StdRng::seed_from_u64(SEED);
    for _ in 0..40 {
        let (from, bytes) = (random.random_range(0..content.len()), random.random_range(0..300_000));
        let to = content.len().min(from + bytes);
        assert!(source.read(from as u64, bytes).await.unwrap() == content[from..to], "{from} {bytes}");
    }
    let half = content.len() as u64 / 2;
    let reader = reference.ranges().await.unwrap();
    reader.read(0, 10).await.unwrap();
    bucket.put(&key("in/a b.mp4"), content.iter().rev().copied().collect()).await.unwrap();
    assert_ne!(reference.identity().await.unwrap(), identity);
    // What nobody has read yet is of the new version, and refused.
    let fresh = bench.stores(&Changes::default());
    let unread = fresh.source("local", &uri).unwrap().ranges().await.unwrap();
    bucket.put(&key("in/a b.mp4"), content.clone()).await.unwrap();
    let error = unread.read(half, 10).await.unwrap_err();
    assert!(error.to_string().contains("changed while it was being read"), "{error}");
    let none = bench.uri("media/in/none.mp4");
    let missing = stores.source("local", &none).unwrap();
    assert!(matches!(missing.identity().await, Err(StoreError::Missing(path)) if path == none));
}

pub async fn more_objects_than_a_page_are_listed_in_order_and_deleted_by_folder(bench: &Bench) {
    let stores = bench.stores(&Changes::default());
    let (work, id, objects) = (stores.work(), job("long"), bench.objects());
    let puts = (1..=objects).rev().map(|n| {
        let key = Key::event(&id, n);
        async move { work.put(&key, format!("{n}").into_bytes()).await }
    });
    let done: Vec<_> = stream::iter(puts).buffer_unordered(16).collect().await;
    done.into_iter().for_each(|put| put.unwrap());
    work.put(&Key::event(&job("long-2"), 1), b"stays".to_vec()).await.unwrap();
    let all: Vec<String> = (1..=objects).map(|n| Key::event(&id, n).path().to_string()).collect();
    let folder = Key::events(&id);
    let mut listed = work.list(&folder).await.unwrap();
    listed.sort();
    assert_eq!(listed, all);
    let most = all.len() - 10;
    assert_eq!(work.list_after(&folder, None, most).await.unwrap(), all[..most]);
    assert_eq!(work.list_after(&folder, Some(&all[most - 1]), most).await.unwrap(), all[most..]);
    assert_eq!(work.list_after(&folder, Some("events/long/00000007"), 2).await.unwrap(), all[6..8]);
    let deleted = work.delete_under(&folder).await.unwrap();
    assert_eq!(deleted.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>(), all);
    assert_eq!(
        deleted.iter().map(|entry| entry.bytes).sum::<u64>(),
        (1..=objects).map(|n| n.to_string().len() as u64).sum::<u64>()
    );
    assert_eq!(work.list("events/").await.unwrap(), [Key::event(&job("long-2"), 1).path()]);
    assert_eq!(work.delete_under(&folder).await.unwrap(), []);
}

pub async fn a_store_that_works_is_found_to_work_and_is_left_as_it_was(bench: &Bench) {
    let stores = bench.stores(&Changes::default());
    let found = stores.check().await;
    assert_eq!(found.len(), 8, "{found:?}");
    assert!(found.iter().all(|finding| finding.outcome.is_ok()), "{found:?}");
    assert_eq!(stores.work().list("").await.unwrap(), Vec::<String>::new());
}

pub async fn wrong_credentials_are_named_with_their_setting_and_not_shown(bench: &Bench) {
    // Base64, as the keys of some services are.
    let secret = "hush0123456789hushes";
    let stores = bench.stores(&Changes { secret_key: Some(secret), ..Changes::default() });
    let found = stores.check().await;
    assert_eq!(found.len(), 2, "{found:?}");
    for finding in &found {
        let reason = finding.outcome.clone().unwrap_err();
        assert!(reason.contains(&format!("check the credentials in stores.{}", finding.store)), "{reason}");
    }
    let output = stores.output("local", &bench.uri("media/out")).unwrap();
    let error = output.put(&key("a.mpd"), b"x".to_vec()).await.unwrap_err();
    assert!(!error.is_temporary(), "{error}");
    let said = format!("{found:?} {error} {error:?} {output:?}");
    assert!(!said.contains("hush") && !said.to_lowercase().contains("signature="), "{said}");
    assert!(!said.contains("sig="), "{said}");
}

pub async fn a_wrong_bucket_is_named_with_its_setting_and_never_taken_for_an_empty_one(bench: &Bench) {
    let stores = bench.stores(&Changes { bucket: Some("nowhere"), ..Changes::default() });
    let hint = format!("check {} in stores.media", bench.place_settings());
    let found = stores.check().await;
    let media = found.iter().find(|finding| finding.store == "media").unwrap();
    let reason = media.outcome.clone().unwrap_err();
    assert!(media.what == "list" && reason.contains(&hint), "{media:?}");
    let output = stores.output("local", &bench.uri("nowhere/out")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = file_of(folder.path(), &noise(bench.longest(TWO_PIECES)));
    let mut errors = vec![
        output.list("").await.unwrap_err(),
        output.list_after("", Some("a"), 1).await.unwrap_err(),
        output.delete_under("a/").await.unwrap_err(),
    ];
    if !bench.makes_buckets() {
        errors.push(output.put(&key("a.mpd"), b"x".to_vec()).await.unwrap_err());
        errors.push(output.put_file(&key("a.mp4"), &file).await.unwrap_err());
    }
    for error in errors {
        assert!(matches!(error, StoreError::Denied { .. }) && error.to_string().contains(&hint), "{error:?}");
    }
}

pub async fn no_other_bucket_is_reached(bench: &Bench) {
    let stores = bench.stores(&Changes::default());
    let other_services = ["s3", "gs", "az"].map(|scheme| format!("{scheme}://media/a"));
    let own = bench.uri("media/a");
    let places = ["foreign/a", "work/jobs/a", "media/../work/a"].map(|path| bench.uri(path));
    let elsewhere = other_services.into_iter().filter(|uri| *uri != own).chain(places).chain(["/etc/passwd".into()]);
    for uri in elsewhere {
        assert!(matches!(stores.source("local", &uri), Err(StoreError::Denied { .. })), "{uri}");
        assert!(matches!(stores.output("local", &uri), Err(StoreError::Denied { .. })), "{uri}");
    }
}
