//! What changes of an etcd keyspace do, through the machine and over a real table.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use quorate_proto::etcd::etcdserverpb::compare::{CompareTarget, TargetUnion};
use quorate_proto::etcd::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, TxnRequest, TxnResponse, request_op,
};
use quorate_proto::internal::{
    Command, LeaseGrant, LeaseRevoke, PrefixLimits, RangeOptions, command::Operation,
};

use super::*;
use crate::machine::Applied;

const PREFIX: &[u8] = b"\x00\x07";

/// All versions of all keys; none: deleted.
#[derive(Default)]
struct Kept {
    versions: BTreeMap<Bytes, Vec<(u64, Option<Version>)>>,
    floor: u64,
}

impl Kept {
    fn at(&self, key: &[u8], at: u64) -> Option<Version> {
        let versions = self.versions.get(key)?.iter().rev();
        versions
            .clone()
            .find(|(revision, _)| *revision <= at)?
            .1
            .clone()
    }
}

impl Store for Kept {
    fn get(&mut self, key: &[u8]) -> Result<Option<Version>, EngineError> {
        Ok(self.at(key, u64::MAX))
    }
    fn keys(&mut self, _: &Bytes, _: &Bytes, _: usize) -> Result<Vec<Bytes>, EngineError> {
        Ok(Vec::new())
    }
    fn scan(
        &mut self,
        start: &Bytes,
        end: &Bytes,
        at: Option<Revision>,
        see: &mut dyn FnMut(Bytes, Version),
    ) -> Result<(), EngineError> {
        let at = at.map_or(u64::MAX, |at| at.0);
        assert!(at >= self.floor);
        for key in self
            .versions
            .range(start.clone()..end.clone())
            .map(|(key, _)| key)
        {
            if let Some(version) = self.at(key, at) {
                see(key.clone(), version);
            }
        }
        Ok(())
    }
    fn stored_bytes(&mut self) -> Result<u64, EngineError> {
        Ok(0)
    }
    fn put(&mut self, key: Bytes, version: Version) {
        let versions = self.versions.entry(key).or_default();
        versions.push((version.revision, Some(version)));
    }
    fn delete(&mut self, key: Bytes, revision: Revision) {
        self.versions
            .entry(key)
            .or_default()
            .push((revision.0, None));
    }
    fn collect_below(&mut self, floor: Revision) {
        self.floor = floor.0;
    }
    fn keep_history(&mut self, _: bool) {}
}

#[derive(Default)]
struct Keyspace {
    machine: Machine,
    store: Kept,
    entries: u64,
}

impl Keyspace {
    fn apply(&mut self, operation: Operation) -> Applied {
        self.entries += 1;
        let command = Command {
            proposed: self.entries * 1_000,
            operation: Some(operation),
            ..Command::default()
        };
        let applied = self.machine.apply(command, &mut self.store).unwrap();
        self.machine.validate().unwrap();
        applied
    }

    fn ask(&mut self, request: Request) -> (i64, Result<Option<Response>, EtcdRefusal>) {
        let command = EtcdCommand {
            prefix: Bytes::from_static(PREFIX),
            request: Some(request),
        };
        match self.apply(Operation::Etcd(command)).outcome {
            ApplyOutcome::Etcd(outcome) => (outcome.revision, outcome.answer),
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, key: &'static str, value: &'static str) -> i64 {
        let (revision, answer) = self.ask(Request::Put(put(key, value)));
        answer.unwrap();
        revision
    }

    fn txn(&mut self, txn: TxnRequest) -> TxnResponse {
        match self.ask(Request::Txn(txn)).1.unwrap() {
            Some(Response::ResponseTxn(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    fn range(&mut self, range: RangeRequest) -> RangeResponse {
        let mut response = self.txn(TxnRequest {
            success: vec![operation(request_op::Request::RequestRange(range))],
            ..TxnRequest::default()
        });
        match response.responses.remove(0).response {
            Some(Response::ResponseRange(range)) => range,
            other => panic!("{other:?}"),
        }
    }
}

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        ..PutRequest::default()
    }
}

fn operation(request: request_op::Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn all() -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..RangeRequest::default()
    }
}

fn shown(response: &RangeResponse) -> Vec<(String, i64, i64, i64)> {
    let show = |row: &KeyValue| {
        let key = String::from_utf8(row.key.to_vec()).unwrap();
        (key, row.create_revision, row.mod_revision, row.version)
    };
    response.kvs.iter().map(show).collect()
}

#[test]
fn revisions_have_no_gaps_and_old_ones_are_read_until_they_are_compacted() {
    let mut keyspace = Keyspace::default();
    assert_eq!(keyspace.put("a", "1"), 2);
    assert_eq!(keyspace.put("b", "2"), 3);
    assert_eq!(keyspace.put("a", "3"), 4);
    let nothing = DeleteRangeRequest {
        key: Bytes::from_static(b"c"),
        ..DeleteRangeRequest::default()
    };
    let (revision, _) = keyspace.ask(Request::DeleteRange(nothing));
    assert_eq!(revision, 4, "what changes nothing takes no revision");
    let old = |revision| RangeRequest { revision, ..all() };
    assert_eq!(shown(&keyspace.range(old(2))), [("a".to_owned(), 2, 2, 1)]);
    let newest = [("a".to_owned(), 2, 4, 2), ("b".to_owned(), 3, 3, 1)];
    assert_eq!(shown(&keyspace.range(all())), newest);

    let compact = |revision| {
        Request::Compact(CompactionRequest {
            revision,
            physical: false,
        })
    };
    let future = EtcdRefusal::Future {
        asked: 5,
        current: 4,
    };
    assert_eq!(keyspace.ask(compact(5)).1, Err(future));
    assert_eq!(keyspace.ask(compact(3)).1, Ok(None));
    let gone = |asked| EtcdRefusal::Compacted {
        asked,
        compacted: 3,
    };
    assert_eq!(keyspace.ask(compact(3)).1, Err(gone(3)));
    let at_two = TxnRequest {
        success: vec![operation(request_op::Request::RequestRange(old(2)))],
        ..TxnRequest::default()
    };
    assert_eq!(keyspace.ask(Request::Txn(at_two)).1, Err(gone(2)));
    assert_eq!(shown(&keyspace.range(old(3))).len(), 2);
}

#[test]
fn a_transaction_sees_what_it_has_done_and_compares_what_was_there() {
    let mut keyspace = Keyspace::default();
    keyspace.put("a", "1");
    keyspace.put("b", "1");
    let inner = TxnRequest {
        // Made before the transaction begins, so it holds, though `a` is 2 by then.
        compare: vec![Compare {
            target: CompareTarget::Value.into(),
            key: Bytes::from_static(b"a"),
            target_union: Some(TargetUnion::Value(Bytes::from_static(b"1"))),
            ..Compare::default()
        }],
        success: vec![operation(request_op::Request::RequestRange(all()))],
        failure: Vec::new(),
    };
    let delete = DeleteRangeRequest {
        key: Bytes::from_static(b"b"),
        prev_kv: true,
        ..DeleteRangeRequest::default()
    };
    let response = keyspace.txn(TxnRequest {
        success: vec![
            operation(request_op::Request::RequestPut(put("a", "2"))),
            operation(request_op::Request::RequestDeleteRange(delete)),
            operation(request_op::Request::RequestPut(put("c", "1"))),
            operation(request_op::Request::RequestTxn(inner)),
        ],
        ..TxnRequest::default()
    });
    let Some(Response::ResponseTxn(inner)) = &response.responses[3].response else {
        panic!("{response:?}");
    };
    assert!(inner.succeeded);
    let Some(Response::ResponseRange(seen)) = &inner.responses[0].response else {
        panic!("{inner:?}");
    };
    let expected = [("a".to_owned(), 2, 4, 2), ("c".to_owned(), 4, 4, 1)];
    assert_eq!(shown(seen), expected);
    assert_eq!(response.header.unwrap().revision, 4);
    assert_eq!(shown(&keyspace.range(all())), expected);
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let mut keyspace = Keyspace::default();
    keyspace.put("a", "1");
    let leased = PutRequest {
        lease: 77,
        ..put("b", "1")
    };
    let txn = TxnRequest {
        success: vec![
            operation(request_op::Request::RequestPut(put("a", "2"))),
            operation(request_op::Request::RequestPut(leased)),
        ],
        ..TxnRequest::default()
    };
    let (revision, answer) = keyspace.ask(Request::Txn(txn));
    assert_eq!((revision, answer), (2, Err(EtcdRefusal::LeaseNotFound)));
    assert_eq!(shown(&keyspace.range(all())), [("a".to_owned(), 2, 2, 1)]);
    let kept = PutRequest {
        ignore_value: true,
        ..put("b", "")
    };
    let (_, answer) = keyspace.ask(Request::Put(kept));
    assert_eq!(answer, Err(EtcdRefusal::KeyNotFound));
}

#[test]
fn keys_alone_come_without_leases_unless_values_were_compared() {
    let mut keyspace = Keyspace::default();
    let grant = LeaseGrant {
        id: 77,
        ttl: 5_000_000,
    };
    keyspace.apply(Operation::LeaseGrant(grant));
    let leased = PutRequest {
        lease: 77,
        ..put("a", "1")
    };
    keyspace.ask(Request::Put(leased)).1.unwrap();
    for (sort_target, lease) in [(0, 0), (1, 0), (4, 77)] {
        let keys = keyspace.range(RangeRequest {
            keys_only: true,
            sort_target,
            ..all()
        });
        assert_eq!(keys.kvs[0].lease, lease);
        assert!(keys.kvs[0].value.is_empty());
    }
}

#[test]
fn of_a_missing_lease_and_a_missing_key_the_lease_is_named() {
    let mut keyspace = Keyspace::default();
    let both = PutRequest {
        lease: 77,
        ignore_value: true,
        ..put("b", "")
    };
    let (_, answer) = keyspace.ask(Request::Put(both));
    assert_eq!(answer, Err(EtcdRefusal::LeaseNotFound));
}

#[test]
fn a_transaction_inside_another_is_answered_with_an_empty_header() {
    let mut keyspace = Keyspace::default();
    keyspace.put("a", "1");
    let inner = request_op::Request::RequestTxn(TxnRequest::default());
    let outer = keyspace.txn(TxnRequest {
        success: vec![operation(inner)],
        ..TxnRequest::default()
    });
    assert_eq!(outer.header.unwrap().revision, 2);
    match &outer.responses[0].response {
        Some(Response::ResponseTxn(inner)) => {
            assert_eq!(inner.header.as_ref().unwrap().revision, 0);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_end_of_a_lease_is_one_revision_for_all_its_keys() {
    let mut keyspace = Keyspace::default();
    let grant = LeaseGrant {
        id: 77,
        ttl: 5_000_000,
    };
    keyspace.apply(Operation::LeaseGrant(grant));
    for key in ["a", "b"] {
        let leased = PutRequest {
            lease: 77,
            ..put(key, "1")
        };
        keyspace.ask(Request::Put(leased)).1.unwrap();
    }
    keyspace.put("c", "1");
    keyspace.apply(Operation::LeaseRevoke(LeaseRevoke { id: 77 }));
    let left = keyspace.range(all());
    assert_eq!(shown(&left), [("c".to_owned(), 4, 4, 1)]);
    assert_eq!(left.header.unwrap().revision, 5);
}

#[test]
fn the_counter_is_restored_from_what_was_stored_at_any_time() {
    let mut keyspace = Keyspace::default();
    let mut stored = BTreeMap::new();
    for round in 0..400 {
        keyspace.put("a", "1");
        if round % 150 == 149 {
            let compact = CompactionRequest {
                revision: keyspace.machine.etcd().unwrap().current() - 20,
                physical: false,
            };
            keyspace.ask(Request::Compact(compact)).1.unwrap();
        }
        if round % 7 != 0 {
            continue;
        }
        for (name, value) in keyspace.machine.take_meta() {
            match value {
                Some(value) => stored.insert(name, value),
                None => stored.remove(&name),
            };
        }
        let restored = Machine::restore(stored.clone()).unwrap();
        let etcd = restored.etcd().unwrap();
        let kept = keyspace.machine.etcd().unwrap();
        assert_eq!(etcd.current(), kept.current());
        assert_eq!(etcd.compacted(), kept.compacted());
        for revision in etcd.compacted().max(1)..=etcd.current() {
            assert_eq!(
                etcd.moment_of(revision),
                kept.moment_of(revision),
                "{revision}"
            );
            let moment = etcd.moment_of(revision).unwrap();
            assert_eq!(etcd.at(moment), revision);
        }
    }
}

#[test]
fn ranges_sort_filter_and_count_as_they_are_asked_to() {
    use quorate_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
    let mut keyspace = Keyspace::default();
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "0")] {
        keyspace.put(key, value);
    }
    let keys = |response: &RangeResponse| -> Vec<String> {
        shown(response).into_iter().map(|row| row.0).collect()
    };
    let limited = keyspace.range(RangeRequest { limit: 2, ..all() });
    assert_eq!(
        (keys(&limited).len(), limited.more, limited.count),
        (2, true, 3)
    );
    let by_value = keyspace.range(RangeRequest {
        sort_target: SortTarget::Value.into(),
        sort_order: SortOrder::Descend.into(),
        keys_only: true,
        limit: 2,
        ..all()
    });
    assert_eq!(keys(&by_value), ["c", "b"]);
    assert!(by_value.kvs.iter().all(|row| row.value.is_empty()));
    let filtered = keyspace.range(RangeRequest {
        min_mod_revision: 4,
        max_create_revision: 3,
        ..all()
    });
    assert_eq!((keys(&filtered), filtered.count), (vec!["a".to_owned()], 3));
    let count = keyspace.range(RangeRequest {
        count_only: true,
        ..all()
    });
    assert_eq!((count.kvs.len(), count.count), (0, 3));
    let inverted = keyspace.range(RangeRequest {
        key: Bytes::from_static(b"c"),
        range_end: Bytes::from_static(b"a"),
        ..RangeRequest::default()
    });
    assert_eq!(inverted.count, 0);
}

/// Of keys below `app/`.
fn limited(max_keys: u64, max_bytes: u64) -> Operation {
    let limits = PrefixLimits {
        prefix: [PREFIX, b"app/"].concat().into(),
        unseen: u32::try_from(PREFIX.len()).unwrap(),
        max_keys,
        max_bytes,
    };
    Operation::Options(RangeOptions {
        history: 1,
        window: 100,
        prefixes: vec![limits],
        ..RangeOptions::default()
    })
}

#[test]
fn a_prefix_takes_what_its_quota_allows_of_what_clients_see() {
    let mut keyspace = Keyspace::default();
    keyspace.put("app/a", "12345");
    keyspace.put("b", "12345");
    keyspace.apply(limited(3, 40));
    let takes = |keyspace: &Keyspace, keys: u64, bytes: u64| {
        let uses = keyspace.machine.prefix_uses();
        assert_eq!((uses[0].keys, uses[0].bytes), (keys, bytes));
    };
    takes(&keyspace, 1, 10);
    let before = keyspace.put("app/b", "12345");
    let refused = |keyspace: &mut Keyspace, put: PutRequest| {
        let (revision, answer) = keyspace.ask(Request::Put(put));
        let Err(EtcdRefusal::PrefixFull(full)) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(full.prefix, "app/");
        revision
    };
    let at = refused(&mut keyspace, put("app/c", "1234567890123456"));
    assert_eq!(at, before, "nothing was done");
    takes(&keyspace, 2, 20);
    keyspace.put("app/c", "123456789012345");
    refused(&mut keyspace, put("app/d", ""));
    refused(&mut keyspace, put("app/a", "123456"));
    keyspace.put("b", "as long as it likes, which is much longer than that");
    keyspace.put("app/a", "1234");
    takes(&keyspace, 3, 39);
    // One goes, and one comes; in the list that does not run, many would.
    let many = ["app/x", "app/y", "app/z"];
    let many = many.map(|key| operation(request_op::Request::RequestPut(put(key, "1"))));
    let delete = DeleteRangeRequest {
        key: "app/c".into(),
        ..DeleteRangeRequest::default()
    };
    keyspace.apply(Operation::LeaseGrant(LeaseGrant { id: 7, ttl: 5 }));
    let leased = PutRequest {
        lease: 7,
        ..put("app/d", "1")
    };
    keyspace.txn(TxnRequest {
        success: vec![
            operation(request_op::Request::RequestDeleteRange(delete)),
            operation(request_op::Request::RequestPut(leased)),
        ],
        failure: many.to_vec(),
        ..TxnRequest::default()
    });
    takes(&keyspace, 3, 25);
    keyspace.apply(Operation::LeaseRevoke(LeaseRevoke { id: 7 }));
    takes(&keyspace, 2, 19);
    let meta = keyspace.machine.take_meta().into_iter();
    let kept = meta.filter_map(|(name, value)| Some((name, value?)));
    let restored = Machine::restore(kept).unwrap();
    assert_eq!(restored.prefix_uses(), keyspace.machine.prefix_uses());
    // A count that begins now comes to the same.
    keyspace.apply(Operation::Options(RangeOptions::default()));
    keyspace.apply(limited(3, 40));
    takes(&keyspace, 2, 19);
}
