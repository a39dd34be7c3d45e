//! The mistakes that are known for keys on two planes, planted one by one: the storms must notice
//! each of them.

use quorate_eventual::Faults;

use crate::run::must_be_found;
use crate::storm::{Storm, storm};
use crate::world::Settings;

fn must_notice(seeds: u64, faults: Faults, what: Storm) {
    let mut settings = Settings::default();
    settings.eventual.faults = faults;
    must_be_found(seeds, &settings, |world| storm(world, what));
}

#[test]
fn rows_that_go_when_absorption_is_proposed_are_noticed() {
    let faults = Faults {
        trim_when_proposed: true,
        ..Faults::default()
    };
    must_notice(100, faults, Storm::ALL);
}

#[test]
fn a_row_without_its_seed_is_noticed() {
    let faults = Faults {
        row_without_seed: true,
        ..Faults::default()
    };
    must_notice(100, faults, Storm::ALL);
}

#[test]
fn a_clock_that_does_not_wait_for_the_log_is_noticed() {
    let faults = Faults {
        clock_without_log: true,
        ..Faults::default()
    };
    must_notice(300, faults, Storm::APART);
}

#[test]
fn a_base_before_its_keys_is_noticed() {
    let faults = Faults {
        base_while_fresh: true,
        ..Faults::default()
    };
    must_notice(100, faults, Storm::BUSY);
}

#[test]
fn a_snapshot_without_the_clock_is_noticed() {
    let raft = quorate_raft::Faults {
        snapshot_without_clock: true,
        ..quorate_raft::Faults::default()
    };
    let settings = Settings {
        raft,
        ..Settings::default()
    };
    must_be_found(1_000, &settings, |world| storm(world, Storm::ALL));
}
