//! Some seeds of whole clusters, and that a seed decides all of a run.
//!
//! `QUORATE_SEEDS` says how many seeds are tried, `QUORATE_SEED` with which it begins.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use quorate_simulate::{Options, Outcome, Plan, Running, run};

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn played(seed: u64, options: &Options) -> Outcome {
    let plan = Plan::of(seed, options);
    run(&plan, &Running::new(false))
}

#[test]
fn no_seed_finds_anything_wrong() {
    let first = number_from("QUORATE_SEED").unwrap_or(0);
    let seeds = number_from("QUORATE_SEEDS").unwrap_or(12);
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let begun = std::time::Instant::now();
        let outcome = played(seed, &Options::default());
        println!("seed {seed}: {:?} in {:?}", outcome.spent, begun.elapsed());
        if !outcome.problems.is_empty() {
            println!("seed {seed} failed: {:#?}", outcome.problems);
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "seeds {failed:?} fail; `quorate simulate --seeds N` replays one"
    );
}

#[test]
fn a_seed_decides_the_whole_course() {
    for seed in 0..number_from("QUORATE_SEEDS").unwrap_or(4) {
        let once = played(seed, &Options::default());
        let again = played(seed, &Options::default());
        assert_eq!(
            once.hash, again.hash,
            "seed {seed}: {:?}, {:?}",
            once.spent, again.spent
        );
    }
}
