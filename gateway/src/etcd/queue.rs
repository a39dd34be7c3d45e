//! Who stands in line for a lock or an election: keys under one prefix, each with its holder's
//! lease, in the order in which they were made. The first one has it; whoever comes next waits for
//! the key before its own to go, so that one that goes wakes one.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::compare::{CompareTarget, TargetUnion};
use quorate_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcd::etcdserverpb::response_op::Response as Done;
use quorate_proto::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest, request_op,
};
use quorate_proto::etcd::mvccpb::KeyValue;
use quorate_proto::internal::EtcdLook;
use quorate_raft::Place;
use quorate_types::{Revision, prefix_end};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{EtcdStore, TIMEOUT_DEFAULT, find, strange};
use crate::watch::{Asked, MESSAGE_BYTES_MAX, Page, Watched};

/// Time to live of a lease that is made for a client that names none, seconds: as etcd has it.
const TTL_SECONDS: i64 = 60;
/// Longest wait for a change before it is asked for again.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause before what could not be watched is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One place in a line.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The key that stands for it.
    pub(super) key: Bytes,
    /// Its create revision: a fencing token.
    pub(super) revision: i64,
    /// What was there before, where the place was taken already.
    pub(super) before: Option<KeyValue>,
}

/// The deadline of one step; the wait as a whole has none but its client's.
pub(super) fn step() -> Instant {
    Instant::now() + TIMEOUT_DEFAULT
}

/// Keys of a line begin with its name and this.
pub(super) fn prefix_of(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// Whether a key was made at a revision; 0: it is not there.
pub(super) fn made_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

pub(super) fn operation(request: request_op::Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

impl EtcdStore {
    /// The lease that a client names, or a new one.
    pub(super) async fn lease_or_new(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let request = LeaseGrantRequest {
            ttl: TTL_SECONDS,
            id: 0,
        };
        Ok(self.lease_grant(request, step()).await?.id)
    }

    /// Stands in line, once for each lease.
    pub(super) async fn stand(
        &self,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Standing, Status> {
        let key: Bytes = [&prefix_of(name)[..], format!("{lease:x}").as_bytes()]
            .concat()
            .into();
        let put = PutRequest {
            key: key.clone(),
            value,
            lease,
            ..PutRequest::default()
        };
        let get = RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        };
        let txn = TxnRequest {
            compare: vec![made_at(key.clone(), 0)],
            success: vec![operation(request_op::Request::RequestPut(put))],
            failure: vec![operation(request_op::Request::RequestRange(get))],
        };
        let response = self.txn(txn, step()).await;
        let response = response.map_err(|status| match status.code() {
            // etcd's own queues are clients of its store, and hand on the words without the code.
            Code::NotFound => Status::unknown(status.message()),
            _ => status,
        })?;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let before = match response
            .responses
            .into_iter()
            .next()
            .and_then(|one| one.response)
        {
            Some(Done::ResponsePut(_)) => None,
            Some(Done::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => return Err(strange()),
        };
        Ok(Standing {
            key,
            revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
            before,
        })
    }

    /// Waits until nobody stands before a place.
    pub(super) async fn wait_turn(&self, name: &[u8], standing: &Standing) -> Result<(), Status> {
        let prefix = prefix_of(name);
        loop {
            let before = RangeRequest {
                key: prefix.clone(),
                range_end: prefix_end(&prefix),
                limit: 1,
                sort_order: SortOrder::Descend.into(),
                sort_target: SortTarget::Create.into(),
                max_create_revision: standing.revision - 1,
                ..RangeRequest::default()
            };
            let response = self.range(before, step()).await?;
            let seen = response.header.map_or(0, |header| header.revision);
            let Some(last) = response.kvs.into_iter().next() else {
                return Ok(());
            };
            self.wait_change(last.key, seen, true).await;
        }
    }

    /// The first in line, and as of when.
    pub(super) async fn first(
        &self,
        name: &[u8],
    ) -> Result<(Option<ResponseHeader>, Option<KeyValue>), Status> {
        let prefix = prefix_of(name);
        let first = RangeRequest {
            range_end: prefix_end(&prefix),
            key: prefix,
            limit: 1,
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Create.into(),
            ..RangeRequest::default()
        };
        let response = self.range(first, step()).await?;
        Ok((response.header, response.kvs.into_iter().next()))
    }

    /// Waits for a change of a key after a revision; or for a while, where it cannot be watched.
    pub(super) async fn wait_change(&self, key: Bytes, after: i64, only_deletes: bool) {
        let end = [&key[..], &[0]].concat().into();
        self.wait_change_in((key, end), after, only_deletes).await;
    }

    /// The same for an interval.
    pub(super) async fn wait_change_in(
        &self,
        (start, end): (Bytes, Bytes),
        after: i64,
        only_deletes: bool,
    ) {
        let asked = Asked {
            start,
            end,
            after: None,
            events_max: 1,
            bytes_max: MESSAGE_BYTES_MAX,
            no_puts: only_deletes,
            no_deletes: false,
            previous: false,
            tentative: None,
            wait: WAIT_MAX,
        };
        if self.watch_once(asked, after).await.is_none() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// None: it could not be watched.
    async fn watch_once(&self, mut asked: Asked, after: i64) -> Option<()> {
        let look = EtcdLook {
            revision: after,
            ..EtcdLook::default()
        };
        let (_, looked) = self.look(look, step()).await.ok()?;
        asked.after = Some(Place::behind(Revision(looked.moment)));
        let (watched, range) = {
            let catalog = self.gateway.node().catalog();
            let (keyspace, range) = find(&catalog, &self.keyspace).ok()?;
            (Watched::keys(keyspace, &asked), range.id)
        };
        loop {
            let Page { events, place, .. } =
                self.gateway.next_page(&watched, range, &asked).await.ok()?;
            if !events.is_empty() {
                return Some(());
            }
            asked.after = Some(place);
        }
    }

    /// Leaves a line, if the place is still the one that was taken.
    pub(super) async fn leave(&self, key: Bytes, revision: i64) -> Result<ResponseHeader, Status> {
        let delete = DeleteRangeRequest {
            key: key.clone(),
            ..DeleteRangeRequest::default()
        };
        let txn = TxnRequest {
            compare: vec![made_at(key, revision)],
            success: vec![operation(request_op::Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        Ok(self.txn(txn, step()).await?.header.unwrap_or_default())
    }
}

/// A place that is given up when its client goes while it waits.
pub(super) struct Waiting {
    store: EtcdStore,
    standing: Option<Standing>,
}

impl Waiting {
    pub(super) fn new(store: &EtcdStore, standing: &Standing) -> Waiting {
        Waiting {
            store: store.clone(),
            standing: Some(standing.clone()),
        }
    }

    /// The place is had: it stays.
    pub(super) fn done(mut self) {
        self.standing = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(standing) = self.standing.take() else {
            return;
        };
        let store = self.store.clone();
        tokio::spawn(async move {
            // Where that fails, the end of its lease does it.
            let _ = store.leave(standing.key, standing.revision).await;
        });
    }
}
