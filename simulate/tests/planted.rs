//! Mistakes that take what only a simulation has at hand must be noticed: each is hunted from the
//! seed that once showed it, and then by others.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use quorate_simulate::{Family, Mistakes, Options, Plan, Running, Work, run};

/// Seeds that are tried until one must have shown a mistake.
const SEEDS_MAX: u64 = 60;

/// Plays seeds with a mistake until one shows it.
fn must_be_noticed(first: u64, family: Family, work: Work, plant: impl Fn(&mut Mistakes)) {
    let mut options = Options {
        family,
        work: vec![work],
        ..Options::default()
    };
    plant(&mut options.mistakes);
    for seed in first..first + SEEDS_MAX {
        let outcome = run(&Plan::of(seed, &options), &Running::new(false));
        if let Some(problem) = outcome.problems.first() {
            println!("seed {seed}: {problem}");
            return;
        }
    }
    panic!("not noticed within {SEEDS_MAX} seeds from {first} on");
}

#[test]
fn a_sync_that_lies_once_is_noticed() {
    must_be_noticed(20, Family::All, Work::Registers, |mistakes| {
        mistakes.lying_sync = true;
    });
}

#[test]
fn a_lease_by_a_clock_that_jumps_is_noticed() {
    must_be_noticed(3, Family::All, Work::Registers, |mistakes| {
        mistakes.raft.lease_by_wall_clock = true;
    });
}

#[test]
fn a_hint_that_brings_back_what_was_collected_is_noticed() {
    must_be_noticed(10, Family::All, Work::Siblings, |mistakes| {
        mistakes.eventual.revive_collected = true;
    });
}
