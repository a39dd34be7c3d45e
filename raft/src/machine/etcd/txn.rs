//! One change of an etcd keyspace: a put, a deletion, or a transaction, of which each may hold the
//! others. First all compares are made, and all that may be refused is; then it runs, on what was
//! there and what it has done so far. Nothing is written here.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcd::etcdserverpb::response_op::Response;
use quorate_proto::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, request_op,
};
use quorate_proto::etcd::mvccpb::KeyValue;
use quorate_proto::internal::Write;
use quorate_proto::internal::etcd_command::Request;
use quorate_storage::engine::EngineError;
use quorate_types::{LeaseId, Revision};

use super::range::{RangeAnswer, Span};
use super::revisions::Revisions;
use super::{EtcdRefusal, Failed, key_value};
use crate::machine::leases::Leases;
use crate::machine::{ApplyRefusal, Store};

/// A change while it runs.
pub(super) struct Run<'a> {
    prefix: &'a Bytes,
    revisions: &'a Revisions,
    leases: &'a Leases,
    store: &'a mut dyn Store,
    /// What it has done; none: deleted.
    changes: BTreeMap<Bytes, Option<KeyValue>>,
    /// Whether each transaction on its way takes the first branch, in the order in which they run.
    path: std::vec::IntoIter<bool>,
}

/// What ties a stored key to a lease.
pub(super) fn attachment(key: Bytes, lease: i64) -> Write {
    Write {
        key,
        lease: lease.cast_unsigned(),
        ..Write::default()
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(
        prefix: &'a Bytes,
        revisions: &'a Revisions,
        leases: &'a Leases,
        store: &'a mut dyn Store,
    ) -> Run<'a> {
        Run {
            prefix,
            revisions,
            leases,
            store,
            changes: BTreeMap::new(),
            path: Vec::new().into_iter(),
        }
    }

    /// What it did.
    pub(super) fn into_changes(self) -> BTreeMap<Bytes, Option<KeyValue>> {
        self.changes
    }

    pub(super) fn request(&mut self, request: Request) -> Result<Response, Failed> {
        match request {
            Request::Put(put) => {
                self.may_put(&put)?;
                Ok(Response::ResponsePut(self.put(put)?))
            }
            Request::DeleteRange(delete) => {
                Ok(Response::ResponseDeleteRange(self.delete_range(&delete)?))
            }
            Request::Txn(txn) => {
                let mut path = Vec::new();
                self.find_path(&txn, &mut path)?;
                self.path = path.clone().into_iter();
                self.may_run(&txn)?;
                self.path = path.into_iter();
                let mut response = self.txn(txn)?;
                response.header = Some(self.header());
                Ok(Response::ResponseTxn(response))
            }
            Request::Compact(_) => Ok(Response::ResponseTxn(TxnResponse::default())),
        }
    }

    /// The revision of the store as of here.
    fn revision(&self) -> i64 {
        self.revisions.current() + i64::from(!self.changes.is_empty())
    }

    fn header(&self) -> ResponseHeader {
        ResponseHeader {
            revision: self.revision(),
            ..ResponseHeader::default()
        }
    }

    /// All compares, of the transactions inside as well, are made on what was there before.
    fn find_path(&mut self, txn: &TxnRequest, path: &mut Vec<bool>) -> Result<(), EngineError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded = succeeded && self.holds(compare)?;
        }
        path.push(succeeded);
        for operation in branch(txn, succeeded) {
            if let Some(request_op::Request::RequestTxn(inner)) = &operation.request {
                self.find_path(inner, path)?;
            }
        }
        Ok(())
    }

    fn holds(&mut self, compare: &Compare) -> Result<bool, EngineError> {
        let mut rows = Vec::new();
        let span = Span::of(&compare.key, &compare.range_end);
        self.rows(&span, None, &mut |row| rows.push(row))?;
        if rows.is_empty() {
            // What is not there has no value, not even an empty one.
            let is_value = compare.target == i32::from(CompareTarget::Value);
            return Ok(!is_value && is_so(compare, &KeyValue::default()));
        }
        Ok(rows.iter().all(|row| is_so(compare, row)))
    }

    /// Whether nothing on the way is refused.
    fn may_run(&mut self, txn: &TxnRequest) -> Result<(), Failed> {
        let succeeded = self.path.next().unwrap_or(false);
        for operation in branch(txn, succeeded) {
            match &operation.request {
                Some(request_op::Request::RequestPut(put)) => self.may_put(put)?,
                // Before the first revision is read as now, until something was compacted.
                Some(request_op::Request::RequestRange(range))
                    if range.revision < 0 && self.revisions.compacted() > 0 =>
                {
                    self.revisions.moment_of(range.revision)?;
                }
                Some(request_op::Request::RequestRange(range)) => {
                    self.moment(range)?;
                }
                Some(request_op::Request::RequestTxn(inner)) => self.may_run(inner)?,
                Some(request_op::Request::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    fn may_put(&mut self, put: &PutRequest) -> Result<(), Failed> {
        // The lease first: of two reasons, clients expect etcd's.
        self.may_attach(put)?;
        if (put.ignore_value || put.ignore_lease) && self.get(&put.key)?.is_none() {
            return Err(EtcdRefusal::KeyNotFound.into());
        }
        Ok(())
    }

    fn may_attach(&self, put: &PutRequest) -> Result<(), EtcdRefusal> {
        if put.lease == 0 {
            return Ok(());
        }
        if self
            .leases
            .get(LeaseId(put.lease.cast_unsigned()))
            .is_none()
        {
            return Err(EtcdRefusal::LeaseNotFound);
        }
        let stored: Bytes = [&self.prefix[..], &put.key[..]].concat().into();
        match self.leases.refuses(&attachment(stored, put.lease)) {
            None => Ok(()),
            Some(ApplyRefusal::LeaseFull) => Err(EtcdRefusal::LeaseFull),
            Some(_) => Err(EtcdRefusal::LeaseNotFound),
        }
    }

    fn txn(&mut self, txn: TxnRequest) -> Result<TxnResponse, Failed> {
        let succeeded = self.path.next().unwrap_or(false);
        let operations = match succeeded {
            true => txn.success,
            false => txn.failure,
        };
        let mut responses = Vec::with_capacity(operations.len());
        for operation in operations {
            let response = match operation.request {
                None => None,
                Some(request) => Some(self.operation(request)?),
            };
            responses.push(ResponseOp { response });
        }
        Ok(TxnResponse {
            // Of one inside another, etcd's is there and empty.
            header: Some(ResponseHeader::default()),
            succeeded,
            responses,
        })
    }

    fn operation(&mut self, request: request_op::Request) -> Result<Response, Failed> {
        Ok(match request {
            request_op::Request::RequestRange(range) => {
                Response::ResponseRange(self.range(&range)?)
            }
            request_op::Request::RequestPut(put) => Response::ResponsePut(self.put(put)?),
            request_op::Request::RequestDeleteRange(delete) => {
                Response::ResponseDeleteRange(self.delete_range(&delete)?)
            }
            request_op::Request::RequestTxn(txn) => Response::ResponseTxn(self.txn(txn)?),
        })
    }

    fn put(&mut self, put: PutRequest) -> Result<PutResponse, Failed> {
        let before = self.get(&put.key)?;
        let revision = self.revisions.current() + 1;
        let (created, version) = before
            .as_ref()
            .map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
        let kept = before.clone().unwrap_or_default();
        let row = KeyValue {
            key: put.key.clone(),
            create_revision: created,
            mod_revision: revision,
            version,
            value: match put.ignore_value {
                true => kept.value,
                false => put.value,
            },
            lease: match put.ignore_lease {
                true => kept.lease,
                false => put.lease,
            },
        };
        self.changes.insert(put.key, Some(row));
        Ok(PutResponse {
            header: Some(self.header()),
            prev_kv: before.filter(|_| put.prev_kv),
        })
    }

    fn delete_range(&mut self, delete: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Failed> {
        let span = Span::of(&delete.key, &delete.range_end);
        let mut rows = Vec::new();
        self.rows(&span, None, &mut |row| rows.push(row))?;
        for row in &rows {
            self.changes.insert(row.key.clone(), None);
        }
        Ok(DeleteRangeResponse {
            header: Some(self.header()),
            deleted: rows.len() as i64,
            prev_kvs: match delete.prev_kv {
                true => rows,
                false => Vec::new(),
            },
        })
    }

    /// Where a range reads; none: the state as of here.
    fn moment(&self, range: &RangeRequest) -> Result<Option<Revision>, EtcdRefusal> {
        match range.revision {
            ..=0 => Ok(None),
            asked => self.revisions.moment_of(asked).map(Some),
        }
    }

    fn range(&mut self, range: &RangeRequest) -> Result<RangeResponse, Failed> {
        let at = self.moment(range)?;
        let mut answer = RangeAnswer::new(range);
        let span = Span::of(&range.key, &range.range_end);
        self.rows(&span, at, &mut |row| answer.take(row))?;
        Ok(answer.finish(self.revision()))
    }

    fn get(&mut self, key: &Bytes) -> Result<Option<KeyValue>, EngineError> {
        if let Some(changed) = self.changes.get(key) {
            return Ok(changed.clone());
        }
        let stored = [&self.prefix[..], &key[..]].concat();
        let version = self.store.get(&stored)?;
        version
            .map(|version| key_value(key.clone(), version))
            .transpose()
    }

    /// All rows of a span, in the order of their keys: at a revision of the log, or as of here.
    fn rows(
        &mut self,
        span: &Span,
        at: Option<Revision>,
        see: &mut dyn FnMut(KeyValue),
    ) -> Result<(), EngineError> {
        if span.is_empty() {
            return Ok(());
        }
        let own = match at {
            Some(_) => BTreeMap::new(),
            None => self.changes.clone(),
        };
        let mut own = own
            .into_iter()
            .filter(|(key, _)| span.contains(key))
            .peekable();
        let (start, end) = span.stored(self.prefix);
        let prefix_bytes = self.prefix.len();
        let mut failed = None;
        self.store.scan(&start, &end, at, &mut |stored, version| {
            let key = stored.slice(prefix_bytes.min(stored.len())..);
            while let Some((_, row)) = own.next_if(|(own, _)| *own < key) {
                row.into_iter().for_each(&mut *see);
            }
            if let Some((_, row)) = own.next_if(|(own, _)| *own == key) {
                row.into_iter().for_each(&mut *see);
                return;
            }
            match key_value(key, version) {
                Ok(row) => see(row),
                Err(error) => failed = Some(error),
            }
        })?;
        for (_, row) in own {
            row.into_iter().for_each(&mut *see);
        }
        failed.map_or(Ok(()), Err)
    }
}

fn branch(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    match succeeded {
        true => &txn.success,
        false => &txn.failure,
    }
}

fn is_so(compare: &Compare, row: &KeyValue) -> bool {
    use std::cmp::Ordering;
    let number = |found: i64, wanted: Option<i64>| found.cmp(&wanted.unwrap_or_default());
    let union = compare.target_union.as_ref();
    // A value of another kind than the target's counts as none.
    let ordering = match CompareTarget::try_from(compare.target).unwrap_or_default() {
        CompareTarget::Value => match union {
            Some(TargetUnion::Value(value)) => row.value.cmp(value),
            _ => row.value[..].cmp(&[]),
        },
        CompareTarget::Version => number(
            row.version,
            match union {
                Some(TargetUnion::Version(wanted)) => Some(*wanted),
                _ => None,
            },
        ),
        CompareTarget::Create => number(
            row.create_revision,
            match union {
                Some(TargetUnion::CreateRevision(wanted)) => Some(*wanted),
                _ => None,
            },
        ),
        CompareTarget::Mod => number(
            row.mod_revision,
            match union {
                Some(TargetUnion::ModRevision(wanted)) => Some(*wanted),
                _ => None,
            },
        ),
        CompareTarget::Lease => number(
            row.lease,
            match union {
                Some(TargetUnion::Lease(wanted)) => Some(*wanted),
                _ => None,
            },
        ),
    };
    match CompareResult::try_from(compare.result).unwrap_or_default() {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::NotEqual => ordering != Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
    }
}
