//! What client writes are refused, by name; and that joins are not.

use bytes::Bytes;
use quorate_types::causal::{
    Delta, Dots, EvaluateError, Limits, Part, Planned, RangeStore, Seen, Update, WriteError,
    evaluate, plan,
};
use quorate_types::{Actor, ConflictPolicy, Dot, Timestamp};

use crate::{KEY, NOW};

const LIMITS: Limits = Limits {
    siblings_max: 3,
    parts_max: 4,
    element_max_bytes: 5,
    context_max_bytes: 200,
};

fn refused(
    policy: ConflictPolicy,
    store: &RangeStore,
    seen: Seen<'_>,
    update: &Update,
) -> WriteError {
    planned(policy, store, seen, update).expect_err("it is refused")
}

fn planned(
    policy: ConflictPolicy,
    store: &RangeStore,
    seen: Seen<'_>,
    update: &Update,
) -> Result<Vec<Planned>, WriteError> {
    plan(
        policy,
        &LIMITS,
        &store.state(&KEY),
        (seen, store.actor(), None),
        update,
    )
}

fn store_of(payloads: impl IntoIterator<Item = Bytes>) -> RangeStore {
    let mut store = RangeStore::new(Actor { disk: 1, start: 1 });
    for (counter, payload) in (1..).zip(payloads) {
        let delta = Delta {
            dot: Dot::new(Actor { disk: 2, start: 1 }, counter),
            context: Dots::new(),
            value: Some(payload),
            timestamp: Timestamp(counter),
            expiry: None,
        };
        let _ = store.accept(&KEY, &delta);
    }
    store
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn elements(count: usize) -> Vec<Bytes> {
    (0..count).map(|at| bytes(&at.to_string())).collect()
}

#[test]
fn siblings_at_the_limit_stop_blind_writes_and_no_join() {
    let policy = ConflictPolicy::Siblings;
    let store = store_of(elements(5));
    assert_eq!(store.record(&KEY).live().len(), 5, "joins have no limit");
    let (blind, put) = (Dots::new(), Update::Put(bytes("new")));
    let full = WriteError::Siblings { found: 6, max: 3 };
    assert_eq!(refused(policy, &store, Seen::Client(&blind), &put), full);
    assert!(
        planned(policy, &store, Seen::Coordinator, &put).is_ok(),
        "the way out"
    );
    assert!(planned(policy, &store, Seen::Client(&blind), &Update::Delete).is_ok());
}

#[test]
fn elements_and_fields_have_limits() {
    let set = ConflictPolicy::Set;
    let parts = elements(4)
        .into_iter()
        .map(|element| Part::Element(element).encode());
    let store = store_of(parts);
    let add = |element| Update::Add(vec![bytes(element)]);
    let full = WriteError::Parts { found: 5, max: 4 };
    assert_eq!(refused(set, &store, Seen::Coordinator, &add("new")), full);
    assert!(
        planned(set, &store, Seen::Coordinator, &add("0")).is_ok(),
        "it is in already"
    );
    let long = WriteError::ElementBytes { found: 6, max: 5 };
    assert_eq!(
        refused(set, &store, Seen::Coordinator, &add("longer")),
        long
    );
    let field = |name, update| Update::Fields(vec![(bytes(name), update)]);
    let put = Update::Put(bytes("value"));
    let map = ConflictPolicy::Map;
    assert_eq!(
        refused(
            map,
            &store,
            Seen::Coordinator,
            &field("longer", put.clone())
        ),
        long
    );
    let deep = (0..9).fold(put.clone(), |update, _| field("in", update));
    assert_eq!(
        refused(map, &store, Seen::Coordinator, &deep),
        WriteError::Depth
    );
    let twice = Update::Fields(vec![(bytes("a"), put.clone()), (bytes("a"), put)]);
    assert_eq!(
        refused(map, &store, Seen::Coordinator, &twice),
        WriteError::Twice
    );
    let empty = refused(set, &store, Seen::Coordinator, &Update::Add(Vec::new()));
    assert_eq!(empty, WriteError::Empty("set add"));
}

#[test]
fn an_update_of_another_kind_is_refused_by_name() {
    let store = store_of([]);
    let kinds = [
        (ConflictPolicy::Siblings, Update::Put(KEY)),
        (ConflictPolicy::LastWriteWins, Update::Put(KEY)),
        (ConflictPolicy::Counter, Update::Increment(1)),
        (ConflictPolicy::Set, Update::Add(vec![KEY])),
        (
            ConflictPolicy::Map,
            Update::Fields(vec![(KEY, Update::Increment(1))]),
        ),
    ];
    for (policy, _) in &kinds {
        for (of, update) in &kinds {
            let registers = [ConflictPolicy::Siblings, ConflictPolicy::LastWriteWins];
            let fits = of == policy || (registers.contains(of) && registers.contains(policy));
            let result = planned(*policy, &store, Seen::Coordinator, update);
            assert_eq!(result.is_ok(), fits, "{update:?} in {policy}: {result:?}");
        }
        assert!(planned(*policy, &store, Seen::Coordinator, &Update::Delete).is_ok());
    }
}

#[test]
fn counters_neither_wrap_nor_stay_stuck() {
    let counter = ConflictPolicy::Counter;
    let amount = |amount| Part::Amount(amount).encode();
    let store = store_of([amount(i64::MAX), amount(i64::MAX)]);
    let sum = i128::from(i64::MAX) * 2;
    let state = store.state(&KEY);
    assert_eq!(
        evaluate(counter, &state, NOW),
        Err(EvaluateError::Overflow(sum))
    );
    let more = refused(counter, &store, Seen::Coordinator, &Update::Increment(1));
    assert_eq!(more, WriteError::Overflow(sum + 1));
    let less = Update::Increment(-i64::MAX);
    assert!(
        planned(counter, &store, Seen::Coordinator, &less).is_ok(),
        "the way out"
    );
    let lowest = store_of([amount(i64::MIN)]);
    assert!(
        planned(
            counter,
            &lowest,
            Seen::Coordinator,
            &Update::Increment(i64::MAX)
        )
        .is_ok()
    );
}

#[test]
fn a_payload_of_another_kind_is_an_error_that_names_its_write() {
    let store = store_of([Part::Amount(1).encode()]);
    let dot = store.record(&KEY).live().next().expect("one").0;
    let shown = evaluate(ConflictPolicy::Set, &store.state(&KEY), NOW);
    let policy = ConflictPolicy::Set;
    assert_eq!(shown, Err(EvaluateError::Misfit { dot, policy }));
    let noise = store_of([Bytes::from_static(b"\xff")]);
    let shown = evaluate(policy, &noise.state(&KEY), NOW);
    assert!(matches!(shown, Err(EvaluateError::Payload { .. })));
}

#[test]
fn a_context_with_too_many_gaps_is_refused_with_the_way_out() {
    let store = store_of([bytes("value")]);
    let gaps: Dots = (1..200)
        .map(|at| Dot::new(Actor { disk: 3, start: 1 }, at * 1000))
        .collect();
    let put = Update::Put(bytes("new"));
    let refusal = refused(ConflictPolicy::Siblings, &store, Seen::Client(&gaps), &put);
    assert!(
        matches!(refusal, WriteError::ContextBytes { max: 200, .. }),
        "{refusal}"
    );
}

/// With few other parts a context says all that was seen; with many it stays small, and
/// names what it replaces.
#[test]
fn writes_of_a_part_never_replace_other_parts() {
    let roomy = Limits::default();
    for others in [10, 1000] {
        let parts = elements(others)
            .into_iter()
            .map(|element| Part::Element(element).encode());
        let mut store = store_of(parts);
        let remove = Update::Remove(vec![bytes("7")]);
        let asker = (Seen::Coordinator, store.actor(), None);
        let plans = plan(
            ConflictPolicy::Set,
            &roomy,
            &store.state(&KEY),
            asker,
            &remove,
        );
        for planned in plans.expect("within the limits") {
            let delta = planned.delta(store.next_dot(), NOW, None);
            assert!(delta.encode().len() < 200);
            let _ = store.accept(&KEY, &delta);
        }
        assert_eq!(store.record(&KEY).live().len(), others - 1);
    }
}
