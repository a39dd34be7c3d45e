//! Running tests by seed: one seed decides the whole course.

use std::future::Future;
use std::sync::atomic::Ordering;

use crate::world::{Settings, Shared, World};

/// A number from the environment.
pub fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How many seeds a test tries.
pub fn seeds(default: u64) -> u64 {
    number_from("QUORATE_SEEDS").unwrap_or(default)
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
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true);
    // Without it tokio wakes those who wait for one value in an order that no seed decides.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
    let runtime = builder.build().unwrap();
    runtime.block_on(async {
        let world = World::start(seed, settings).await;
        test(world.clone()).await;
        world.end_all();
        Shown {
            answered: world.answered.load(Ordering::Relaxed),
            violations: world.violations(),
        }
    })
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
    let seeds = seeds(seeds_default);
    let first = number_from("QUORATE_SEED").unwrap_or(0);
    let mut answered = 0;
    for seed in first..first + seeds {
        println!(
            "seed {seed}; replay: QUORATE_SEED={seed} \
             QUORATE_SEEDS=1 cargo test -p quorate-eventual --test simulation {name}"
        );
        let shown = run(seed, settings.clone(), &test);
        assert!(
            shown.violations.is_empty(),
            "seed {seed}: {:#?}",
            shown.violations
        );
        answered += shown.answered;
    }
    println!("{seeds} seeds, {answered} answers");
    assert!(
        answered >= seeds * 10,
        "too little was done for {name} to mean anything: {answered}"
    );
}

/// Runs seeds with something broken on purpose, until one shows what `is_found` looks for. With
/// `QUORATE_SHARE` set it plays so many seeds to their ends, and says how many show it.
pub fn must_be_found<Test>(
    seeds: u64,
    settings: &Settings,
    is_found: impl Fn(&str) -> bool,
    test: impl Fn(Shared) -> Test,
) where
    Test: Future<Output = ()>,
{
    let show = |seed: u64| {
        let shown = run(seed, settings.clone(), &test);
        let found = shown.violations.into_iter().find(|v| is_found(v))?;
        println!("found with seed {seed}: {found}");
        Some(found)
    };
    if let Some(share_of) = number_from("QUORATE_SHARE") {
        let found = (0..share_of).filter_map(&show).count();
        return println!("{found} of {share_of} seeds show it; {seeds} are tried");
    }
    let is_noticed = (0..seeds).any(|seed| show(seed).is_some());
    assert!(is_noticed, "{seeds} seeds do not notice {settings:?}");
}
