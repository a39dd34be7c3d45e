//! Random schedules of an eventual range, run by the real store beside the plain rules. The
//! rules as written keep every promise; each known mistake, planted, breaks one of them
//! within a thousand seeds.
//!
//! `QUORATE_SEEDS=100000` makes the runs without mistakes longer.

mod exact;
mod random;
mod world;

use world::{Course, Mistake, World};

/// Seeds of a run that is expected to pass, unless `QUORATE_SEEDS` says more.
const SEEDS_DEFAULT: u64 = 300;
/// Seeds within which a planted mistake is to be found.
const MISTAKE_SEEDS: u64 = 1_000;

fn seeds() -> u64 {
    match std::env::var("QUORATE_SEEDS") {
        Ok(text) => text.parse().expect("QUORATE_SEEDS is a number"),
        Err(_) => SEEDS_DEFAULT,
    }
}

fn passes(course: Course) {
    for seed in 0..seeds() {
        if let Err(why) = World::new(seed, course).run() {
            panic!("seed {seed}: {why}");
        }
    }
}

fn is_found(mistake: Mistake) {
    let course = Course {
        mistake: Some(mistake),
        ..Course::default()
    };
    let found = (0..MISTAKE_SEEDS).any(|seed| World::new(seed, course).run().is_err());
    assert!(found, "{mistake:?} went unnoticed in {MISTAKE_SEEDS} seeds");
}

#[test]
fn nothing_is_lost_and_nothing_comes_back() {
    passes(Course::default());
}

#[test]
fn nothing_is_lost_and_nothing_comes_back_while_a_primary_is_away() {
    passes(Course {
        away: true,
        ..Course::default()
    });
}

#[test]
fn a_context_of_live_dots_alone_is_found() {
    is_found(Mistake::LiveOnly);
}

#[test]
fn a_context_without_replaced_dots_beyond_base_is_found() {
    is_found(Mistake::Compact);
}

#[test]
fn a_clock_that_forgets_is_found() {
    is_found(Mistake::Forget);
}

#[test]
fn a_hint_deleted_after_any_primary_is_found() {
    is_found(Mistake::AnyPrimary);
}

#[test]
fn a_clock_filled_before_its_records_is_found() {
    is_found(Mistake::ClockFirst);
}

#[test]
fn a_clock_newer_than_its_records_is_found() {
    is_found(Mistake::ClockNewer);
}

#[test]
fn an_empty_primary_under_its_old_name_is_found() {
    is_found(Mistake::Empty);
}

#[test]
fn a_context_of_maxima_is_found() {
    is_found(Mistake::Maxima);
}
