use super::fake::{Act, FRAMES, FakeChildren, Process, Site, id, job};
use super::settings::fixture::settings;
use super::{LAST_WORDS, Open, ROUND_ABOUT, Worker};
use crate::broker::{Broker, Class, Queue};
use crate::event::{Cause, Fact, Stage, State, rejected_stream};
use crate::job::Lane;
use crate::part::PartMessage;
use crate::part::accepted::Accepted;
use crate::part::report::JobReport;
use crate::part::resume::{self, Found};
use crate::plan::marker::{Marker, PartId};
use crate::shutdown;
use crate::store::key::Key;
use crate::usage::UsageLine;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

async fn accepted(process: &Process) -> Accepted {
    process.tools.stores.work().get_json(&Key::job(&id())).await.unwrap().unwrap()
}

async fn report(process: &Process) -> JobReport {
    let output = process.tools.stores.output("local", "out").unwrap();
    output.get_json(&Key::output("report.json").unwrap()).await.unwrap().unwrap()
}

fn scratch_is_empty(site: &Site) -> bool {
    std::fs::read_dir(site.dir.path().join("scratch")).is_ok_and(|mut d| d.next().is_none())
}

#[tokio::test]
async fn a_job_runs_every_part_once_and_tells_it_in_order() {
    let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
    let mut process = site.start(&children);
    assert_eq!(process.until_ended(&job("h264")).await, State::Completed);
    assert!(children.ran().values().all(|times| *times == 1), "{:?}", children.ran());
    assert!(children.ran().len() > 6, "several windows of chunks: {:?}", children.ran());
    assert!((1..=2).contains(&children.most_at_once.load(Ordering::SeqCst)));
    let stages: Vec<_> = process.facts().into_iter().filter(|f| !matches!(f, Fact::PartCompleted { .. })).collect();
    let media_s = FRAMES as f64 / 25.0;
    let parts = children.ran().len() as u64 - 1;
    let frames = FRAMES as u64 * 2;
    let measured = |name: &str| {
        stages.iter().find_map(|fact| match fact {
            Fact::RenditionCompleted { rendition, media, .. } if rendition == name => media.clone(),
            _ => None,
        })
    };
    let playable = |name: &str| {
        let media = measured(name);
        assert_eq!(media.as_ref().and_then(|m| m.height).map(|lines| format!("{lines}p")).as_deref(), Some(name));
        let (playlist, url) = (format!("{name}/index.m3u8"), Some(format!("out/{name}/index.m3u8")));
        Fact::RenditionCompleted { rendition: name.into(), playlist, url, media }
    };
    let Some(Fact::JobCompleted { usage, .. }) = stages.last() else { panic!("it is the last event: {stages:?}") };
    let outputs = ["manifest.mpd", "master.m3u8", "report.json"].map(|path| (path.into(), format!("out/{path}"))).into();
    let expected = [
        &Fact::JobAccepted,
        &Fact::JobStarted,
        &Fact::StageStarted { stage: Stage::Probe, parts: 1, frames: 0, media_s: 0.0 },
        &Fact::StageCompleted { stage: Stage::Probe },
        &Fact::StageStarted { stage: Stage::Encode, parts, frames, media_s },
        &Fact::StageCompleted { stage: Stage::Encode },
        &Fact::StageStarted { stage: Stage::Package, parts: 1, frames: 0, media_s: 0.0 },
        &playable("360p"),
        &playable("240p"),
        &Fact::StageCompleted { stage: Stage::Package },
        &Fact::JobCompleted { report: "report.json".into(), outputs, usage: usage.clone() },
    ];
    let line =
        |class: &str| UsageLine { codec: "h264".into(), class: class.into(), feature: String::new(), seconds: media_s * 2.0 };
    assert_eq!(usage.output, [line("sd")]);
    assert_eq!((usage.frames, usage.parts, usage.source_bytes), (frames, parts + 2, 5));
    assert_eq!((usage.wasted_attempts, usage.cpu_s), (0, (parts + 1) as f64 * 0.01));
    let mut seen = Vec::new();
    // Two ends of a chain may both find the stage complete and tell it.
    stages.into_iter().for_each(|f| {
        if !seen.contains(&f) {
            seen.push(f)
        }
    });
    assert_eq!(seen, expected);
    let report = report(&process).await;
    assert_eq!((report.totals.frames, report.seams.proved), (frames, parts as usize - 1));
    assert_eq!(process.depth(), 0);
    assert!(scratch_is_empty(&site));
}

#[tokio::test]
async fn everything_the_manifests_name_is_there_and_what_is_done_stays_done() {
    let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
    let mut process = site.start(&children);
    process.until_ended(&job("h264")).await;
    let output = site.dir.path().join("out");
    for rung in ["360p", "240p"] {
        let playlist = std::fs::read_to_string(output.join(rung).join("index.m3u8")).unwrap();
        let named = playlist.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
        assert!(named.clone().count() > 20);
        named.for_each(|file| assert!(output.join(rung).join(file).is_file(), "{rung}/{file}"));
    }
    let mut again = site.start(&children);
    let accepted = accepted(&again).await;
    assert_eq!(resume::look(&again.tools, &accepted).await, Ok(Found::Complete));
    assert_eq!(again.until_ended(&job("h264")).await, State::Completed);
    assert!(children.ran().values().all(|times| *times == 1), "{:?}", children.ran());
}

#[tokio::test]
async fn a_job_broken_off_goes_on_with_the_parts_that_are_missing() {
    let site = Site::new();
    let children = FakeChildren::new(|part, before| if part == PartId::Encode(4) && before == 0 { Act::Hang } else { Act::Work });
    let process = site.start(&children);
    let (stopper, stop) = shutdown::channel();
    let worker = tokio::spawn(process.worker().run(stop));
    let _events = process.submit(&job("h264")).await;
    children.hanging.notified().await;
    let asked = Instant::now();
    stopper.stop();
    worker.await.unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert!(process.depth() > 0, "the part went back into its queue");
    assert!(scratch_is_empty(&site));
    assert!(!site.dir.path().join("out/master.m3u8").exists());

    let mut second = site.start(&children);
    let accepted = accepted(&second).await;
    let Found::Begun { parts } = resume::look(&second.tools, &accepted).await.unwrap() else { panic!("it was begun") };
    assert!(parts.contains_key(&PartId::Probe) && !parts.contains_key(&PartId::Encode(4)), "{parts:?}");
    assert_eq!(second.until_ended(&job("h264")).await, State::Completed);
    let twice: BTreeSet<PartId> = children.ran().into_iter().filter(|(_, times)| *times > 1).map(|(p, _)| p).collect();
    assert!(twice.iter().all(|part| !parts.contains_key(part)), "done twice: {twice:?}, were done: {parts:?}");
}

#[tokio::test]
async fn where_content_decides_chunks_are_analysed_then_it_is_decided_once_and_every_chunk_encoded_by_it() {
    let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
    let mut process = site.start(&children);
    assert_eq!(process.until_ended(&job("narrowband-h264")).await, State::Completed);
    let ran = children.ran();
    assert!(ran.values().all(|times| *times == 1), "{ran:?}");
    let chunks = ran.keys().filter(|part| matches!(part, PartId::Encode(_))).count();
    let analysed = ran.keys().filter(|part| matches!(part, PartId::Analyse(_))).count();
    assert!(chunks > 6 && chunks == analysed, "several windows of both: {ran:?}");
    let place = |is: &dyn Fn(&Fact) -> bool| process.facts().iter().position(|fact| is(fact)).unwrap();
    let decided = place(&|f| matches!(f, Fact::PartCompleted { part: PartId::Decide, .. }));
    let started = place(&|f| matches!(f, Fact::StageStarted { stage: Stage::Analyse, .. }));
    let encoding = place(&|f| matches!(f, Fact::StageStarted { stage: Stage::Encode, .. }));
    assert!(started < decided && decided < encoding, "{:?}", process.facts());
    let last = process.facts().iter().rposition(|f| matches!(f, Fact::PartCompleted { part: PartId::Analyse(_), .. })).unwrap();
    assert!(last < decided, "{:?}", process.facts());

    let report = report(&process).await;
    let found = report.narrowband.expect("content decided");
    assert_eq!((found.analysis.len(), found.grounds.decision.rungs.len()), (chunks, report.rungs.len()));
    let crf = |chunk: usize| report.chunks[chunk].rungs[0].planned.expect("it was planned").crf;
    assert!(crf(0) != crf(chunks - 1), "the last chunk is harder than the first");
    assert!(found.grounds.grid.segments_on_cuts > 1, "{:?}", found.grounds.grid);
}

#[tokio::test]
async fn what_was_decided_stays_although_a_job_is_broken_off_and_taken_up() {
    let site = Site::new();
    let children = FakeChildren::new(|part, before| if part == PartId::Encode(1) && before == 0 { Act::Hang } else { Act::Work });
    let process = site.start(&children);
    let (stopper, stop) = shutdown::channel();
    let worker = tokio::spawn(process.worker().run(stop));
    let _events = process.submit(&job("narrowband-h264")).await;
    children.hanging.notified().await;
    stopper.stop();
    worker.await.unwrap().unwrap();
    let decided = site.dir.path().join("work/jobs/talk/plan-decided.json");
    let before = std::fs::read(&decided).unwrap();
    let draft = std::fs::read(decided.with_file_name("plan.json")).unwrap();
    // Whoever decided died before it was said, and one analysis is told otherwise by now.
    for part in [PartId::Decide, PartId::Analyse(0)] {
        process.tools.stores.work().delete(&Key::marker(&id(), part)).await.unwrap();
    }

    let mut second = site.start(&children);
    let accepted = accepted(&second).await;
    assert!(matches!(resume::look(&second.tools, &accepted).await, Ok(Found::Begun { .. })));
    assert_eq!(second.until_ended(&job("narrowband-h264")).await, State::Completed);
    assert_eq!(std::fs::read(&decided).unwrap(), before);
    assert_eq!(std::fs::read(decided.with_file_name("plan.json")).unwrap(), draft, "the draft is never written over");
    assert_eq!(children.ran()[&PartId::Analyse(0)], 1, "what is decided needs no analysis");
}

#[tokio::test]
async fn a_part_whose_object_was_removed_is_done_again_and_no_other() {
    // Where content decides every chunk is asked for to the end, those encoded first as well.
    for (preset, part) in
        ["h264", "narrowband-h264"].into_iter().flat_map(|preset| (0..3).map(move |n| (preset, PartId::Encode(n))))
    {
        let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
        let mut process = site.start(&children);
        process.until_ended(&job(preset)).await;
        let key = Key::marker(&id(), part);
        let marker: Marker = process.tools.stores.work().get_json(&key).await.unwrap().unwrap();
        let kept = |path: &str| site.dir.path().join("out").join(path);
        // Of a chunk that was repaired the first top rung is gone already.
        let lost = marker.objects.iter().rfind(|o| o.path.ends_with(".m4s") && kept(&o.path).is_file()).unwrap();
        std::fs::remove_file(kept(&lost.path)).unwrap();
        let before = children.ran();

        let mut second = site.start(&children);
        let accepted = accepted(&second).await;
        assert!(matches!(resume::look(&second.tools, &accepted).await, Ok(Found::Begun { .. })));
        assert_eq!(second.until_ended(&job(preset)).await, State::Completed, "{preset} {part}");
        let again: Vec<PartId> =
            children.ran().into_iter().filter(|(part, times)| before.get(part) != Some(times)).map(|(part, _)| part).collect();
        assert_eq!(again, [part], "{preset}");
        assert!(kept(&lost.path).is_file());
    }
}

#[tokio::test]
async fn a_child_that_dies_is_tried_again_and_the_report_says_so() {
    let children = FakeChildren::new(|part, before| if part == PartId::Encode(0) && before < 2 { Act::Die } else { Act::Work });
    let site = Site::new();
    let mut process = site.start(&children);
    assert_eq!(process.until_ended(&job("h264")).await, State::Completed);
    let report = report(&process).await;
    assert_eq!((report.chunks[0].attempt, report.totals.repeated_attempts), (3, 2));
    let Some(Fact::JobCompleted { usage, .. }) = process.facts().into_iter().last() else { panic!("it is the last event") };
    assert_eq!((usage.wasted_attempts, usage.wasted_cpu_s), (2, 0.02));
    let failed = |f: &&Fact| matches!(f, Fact::PartFailed { part: PartId::Encode(0), again: true, .. });
    assert_eq!(process.facts().into_iter().filter(failed).count(), 2);
}

#[tokio::test]
async fn a_part_that_fails_every_time_fails_its_job_once() {
    let children = FakeChildren::new(|part, _| if part == PartId::Encode(2) { Act::Die } else { Act::Work });
    let site = Site::new();
    let mut process = site.start(&children);
    assert_eq!(process.until_ended(&job("h264")).await, State::Failed);
    let failure = process.status.failure.clone().unwrap();
    assert_eq!(failure.cause, Cause::Internal);
    assert!(failure.message.contains("SIGSEGV") && failure.message.contains("encode/00002"), "{}", failure.message);
    assert_eq!(children.ran()[&PartId::Encode(2)], 3);
    assert!(!site.dir.path().join("out/master.m3u8").exists());
    assert_eq!(process.depth(), 0);
}

#[tokio::test]
async fn a_refused_source_fails_its_job_at_once_and_stops_the_other_parts() {
    // One part hangs until it is stopped; the other is refused only when the first one hangs.
    let children = FakeChildren::new(|part, _| match part {
        PartId::Encode(0) => Act::Hang,
        PartId::Encode(1) => Act::Refuse,
        _ => Act::Work,
    });
    let site = Site::new();
    let mut process = site.start(&children);
    assert_eq!(process.until_ended(&job("h264")).await, State::Failed);
    let failure = process.status.failure.clone().unwrap();
    assert_eq!((failure.cause, failure.message.as_str()), (Cause::Media, "truncated at 12.5 s"));
    assert_eq!(children.ran()[&PartId::Encode(1)], 1);
    assert!(scratch_is_empty(&site));
}

#[tokio::test]
async fn a_child_cannot_have_a_file_from_elsewhere_uploaded() {
    let children = FakeChildren::new(|part, _| if part == PartId::Encode(0) { Act::Escape } else { Act::Work });
    let site = Site::new();
    let mut process = site.start(&children);
    assert_eq!(process.until_ended(&job("h264")).await, State::Failed);
    let message = process.status.failure.clone().unwrap().message;
    assert!(message.contains("'link'"), "{message}");
}

#[tokio::test]
async fn progressive_files_leave_no_segments_behind() {
    let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
    let mut process = site.start(&children);
    assert_eq!(process.until_ended(&job("mp4-h264")).await, State::Completed);
    let mut names: Vec<_> = std::fs::read_dir(site.dir.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["360p.mp4", "report.json"]);
    let media = process.tools.stores.work().list("jobs/talk/media/").await.unwrap();
    assert_eq!(media, Vec::<String>::new());
    let again = site.start(&children);
    let accepted = accepted(&again).await;
    assert_eq!(resume::look(&again.tools, &accepted).await, Ok(Found::Complete));
}

#[tokio::test]
async fn a_wrong_job_is_rejected_and_a_message_of_no_sense_is_not_worked_on() {
    let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
    let mut process = site.start(&children);
    let mut wrong = job("h264");
    wrong.preset = "h266".into();
    process.broker.publish(Queue::Jobs(Lane::Normal), b"no job".to_vec()).await.unwrap();
    let unknown = PartMessage { job: "ghost".to_string().try_into().unwrap(), part: PartId::Encode(7) };
    let body = serde_json::to_vec(&unknown).unwrap();
    process.broker.publish(Queue::Work(Class::Cpu, Lane::Normal), body).await.unwrap();
    assert_eq!(process.until_ended(&wrong).await, State::Rejected);
    let rejected = |f: &&Fact| matches!(f, Fact::JobRejected { path, .. } if path == "preset");
    assert_eq!(process.facts().into_iter().filter(rejected).count(), 1);
    assert_eq!((children.ran().len(), process.depth()), (0, 0));
    // Whoever waits for the unknown job is told that it failed.
    assert_eq!(process.broker.unsettled(Queue::events_of("ghost")), 1);
}

#[tokio::test]
async fn the_same_id_with_another_content_is_another_job_and_rejected() {
    let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
    site.start(&children).until_ended(&job("h264")).await;
    let second = site.start(&children);
    let other = Accepted { id: id(), ..Accepted::new(job("h265"), accepted(&second).await.source).unwrap() };
    assert_eq!(resume::look(&second.tools, &other).await, Ok(Found::Foreign));
    let document = serde_json::to_vec(&job("h265")).unwrap();
    let event = second.until_rejected(&document).await;
    assert_eq!(event.job, rejected_stream(&document), "not told under the id of the other job");
    assert!(matches!(&event.fact, Fact::JobRejected { path, requested_id: Some(id), .. } if path == "id" && id == "talk"));
    std::fs::write(site.dir.path().join("talk.mp4"), b"other media").unwrap();
    let third = site.start(&children);
    let event = third.until_rejected(&serde_json::to_vec(&job("h264")).unwrap()).await;
    assert!(matches!(&event.fact, Fact::JobRejected { path, .. } if path == "id"));
    assert_eq!(resume::look(&third.tools, &accepted(&third).await).await, Ok(Found::Complete), "the first is as it was");
}

#[tokio::test]
async fn a_delivery_that_is_open_for_longer_than_it_may_take_is_stuck() {
    let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
    let mut worker = Worker::new(site.start(&children).tools.clone(), settings());
    let task = worker.running.spawn(std::future::pending());
    let ((stopper, _), since) = (shutdown::channel(), tokio::time::Instant::now());
    worker.open.insert(task.id(), Open { class: Class::Cpu, part: None, since, stopper, copies: Vec::new(), _permit: None });
    let longest = settings().part_deadline + LAST_WORDS + ROUND_ABOUT;
    assert_eq!(worker.stuck(since + longest), 0);
    assert_eq!(worker.stuck(since + longest + Duration::from_millis(1)), 1);
}
