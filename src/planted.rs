//! The mistakes that a server makes on demand, each a real one of this field: what the lab, and the
//! simulations, must find. None of them can be asked for but in a build with the feature
//! `planted-faults`; without it this is a handful of values that say "none".
//!
//! Not here: what a mistake changes, which is a condition where the right thing is done.

use std::time::Duration;

/// What a server does wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// In consensus, and in what the log does.
    pub raft: quorate_raft::Faults,
    /// On the eventual path.
    pub eventual: quorate_eventual::Faults,
    /// In what clients are told.
    pub gateway: quorate_gateway::Faults,
    /// What is acknowledged so long before it is written.
    pub acknowledged_early: Duration,
    /// One sync of each start lies. Simulated disks do it; a real one cannot be asked to.
    pub lying_sync: bool,
}

/// A mistake by its name.
pub struct Plant {
    /// As it is asked for.
    pub name: &'static str,
    /// What it does, in a line.
    pub what: &'static str,
    /// Which switch it is.
    pub set: fn(&mut Planted),
}

impl Plant {
    /// A server that makes it, and no other.
    pub fn planted(&self) -> Planted {
        let mut planted = Planted::default();
        (self.set)(&mut planted);
        planted
    }
}

/// The mistake of a name.
///
/// # Errors
///
/// What is known instead.
pub fn named(name: &str) -> Result<Planted, String> {
    let all = || TABLE.iter().chain(SIMULATED);
    let found = all().find(|plant| plant.name == name);
    found.map(Plant::planted).ok_or_else(|| {
        let names: Vec<&str> = all().map(|plant| plant.name).collect();
        format!("known are {}", names.join(", "))
    })
}

const fn plant(name: &'static str, what: &'static str, set: fn(&mut Planted)) -> Plant {
    Plant { name, what, set }
}

/// Those that the lab hunts with real processes.
pub const TABLE: &[Plant] = &[
    plant(
        "read-from-deposed-leader",
        "who thinks that it leads serves linearizable reads without asking a majority",
        |p| p.raft.unconfirmed_reads = true,
    ),
    plant(
        "lease-outlives-election",
        "a leader trusts a confirmation for 5 s, its followers wait less",
        |p| p.raft.stale_lease = true,
    ),
    plant(
        "read-joins-running-round",
        "a read joins a confirmation round that had begun before it",
        |p| p.raft.join_running_round = true,
    ),
    plant(
        "read-before-applied",
        "a follower reads before it has applied what its round told",
        |p| p.raft.read_before_applied = true,
    ),
    plant(
        "ack-before-fsync",
        "log and followers acknowledge what is written 100 ms later",
        |p| p.acknowledged_early = Duration::from_millis(100),
    ),
    plant(
        "ack-before-log",
        "a write is answered before its entry is in any log",
        |p| p.raft.acknowledge_before_log = true,
    ),
    plant(
        "ack-before-majority",
        "a write is answered once its leader has it",
        |p| p.raft.acknowledge_before_majority = true,
    ),
    plant(
        "vote-not-persisted",
        "votes and terms are forgotten by a restart",
        |p| p.raft.forget_votes = true,
    ),
    plant(
        "truncated-entry-reused",
        "an entry in the place of a truncated one gets that one's payload",
        |p| p.raft.reuse_truncated = true,
    ),
    plant(
        "snapshot-without-last-entry",
        "a snapshot lacks its last entries: it does not wait until the engine has them",
        |p| p.raft.snapshot_without_last = true,
    ),
    plant(
        "clock-lost-in-snapshot",
        "a snapshot brings values, and not what the log knows of writes beside them",
        |p| p.raft.snapshot_without_clock = true,
    ),
    plant(
        "apply-twice-after-restart",
        "the first entries after a restart are applied twice",
        |p| p.raft.apply_twice = true,
    ),
    plant(
        "retry-applied-twice",
        "a named write that was decided is done again when it comes again",
        |p| p.raft.forget_names = true,
    ),
    plant(
        "closed-past-ceiling",
        "a replica says to be complete 500 ms beyond what it knows",
        |p| p.raft.closed_too_far = true,
    ),
    plant(
        "expiry-kills-newer",
        "a value that replaced an expiring one goes with that one's time",
        |p| p.raft.expire_newer = true,
    ),
    plant(
        "expiry-by-local-clock",
        "each replica judges by its own clock whether a value's time has come",
        |p| p.raft.expire_by_own_clock = true,
    ),
    plant(
        "ladder-as-put",
        "a ladder's strong attempt replaces what its writer has not seen",
        |p| p.raft.tentative_as_put = true,
    ),
    plant(
        "batch-half-applied",
        "of every eighth batch the first half is applied, all of it answered",
        |p| p.raft.half_batches = true,
    ),
    plant(
        "cas-against-stale-state",
        "compare-and-set is compared before it is proposed",
        |p| p.gateway.cas_before_log = true,
    ),
    plant(
        "txn-compare-outside-log",
        "a transaction's conditions are looked at before it is proposed",
        |p| p.gateway.txn_before_log = true,
    ),
    plant(
        "token-ignored",
        "session tokens are taken and not looked at",
        |p| p.gateway.ignore_tokens = true,
    ),
    plant(
        "context-of-live-dots-only",
        "a context names the values shown, not what they had replaced",
        |p| p.gateway.context_of_live = true,
    ),
    plant(
        "context-as-maximum",
        "a context is the highest count of each node",
        |p| p.gateway.context_of_maxima = true,
    ),
    plant(
        "scan-misses-page-border",
        "the last row of a page that has a next one is in neither",
        |p| p.gateway.lose_border_row = true,
    ),
    plant(
        "bounded-past-bound",
        "`bounded` is served whatever the age",
        |p| p.gateway.serve_past_bound = true,
    ),
    plant(
        "counter-by-maximum",
        "a counter shows the largest of its parts, not their sum",
        |p| p.gateway.counter_by_maximum = true,
    ),
    plant(
        "sibling-dropped-by-lww",
        "of siblings the latest alone is shown",
        |p| p.gateway.latest_sibling = true,
    ),
    plant(
        "unknown-told-as-failed",
        "a write that may yet be decided is said to have had no effect",
        |p| p.gateway.unknown_as_failed = true,
    ),
    plant(
        "replaced-dot-leaves-clock",
        "what a write replaces leaves the range's clock",
        |p| p.eventual.replaced_leaves_clock = true,
    ),
    plant(
        "hint-replayed-after-delete",
        "a late copy of a replaced write brings it back",
        |p| p.eventual.accept_the_dead = true,
    ),
    plant(
        "hint-deleted-on-duplicate-ack",
        "a hint goes once any primary has it, one that was counted already too",
        |p| p.eventual.any_primary = true,
    ),
    plant(
        "hint-not-kept",
        "a stand-in counts as a holder and keeps no hint",
        |p| p.eventual.hints_unkept = true,
    ),
    plant(
        "read-repair-with-older-value",
        "a repair puts what a peer has in place of what is here",
        |p| p.eventual.repair_overwrites = true,
    ),
    plant(
        "tree-not-updated-on-absorption",
        "rows that went to the log stay in the hash tree",
        |p| p.eventual.tree_keeps_trimmed = true,
    ),
    plant(
        "sloppy-counted-as-strict",
        "stand-ins count where only primaries may",
        |p| p.eventual.sloppy_as_strict = true,
    ),
    plant(
        "overlay-trimmed-before-commit",
        "rows go when the log is asked to absorb them",
        |p| p.eventual.trim_when_proposed = true,
    ),
    plant("fence-asks-minority", "a fence asks one primary", |p| {
        p.eventual.fence_of_one = true
    }),
    plant(
        "retry-with-new-dot",
        "a retry at the same coordinator gets a new name",
        |p| p.eventual.rename_retries = true,
    ),
    plant(
        "repair-clock-newer",
        "repair sends the records of one moment with the clock of a later one",
        |p| p.eventual.clock_newer = true,
    ),
    plant(
        "repair-clock-first",
        "a peer's clock is taken over before its records",
        |p| p.eventual.clock_first = true,
    ),
    plant(
        "dots-reused-after-restart",
        "each start of a node gives out the names of the one before",
        |p| p.eventual.start_again = true,
    ),
    plant(
        "eventual-ack-from-memory",
        "the eventual path says that what is in memory is on disk",
        |p| p.eventual.acknowledge_before_sync = true,
    ),
    plant(
        "row-without-decided-value",
        "a new row beside a log does not begin with what was decided",
        |p| p.eventual.row_without_seed = true,
    ),
    plant(
        "clock-without-log",
        "beside a log a peer's clock is taken over whatever the log is known to have",
        |p| p.eventual.clock_without_log = true,
    ),
    plant(
        "watch-forgets-place",
        "a watch that shows where it had come to begins with what comes from now on",
        |p| p.gateway.watch_forgets_places = true,
    ),
];

/// Those that take what only a simulation has at hand: disks that lie once, messages that come
/// again after a restart, clocks that jump, and two things at one moment.
pub const SIMULATED: &[Plant] = &[
    plant(
        "fsync-lies-once",
        "one sync of each start succeeds and makes nothing durable, nor does a later one",
        |p| p.lying_sync = true,
    ),
    plant(
        "calls-numbered-again",
        "each start numbers its calls as the one before: an answer to that one's is taken for its own",
        |p| p.raft.calls_numbered_again = true,
    ),
    plant(
        "lease-by-wall-clock",
        "a leader trusts a confirmation for 40 ms by the wall clock: as long as that does not jump",
        |p| p.raft.lease_by_wall_clock = true,
    ),
    plant(
        "purge-before-flush",
        "the log is purged up to what is applied, before the engine has it on disk",
        |p| p.raft.purge_before_flush = true,
    ),
    plant(
        "hint-revives-collected",
        "a late copy of a write whose key's record has gone is taken for a new write",
        |p| p.eventual.revive_collected = true,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_mistake_of_its_own() {
        let all: Vec<&Plant> = TABLE.iter().chain(SIMULATED).collect();
        for (at, plant) in all.iter().enumerate() {
            let planted = plant.planted();
            assert_ne!(planted, Planted::default(), "{}", plant.name);
            let earlier = all[..at].iter();
            let twin = earlier.clone().find(|one| one.planted() == planted);
            assert!(twin.is_none(), "{} and {}", plant.name, twin.unwrap().name);
            assert!(earlier.clone().all(|one| one.name != plant.name));
        }
    }
}
