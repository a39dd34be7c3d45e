//! What tests break on purpose in a gateway: the negative controls of the lab.
//!
//! Not here: mistakes of the planes, which are `quorate_raft::Faults` and `quorate_eventual::Faults`.

use std::borrow::Cow;

use quorate_proto::internal::command;
use quorate_proto::v1::{Expect, expect::State};
use quorate_raft::Group;
use quorate_types::ConflictPolicy;
use quorate_types::Timestamp;
use quorate_types::causal::{Dots, Intervals, KeyState, Reading, evaluate};

/// Mistakes that the lab must find.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A compare-and-set is compared with what the leader shows before it proposes.
    pub cas_before_log: bool,
    /// So are the conditions of a transaction.
    pub txn_before_log: bool,
    /// What a session has seen is not asked of anybody.
    pub ignore_tokens: bool,
    /// A context names what a reader was shown, and not what that had replaced.
    pub context_of_live: bool,
    /// A context is the highest count of each node.
    pub context_of_maxima: bool,
    /// The row that shows that there is another page is in neither.
    pub lose_border_row: bool,
    /// `bounded` is served whatever the age.
    pub serve_past_bound: bool,
    /// Of the parts of a counter the largest is shown.
    pub counter_by_maximum: bool,
    /// Of siblings the latest alone is shown.
    pub latest_sibling: bool,
    /// A write that may yet be decided is said to have had no effect.
    pub unknown_as_failed: bool,
    /// A watch that has fallen behind goes on with what is recent.
    pub watch_skips_history: bool,
    /// A message of a watch that ends within a revision is taken for all of it.
    pub watch_whole_revisions: bool,
    /// A watch that shows where it had come to begins with what comes from now on.
    pub watch_forgets_places: bool,
    /// A watch tells of a write as tentative that the log has decided.
    pub watch_tells_decided: bool,
}

impl Faults {
    /// A write whose conditions are looked at before the log decides.
    pub(crate) fn compared_early(
        self,
        group: &Group,
        mut operation: command::Operation,
    ) -> command::Operation {
        let holds = |key: &[u8], expect: Option<&Expect>| {
            let found = group.table().get(key).ok().flatten();
            match expect.and_then(|expect| expect.state.as_ref()) {
                None => true,
                Some(State::Revision(revision)) => found.is_some_and(|v| v.revision == *revision),
                Some(State::Value(value)) => found.is_some_and(|v| v.value == *value),
                Some(State::Absent(_)) => found.is_none(),
                Some(State::Present(_)) => found.is_some(),
            }
        };
        match &mut operation {
            command::Operation::Conditional(conditional) if self.cas_before_log => {
                let key = conditional
                    .write
                    .as_ref()
                    .map_or(&[][..], |write| &write.key);
                if holds(key, conditional.expect.as_ref()) {
                    conditional.expect = None;
                }
            }
            command::Operation::Transaction(txn) if self.txn_before_log => {
                let mut compares = txn.compare.iter();
                if compares.all(|compare| holds(&compare.key, compare.expect.as_ref())) {
                    txn.compare.clear();
                }
            }
            _ => {}
        }
        operation
    }

    /// What a reader of a key is told to have seen.
    pub(crate) fn context(self, state: &KeyState) -> Cow<'_, Dots> {
        if self.context_of_live {
            return Cow::Owned(state.live().map(|(dot, _)| *dot).collect());
        }
        if !self.context_of_maxima {
            return Cow::Borrowed(state.context());
        }
        let mut maxima = Dots::new();
        for (actor, counters) in state.context().actors() {
            maxima.insert_all(actor, &Intervals::up_to(counters.top()));
        }
        Cow::Owned(maxima)
    }

    /// What a reader of a key is shown.
    pub(crate) fn shown(self, policy: ConflictPolicy, state: &KeyState) -> Cow<'_, KeyState> {
        let one = |dot| {
            let live = state.live().filter(|(live, _)| *live == dot);
            Cow::Owned(KeyState::of(live.cloned(), Dots::new()))
        };
        let chosen = match policy {
            ConflictPolicy::Siblings if self.latest_sibling => {
                let latest = state
                    .live()
                    .max_by_key(|(dot, value)| (value.timestamp, *dot));
                latest.map(|(dot, _)| *dot)
            }
            ConflictPolicy::Counter if self.counter_by_maximum => {
                let amount = |dot| match evaluate(policy, &one(dot), Timestamp(0)) {
                    Ok(Reading::Counter(amount)) => amount,
                    Ok(_) | Err(_) => 0,
                };
                let dots = state.live().map(|(dot, _)| *dot);
                dots.max_by_key(|dot| amount(*dot))
            }
            _ => None,
        };
        chosen.map_or(Cow::Borrowed(state), one)
    }
}
