//! An etcd keyspace through killed leaders, cuts of power and network, and snapshots: each
//! acknowledged change has a revision of its own, under which every replica shows it until it is
//! compacted, and all replicas count alike. And the mistake that this must notice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::etcd::etcdserverpb::compare::{CompareTarget, TargetUnion};
use quorate_proto::etcd::etcdserverpb::response_op::Response;
use quorate_proto::etcd::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op,
};
use quorate_proto::internal::etcd_command::Request;
use quorate_proto::internal::{Command, EtcdCommand, command::Operation};
use quorate_raft::machine::ApplyOutcome;
use quorate_raft::machine::etcd::{EtcdOutcome, Revisions, key_value};
use quorate_raft::{Faults, Group};
use tokio::time::Instant;

use crate::clients::within;
use crate::world::{PATIENCE, Settings, Shared, must_be_found, run_all};

const WRITERS: u64 = 6;
const KEYS: u64 = 8;
const WITHIN: Duration = Duration::from_millis(500);
/// Revisions that a compaction leaves at least.
const KEPT_REVISIONS: u64 = 40;

/// What was acknowledged, by revision: a key, and its value after it.
#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<BTreeMap<i64, (Bytes, Option<Bytes>)>>,
    stop: AtomicBool,
}

impl Ledger {
    fn last(&self) -> i64 {
        let acknowledged = self.acknowledged.lock();
        acknowledged.last_key_value().map_or(0, |(last, _)| *last)
    }

    fn acknowledge(&self, world: &Shared, revision: i64, key: Bytes, value: Option<Bytes>) {
        let mut acknowledged = self.acknowledged.lock();
        if acknowledged.insert(revision, (key, value)).is_some() {
            world.accuse(format!("revision {revision} was acknowledged twice"));
        }
        world.count_answer();
    }
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number}"))
}

fn prefix(world: &Shared, node: usize) -> Option<Bytes> {
    world.group_of(node, "default", b"").map(|(_, key)| key)
}

/// Asks the leader; none: it is not known whether it was done.
async fn ask(world: &Shared, request: Request) -> Option<EtcdOutcome> {
    let node = world.leader()?;
    let command = Command {
        operation: Some(Operation::Etcd(EtcdCommand {
            prefix: prefix(world, node)?,
            request: Some(request),
        })),
        ..Command::default()
    };
    let proposed = world.group(node)?.propose(command, within(WITHIN)).await;
    match proposed.ok()?.applied.outcome {
        ApplyOutcome::Etcd(outcome) => Some(*outcome),
        other => {
            world.accuse(format!("a change came to {other:?}"));
            None
        }
    }
}

fn put(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest {
        key,
        value,
        ..PutRequest::default()
    }
}

async fn change(world: &Shared, ledger: &Ledger, value: Bytes) {
    let key = key(world.roll(KEYS));
    match world.roll(8) {
        0 => {
            let delete = DeleteRangeRequest {
                key: key.clone(),
                ..DeleteRangeRequest::default()
            };
            let Some(outcome) = ask(world, Request::DeleteRange(delete)).await else {
                return;
            };
            if let Ok(Some(Response::ResponseDeleteRange(answer))) = outcome.answer
                && answer.deleted > 0
            {
                ledger.acknowledge(world, outcome.revision, key, None);
            }
        }
        1 => {
            let kept = world.roll(KEPT_REVISIONS) + KEPT_REVISIONS;
            let compact = CompactionRequest {
                revision: ledger.last() - i64::try_from(kept).unwrap(),
                physical: false,
            };
            // One that was made before, or is too early, is refused.
            ask(world, Request::Compact(compact)).await;
        }
        2 | 3 => {
            let guard = Compare {
                target: CompareTarget::Version.into(),
                key: key.clone(),
                target_union: Some(TargetUnion::Version(0)),
                ..Compare::default()
            };
            let made = request_op::Request::RequestPut(put(key.clone(), value.clone()));
            let txn = TxnRequest {
                compare: vec![guard],
                success: vec![RequestOp {
                    request: Some(made),
                }],
                failure: Vec::new(),
            };
            let Some(outcome) = ask(world, Request::Txn(txn)).await else {
                return;
            };
            if let Ok(Some(Response::ResponseTxn(answer))) = outcome.answer
                && answer.succeeded
            {
                ledger.acknowledge(world, outcome.revision, key, Some(value));
            }
        }
        _ => {
            let request = Request::Put(put(key.clone(), value.clone()));
            if let Some(outcome) = ask(world, request).await {
                ledger.acknowledge(world, outcome.revision, key, Some(value));
            }
        }
    }
}

/// A linearizable look at any node knows of everything that was acknowledged before.
async fn look(world: &Shared, ledger: &Ledger) {
    let least = ledger.last();
    let Some(group) = world.group(world.any_node()) else {
        return;
    };
    if group.read_barrier(within(WITHIN)).await.is_ok() {
        let seen = group.etcd(Revisions::current);
        if seen < least {
            world.accuse(format!("revision {seen} is seen after {least}"));
        }
        world.count_answer();
    }
}

async fn write(world: Shared, ledger: Arc<Ledger>, writer: u64) {
    let mut number = 0;
    while !ledger.stop.load(Ordering::Relaxed) {
        number += 1;
        change(&world, &ledger, Bytes::from(format!("{writer}-{number}"))).await;
        look(&world, &ledger).await;
        tokio::time::sleep(Duration::from_millis(1 + world.roll(20))).await;
    }
}

async fn disturb(world: &Shared) {
    tokio::time::sleep(Duration::from_millis(300 + world.roll(1_000))).await;
    match world.roll(4) {
        0 => world.all().for_each(|node| world.cut_power(node)),
        1 => world.isolate(world.leader().unwrap_or_default()),
        2 => world.cut_power(world.any_node()),
        _ => world.kill(world.leader().unwrap_or_default()),
    }
    tokio::time::sleep(Duration::from_millis(world.roll(2_000))).await;
    world.make_whole().await;
}

/// What every replica must show in the end.
fn compare(world: &Shared, node: usize, group: &Group, ledger: &Ledger) {
    let Some(prefix) = prefix(world, node) else {
        return world.accuse(format!("node {node} knows no keyspace"));
    };
    for (revision, (key, value)) in ledger.acknowledged.lock().iter() {
        let (compacted, moment) =
            group.etcd(|revisions| (revisions.compacted(), revisions.moment_of(*revision)));
        if *revision < compacted {
            continue;
        }
        let Ok(moment) = moment else {
            return world.accuse(format!("revision {revision} is unknown to node {node}"));
        };
        let stored: Bytes = [&prefix[..], &key[..]].concat().into();
        let version = group.table().get_at(&stored, moment.0);
        let shown = version
            .unwrap()
            .map(|version| key_value(key.clone(), version).unwrap());
        let as_put = shown.as_ref().map(|row| (row.mod_revision, &row.value));
        let wanted = value.as_ref().map(|value| (*revision, value));
        if as_put != wanted {
            world.accuse(format!(
                "at revision {revision} node {node} shows {shown:?}, not {value:?}"
            ));
        }
    }
}

async fn etcd(world: Shared) {
    let ledger = Arc::new(Ledger::default());
    let writers =
        (0..WRITERS).map(|writer| tokio::spawn(write(world.clone(), ledger.clone(), writer)));
    let writers: Vec<_> = writers.collect();
    for _ in 0..6 {
        disturb(&world).await;
    }
    ledger.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    world.make_whole().await;
    let deadline = Instant::now() + PATIENCE;
    // A new leader may not have applied yet what its forerunner has acknowledged.
    let last = loop {
        let leader = world.await_leader().await;
        let group = world.group(leader);
        if let Some(group) = group
            && let Ok(point) = group.read_barrier(within(WITHIN)).await
        {
            break point.index;
        }
        if Instant::now() > deadline {
            return world.accuse("nobody can be read".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // What nobody waits for any more may be decided still.
    let applied = |node| world.group(node).map_or(0, |group| group.applied().index);
    while !world
        .all()
        .all(|node| applied(node) >= last && applied(node) == applied(0))
    {
        if Instant::now() > deadline {
            return world.accuse("the replicas do not come to the same place".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut counted = Vec::new();
    for node in world.all() {
        let group = world.group(node).unwrap();
        counted.push(group.etcd(|revisions| (revisions.current(), revisions.compacted())));
        compare(&world, node, &group, &ledger);
    }
    if counted.iter().any(|count| *count != counted[0]) {
        world.accuse(format!("replicas count {counted:?}"));
    }
    if counted[0].0 < ledger.last() || ledger.last() < 50 {
        world.accuse(format!("{} acknowledged of {counted:?}", ledger.last()));
    }
}

#[test]
fn acknowledged_revisions_of_an_etcd_keyspace_stay_what_they_were() {
    run_all(
        "acknowledged_revisions_of_an_etcd_keyspace_stay_what_they_were",
        8,
        &Settings::default(),
        etcd,
    );
}

#[test]
fn a_counter_that_is_not_stored_is_noticed() {
    let settings = Settings {
        faults: Faults {
            forget_revisions: true,
            ..Faults::default()
        },
        ..Settings::default()
    };
    must_be_found(10, &settings, |violation| !violation.is_empty(), etcd);
}
