//! Small random histories, checked by our checkers and by trying everything: registers in all
//! linearizations, transactions in all serial orders. They must never disagree.
//!
//! `QUORATE_BRUTE_FORCE_HISTORIES` sets how many of each kind; a failure names its seed, and
//! `QUORATE_BRUTE_FORCE_SEED` runs that one alone.

mod dice;
mod recording;
mod registers;
mod transactions;

use std::ops::Range;

/// Histories of each kind, where nothing else is said.
const HISTORIES: u64 = 10_000;

/// The seeds to run.
fn seeds() -> Range<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    match number("QUORATE_BRUTE_FORCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QUORATE_BRUTE_FORCE_HISTORIES").unwrap_or(HISTORIES),
    }
}
