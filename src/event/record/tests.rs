use super::*;
use crate::event::{Cause, Failure};
use crate::plan::marker::PartId;
use crate::usage::Usage;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn id() -> JobId {
    JobId::try_from("talk".to_string()).unwrap()
}

fn event(fact: Fact) -> Event {
    Event::new(id(), "acme".into(), 1_700_000_000_000, fact)
}

fn new() -> Projection {
    Projection::new(id(), "acme".into())
}

fn stage_started(stage: Stage, parts: u64, frames: u64) -> Fact {
    Fact::StageStarted { stage, parts, frames, media_s: 4.0 }
}

fn part(part: PartId, frames: u64) -> Fact {
    Fact::PartCompleted { part, attempt: 1, frames, wall_s: 1.0, cpu_s: 1.0 }
}

fn completed() -> Fact {
    let usage = Usage { frames: 400, ..Usage::default() };
    Fact::JobCompleted { report: "report.json".into(), outputs: Default::default(), usage }
}

fn failed() -> Fact {
    Fact::JobFailed { failure: Failure { cause: Cause::Media, message: "cut".into() }, usage: Usage::default() }
}

fn rejected(path: &str) -> Fact {
    Fact::JobRejected { path: path.into(), reason: "is wrong".into(), requested_id: None }
}

/// Everything that is told of a job of twenty chunks that goes well, in order.
fn whole_job() -> Vec<Event> {
    let mut facts = vec![Fact::JobAccepted, Fact::JobStarted, stage_started(Stage::Probe, 1, 0), part(PartId::Probe, 0)];
    facts.extend([Fact::StageCompleted { stage: Stage::Probe }, stage_started(Stage::Encode, 21, 400)]);
    facts.push(part(PartId::Audio(0), 0));
    for n in 0..20 {
        let fact = Fact::PartFailed { part: PartId::Encode(n), attempt: 1, reason: "died".into(), again: true };
        facts.extend((n % 7 == 3).then_some(fact));
        facts.push(part(PartId::Encode(n), 20));
    }
    facts.extend([Fact::StageCompleted { stage: Stage::Encode }, stage_started(Stage::Package, 1, 0)]);
    for name in ["720p", "360p"] {
        let playlist = format!("{name}/index.m3u8");
        facts.push(Fact::RenditionCompleted { rendition: name.into(), playlist, url: None, media: None });
    }
    facts.extend([part(PartId::Package, 0), Fact::StageCompleted { stage: Stage::Package }, completed()]);
    facts.into_iter().map(event).collect()
}

fn record_all<'a>(projection: &mut Projection, events: impl IntoIterator<Item = &'a Event>) -> Vec<Recorded> {
    events.into_iter().flat_map(|event| projection.apply(event).unwrap_or_default()).collect()
}

fn kinds(recorded: &[Recorded]) -> Vec<&str> {
    recorded.iter().map(|r| r.kind.as_str()).collect()
}

#[test]
fn a_job_is_told_from_its_acceptance_to_its_end_with_progress_at_each_tenth() {
    let recorded = record_all(&mut new(), &whole_job());
    let told = kinds(&recorded);
    let count = |kind: &str| told.iter().filter(|k| **k == kind).count();
    assert_eq!((told[0], told[1], *told.last().unwrap()), ("job.accepted", "job.started", "job.completed"));
    assert_eq!((count(PROGRESS), count("part.failed"), count("rendition.completed"), count("part.completed")), (10, 3, 2, 0));
    let percents: Vec<u64> = recorded.iter().filter_map(|r| r.data.get("percent")?.as_u64()).collect();
    assert_eq!(percents, (1..=10).map(|n| n * 10).collect::<Vec<_>>());
    let sequences: Vec<u64> = recorded.iter().map(|r| r.sequence).collect();
    assert_eq!(sequences, (1..=recorded.len() as u64).collect::<Vec<_>>());
    assert!(recorded.last().unwrap().is_last() && !recorded[0].is_last());
}

#[test]
fn a_recorded_event_is_the_document_that_the_version_says() {
    let mut projection = new();
    record_all(&mut projection, &[event(Fact::JobAccepted)]);
    let playlist = "720p/index.m3u8".into();
    let playable = event(Fact::RenditionCompleted { rendition: "720p".into(), playlist, url: None, media: None });
    let recorded = projection.apply(&playable).unwrap();
    let expected = concat!(
        r#"{"version":1,"id":"talk/rendition.completed/720p","job":"talk","tenant":"acme","sequence":2,"#,
        r#""at":"2023-11-14T22:13:20.000Z","type":"rendition.completed","#,
        r#""data":{"playlist":"720p/index.m3u8","rendition":"720p"},"#,
        r#""status":{"state":"accepted","percent":0,"accepted_at":"2023-11-14T22:13:20.000Z","stages":{},"#,
        r#""renditions":[{"name":"720p","playlist":"720p/index.m3u8","at":"2023-11-14T22:13:20.000Z"}],"#,
        r#""failure":null,"failed_attempts":0}}"#
    );
    assert_eq!(serde_json::to_string(&recorded[0]).unwrap(), expected);
    assert_eq!(serde_json::from_str::<Recorded>(expected).unwrap(), recorded[0]);
}

#[test]
fn the_first_end_stands_and_another_is_an_error_that_changes_nothing() {
    let mut projection = new();
    record_all(&mut projection, &[event(Fact::JobStarted), event(failed())]);
    let before = projection.clone();
    let late = projection.apply(&event(completed())).unwrap_err();
    assert_eq!((late.state, projection == before), (State::Failed, true));
    assert_eq!(projection.apply(&event(failed())), Ok(Vec::new()), "the same end again is no news");
    assert_eq!(projection.apply(&event(rejected("lane"))).unwrap_err().state, State::Failed);
}

#[test]
fn each_wrong_document_under_an_id_is_rejected_and_the_mended_one_runs() {
    let mut projection = new();
    let facts = [rejected("lane"), rejected("lane"), rejected("preset"), Fact::JobAccepted, rejected("lane"), Fact::JobStarted];
    let events: Vec<Event> = facts.into_iter().map(event).collect();
    let recorded = record_all(&mut projection, &events[..3]);
    assert_eq!(recorded.len(), 2);
    assert_eq!(projection.status.rejection.as_ref().unwrap().path, "preset");
    let recorded = record_all(&mut projection, &events[3..]);
    assert_eq!(kinds(&recorded), ["job.accepted", "job.started"]);
    assert_eq!((projection.sequence, projection.status.rejection.clone()), (4, None));
    assert!(recorded[0].sequence == 3 && recorded[0].status.ended_at.is_none());
}

#[test]
fn a_tenant_is_told_of_each_freeze_once_and_nothing_older() {
    let mut projection = new();
    let frozen = |since_ms| event(Fact::TenantFrozen { reason: "unpaid".into(), since_ms });
    let events = [frozen(5), frozen(5), event(Fact::TenantUnfrozen { since_ms: 9, reason: None }), frozen(5), frozen(12)];
    let recorded = record_all(&mut projection, &events);
    assert_eq!(kinds(&recorded), ["tenant.frozen", "tenant.unfrozen", "tenant.frozen"]);
    assert_eq!(projection.status, Status::default());
}

#[test]
fn the_state_of_a_long_job_stays_small() {
    let mut projection = new();
    let mut events: Vec<Event> = vec![event(Fact::JobStarted), event(stage_started(Stage::Encode, 6_000, 900_000))];
    events.extend((0..6_000).map(|n| event(part(PartId::Encode(n), 150))));
    record_all(&mut projection, &events);
    let text = serde_json::to_string(&projection).unwrap();
    assert!(text.len() < 4_096, "{} bytes", text.len());
    assert_eq!(serde_json::from_str::<Projection>(&text).unwrap(), projection);
}

/// Facts as a broker and several workers may tell them: out of order within some distance, some of them again.
fn shaken(events: Vec<Event>, moves: &[(usize, usize)], again: &[usize]) -> Vec<Event> {
    let mut told = events;
    for (from, distance) in moves {
        let from = from % told.len();
        let to = (from + distance % 6).min(told.len() - 1);
        let moved = told.remove(from);
        told.insert(to, moved);
    }
    for place in again {
        let copy = told[place % told.len()].clone();
        told.insert((place / 7) % (told.len() + 1), copy);
    }
    told
}

proptest! {
    #[test]
    fn however_facts_come_sequences_have_no_gap_ids_no_double_and_the_end_is_one(
        moves in prop::collection::vec((any::<usize>(), any::<usize>()), 0..40),
        again in prop::collection::vec(any::<usize>(), 0..40),
        other_end in prop::option::of(any::<usize>()),
    ) {
        let mut told = shaken(whole_job(), &moves, &again);
        if let Some(place) = other_end {
            told.insert(place % told.len(), event(failed()));
        }
        let mut projection = new();
        let recorded = record_all(&mut projection, &told);
        let ids: BTreeSet<&str> = recorded.iter().map(|r| r.id.as_str()).collect();
        prop_assert_eq!(ids.len(), recorded.len());
        for (place, r) in recorded.iter().enumerate() {
            prop_assert_eq!(r.sequence, place as u64 + 1);
        }
        let ends = recorded.iter().filter(|r| matches!(r.kind.as_str(), "job.completed" | "job.failed")).count();
        prop_assert_eq!(ends, 1);
        prop_assert_eq!(record_all(&mut new(), &told), recorded.clone(), "the same facts in the same order");
        // Told all over again, nothing is new.
        prop_assert_eq!(record_all(&mut projection, &told), vec![]);
        prop_assert!(recorded.last().is_some_and(Recorded::is_last));
    }

    /// A coordinator dies after some facts; of the last batch it wrote some records, and not the state. The next one
    /// reads the state, takes over what is recorded, and is told the batch again, in whatever order.
    #[test]
    fn what_was_recorded_before_a_crash_stays_and_the_rest_follows_without_a_gap(
        saved in 0_usize..60,
        batch in 1_usize..20,
        written in 0_usize..20,
        reversed in any::<bool>(),
        moves in prop::collection::vec((any::<usize>(), any::<usize>()), 0..20),
    ) {
        let told = shaken(whole_job(), &moves, &[]);
        let saved = saved.min(told.len() - 1);
        let end = (saved + batch).min(told.len());
        let mut first = new();
        let mut recorded = record_all(&mut first, &told[..saved]);
        let text = serde_json::to_string(&first).unwrap();
        let lost = record_all(&mut first, &told[saved..end]);
        let kept = &lost[..written.min(lost.len())];

        let mut second: Projection = serde_json::from_str(&text).unwrap();
        for r in kept {
            prop_assert!(second.adopt(r));
        }
        recorded.extend_from_slice(kept);
        let mut again = told[saved..end].to_vec();
        if reversed {
            again.reverse();
        }
        recorded.extend(record_all(&mut second, again.iter().chain(&told[end..])));
        let ids: BTreeSet<&str> = recorded.iter().map(|r| r.id.as_str()).collect();
        prop_assert_eq!(ids.len(), recorded.len(), "{:?}", kinds(&recorded));
        for (place, r) in recorded.iter().enumerate() {
            prop_assert_eq!(r.sequence, place as u64 + 1);
        }
        prop_assert_eq!(recorded.iter().filter(|r| r.kind == "job.completed").count(), 1);
        if moves.is_empty() && !reversed {
            let stage = &second.status.stages[&Stage::Encode];
            prop_assert!(stage.completed && stage.parts_done == stage.parts);
        }
    }
}
