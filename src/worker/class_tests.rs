//! The classes of encoders: which parts go where, and what of them counts.

use super::fake::{Act, FakeChildren, Process, Site, id};
use super::settings::fixture::settings;
use crate::broker::{Broker, Queue};
use crate::job::{Class, Lane};
use crate::part::accept::{self, Submission};
use crate::part::finish::JobResult;
use crate::part::{Attempt, PartError, PartMessage, Spent, class};
use crate::plan::marker::PartId;
use crate::sandbox::protocol::Device;
use crate::shutdown;
use crate::store::key::Key;
use crate::tenant::Tenants;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A process of a fleet that has devices of class nvenc, with a job that asked for `choice` and is probed.
async fn probed(site: &Site, children: &Arc<FakeChildren>, choice: &str) -> Process {
    let mut process = site.start_fleet(children, Tenants::open());
    process.tools = process.tools.clone().with_device_classes(&[Class::Nvenc]);
    let document =
        format!(r#"{{"id":"talk","input":{{"uri":"talk.mp4"}},"output":{{"uri":"out"}},"preset":"h264","class":"{choice}"}}"#);
    accept::submit(&process.tools, Submission { document: document.as_bytes(), user: None }).await.unwrap();
    comes(&process, Class::Cpu, PartId::Probe).await.unwrap();
    process
}

/// One delivery of a part, by the queue of a class.
async fn comes(process: &Process, class: Class, part: PartId) -> Result<(), PartError> {
    let (_stopper, stop) = shutdown::channel();
    let stand_in = Device { class, path: String::new(), files: Vec::new(), stand_in: true, fails: false };
    let device = class.is_device().then_some(stand_in);
    let attempt = Attempt { part, class, device, number: 1, redelivered: false, permit: None, stop, spent: Spent::default() };
    crate::part::run(&process.tools, &PartMessage { job: id(), part }, attempt).await
}

async fn waiting(process: &Process, class: Class) -> u64 {
    process.broker.depth(Queue::Work(class, Lane::Normal)).await.unwrap()
}

async fn is_marked(process: &Process, class: Class, part: PartId) -> bool {
    process.tools.stores.work().size(&Key::marker_in(&id(), class, part)).await.unwrap().is_some()
}

#[tokio::test]
async fn a_job_that_falls_back_starts_over_and_nothing_that_a_device_made_is_left_in_it() {
    let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
    let process = probed(&site, &children, "auto").await;
    // The message of the probe is still there; of the chunks there is a window, in the device's queue.
    assert_eq!((waiting(&process, Class::Cpu).await, waiting(&process, Class::Nvenc).await), (1, 3));
    comes(&process, Class::Nvenc, PartId::Encode(0)).await.unwrap();
    assert!(
        is_marked(&process, Class::Nvenc, PartId::Encode(0)).await && !is_marked(&process, Class::Cpu, PartId::Encode(0)).await
    );
    assert_eq!(waiting(&process, Class::Nvenc).await, 4, "the next of the window follows it");
    comes(&process, Class::Cpu, PartId::Encode(5)).await.unwrap();
    assert_eq!(waiting(&process, Class::Nvenc).await, 5, "what came by the wrong queue is passed on");
    assert!(!children.ran().contains_key(&PartId::Encode(5)));

    assert!(class::give_up_device(&process.tools, &id(), "broken").await.unwrap());
    assert_eq!(waiting(&process, Class::Cpu).await, 1 + 3);
    comes(&process, Class::Nvenc, PartId::Encode(1)).await.unwrap();
    assert!(!children.ran().contains_key(&PartId::Encode(1)), "nobody needs it by a device any more");
    // Asked for of the device's chunks, and late.
    comes(&process, Class::Cpu, PartId::Package).await.unwrap();

    let working = process.work(settings());
    let result = Key::result(&id());
    process.wait_until("the job ends", async || process.tools.stores.work().size(&result).await.unwrap().is_some()).await;
    working.stop().await;
    let ended = process.tools.stores.work().get_json(&result).await.unwrap();
    let Some(JobResult::Completed { objects }) = ended else { panic!("{ended:?}") };
    assert!(children.ran().iter().all(|(part, times)| *times == 1 + u32::from(*part == PartId::Encode(0))));
    let named: BTreeSet<&str> = objects.iter().map(|object| object.path.as_str()).collect();
    for rung in ["360p", "240p"] {
        for entry in std::fs::read_dir(site.dir.path().join("out").join(rung)).unwrap() {
            let path = entry.unwrap().path();
            assert!(!std::fs::read_to_string(&path).unwrap().contains("by a device"), "{}", path.display());
            assert!(named.contains(format!("{rung}/{}", path.file_name().unwrap().to_str().unwrap()).as_str()));
        }
    }
}

#[tokio::test]
async fn a_job_that_asked_for_a_device_is_packaged_of_what_it_made_and_does_not_fall_back() {
    let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
    let process = probed(&site, &children, "gpu").await;
    assert!(!class::give_up_device(&process.tools, &id(), "broken").await.unwrap());
    for chunk in 0.. {
        if comes(&process, Class::Nvenc, PartId::Encode(chunk)).await.is_err() {
            // There is no such chunk.
            break;
        }
    }
    comes(&process, Class::Cpu, PartId::Package).await.unwrap();
    let ended = process.tools.stores.work().get_json(&Key::result(&id())).await.unwrap();
    let Some(JobResult::Completed { objects }) = ended else { panic!("{ended:?}") };
    let inits: Vec<_> = objects.iter().filter(|object| object.path.contains("/init.")).collect();
    assert_eq!(inits.len(), 2);
    for object in inits {
        let text = std::fs::read_to_string(site.dir.path().join("out").join(&object.path)).unwrap();
        assert!(text.ends_with("by a device"), "{text}");
    }
}

#[tokio::test]
async fn a_part_that_fails_on_a_device_blames_the_device_and_bad_media_is_the_medias() {
    let (site, children) = (
        Site::new(),
        FakeChildren::new(|part, _| match part {
            PartId::Encode(0) => Act::Die,
            PartId::Encode(1) => Act::Refuse,
            _ => Act::Work,
        }),
    );
    let process = probed(&site, &children, "auto").await;
    let of = async |chunk| comes(&process, Class::Nvenc, PartId::Encode(chunk)).await.unwrap_err();
    assert!(matches!(of(0).await, PartError::Device(_)));
    assert!(matches!(of(1).await, PartError::Reject(_)));
}
