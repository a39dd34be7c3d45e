//! Seeds that have found something, each with what that was. A seed leads elsewhere once there are
//! more faults or more work to draw from; what it found has a test of its own in the crate at fault,
//! where it can be told in steps.

use quorate_simulate::{Options, Plan, Running, Setting, run};

fn play(seed: u64) {
    play_with(seed, &Options::default());
}

/// As it was when all engines flushed so soon.
fn play_flushing_soon(seed: u64) {
    let flush = Setting::parse("flush-millis=300").unwrap_or_else(|problem| panic!("{problem}"));
    let options = Options {
        settings: vec![flush],
        ..Options::default()
    };
    play_with(seed, &options);
}

fn play_with(seed: u64, options: &Options) {
    let plan = Plan::of(seed, options);
    let outcome = run(&plan, &Running::new(false));
    assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
}

/// openraft ends a group whose log could not be read, and nothing noticed: the replica was lost to
/// its range for as long as the process ran (`raft/src/failed.rs`).
#[test]
fn a_node_whose_replica_has_ended_does_not_go_on_without_it() {
    play_flushing_soon(129);
}

/// A copy of an append that never came was let through behind later ones, which no connection does:
/// a leader was told that a follower had an entry, and then that it had not.
#[test]
fn what_was_lost_does_not_come_behind_what_was_sent_later() {
    play_flushing_soon(48);
}

/// A watch that went on where it had come to was refused for good by a node whose clock was seconds
/// behind: "in the future" (`gateway/src/watch/stream.rs`).
#[test]
fn a_watch_goes_on_at_a_node_whose_clock_is_behind() {
    play_flushing_soon(230);
}

/// What only a damaged node had came from it after the others had been found the same.
#[test]
fn a_damaged_node_stays_away_in_the_end() {
    play(2_012);
    play(2_315);
}
