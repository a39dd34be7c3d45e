//! etcd's data model in a range of its own: one gapless counter of revisions, what each of them
//! did, and compaction. What clients of etcd's v3 API ask for is decided here, in the log.
//!
//! A key's value in the store is an encoded `mvccpb.KeyValue` without its key. Superseded versions
//! stay readable until they are compacted: the range's own history holds them, by the revisions of
//! the log, and `revisions` says which of these is which of the counter's.

mod range;
mod revisions;
mod txn;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcd::etcdserverpb::response_op::Response;
use quorate_proto::etcd::mvccpb::KeyValue;
use quorate_proto::internal::EtcdCommand;
use quorate_proto::internal::etcd_command::Request;
use quorate_storage::engine::{EngineError, Version};
use quorate_types::Revision;

use super::{ApplyOutcome, CorruptMeta, Machine, PrefixFull, Store};

pub use self::range::{RangeAnswer, Span};
pub use self::revisions::Revisions;

/// What came of a change of an etcd keyspace.
#[derive(Clone, Debug, PartialEq)]
pub struct EtcdOutcome {
    /// The counter after it.
    pub revision: i64,
    /// The answer; `None` for a compaction.
    pub answer: Result<Option<Response>, EtcdRefusal>,
}

/// Why something was not done in an etcd keyspace. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdRefusal {
    /// A put that keeps what is there, of a key that is not.
    #[error("key not found")]
    KeyNotFound,
    /// A put with a lease that is not there.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// As many keys as can be are attached to the lease.
    #[error("too many keys of one lease")]
    LeaseFull,
    /// A prefix has no room for it.
    #[error("a prefix is full")]
    PrefixFull(Box<PrefixFull>),
    /// A revision that was compacted.
    #[error("required revision {asked} has been compacted, up to {compacted}")]
    Compacted {
        /// The revision.
        asked: i64,
        /// The oldest that can be read.
        compacted: i64,
    },
    /// A revision that is not there yet.
    #[error("required revision {asked} is a future revision, after {current}")]
    Future {
        /// The revision.
        asked: i64,
        /// The newest.
        current: i64,
    },
}

/// Why something was not done: refused, or the store failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Refused(#[from] EtcdRefusal),
    #[error(transparent)]
    Store(#[from] EngineError),
}

/// A stored version of a key as etcd's clients see it.
///
/// # Errors
///
/// [`EngineError::Corrupt`]: the value is none that an etcd keyspace holds.
pub fn key_value(key: Bytes, version: Version) -> Result<KeyValue, EngineError> {
    let decoded = KeyValue::decode(version.value);
    let decoded =
        decoded.map_err(|_| EngineError::corrupt(&key, "it is no value of an etcd keyspace"))?;
    Ok(KeyValue { key, ..decoded })
}

/// Bytes of the value that etcd's clients see of a stored version.
pub(super) fn value_bytes(version: &Version) -> usize {
    let decoded = KeyValue::decode(version.value.clone());
    // What does not decode fails whoever reads it; it takes what it takes.
    decoded.map_or(version.value.len(), |decoded| decoded.value.len())
}

impl Machine {
    /// The counter of an etcd keyspace; none: no change of one was ever applied here.
    pub fn etcd(&self) -> Option<&Revisions> {
        self.etcd.as_deref()
    }

    pub(super) fn restore_etcd(
        &mut self,
        name: &Bytes,
        value: &Bytes,
    ) -> Result<bool, CorruptMeta> {
        if !Revisions::is_name(name) {
            return Ok(false);
        }
        let revisions = self.etcd.get_or_insert_default();
        let restored = revisions.restore(name, value);
        restored
            .map(|()| true)
            .ok_or_else(|| CorruptMeta { name: name.clone() })
    }

    /// Keys of an etcd keyspace were removed by an end of leases: that counts as a change.
    pub(super) fn etcd_changed(&mut self, revision: Revision) {
        if let Some(revisions) = &mut self.etcd {
            revisions.next(revision);
        }
    }

    pub(super) fn etcd_command(
        &mut self,
        revision: Revision,
        command: EtcdCommand,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let revisions = self.etcd.get_or_insert_default();
        let answer = match command.request {
            Some(Request::Compact(compact)) => match revisions.compact(compact.revision) {
                Ok(floor) => {
                    self.floor = self.floor.max(floor);
                    store.collect_below(self.floor);
                    Ok(None)
                }
                Err(refusal) => Err(refusal),
            },
            Some(request) => self
                .change(revision, &command.prefix, request, store)?
                .map(Some),
            None => Ok(None),
        };
        let current = self.etcd.get_or_insert_default().current();
        Ok(ApplyOutcome::Etcd(Box::new(EtcdOutcome {
            revision: current,
            answer,
        })))
    }

    /// Runs a change to its end, and writes what it did; or nothing of it.
    fn change(
        &mut self,
        revision: Revision,
        prefix: &Bytes,
        request: Request,
        store: &mut dyn Store,
    ) -> Result<Result<Response, EtcdRefusal>, EngineError> {
        let revisions = self.etcd.get_or_insert_default();
        let mut run = txn::Run::new(prefix, revisions, &self.leases, store);
        let response = match run.request(request) {
            Ok(response) => response,
            Err(Failed::Refused(refusal)) => return Ok(Err(refusal)),
            Err(Failed::Store(error)) => return Err(error),
        };
        let changes = run.into_changes().into_iter();
        let changes: Vec<(Bytes, Option<KeyValue>)> = changes
            .map(|(key, value)| ([prefix, &key[..]].concat().into(), value))
            .collect();
        let sizes = changes.iter().map(|(stored, value)| {
            let bytes = value.as_ref().map(|value| value.value.len() as u64);
            (stored.clone(), bytes)
        });
        if let Err(full) = self.take_prefixes(sizes, store)? {
            return Ok(Err(EtcdRefusal::PrefixFull(full)));
        }
        if !changes.is_empty() {
            self.etcd_changed(revision);
        }
        for (stored, value) in changes {
            self.write(revision, stored, value, store);
        }
        Ok(Ok(response))
    }

    fn write(
        &mut self,
        revision: Revision,
        key: Bytes,
        value: Option<KeyValue>,
        store: &mut dyn Store,
    ) {
        let Some(value) = value else {
            self.leases.detach(&key);
            store.delete(key, revision);
            return;
        };
        self.leases
            .written(&txn::attachment(key.clone(), value.lease));
        let bare = KeyValue {
            key: Bytes::new(),
            ..value
        };
        let version = Version {
            revision: revision.0,
            expiry: None,
            value: bare.encode_to_vec().into(),
            causal: None,
        };
        store.put(key, version);
    }
}

#[cfg(test)]
mod tests;
