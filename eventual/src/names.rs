//! The names that clients gave their writes, and what a coordinator named them: a retry finds the
//! dot of its earlier attempt, as long as the coordinator runs.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use quorate_types::causal::Dot;
use quorate_types::{RangeId, RequestId, Timestamp};

/// Writes whose names a coordinator remembers for retries.
const REMEMBERED_WRITES_MAX: usize = 65_536;

/// What an earlier attempt of a write came to here.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    pub(crate) dot: Dot,
    pub(crate) deltas: Vec<Bytes>,
    /// As in `coordinator`.
    pub(crate) beside: Vec<Bytes>,
}

/// What a name of a client's is known for.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Nothing: the caller names the write, and says so.
    New,
    /// A write that was taken in.
    Known(Remembered),
    /// Another attempt is about to take it in.
    Busy,
}

/// A name that a client gave a write.
type Name = (RangeId, RequestId);

/// The writes that this start has named, for retries: the oldest are forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// `None`: its first attempt is under way.
    known: HashMap<Name, Option<Remembered>>,
    /// With the time of the first attempt.
    order: VecDeque<(Name, Timestamp)>,
    /// Attempts that began up to here may have been forgotten.
    floor: Option<Timestamp>,
}

impl Names {
    /// An attempt of a write begins. After [`Begun::New`] it must end.
    pub(crate) fn begin(&mut self, range: RangeId, id: RequestId) -> Begun {
        match self.known.entry((range, id)) {
            Entry::Occupied(known) => match known.get() {
                Some(remembered) => Begun::Known(remembered.clone()),
                None => Begun::Busy,
            },
            Entry::Vacant(vacant) => {
                vacant.insert(None);
                Begun::New
            }
        }
    }

    /// Whether an attempt that began then would still be known.
    pub(crate) fn would_know(&self, first_tried: Timestamp) -> bool {
        self.floor.is_none_or(|floor| first_tried > floor)
    }

    /// The attempt has named the write; `None`: it was refused.
    pub(crate) fn end(&mut self, name: Name, first_tried: Timestamp, written: Option<Remembered>) {
        if written.is_none() {
            self.known.remove(&name);
            return;
        }
        if self.order.len() == REMEMBERED_WRITES_MAX
            && let Some((oldest, tried)) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.floor = self.floor.max(Some(tried));
        }
        self.known.insert(name, written);
        self.order.push_back((name, first_tried));
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::ClientId;
    use quorate_types::causal::Actor;

    use super::*;

    #[test]
    fn a_forgotten_name_raises_the_floor() {
        let mut names = Names::default();
        let remembered = Remembered {
            dot: Dot::new(Actor { disk: 1, start: 1 }, 1),
            deltas: Vec::new(),
            beside: Vec::new(),
        };
        for sequence in 0..=REMEMBERED_WRITES_MAX as u64 {
            assert!(names.would_know(Timestamp(sequence)));
            let id = RequestId {
                client: ClientId(1),
                sequence,
            };
            let name = (RangeId(1), id);
            assert!(matches!(names.begin(name.0, name.1), Begun::New));
            names.end(name, Timestamp(sequence), Some(remembered.clone()));
        }
        assert!(!names.would_know(Timestamp(0)));
        assert!(names.would_know(Timestamp(1)));
    }
}
