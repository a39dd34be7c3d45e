//! What the causal store promises of sizes, deletes, expiry and closed starts, and the
//! mistakes that named tests keep out.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bytes::Bytes;
use quorate_types::causal::{Binding, Context, ContextError, Delta, Dots, Intervals, RangeStore};
use quorate_types::{Actor, Dot, Timestamp};

/// Identities as long as they get.
const DISK: u64 = u64::MAX - 100;

fn store(disk: u64) -> RangeStore {
    RangeStore::new(Actor { disk, start: 1 })
}

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn delta(dot: Dot, context: Dots, value: Option<&str>) -> Delta {
    Delta {
        dot,
        context,
        value: value.map(key),
        timestamp: Timestamp(1_795_000_000_000_000 + dot.counter),
        expiry: None,
    }
}

/// A write at a replica that replaces what the replica sees.
fn write(at: &mut RangeStore, of: &Bytes, value: Option<&str>) -> Delta {
    let delta = delta(at.next_dot(), at.state(of).context().clone(), value);
    let _ = at.accept(of, &delta);
    delta
}

fn repair(stores: &mut [RangeStore]) {
    for _ in 0..2 {
        for from in 0..stores.len() {
            let image = stores[from].image();
            for to in stores.iter_mut() {
                to.join_range(&image);
            }
        }
    }
}

/// Bytes of the stored record beside its one value.
fn overhead_bytes(store: &RangeStore, of: &Bytes) -> usize {
    let record = store.record(of);
    let values: usize = record.live().map(|(_, value)| value.payload.len()).sum();
    record.encode().len() - values
}

const BINDING: Binding<'_> = Binding {
    cluster: b"cluster",
    keyspace: b"keyspace",
    key: b"hot",
};

/// Three writers, two primaries that are up, and a delta on its slow way to the second.
struct Hot {
    primaries: [RangeStore; 2],
    actors: [Actor; 3],
    counters: [u64; 3],
    late: Option<(Bytes, Delta)>,
}

impl Hot {
    fn write(&mut self, turn: usize, of: Bytes) {
        let writer = turn % self.actors.len();
        self.counters[writer] += 1;
        let dot = Dot::new(self.actors[writer], self.counters[writer]);
        let context = self.primaries[0].state(&of).context().clone();
        let delta = delta(dot, context, Some("value"));
        let _ = self.primaries[0].accept(&of, &delta);
        if turn.is_multiple_of(7) && self.late.is_none() {
            self.late = Some((of, delta));
            return;
        }
        let _ = self.primaries[1].accept(&of, &delta);
        if let Some((of, delta)) = self.late.take() {
            let _ = self.primaries[1].accept(&of, &delta);
        }
    }

    fn restart(&mut self) {
        for (actor, counter) in self.actors.iter_mut().zip(&mut self.counters) {
            actor.start += 1;
            *counter = 0;
        }
    }
}

#[test]
fn a_hot_key_stays_small_while_a_primary_is_away() {
    const OVERWRITES: usize = 1_000_000;
    let hot = key("hot");
    let actor = |disk, start| Actor {
        disk: DISK + disk,
        start,
    };
    let mut range = Hot {
        primaries: [store(DISK), store(DISK + 1)],
        actors: [0, 1, 2].map(|disk| actor(disk, 1)),
        counters: [0; 3],
        late: None,
    };
    // The third primary wrote, restarted, wrote again, and left.
    for dot in [(1, 1), (1, 2), (2, 1)].map(|(start, counter)| Dot::new(actor(3, start), counter)) {
        for primary in &mut range.primaries {
            let _ = primary.accept(&hot, &delta(dot, Dots::new(), Some("early")));
        }
    }
    for turn in 0..OVERWRITES {
        if turn == OVERWRITES / 2 {
            range.restart();
        }
        range.write(turn, hot.clone());
        if turn % 1000 < 999 {
            range.write(turn, key(&format!("key-{}", turn % 1000)));
        }
    }
    range.write(1, hot.clone());
    for primary in &range.primaries {
        let (record, context) = (
            overhead_bytes(primary, &hot),
            Context::seal(primary.state(&hot).context(), &BINDING)
                .0
                .len(),
        );
        println!("{record} bytes beside the value, {context} bytes of context");
        assert_eq!(primary.record(&hot).live().len(), 1);
        assert!(record <= 64, "{record} bytes beside the value");
        assert!(context <= 256, "{context} bytes of context");
    }
}

#[test]
fn deletes_leave_nothing_behind_while_a_primary_is_away() {
    const KEYS: usize = 10_000;
    let mut stores = [store(1), store(2), store(3)];
    let names: Vec<Bytes> = (0..KEYS).map(|at| key(&format!("key-{at}"))).collect();
    let mut hints = Vec::new();
    for name in &names {
        let put = write(&mut stores[0], name, Some("value"));
        let _ = stores[2].accept(name, &put);
        hints.push((name, put));
    }
    // From here on the third is away, and the second gets all puts and deletes late.
    let deletes: Vec<_> = names
        .iter()
        .map(|name| write(&mut stores[0], name, None))
        .collect();
    assert_eq!(stores[0].records().len(), 0);
    for (name, delete) in names.iter().zip(&deletes) {
        let _ = stores[1].accept(name, delete);
    }
    for (name, put) in &hints {
        let _ = stores[1].accept(name, put);
        assert_eq!(stores[1].record(name).live().len(), 0, "{name:?} is back");
    }
    assert_eq!(stores[1].records().len(), 0);
    assert_eq!(stores[2].records().len(), KEYS);
    repair(&mut stores);
    for store in &mut stores {
        for (name, put) in &hints {
            assert!(!store.accept(name, put).is_news());
        }
        assert_eq!(store.records().len(), 0);
        assert!(store.clock().encode().len() < 64);
    }
}

#[test]
fn what_a_gap_kept_goes_at_once_when_the_gap_closes() {
    let (mut a, mut b) = (store(1), store(2));
    let missing = write(&mut a, &key("first"), Some("value"));
    let names: Vec<Bytes> = (0..3000).map(|at| key(&format!("key-{at}"))).collect();
    for name in &names {
        let put = write(&mut a, name, Some("value"));
        let delete = write(&mut a, name, None);
        let _ = b.accept(name, &put);
        let _ = b.accept(name, &delete);
    }
    assert_eq!(
        b.records().len(),
        names.len(),
        "each knows dots beyond the gap"
    );
    let _ = b.accept(&key("first"), &missing);
    assert_eq!(b.records().len(), 1);
    assert_eq!(b.image(), a.image());
}

/// A hash tree that took live values alone would not send this record, and the clock that is
/// merged after it would let the put come back.
#[test]
fn records_that_differ_in_what_they_know_to_be_dead_are_not_equal() {
    let (mut a, mut b) = (store(1), store(2));
    let name = key("key");
    let put = write(&mut store(3), &name, Some("value"));
    let context: Dots = [put.dot].into_iter().collect();
    let delete = delta(a.next_dot(), context, None);
    let _ = a.accept(&name, &delete);
    assert!(a.record(&name).live().eq(b.record(&name).live()));
    assert_ne!(a.record(&name), b.record(&name));
    let _ = b.join_key(&name, &a.state(&name));
    b.merge_clock(a.clock());
    let _ = b.accept(&name, &put);
    assert_eq!(b.record(&name).live().len(), 0);
}

/// The peer's clock was copied while it had a gap; the gap closed before the record was
/// compared. Merged whole, that clock would hold the put, and the record would not.
#[test]
fn a_comparison_after_a_gap_closed_brings_nothing_back() {
    let (mut a, mut b, mut writer) = (store(1), store(2), store(3));
    let (name, other) = (key("key"), key("other"));
    let missing = write(&mut writer, &other, Some("value"));
    let put = write(&mut writer, &name, Some("value"));
    let _ = a.accept(&name, &put);
    let context: Dots = [put.dot].into_iter().collect();
    let delete = delta(a.next_dot(), context, None);
    let _ = a.accept(&name, &delete);
    let copied = a.clock().clone();
    assert_eq!(a.record(&other), b.record(&other), "the first comparison");
    let _ = a.accept(&other, &missing);
    assert_eq!(a.record(&name), b.record(&name), "the second comparison");
    let mut whole = b.clone();
    b.merge_base(&copied.base());
    whole.merge_clock(&copied);
    for (store, knows) in [(&b, true), (&whole, false)] {
        let holds = store.clock().contains(put.dot);
        assert_eq!(
            !holds || store.record(&name).knows(store.clock(), put.dot),
            knows
        );
    }
}

#[test]
fn an_expired_value_is_dead_everywhere_once_one_replica_killed_it() {
    let mut stores = [store(1), store(2)];
    let name = key("key");
    let put = Delta {
        expiry: Some(Timestamp(100)),
        ..write(&mut store(3), &name, Some("value"))
    };
    for store in &mut stores {
        let _ = store.accept(&name, &put);
    }
    assert_eq!(stores[0].expire(Timestamp(99)), 0);
    assert_eq!(stores[0].expire(Timestamp(100)), 1);
    assert_eq!(stores[0].records().len(), 0);
    repair(&mut stores);
    for store in &mut stores {
        assert!(!store.accept(&name, &put).is_news());
        assert_eq!(store.records().len(), 0);
    }
}

#[test]
fn a_closed_start_has_no_gaps_and_kills_its_late_copies() {
    let (mut a, mut b) = (store(1), store(2));
    let name = key("key");
    let mut gone = store(3);
    let unsent = delta(gone.next_dot(), Dots::new(), Some("never stored"));
    let put = delta(gone.next_dot(), Dots::new(), Some("kept"));
    for store in [&mut a, &mut b] {
        let _ = store.accept(&name, &put);
        assert_eq!(store.clock().gaps().count(), 1);
        assert!(!store.record(&name).beyond().is_empty());
    }
    assert!(a.close(3, 2) && !a.close(3, 1));
    assert_eq!(a.clock().gaps().count(), 0);
    assert!(a.record(&name).beyond().is_empty());
    assert_eq!(a.record(&name).live().len(), 1);
    let _ = a.accept(&name, &unsent);
    assert_eq!(a.record(&name).live().len(), 1, "a copy of a closed start");
    // A context from where the start is closed replaces its value where it is not yet.
    let replacing = write(&mut a, &name, Some("new"));
    let _ = b.accept(&name, &replacing);
    assert!(b.record(&name).live().eq(a.record(&name).live()));
    b.join_range(&a.image());
    assert_eq!(b.image(), a.image());
    assert_eq!(b.clock().base_of(Actor { disk: 3, start: 1 }), u64::MAX);
}

/// A replica that was being filled took the closed part of a context for nothing: what a write
/// had replaced came to it from a peer that did not have that write, and was shown beside it.
#[test]
fn what_a_closed_start_wrote_stays_replaced_on_a_replica_that_is_new() {
    let (mut a, mut new, name) = (store(1), store(9), key("key"));
    let old = delta(
        Dot::new(Actor { disk: 3, start: 1 }, 7),
        Dots::new(),
        Some("old"),
    );
    let _ = a.accept(&name, &old);
    assert!(a.close(3, 2));
    let replacing = write(&mut a, &name, Some("new"));
    let _ = new.accept(&name, &replacing);
    let _ = new.accept(&name, &old);
    assert_eq!(new.record(&name).live().len(), 1);
    // Once its clock has closed the start as well, the record says nothing of it any more.
    assert!(new.record(&name).beyond().closed().next().is_some());
    new.join_range(&a.image());
    assert_eq!(new.image(), a.image());
    assert!(new.record(&name).beyond().is_empty());
}

#[test]
fn a_filled_replica_goes_on_where_its_peer_was() {
    let (mut a, name) = (store(1), key("key"));
    let old = write(&mut a, &name, Some("old"));
    let _ = write(&mut a, &name, Some("new"));
    let mut filled = RangeStore::filled(Actor { disk: 9, start: 1 }, a.image());
    assert!(!filled.accept(&name, &old).is_news());
    assert_eq!(filled.image(), a.image());
}

#[test]
fn contexts_of_something_else_are_refused_by_name() {
    let mut a = store(1);
    let _ = write(&mut a, &key("hot"), Some("value"));
    let seen = a.state(b"hot").context().clone();
    let context = Context::seal(&seen, &BINDING);
    let other = |binding| context.open(&binding);
    assert_eq!(context.open(&BINDING), Ok(seen));
    let cluster: &[u8] = b"another";
    assert_eq!(
        other(Binding { cluster, ..BINDING }),
        Err(ContextError::OtherCluster)
    );
    assert_eq!(
        other(Binding {
            keyspace: cluster,
            ..BINDING
        }),
        Err(ContextError::OtherKeyspace)
    );
    assert_eq!(
        other(Binding {
            key: cluster,
            ..BINDING
        }),
        Err(ContextError::OtherKey)
    );
    let mut later = context.0.to_vec();
    later[0] = 2;
    assert_eq!(
        Context(later.into()).open(&BINDING),
        Err(ContextError::Version { found: 2 })
    );
    let mut flipped = context.0.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(
        Context(flipped.into()).open(&BINDING),
        Err(ContextError::Damaged)
    );
    let longer = [&context.0[..], &[0]].concat();
    assert_eq!(
        Context(longer.into()).open(&BINDING),
        Err(ContextError::Damaged)
    );
    let cut = Context(context.0.slice(..context.0.len() - 1)).open(&BINDING);
    let (found, expected) = (context.0.len() - 1, context.0.len());
    assert_eq!(cut, Err(ContextError::Truncated { found, expected }));
    let huge = Context(vec![1; 100_000].into()).open(&BINDING);
    assert_eq!(huge, Err(ContextError::TooLong { found: 100_000 }));
}

#[test]
fn a_context_of_writes_that_were_never_made_is_refused() {
    let actor = Actor { disk: 1, start: 2 };
    let seen = |start, top| {
        let mut seen = Dots::new();
        seen.insert_all(Actor { disk: 1, start }, &Intervals::up_to(top));
        seen
    };
    let check = |seen: &Dots| Context::refuse_unwritten(seen, actor, 5);
    assert_eq!(check(&seen(2, 5)), Ok(()));
    assert_eq!(
        check(&seen(1, 900)),
        Ok(()),
        "an earlier start is not this one's to tell"
    );
    assert_eq!(
        check(&seen(2, 6)),
        Err(ContextError::Unwritten(Dot::new(actor, 6)))
    );
    let later = Dot::new(Actor { disk: 1, start: 3 }, 1);
    assert_eq!(check(&seen(3, 1)), Err(ContextError::Unwritten(later)));
}
