//! Laws of the causal store over many random cases: joins in any order and number come to
//! the same, deltas to the same as full states, what is encoded is decoded, and nothing
//! else is.
//!
//! `QUORATE_SEEDS=1000000` takes so many cases of each law.

#[path = "../causal_model/random.rs"]
mod random;

mod encodings;
mod joins;
mod sets;

use random::Random;

/// Cases of a law unless `QUORATE_SEEDS` says more.
const CASES_DEFAULT: u64 = 5_000;

/// Runs a law over many seeds; its name and seed are in the message of one that fails.
fn for_all(law: impl Fn(&mut Random)) {
    let cases = match std::env::var("QUORATE_SEEDS") {
        Ok(text) => text.parse().expect("QUORATE_SEEDS is a number"),
        Err(_) => CASES_DEFAULT,
    };
    for seed in 0..cases {
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            law(&mut Random::new(seed));
        }));
        assert!(run.is_ok(), "seed {seed}: the law above does not hold");
    }
}
