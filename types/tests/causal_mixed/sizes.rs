//! How many bytes a range's causality takes beside its values, after many writes, restarts
//! and cuts. No horizon: nothing here depends on how long a primary was away.
//!
//! Not here: whether what is kept is right (see `world`).

use quorate_types::causal::{Binding, Clock, Context, Delta, KeyState};
use quorate_types::{Revision, Timestamp};

use crate::course::{Course, Kind};
use crate::exact::{DotSet, ExactDelta};
use crate::primary::Primary;
use crate::table::{Closed, Disk, Entry, Message, Put};

const WRITES: u64 = 1_000_000;
const KEYS: u64 = 1_000;
const HOT: usize = 0;
/// Writes between two rounds of absorption and trimming.
const ROUND_WRITES: u64 = 1_000;
const RESTARTS: u32 = 1_000;
/// Restarts between two full repairs, each of which lets starts be closed.
const REPAIR_RESTARTS: u32 = 100;
/// As the issue states them.
const MIXED_MAX_BYTES: usize = 128;
const CUT_MAX_BYTES: usize = 256;
const CLOCK_MAX_BYTES: usize = 4 << 10;

/// Primaries that are up, and the last revision of their log.
struct Range {
    nodes: Vec<Primary>,
    at: u64,
    requests: u64,
}

impl Range {
    fn new(nodes: u64) -> Self {
        let nodes = (1..=nodes).map(|identity| {
            // As identities are: numbers of 64 random bits.
            let identity = identity * 0x1234_5678_9abc_def1;
            let mut node = Primary::new(identity, Disk::new(false), Course::default());
            node.absorb_keys = usize::MAX;
            node
        });
        Self {
            nodes: nodes.collect(),
            at: 1_700_000_000_000_000,
            requests: 0,
        }
    }

    /// An eventual write of a client who read the same primary, which all primaries get.
    fn write(&mut self, at: usize, key: usize) {
        let seen = self.nodes[at].view(key).context().clone();
        let dot = self.nodes[at].next_dot();
        let delta = Delta {
            dot,
            context: seen,
            value: Some(Kind::Values.payload(dot.counter)),
            timestamp: Timestamp(self.at),
            expiry: None,
        };
        let message = Message {
            key,
            exact: ExactDelta {
                dot,
                context: DotSet::new(),
                value: None,
            },
            real: delta,
        };
        for node in &mut self.nodes {
            node.accept(&message);
        }
    }

    fn put(&mut self, at: usize, key: usize) {
        self.requests += 1;
        let entry = Entry::Put(Put {
            key,
            value: Some(self.requests),
            seen: self.nodes[at].seen(key),
            request: self.requests,
        });
        self.decide(&entry);
    }

    /// One primary hears of it late: by a repair of the key, then by the log.
    fn decide(&mut self, entry: &Entry) {
        self.at += 1_000;
        let [first, others @ ..] = &mut self.nodes[..] else {
            return;
        };
        first.apply(Revision(self.at), entry);
        for node in others {
            if let Entry::Put(put) = entry
                && put.request.is_multiple_of(10)
            {
                node.join(put.key, &(first.view(put.key), first.exact_view(put.key)));
            }
            node.apply(Revision(self.at), entry);
        }
    }

    fn absorb(&mut self) {
        while let Some(absorb) = self.nodes[0].propose() {
            self.decide(&Entry::Absorb(absorb));
        }
        for node in &mut self.nodes {
            node.flush();
            node.close_rows();
            node.remember();
            node.remember();
            node.trim().expect("it shows the same");
        }
    }

    /// The bytes of what is stored of a key beside its values, and of its context.
    fn sizes(&self, at: usize, key: usize) -> (usize, usize) {
        let node = &self.nodes[at];
        let view = node.view(key);
        let values = |state: &KeyState| -> usize {
            state.live().map(|(_, value)| value.payload.len()).sum()
        };
        let row = node.rows.get(&key).map_or(0, |row| {
            row.encode().len() - values(&row.state(&node.clock))
        });
        let binding = Binding {
            cluster: b"cluster",
            keyspace: b"keyspace",
            key: b"key",
        };
        let context = Context::seal(view.context(), &binding).0.len();
        (row + node.table.stored_beside(key), context)
    }
}

#[test]
fn a_hot_key_stays_small_under_mixed_writes_while_a_primary_is_away() {
    let mut range = Range::new(2);
    let (mut largest, mut largest_context) = (0, 0);
    for write in 0..WRITES {
        let key = match write % 2 {
            0 => HOT,
            _ => (write / 2 % KEYS) as usize,
        };
        let at = (write / 4 % 2) as usize;
        match write % 4 {
            0 | 3 => range.write(at, key),
            _ => range.put(at, key),
        }
        if write % ROUND_WRITES == ROUND_WRITES - 1 {
            let (record, context) = range.sizes(1, HOT);
            largest = largest.max(record);
            largest_context = largest_context.max(context);
            range.absorb();
        }
    }
    let clock = range.nodes[1].clock.encode().len();
    assert!(largest <= MIXED_MAX_BYTES);
    assert!(largest_context <= MIXED_MAX_BYTES);
    assert!(clock <= MIXED_MAX_BYTES);
    assert!(range.nodes.iter().all(Primary::is_settled));
    assert!(
        range
            .nodes
            .iter()
            .all(|node| node.table.causal.beyond_keys() == 0)
    );
}

#[test]
fn a_hot_key_stays_small_on_a_side_that_is_cut_off() {
    let mut range = Range::new(1);
    for key in 0..KEYS as usize {
        range.put(0, key);
    }
    for write in 0..WRITES {
        let key = match write % 2 {
            0 => HOT,
            _ => (write / 2 % KEYS) as usize,
        };
        range.write(0, key);
    }
    let (record, context) = range.sizes(0, HOT);
    assert!(record <= CUT_MAX_BYTES);
    assert!(context <= CUT_MAX_BYTES);
}

#[test]
fn a_clock_stays_small_over_many_restarts() {
    let mut range = Range::new(3);
    let mut largest = 0;
    for restart in 1..=RESTARTS {
        let at = restart as usize % 3;
        for key in 0..3 {
            range.write(at, key);
            // A name that is never used: its start keeps a gap until it is closed.
            range.nodes[at].next_dot();
        }
        for node in &mut range.nodes {
            node.flush();
        }
        range.nodes[at].restart();
        largest = largest.max(range.nodes[at].clock.encode().len());
        if restart.is_multiple_of(REPAIR_RESTARTS) {
            range.absorb();
            let mut closed = Clock::default();
            for node in &range.nodes {
                closed.close(node.identity, node.start);
            }
            range.decide(&Entry::Close(Closed {
                real: closed,
                exact: DotSet::new(),
            }));
            range.absorb();
        }
    }
    let left = range.nodes[0].clock.encode().len();
    assert!(largest <= CLOCK_MAX_BYTES);
    assert!(left <= MIXED_MAX_BYTES);
}
