//! Random operations, written for no certain place: keys lack their prefix, and a revision is a
//! distance from the store's newest. So a sequence can be sent again, shorter, elsewhere.

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcd::etcdserverpb::request_op::Request;
use quorate_proto::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest,
};

/// A revision `now + D` is written as `D + FROM_NOW`; 0 and less stand for themselves.
const FROM_NOW: i64 = 1_000;
/// Leases that one sequence has.
pub const LEASES: i64 = 3;

/// One operation.
#[derive(Clone, Debug)]
pub enum Operation {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact {
        revision: i64,
        physical: bool,
    },
    /// `lease` 0: the server picks an id, and it is revoked at once; as is one with a short time.
    Grant {
        lease: i64,
        ttl: i64,
    },
    Revoke {
        lease: i64,
    },
    TimeToLive {
        lease: i64,
        keys: bool,
    },
    KeepAlive {
        lease: i64,
    },
    Leases,
    /// Everything up to now, then cancelled.
    Watch(WatchCreateRequest),
}

/// Where an operation is sent.
#[derive(Clone, Debug)]
pub struct Place {
    pub prefix: String,
    /// Added to the number of a lease.
    pub leases: i64,
    pub revision: i64,
}

/// A small generator of its own: the same seed is the same sequence for ever.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `n` (splitmix64).
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn number(&mut self, n: u64) -> i64 {
        i64::try_from(self.below(n)).unwrap()
    }

    fn small(&mut self, n: u64) -> i32 {
        i32::try_from(self.below(n)).unwrap()
    }

    fn key(&mut self) -> Bytes {
        match self.below(40) {
            0 => Bytes::new(),
            _ => Bytes::from(format!("k{}", self.below(6))),
        }
    }

    fn end(&mut self) -> Bytes {
        match self.below(6) {
            0..=2 => Bytes::new(),
            3 => Bytes::from_static(&[0]),
            _ => Bytes::from(format!("k{}", self.below(7))),
        }
    }

    fn revision(&mut self) -> i64 {
        match self.below(12) {
            0 => -1,
            1 => FROM_NOW + 1 + self.number(5),
            _ => FROM_NOW - self.number(25),
        }
    }

    fn maybe_revision(&mut self, n: u64) -> i64 {
        if self.one_in(n) { self.revision() } else { 0 }
    }

    fn lease(&mut self) -> i64 {
        if self.one_in(3) {
            1 + self.number(LEASES as u64)
        } else {
            0
        }
    }

    fn range(&mut self) -> RangeRequest {
        let mut range = RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: if self.one_in(3) {
                self.number(5) - 1
            } else {
                0
            },
            revision: self.maybe_revision(4),
            sort_order: if self.one_in(30) { 7 } else { self.small(3) },
            sort_target: if self.one_in(30) { 9 } else { self.small(5) },
            serializable: self.one_in(6),
            keys_only: self.one_in(5),
            count_only: self.one_in(8),
            min_mod_revision: self.maybe_revision(8),
            max_mod_revision: self.maybe_revision(8),
            min_create_revision: self.maybe_revision(8),
            max_create_revision: self.maybe_revision(8),
        };
        // etcd sorts only the first keys then (docs/ETCD.md).
        if range.sort_order == 0 && range.limit > 0 {
            range.sort_target = 0;
        }
        range
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.one_in(8);
        let ignore_lease = self.one_in(8);
        PutRequest {
            key: self.key(),
            value: match ignore_value && !self.one_in(5) {
                true => Bytes::new(),
                false => Bytes::from(format!("v{}", self.below(9))),
            },
            lease: match ignore_lease && !self.one_in(5) {
                true => 0,
                false => self.lease(),
            },
            prev_kv: self.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: self.key(),
            range_end: self.end(),
            prev_kv: self.one_in(2),
        }
    }

    fn compare(&mut self) -> Compare {
        let target = self.small(5);
        let kind = if self.one_in(20) {
            self.small(5)
        } else {
            target
        };
        Compare {
            result: self.small(4),
            target,
            key: self.key(),
            range_end: self.end(),
            target_union: Some(match kind {
                0 => TargetUnion::Version(self.number(4)),
                1 => TargetUnion::CreateRevision(self.maybe_revision(2)),
                2 => TargetUnion::ModRevision(self.maybe_revision(2)),
                3 => TargetUnion::Value(Bytes::from(format!("v{}", self.below(9)))),
                _ => TargetUnion::Lease(self.lease()),
            }),
        }
    }

    fn txn(&mut self, depth: u64) -> TxnRequest {
        let many = self.below(3);
        TxnRequest {
            compare: (0..many).map(|_| self.compare()).collect(),
            success: self.branch(depth),
            failure: self.branch(depth),
        }
    }

    /// Two things that only etcd lets through are left out (docs/ETCD.md): deletes to the end of
    /// all keys beside puts, and keys that one inner transaction puts and the next deletes.
    fn branch(&mut self, depth: u64) -> Vec<RequestOp> {
        let many = self.below(4);
        let mut inner = depth;
        (0..many)
            .map(|_| {
                let request = match self.below(if inner > 0 { 8 } else { 7 }) {
                    0..=2 => Request::RequestPut(self.put()),
                    3..=5 => Request::RequestRange(self.range()),
                    6 => Request::RequestDeleteRange(self.inner_delete()),
                    _ => {
                        inner = 0;
                        Request::RequestTxn(self.txn(depth - 1))
                    }
                };
                RequestOp {
                    request: Some(request),
                }
            })
            .collect()
    }

    fn inner_delete(&mut self) -> DeleteRangeRequest {
        let mut delete = self.delete();
        if delete.range_end[..] == [0] {
            delete.range_end = Bytes::new();
        }
        delete
    }

    fn watch(&mut self) -> WatchCreateRequest {
        WatchCreateRequest {
            key: self.key(),
            range_end: self.end(),
            start_revision: self.revision(),
            progress_notify: self.one_in(4),
            filters: (0..2).filter(|_| self.one_in(5)).collect(),
            prev_kv: self.one_in(2),
            watch_id: if self.one_in(4) {
                1 + self.number(9)
            } else {
                0
            },
            fragment: self.one_in(3),
        }
    }

    /// Any operation.
    pub fn operation(&mut self) -> Operation {
        match self.below(100) {
            0..=27 => Operation::Put(self.put()),
            28..=52 => Operation::Range(self.range()),
            53..=60 => Operation::Delete(self.delete()),
            61..=78 => Operation::Txn(self.txn(2)),
            79..=80 => Operation::Compact {
                revision: match self.below(4) {
                    0 => FROM_NOW + 3,
                    1 => 0,
                    _ => FROM_NOW - self.number(20),
                },
                physical: self.one_in(2),
            },
            81..=87 => Operation::Grant {
                lease: self.number(LEASES as u64 + 1),
                ttl: match self.below(10) {
                    0 => 0,
                    1 => -1,
                    2 => 9_000_000_001,
                    _ => 600 + self.number(100),
                },
            },
            88..=89 => Operation::Revoke {
                lease: 1 + self.number(LEASES as u64),
            },
            90..=93 => Operation::TimeToLive {
                lease: 1 + self.number(LEASES as u64),
                keys: self.one_in(2),
            },
            94..=95 => Operation::KeepAlive {
                lease: 1 + self.number(LEASES as u64),
            },
            96 => Operation::Leases,
            _ => Operation::Watch(self.watch()),
        }
    }
}

impl Place {
    fn key(&self, key: &mut Bytes) {
        if !key.is_empty() {
            *key = Bytes::from([self.prefix.as_bytes(), &key[..]].concat());
        }
    }

    /// All keys from one on: prefixes grow, so no other sequence's are behind it.
    fn end(&self, end: &mut Bytes) {
        if end[..] != [0] {
            self.key(end);
        }
    }

    fn at(&self, revision: &mut i64) {
        if *revision > 0 {
            *revision = (self.revision + *revision - FROM_NOW).max(1);
        }
    }

    pub fn lease(&self, lease: i64) -> i64 {
        if lease > 0 { self.leases + lease } else { 0 }
    }

    fn range(&self, range: &mut RangeRequest) {
        self.key(&mut range.key);
        self.end(&mut range.range_end);
        self.at(&mut range.revision);
        self.at(&mut range.min_mod_revision);
        self.at(&mut range.max_mod_revision);
        self.at(&mut range.min_create_revision);
        self.at(&mut range.max_create_revision);
    }

    fn put(&self, put: &mut PutRequest) {
        self.key(&mut put.key);
        put.lease = self.lease(put.lease);
    }

    fn delete(&self, delete: &mut DeleteRangeRequest) {
        self.key(&mut delete.key);
        self.end(&mut delete.range_end);
    }

    fn txn(&self, txn: &mut TxnRequest) {
        for compare in &mut txn.compare {
            self.key(&mut compare.key);
            self.end(&mut compare.range_end);
            match &mut compare.target_union {
                Some(TargetUnion::CreateRevision(at) | TargetUnion::ModRevision(at)) => self.at(at),
                Some(TargetUnion::Lease(lease)) => *lease = self.lease(*lease),
                _ => {}
            }
        }
        for operation in txn.success.iter_mut().chain(&mut txn.failure) {
            match operation.request.as_mut().unwrap() {
                Request::RequestRange(range) => self.range(range),
                Request::RequestPut(put) => self.put(put),
                Request::RequestDeleteRange(delete) => self.delete(delete),
                Request::RequestTxn(inner) => self.txn(inner),
            }
        }
    }

    /// The operation as it is sent here.
    pub fn of(&self, operation: &Operation) -> Operation {
        let mut placed = operation.clone();
        match &mut placed {
            Operation::Range(range) => self.range(range),
            Operation::Put(put) => self.put(put),
            Operation::Delete(delete) => self.delete(delete),
            Operation::Txn(txn) => self.txn(txn),
            Operation::Compact { revision, .. } => self.at(revision),
            Operation::Grant { lease, .. }
            | Operation::Revoke { lease }
            | Operation::TimeToLive { lease, .. }
            | Operation::KeepAlive { lease } => *lease = self.lease(*lease),
            Operation::Leases => {}
            Operation::Watch(watch) => {
                self.key(&mut watch.key);
                self.end(&mut watch.range_end);
                self.at(&mut watch.start_revision);
            }
        }
        placed
    }
}
