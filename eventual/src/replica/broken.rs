//! Mistakes of a replica that take more than a condition: the negative controls of tests. Never
//! reached in a server that was not told to make them.

use quorate_types::causal::{Clock, Delta, Dots, Outcome, Record, accept, settle};

use super::Replica;

impl Replica {
    /// Takes a write in as if nothing were known of it but what is live.
    pub(super) fn accept_the_dead(
        &self,
        clock: &mut Clock,
        record: &Record,
        delta: &Delta,
    ) -> Outcome {
        let outcome = accept(&mut Clock::default(), record, delta);
        let clock_grew = accept(clock, record, delta).clock_grew;
        let record = outcome.record.map(|record| match settle(clock, &record) {
            Some(settled) => settled,
            None => record,
        });
        Outcome { record, clock_grew }
    }

    /// Forgets the names of values that are no longer live.
    pub(super) fn forget_replaced(&self, clock: &mut Clock, before: &Record, after: &Record) {
        let is_live = |dot| after.live().any(|(live, _)| *live == dot);
        let replaced = before.live().map(|(dot, _)| *dot);
        let replaced: Dots = replaced.filter(|dot| !is_live(*dot)).collect();
        *clock = Clock::of(clock.dots().without(&replaced));
    }
}
