//! The pure decisions (what to do next, what is told to customers, in which order) under a scheduler that draws from a
//! seed who goes on next and what goes wrong: requests lost, replies lost, messages twice and out of order, processes that
//! die and processes that sleep and go on as if nothing had been.
//!
//! Workers, coordinators and the deliverer of callbacks are programs of single I/O steps over one store and one broker,
//! all in memory; [`narrows::reconcile`] and [`narrows::event::Projection`] are the real ones. After a stormy beginning a
//! calm follows, in which everything must come to its end.

mod actors;
mod coordinator;
mod worker;
mod world;

pub use world::World;

/// Schedules tried in one run of the tests.
const SCHEDULES: u64 = 100_000;

/// One schedule from its beginning to its end.
///
/// # Errors
/// What did not hold.
pub fn run(seed: u64) -> Result<world::Outcome, String> {
    let mut world = World::new(seed);
    world.run().map_err(|what| format!("seed {seed}: {what}\n{}", world.story()))
}

#[test]
fn whatever_is_lost_doubled_or_late_every_job_has_one_end_and_is_told_in_order() {
    // One of them alone: SCHEDULE=17 STORY=1.
    if let Some(seed) = std::env::var("SCHEDULE").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed).map(drop).unwrap_or_else(|what| panic!("{what}"));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let begun = std::time::Instant::now();
    let share = |thread: u64| (0..SCHEDULES).filter(move |seed| seed % threads == thread);
    let totals = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|t| scope.spawn(move || share(t).map(run).collect::<Result<Vec<_>, _>>())).collect();
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("a schedule does not panic")).collect();
        ended.into_iter().collect::<Result<Vec<_>, _>>()
    });
    let outcomes: Vec<_> = totals.unwrap_or_else(|what| panic!("{what}")).concat();
    let sum = |of: fn(&world::Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let count = |state| outcomes.iter().filter(|outcome| outcome.state == state).count();
    use narrows::event::State::{Canceled, Completed, Failed};
    println!("{SCHEDULES} schedules in {:.1} s on {threads} threads", begun.elapsed().as_secs_f64());
    println!("{} completed, {} failed, {} canceled", count(Completed), count(Failed), count(Canceled));
    println!(
        "{} steps, {} faults, {} ticks, {} callbacks",
        sum(|o| o.steps),
        sum(|o| o.faults),
        sum(|o| o.ticks),
        sum(|o| o.callbacks)
    );
    // A storm that breaks nothing, or everything, would prove nothing.
    for state in [Completed, Failed, Canceled] {
        assert!(count(state) as u64 > SCHEDULES / 200, "{state:?}: {}", count(state));
    }
}
