//! Leases and the keys that are attached to them: what the log has decided of both. No time passes
//! here: when a lease's time has come is measured by the leader (`crate::leases`) and proposed; an
//! entry that names a renewal which is not the last one changes nothing.
//!
//! A lease is kept in one range, its home. Keys of other ranges are attached there by the lease's
//! name, its id and the revision that granted it; whether that one still lives is asked from
//! outside.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use prost::Message;
use quorate_proto::internal::{
    LeaseCheckpoint, LeaseCut, LeaseExpire, LeaseGrant, LeaseRecord, LeaseRenew, LeaseRevoke, Write,
};
use quorate_storage::engine::EngineError;
use quorate_types::limits::{LEASE_KEYS_MAX, LEASES_MAX};
use quorate_types::{LeaseId, Revision};

use super::{ApplyOutcome, ApplyRefusal, CorruptMeta, Machine, Store};

/// First byte of the names of stored leases.
const LEASE_PREFIX: u8 = b'l';
/// First byte of the names of stored attachments.
const ATTACHED_PREFIX: u8 = b'a';

/// A lease, past and future ones of the same id told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseName {
    /// Its id.
    pub id: LeaseId,
    /// The revision that granted it.
    pub granted: Revision,
}

/// A lease as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The revision that granted it.
    pub granted: Revision,
    /// How long it lives after each renewal, microseconds.
    pub ttl: u64,
    /// The revision of the last renewal, or of the grant.
    pub renewed: Revision,
    /// What was left of it when a leader last said so, microseconds.
    pub remaining: u64,
}

/// The leases that a range keeps, and its keys that are attached to these and to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    kept: BTreeMap<LeaseId, Lease>,
    by_renewal: BTreeSet<(Revision, LeaseId)>,
    keys: BTreeMap<LeaseName, BTreeSet<Bytes>>,
    attached: HashMap<Bytes, LeaseName>,
    changed: BTreeSet<LeaseId>,
    changed_keys: BTreeSet<(LeaseName, Bytes)>,
}

impl Leases {
    /// No lease is kept here.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Leases kept here.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Those that are kept here.
    pub fn ids(&self) -> impl Iterator<Item = LeaseId> {
        self.kept.keys().copied()
    }

    /// A lease that is kept here.
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.kept.get(&id)
    }

    /// Leases that were granted or renewed after a revision, in that order.
    pub fn renewed_after(&self, after: Revision) -> impl Iterator<Item = (LeaseId, &Lease)> {
        let from = (Revision(after.0.saturating_add(1)), LeaseId(0));
        self.by_renewal
            .range(from..)
            .filter_map(|(_, id)| Some((*id, self.kept.get(id)?)))
    }

    /// The keys of this range that are attached to a lease, in their order.
    pub fn keys_of(&self, name: LeaseName) -> impl Iterator<Item = &Bytes> {
        self.keys.get(&name).into_iter().flatten()
    }

    /// How many keys of this range are attached to a lease.
    pub fn count_keys(&self, name: LeaseName) -> usize {
        self.keys.get(&name).map_or(0, BTreeSet::len)
    }

    /// The lease that a key is attached to.
    pub fn lease_of(&self, key: &[u8]) -> Option<LeaseName> {
        self.attached.get(key).copied()
    }

    /// Up to `limit` leases of other ranges to which keys of this one are attached, from the first
    /// behind `after` on.
    pub fn foreign(&self, after: Option<LeaseName>, limit: usize) -> Vec<LeaseName> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let names = self.keys.range((from, Unbounded)).map(|(name, _)| *name);
        names
            .filter(|name| !self.keeps(*name))
            .take(limit)
            .collect()
    }

    fn keeps(&self, name: LeaseName) -> bool {
        self.kept
            .get(&name.id)
            .is_some_and(|lease| lease.granted == name.granted)
    }

    /// The lease that a write names; `Ok(None)`: none.
    fn named(&self, write: &Write) -> Result<Option<LeaseName>, ApplyRefusal> {
        let id = LeaseId(write.lease);
        let name = match (write.lease, write.lease_granted) {
            (0, _) => return Ok(None),
            (_, 0) => {
                let lease = self.kept.get(&id).ok_or(ApplyRefusal::LeaseNotFound)?;
                let granted = lease.granted;
                LeaseName { id, granted }
            }
            (_, granted) => LeaseName {
                id,
                granted: Revision(granted),
            },
        };
        let is_more = self.attached.get(&write.key) != Some(&name);
        if is_more && self.count_keys(name) >= LEASE_KEYS_MAX {
            return Err(ApplyRefusal::LeaseFull);
        }
        Ok(Some(name))
    }

    /// Why a write cannot have the lease that it names.
    pub(super) fn refuses(&self, write: &Write) -> Option<ApplyRefusal> {
        self.named(write).err()
    }

    /// A key was written: it goes with the lease that the write names, and with no other.
    pub(super) fn written(&mut self, write: &Write) {
        let name = self.named(write).unwrap_or_default();
        if name.is_some() && self.attached.get(&write.key) == name.as_ref() {
            return;
        }
        self.detach(&write.key);
        if let Some(name) = name {
            self.attach(write.key.clone(), name);
        }
    }

    fn attach(&mut self, key: Bytes, name: LeaseName) {
        self.changed_keys.insert((name, key.clone()));
        self.keys.entry(name).or_default().insert(key.clone());
        self.attached.insert(key, name);
    }

    /// A key is gone, or was written without a lease.
    pub(super) fn detach(&mut self, key: &Bytes) {
        let Some(name) = self.attached.remove(key) else {
            return;
        };
        if let Some(keys) = self.keys.get_mut(&name) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&name);
            }
        }
        self.changed_keys.insert((name, key.clone()));
    }

    fn set(&mut self, id: LeaseId, lease: Lease) {
        if let Some(before) = self.kept.insert(id, lease) {
            self.by_renewal.remove(&(before.renewed, id));
        }
        self.by_renewal.insert((lease.renewed, id));
        self.changed.insert(id);
    }

    /// Forgets a lease, and tells its name.
    fn end(&mut self, id: LeaseId) -> Option<LeaseName> {
        let lease = self.kept.remove(&id)?;
        self.by_renewal.remove(&(lease.renewed, id));
        self.changed.insert(id);
        let granted = lease.granted;
        Some(LeaseName { id, granted })
    }

    /// What changed since the last call, as records of the metadata.
    pub(super) fn take_meta(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        let mut records = Vec::new();
        for id in std::mem::take(&mut self.changed) {
            let name = [&[LEASE_PREFIX], &id.0.to_be_bytes()[..]].concat();
            let record = self.kept.get(&id).map(|lease| LeaseRecord {
                granted: lease.granted.0,
                ttl: lease.ttl,
                renewed: lease.renewed.0,
                remaining: lease.remaining,
            });
            records.push((name.into(), record.map(|r| r.encode_to_vec().into())));
        }
        for (name, key) in std::mem::take(&mut self.changed_keys) {
            let present = self.attached.get(&key) == Some(&name);
            records.push((attached_key(name, &key), present.then(Bytes::new)));
        }
        records
    }

    /// Takes a record of the metadata, if it is one of these.
    pub(super) fn restore(&mut self, name: &Bytes, value: &Bytes) -> Result<bool, CorruptMeta> {
        let corrupt = || CorruptMeta { name: name.clone() };
        match name.split_first() {
            Some((&LEASE_PREFIX, id)) => {
                let id = id.try_into().map_err(|_| corrupt())?;
                let record = LeaseRecord::decode(value.clone()).map_err(|_| corrupt())?;
                let lease = Lease {
                    granted: Revision(record.granted),
                    ttl: record.ttl,
                    renewed: Revision(record.renewed),
                    remaining: record.remaining,
                };
                self.set(LeaseId(u64::from_be_bytes(id)), lease);
            }
            Some((&ATTACHED_PREFIX, rest)) => {
                let (id, rest) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
                let (granted, key) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
                let lease = LeaseName {
                    id: LeaseId(u64::from_be_bytes(*id)),
                    granted: Revision(u64::from_be_bytes(*granted)),
                };
                self.attach(name.slice_ref(key), lease);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// All records are taken: what is stored is not to be stored again.
    pub(super) fn restored(&mut self) {
        self.changed.clear();
        self.changed_keys.clear();
    }

    /// Checks what must always hold.
    pub fn validate(&self) -> Result<(), String> {
        if self.by_renewal.len() != self.kept.len() {
            return Err(format!(
                "{} leases in order of renewal",
                self.by_renewal.len()
            ));
        }
        let keys: usize = self.keys.values().map(BTreeSet::len).sum();
        if keys != self.attached.len() {
            return Err(format!(
                "{keys} keys of leases, {} attached",
                self.attached.len()
            ));
        }
        for (id, lease) in &self.kept {
            if lease.remaining > lease.ttl {
                return Err(format!("lease {id} has more left than it was given"));
            }
        }
        Ok(())
    }
}

fn attached_key(name: LeaseName, key: &[u8]) -> Bytes {
    let (id, granted) = (name.id.0.to_be_bytes(), name.granted.0.to_be_bytes());
    [&[ATTACHED_PREFIX], &id[..], &granted[..], key]
        .concat()
        .into()
}

impl Machine {
    /// Leases and attached keys.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub(super) fn grant(&mut self, revision: Revision, grant: LeaseGrant) -> ApplyOutcome {
        let id = LeaseId(grant.id);
        if self.leases.kept.contains_key(&id) {
            return ApplyOutcome::Compared {
                succeeded: false,
                current: None,
            };
        }
        if self.leases.len() >= LEASES_MAX {
            return ApplyOutcome::Refused(ApplyRefusal::LeasesMany);
        }
        let lease = Lease {
            granted: revision,
            ttl: grant.ttl,
            renewed: revision,
            remaining: grant.ttl,
        };
        self.leases.set(id, lease);
        ApplyOutcome::Compared {
            succeeded: true,
            current: None,
        }
    }

    pub(super) fn renew(&mut self, revision: Revision, renew: LeaseRenew) -> ApplyOutcome {
        let mut ttls = Vec::with_capacity(renew.ids.len());
        for id in renew.ids.into_iter().map(LeaseId) {
            let lease = self.leases.kept.get(&id).copied();
            ttls.push(lease.map_or(0, |lease| lease.ttl));
            if let Some(lease) = lease {
                let renewed = Lease {
                    renewed: revision,
                    remaining: lease.ttl,
                    ..lease
                };
                self.leases.set(id, renewed);
            }
        }
        ApplyOutcome::Renewed(ttls)
    }

    pub(super) fn revoke(
        &mut self,
        revision: Revision,
        revoke: &LeaseRevoke,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let Some(name) = self.leases.end(LeaseId(revoke.id)) else {
            return Ok(ApplyOutcome::Compared {
                succeeded: false,
                current: None,
            });
        };
        let deleted = self.cut(revision, name, store)?;
        Ok(ApplyOutcome::Written { deleted, unseen: 0 })
    }

    /// Ends leases whose last renewal is still the one that was measured.
    pub(super) fn expire_leases(
        &mut self,
        revision: Revision,
        expire: LeaseExpire,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let mut deleted = 0;
        for item in expire.items {
            let id = LeaseId(item.id);
            let measured = |lease: &&Lease| {
                lease.renewed == Revision(item.renewed) || self.faults.expire_renewed
            };
            if self.leases.get(id).filter(measured).is_none() {
                continue;
            }
            if let Some(name) = self.leases.end(id) {
                deleted += self.cut(revision, name, store)?;
            }
        }
        Ok(ApplyOutcome::Written { deleted, unseen: 0 })
    }

    pub(super) fn checkpoint(&mut self, checkpoint: &LeaseCheckpoint) -> ApplyOutcome {
        for item in &checkpoint.items {
            let id = LeaseId(item.id);
            let lease = self.leases.get(id).copied();
            if let Some(lease) = lease.filter(|l| l.renewed == Revision(item.renewed)) {
                let remaining = lease.remaining.min(item.remaining);
                self.leases.set(id, Lease { remaining, ..lease });
            }
        }
        ApplyOutcome::Nothing
    }

    /// Leases that are kept elsewhere are over.
    pub(super) fn cut_leases(
        &mut self,
        revision: Revision,
        cut: LeaseCut,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let mut deleted = 0;
        for item in cut.items {
            let name = LeaseName {
                id: LeaseId(item.id),
                granted: Revision(item.granted),
            };
            deleted += self.cut(revision, name, store)?;
        }
        Ok(ApplyOutcome::Written { deleted, unseen: 0 })
    }

    /// Deletes the keys that are attached to a lease: a key that was since written without it, or
    /// with another one, is not among them. Of a key of both planes what the lease holds goes.
    fn cut(
        &mut self,
        revision: Revision,
        name: LeaseName,
        store: &mut dyn Store,
    ) -> Result<u64, EngineError> {
        let keys: Vec<Bytes> = self.leases.keys_of(name).cloned().collect();
        let mut deleted = 0;
        for key in keys {
            deleted += u64::from(self.remove_held(revision, key, store)?);
        }
        if deleted > 0 {
            self.etcd_changed(revision);
        }
        Ok(deleted)
    }

    /// The keys that an end of leases removes, for those who count.
    pub(super) fn keys_of_leases(&self, ids: impl IntoIterator<Item = u64>) -> Vec<Bytes> {
        let named = ids.into_iter().map(LeaseId).filter_map(|id| {
            let granted = self.leases.get(id)?.granted;
            Some(LeaseName { id, granted })
        });
        named
            .flat_map(|name| self.leases.keys_of(name).cloned())
            .collect()
    }

    /// The same, where the leases are kept elsewhere.
    pub(super) fn keys_of_names(&self, cut: &LeaseCut) -> Vec<Bytes> {
        let names = cut.items.iter().map(|item| LeaseName {
            id: LeaseId(item.id),
            granted: Revision(item.granted),
        });
        names
            .flat_map(|name| self.leases.keys_of(name).cloned())
            .collect()
    }
}
