//! Running tests by seed: one seed decides the whole course.

use std::sync::atomic::Ordering;

use quorate_simulate::{hear_panics, heard_panics, seeded_runtime};

use crate::world::{Settings, Shared, World};

/// A number from the environment.
pub fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What one seed showed.
pub struct Shown {
    pub answered: u64,
    pub violations: Vec<String>,
}

/// Runs one seed in simulated time.
pub fn run<Test>(seed: u64, settings: Settings, test: impl FnOnce(Shared) -> Test) -> Shown
where
    Test: Future<Output = ()>,
{
    hear_panics();
    let runtime = seeded_runtime(seed);
    runtime.block_on(async {
        let world = World::start(seed, settings).await;
        test(world.clone()).await;
        for line in std::mem::take(&mut world.ledger.lock().trace) {
            println!("{line}");
        }
        world.end_all();
        Shown {
            answered: world.answered.load(Ordering::Relaxed),
            violations: [heard_panics(), world.violations()].concat(),
        }
    })
}

/// Runs one seed that must show no violation: a scenario, or a seed that once failed.
pub fn must_be_right<Test>(seed: u64, settings: Settings, test: impl FnOnce(Shared) -> Test)
where
    Test: Future<Output = ()>,
{
    let shown = run(seed, settings, test);
    assert_eq!(shown.violations, Vec::<String>::new(), "seed {seed}");
}

/// Runs many seeds, none of which may show a violation, and all of which must do something.
pub fn run_all<Test>(
    name: &str,
    seeds_default: u64,
    settings: &Settings,
    test: impl Fn(Shared) -> Test,
) where
    Test: Future<Output = ()>,
{
    let seeds = number_from("QUORATE_SEEDS").unwrap_or(seeds_default);
    let first = number_from("QUORATE_SEED").unwrap_or(0);
    let (mut answered, mut failed) = (0, Vec::new());
    for seed in first..first + seeds {
        println!(
            "seed {seed}; replay: QUORATE_SEED={seed} \
             QUORATE_SEEDS=1 cargo test -p quorate-gateway --test mixed {name}"
        );
        let shown = run(seed, settings.clone(), &test);
        if !shown.violations.is_empty() {
            println!("seed {seed} failed: {:#?}", shown.violations);
            failed.push(seed);
        }
        answered += shown.answered;
    }
    println!("{seeds} seeds, {answered} answers");
    assert!(failed.is_empty(), "{name} fails with seeds {failed:?}");
    assert!(
        answered >= seeds * 10,
        "too little was done for {name} to mean anything: {answered}"
    );
}

/// Runs seeds with something broken on purpose, until one shows a violation. With
/// `QUORATE_SHARE` set it plays so many seeds to their ends, and says how many show it.
pub fn must_be_found<Test>(seeds: u64, settings: &Settings, test: impl Fn(Shared) -> Test)
where
    Test: Future<Output = ()>,
{
    let show = |seed: u64| {
        let shown = run(seed, settings.clone(), &test);
        let found = shown.violations.into_iter().next()?;
        println!("found with seed {seed}: {found}");
        Some(found)
    };
    if let Some(share_of) = number_from("QUORATE_SHARE") {
        let found = (0..share_of).filter_map(&show).count();
        return println!("{found} of {share_of} seeds show it; {seeds} are tried");
    }
    let seeds = number_from("QUORATE_SEEDS").unwrap_or(seeds);
    let first = number_from("QUORATE_SEED").unwrap_or(0);
    let is_noticed = (first..first + seeds).any(|seed| show(seed).is_some());
    assert!(is_noticed, "{seeds} seeds do not notice {settings:?}");
}
