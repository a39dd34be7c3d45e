//! What tests break on purpose, and what they watch: the negative controls of the simulation.
//!
//! Not here: faults of disks and networks, which are their seams'.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::RangeId;

/// Mistakes that the simulation must find.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A hint is deleted once any primary has it, though that one was counted already.
    pub any_primary: bool,
    /// A peer's clock is taken over before its records.
    pub clock_first: bool,
    /// Repair sends the records of one moment with the clock of a later one.
    pub clock_newer: bool,
    /// What is in memory is said to be on disk.
    pub acknowledge_before_sync: bool,
    /// Values expire by a clock that is far from all others.
    pub trust_any_clock: bool,
    /// Starts are closed before primaries are compared.
    pub close_before_repair: bool,
    /// Starts are closed of which some node keeps hints.
    pub close_despite_hints: bool,
    /// In a `mixed` range, starts are closed before the log has what the repair has found.
    pub close_unabsorbed: bool,
    /// Hash trees are not built, and so not kept up: what their upkeep costs is measured so.
    pub leave_trees_cold: bool,
    /// A retry takes a new name.
    pub rename_retries: bool,
    /// In a `mixed` range, rows go when the log is asked to absorb them.
    pub trim_when_proposed: bool,
    /// In a `mixed` range, a new row does not begin with what the log has decided.
    pub row_without_seed: bool,
    /// In a `mixed` range, a peer's clock is taken over whatever the log is known to have.
    pub clock_without_log: bool,
    /// In a `mixed` range, the log takes in a base while keys of it are still to be absorbed.
    pub base_while_fresh: bool,
    /// In a `mixed` range, a peer's clock is taken over beside rows that have not taken in what
    /// the log has decided.
    pub merge_beside_old_rows: bool,
    /// A late copy of a write that was replaced brings it back.
    pub accept_the_dead: bool,
    /// What a write replaces leaves the range's clock.
    pub replaced_leaves_clock: bool,
    /// A repair puts what a peer has in place of what is here.
    pub repair_overwrites: bool,
    /// Rows that go to the log stay in the hash tree.
    pub tree_keeps_trimmed: bool,
    /// Stand-ins count where only primaries may.
    pub sloppy_as_strict: bool,
    /// A fence asks one primary.
    pub fence_of_one: bool,
    /// Each start of a node gives out the names of the one before.
    pub start_again: bool,
    /// A stand-in says that it keeps a hint, and does not.
    pub hints_unkept: bool,
    /// A late copy of a write whose key's record has gone, since all that was written is dead and
    /// known, is taken for a new write.
    pub revive_collected: bool,
}

type Hears = dyn Fn(RangeId, &Bytes, &[Bytes]) + Send + Sync;

/// Hears of every write that a coordinator names: its range, encoded key and deltas, before anything is
/// acknowledged.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Witness(pub Option<Arc<Hears>>);

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

impl Witness {
    pub(crate) fn saw(&self, range: RangeId, key: &Bytes, deltas: &[Bytes]) {
        if let Some(witness) = &self.0 {
            witness(range, key, deltas);
        }
    }
}
