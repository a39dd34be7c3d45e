//! Where keys live, as far as it was learned: from a keyspace and a key to the range, from
//! the range to its leader. A hint that saves a hop: what is out of date is slower, never
//! wrong, for any node takes any request.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use quorate_proto::v1;
use quorate_types::{Mode, NodeId, Partitioning, RangeId};

use crate::limits::{LEARN_AFTER_REQUESTS, LEARN_PAUSE};

/// What one client has learned.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    keyspaces: RwLock<HashMap<String, KeyspaceRoute>>,
    leaders: RwLock<HashMap<RangeId, NodeId>>,
    /// Keyspaces whose default level is an eventual one.
    eventual: RwLock<HashSet<String>>,
    /// Requests whose way was not known.
    lost_ways: AtomicU64,
    next_lesson_millis: AtomicU64,
}

#[derive(Debug)]
struct KeyspaceRoute {
    partitioning: Partitioning,
    /// In the order of buckets, or of keys.
    ranges: Vec<RangeId>,
}

impl KeyspaceRoute {
    /// None where one list of ids does not tell: the bounds of several ordered ranges.
    fn range_of(&self, key: &[u8]) -> Option<RangeId> {
        match self.partitioning.bucket_of(key) {
            Some(bucket) => self.ranges.get(usize::from(bucket)).copied(),
            None if self.ranges.len() == 1 => self.ranges.first().copied(),
            None => None,
        }
    }

    /// None if ids and buckets do not match one to one.
    fn from_wire(keyspace: &v1::Keyspace) -> Option<Self> {
        let partitioning = keyspace.options.as_ref()?.partitioning.parse().ok()?;
        let ranges: Vec<_> = keyspace.ranges.iter().copied().map(RangeId).collect();
        match partitioning {
            Partitioning::Hash(buckets) if ranges.len() != usize::from(buckets) => None,
            Partitioning::Hash(_) | Partitioning::Ordered => Some(Self {
                partitioning,
                ranges,
            }),
        }
    }
}

impl Routes {
    /// The range of a key, if known.
    pub(crate) fn range_of(&self, keyspace: &str, key: &[u8]) -> Option<RangeId> {
        self.keyspaces.read().get(keyspace)?.range_of(key)
    }

    /// The node that led the range last.
    pub(crate) fn leader_of(&self, range: RangeId) -> Option<NodeId> {
        self.leaders.read().get(&range).copied()
    }

    /// Takes note of who served as leader.
    pub(crate) fn note_leader(&self, range: RangeId, node: NodeId) {
        if self.leader_of(range) != Some(node) {
            self.leaders.write().insert(range, node);
        }
    }

    /// The leader did not answer: whoever follows it will be noted.
    pub(crate) fn forget_leader(&self, range: RangeId) {
        self.leaders.write().remove(&range);
    }

    /// Takes note of a keyspace. Older leaders stay: ids of ranges are never given again.
    pub(crate) fn note_keyspace(&self, keyspace: &v1::Keyspace) {
        let options = keyspace.options.as_ref();
        if let Some(mode) = options.and_then(|options| options.mode.parse::<Mode>().ok()) {
            self.note_default(&keyspace.name, mode == Mode::Eventual);
        }
        if let Some(route) = KeyspaceRoute::from_wire(keyspace) {
            self.keyspaces.write().insert(keyspace.name.clone(), route);
        }
    }

    /// Whether requests that name no level are of the eventual plane, as far as is known.
    pub(crate) fn is_eventual(&self, keyspace: &str) -> bool {
        self.eventual.read().contains(keyspace)
    }

    /// Takes note of the plane that requests without a level are served by.
    pub(crate) fn note_default(&self, keyspace: &str, eventual: bool) {
        if self.is_eventual(keyspace) == eventual {
            return;
        }
        let mut all = self.eventual.write();
        if eventual {
            all.insert(keyspace.to_owned());
        } else {
            all.remove(keyspace);
        }
    }

    /// An answer came from another range than was expected: what was learned is old.
    pub(crate) fn forget_keyspace(&self, keyspace: &str) {
        self.keyspaces.write().remove(keyspace);
    }

    /// Whether it is time to learn: enough requests did not know their way, and the last
    /// lesson is some time ago. Says so once; the caller then learns.
    pub(crate) fn is_lesson_due(&self, now_millis: u64) -> bool {
        if self.lost_ways.fetch_add(1, Ordering::Relaxed) < LEARN_AFTER_REQUESTS {
            return false;
        }
        self.take_lesson(now_millis)
    }

    /// Whether no lesson was taken lately; if so, the caller has the next one.
    pub(crate) fn take_lesson(&self, now_millis: u64) -> bool {
        let due = self.next_lesson_millis.load(Ordering::Relaxed);
        let pause = u64::try_from(LEARN_PAUSE.as_millis()).unwrap_or(u64::MAX);
        now_millis >= due
            && self
                .next_lesson_millis
                .compare_exchange(
                    due,
                    now_millis + pause,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyspace(name: &str, partitioning: &str, ranges: Vec<u64>) -> v1::Keyspace {
        v1::Keyspace {
            name: name.to_owned(),
            id: 1,
            options: Some(v1::KeyspaceOptions {
                partitioning: partitioning.to_owned(),
                ..v1::KeyspaceOptions::default()
            }),
            ranges,
        }
    }

    #[test]
    fn keys_find_their_range_where_it_can_be_told() {
        let routes = Routes::default();
        routes.note_keyspace(&keyspace("one", "ordered", vec![7]));
        routes.note_keyspace(&keyspace("two", "ordered", vec![8, 9]));
        routes.note_keyspace(&keyspace("four", "hash(4)", vec![20, 21, 22, 23]));
        routes.note_keyspace(&keyspace("odd", "hash(4)", vec![1, 2]));
        routes.note_keyspace(&keyspace("new", "spiral", vec![1]));
        assert_eq!(routes.range_of("one", b"k"), Some(RangeId(7)));
        for unknown in ["two", "odd", "new", "none"] {
            assert_eq!(routes.range_of(unknown, b"k"), None, "{unknown}");
        }
        let bucket = u64::from(Partitioning::Hash(4).bucket_of(b"k").unwrap_or_default());
        assert_eq!(routes.range_of("four", b"k"), Some(RangeId(20 + bucket)));
        routes.forget_keyspace("one");
        assert_eq!(routes.range_of("one", b"k"), None);
    }

    #[test]
    fn lessons_are_rare() {
        let routes = Routes::default();
        let due = (0..100).filter(|_| routes.is_lesson_due(5)).count();
        assert_eq!(due, 1);
        assert!(!routes.is_lesson_due(6));
        assert!(routes.is_lesson_due(5 + 2000));
    }
}
