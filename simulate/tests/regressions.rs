//! Seeds that have found something, each with what that was. A seed leads elsewhere once there are
//! more faults or more work to draw from; what it found has a test of its own in the crate at fault,
//! where it can be told in steps.

use quorate_simulate::{Options, Plan, Running, Setting, run};

fn play(seed: u64) {
    // All engines flushed so soon when these were found.
    let flush = Setting::parse("flush-millis=300").unwrap_or_else(|problem| panic!("{problem}"));
    let options = Options {
        settings: vec![flush],
        ..Options::default()
    };
    let plan = Plan::of(seed, &options);
    let outcome = run(&plan, &Running::new(false));
    assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
}

/// openraft ends a group whose log could not be read, and nothing noticed: the replica was lost to
/// its range for as long as the process ran (`raft/src/failed.rs`).
#[test]
fn a_node_whose_replica_has_ended_does_not_go_on_without_it() {
    play(129);
}

/// A copy of an append that never came was let through behind later ones, which no connection does:
/// a leader was told that a follower had an entry, and then that it had not.
#[test]
fn what_was_lost_does_not_come_behind_what_was_sent_later() {
    play(48);
}

/// A watch that went on where it had come to was refused for good by a node whose clock was seconds
/// behind: "in the future" (`gateway/src/watch/stream.rs`).
#[test]
fn a_watch_goes_on_at_a_node_whose_clock_is_behind() {
    play(230);
}

/// An engine that a write had gone astray in panicked as it was opened, where it should have said
/// that it is damaged (`storage/src/engine/file.rs`).
#[test]
fn an_engine_whose_pages_are_not_what_they_should_be_is_refused() {
    play(1_099);
}

/// What only a damaged node had came from it after the others had been found the same.
#[test]
fn a_damaged_node_stays_away_in_the_end() {
    play(1_102);
    let options = Options::default();
    for seed in [2_012, 2_315] {
        let plan = Plan::of(seed, &options);
        let outcome = run(&plan, &Running::new(false));
        assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
    }
}
