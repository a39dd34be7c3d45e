//! Mistakes that this field is known for, planted one at a time: the storm must find each.

use quorate_eventual::Faults;

use crate::run::must_be_found;
use crate::storm::{Storm, storm};
use crate::world::Settings;

/// Within so many seeds each is found: the rarest shows in three of a thousand.
const SEEDS_MAX: u64 = 5_000;

fn is_lost(violation: &str) -> bool {
    violation.contains("is lost")
}

fn is_wrong(violation: &str) -> bool {
    is_lost(violation) || violation.contains("came back") || violation.contains("beside")
}

fn found(storms: Storm, settings: &Settings, is_found: impl Fn(&str) -> bool) {
    must_be_found(SEEDS_MAX, settings, is_found, |world| storm(world, storms));
}

#[test]
fn a_hint_that_goes_once_any_primary_has_it_is_noticed() {
    let settings = Settings::with_faults(Faults {
        any_primary: true,
        ..Faults::default()
    });
    found(Storm::LOST_DISKS, &settings, is_lost);
}

#[test]
fn a_clock_that_comes_before_its_records_is_noticed() {
    let settings = Settings::with_faults(Faults {
        clock_first: true,
        ..Faults::default()
    });
    found(Storm::ALL, &settings, is_lost);
}

#[test]
fn a_clock_that_is_newer_than_its_records_is_noticed() {
    let settings = Settings::with_faults(Faults {
        clock_newer: true,
        ..Faults::default()
    });
    found(Storm::BUSY, &settings, is_lost);
}

#[test]
fn a_primary_that_comes_back_empty_under_its_old_name_is_noticed() {
    let settings = Settings {
        rejoin_empty: true,
        ..Settings::default()
    };
    found(Storm::LOST_DISKS, &settings, |violation| {
        is_wrong(violation) || violation.contains("given twice")
    });
}

#[test]
fn an_acknowledgement_before_the_sync_is_noticed() {
    let settings = Settings::with_faults(Faults {
        acknowledge_before_sync: true,
        ..Faults::default()
    });
    found(Storm::ALL, &settings, is_lost);
}
