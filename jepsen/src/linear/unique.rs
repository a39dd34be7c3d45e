//! Registers in which each value is written once: decided without a search, in n log n.
//!
//! A value's operations are one cluster. With the earliest return `f` and the latest invocation
//! `s` of a cluster: if `f < s`, the register surely held the value from `f` to `s` (a forward
//! zone); else its operations all overlap, and a point between `s` and `f` is enough (a backward
//! zone). An order exists if no read returns before its write is invoked, no two forward zones
//! overlap, and no backward zone lies within a forward one. (Gibbons and Korach, "Testing Shared
//! Memories", 1997.)

use super::register::Action;
use super::{Call, NEVER_RETURNED, State};
use crate::hash::QuickMap;

/// What became of a register's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unique {
    /// A value is written twice, or compared: this is not the way to decide it.
    NotApplicable,
    /// There is an order.
    Valid,
    /// A read of what nobody wrote: the read's index.
    Unwritten(u32),
    /// A read that returned before its value's write began: read and write.
    FromTheFuture(u32, u32),
    /// Two values, each in place before a call of the other began: for both, the call that
    /// returned first and the one that began last. The second is the one that lies within, if
    /// one does.
    Returned([(u32, u32); 2]),
}

/// A value with what its calls say of it. Positions are shifted by one: 0 is the initial write.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    write: Option<u32>,
    write_invoked: u64,
    /// The earliest return, and whose; the initial write has no call.
    first_return: (u64, u32),
    /// The latest invocation, and whose.
    last_invocation: (u64, u32),
    reads: u32,
    written: bool,
}

const NO_CALL: u32 = u32::MAX;

impl Cluster {
    const EMPTY: Self = Self {
        write: None,
        write_invoked: 0,
        first_return: (u64::MAX, NO_CALL),
        last_invocation: (0, NO_CALL),
        reads: 0,
        written: false,
    };

    fn call(&mut self, number: u32, call: &Call<Action>) {
        let returned = match call.returned {
            NEVER_RETURNED => u64::MAX,
            position => position + 1,
        };
        self.first_return = self.first_return.min((returned, number));
        self.last_invocation = self.last_invocation.max((call.invoked + 1, number));
    }

    fn is_forward(&self) -> bool {
        self.first_return.0 < self.last_invocation.0
    }

    fn ends(&self) -> (u32, u32) {
        (self.first_return.1, self.last_invocation.1)
    }
}

/// Decides a register whose values are unique.
pub fn unique(calls: &[Call<Action>], initial: State) -> Unique {
    let Some(clusters) = clusters(calls, initial) else {
        return Unique::NotApplicable;
    };
    if let Some(wrong) = misread(calls, &clusters) {
        return wrong;
    }
    let seen = clusters.values().filter(|cluster| {
        // A write that was lost and never read may not have been; the initial one asks nothing.
        let lost = cluster.first_return.0 == u64::MAX || cluster.write.is_none();
        cluster.reads > 0 || !lost
    });
    let (mut forward, backward): (Vec<Cluster>, Vec<Cluster>) =
        seen.copied().partition(Cluster::is_forward);
    forward.sort_unstable_by_key(|cluster| cluster.first_return);
    for pair in forward.windows(2) {
        if pair[1].first_return.0 < pair[0].last_invocation.0 {
            return Unique::Returned([pair[0].ends(), pair[1].ends()]);
        }
    }
    for cluster in &backward {
        let before = forward.partition_point(|zone| zone.first_return < cluster.last_invocation);
        let Some(zone) = before.checked_sub(1).map(|at| &forward[at]) else {
            continue;
        };
        if cluster.first_return.0 < zone.last_invocation.0 {
            return Unique::Returned([zone.ends(), cluster.ends()]);
        }
    }
    Unique::Valid
}

/// The calls by value; none if this is not the way.
fn clusters(calls: &[Call<Action>], initial: State) -> Option<QuickMap<State, Cluster>> {
    let mut clusters: QuickMap<State, Cluster> = QuickMap::default();
    let mut first = Cluster::EMPTY;
    first.first_return = (0, NO_CALL);
    first.written = true;
    clusters.insert(initial, first);
    for (number, call) in calls.iter().enumerate() {
        let number = number as u32;
        match call.action {
            Action::Cas(..) => return None,
            Action::Write(value) => {
                let cluster = clusters.entry(value).or_insert(Cluster::EMPTY);
                if cluster.written {
                    return None;
                }
                cluster.written = true;
                cluster.write = Some(number);
                cluster.write_invoked = call.invoked + 1;
                cluster.call(number, call);
            }
            Action::Read(value) => {
                let cluster = clusters.entry(value).or_insert(Cluster::EMPTY);
                cluster.reads += 1;
                cluster.call(number, call);
            }
        }
    }
    Some(clusters)
}

/// A read of a value that was not there yet.
fn misread(calls: &[Call<Action>], clusters: &QuickMap<State, Cluster>) -> Option<Unique> {
    calls.iter().enumerate().find_map(|(number, call)| {
        let Action::Read(value) = call.action else {
            return None;
        };
        let number = number as u32;
        let cluster = &clusters[&value];
        match cluster.write {
            None if !cluster.written => Some(Unique::Unwritten(number)),
            Some(write) if call.returned < cluster.write_invoked - 1 => {
                Some(Unique::FromTheFuture(number, write))
            }
            _ => None,
        }
    })
}
