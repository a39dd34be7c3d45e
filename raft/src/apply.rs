//! openraft's state machine of one range: the pure machine of [`crate::machine`] over the range's
//! engine table. Entries are applied in batches to memory, and answered from there.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use prost::Message;
use quorate_proto::internal as wire;
use quorate_proto::internal::{Command, command};
use quorate_storage::engine::{
    Change, EngineError, Position, RangeTable, ScanPage, ScanRequest, Version,
};
use quorate_types::{LeaseId, Revision};
use tokio::sync::watch;

use crate::consensus::{
    Consensus, LogId, Reply, SnapshotMeta, StoredMembership, log_id, log_id_term,
    membership_from_wire, membership_to_wire,
};
use crate::feed::{self, Event, Feed};
use crate::hybrid::NodeClock;
use crate::machine::leases::Lease;
use crate::machine::{Machine, Store};
use crate::node::Faults;
use crate::snapshot::{Outgoing, SnapshotData};

/// Entries applied to memory and answered together.
const APPLY_BATCH_ENTRIES_MAX: usize = 512;
/// So many entries are applied twice after a start: see [`Faults`].
const FAULTY_ENTRIES: usize = 30;
/// So far beyond what it knows a replica says to be complete: see [`Faults`].
const FAULTY_PROMISE_MICROSECONDS: u64 = 500_000;
/// Rows of one page of the walk that counts a range's bytes.
const COUNT_PAGE_ROWS: usize = 1_000;
/// Rows of one page of a scan by the machine, and the bytes that end it.
const SCAN_PAGE_ROWS: usize = 1_000;
const SCAN_PAGE_BYTES: usize = 4 << 20;
/// Name of the membership record in the range's metadata.
const META_MEMBERSHIP: &[u8] = b"M";

type Snapshot = openraft::type_config::alias::SnapshotOf<Consensus, SnapshotData>;

/// How far a replica has applied its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppliedAt {
    /// Term of the last applied entry.
    pub term: u64,
    /// Index of the last applied entry.
    pub index: u64,
    /// Its revision, or that of the last command before it.
    pub revision: Revision,
    /// No later entry gets a revision at or below it.
    pub closed: Revision,
    /// Versions superseded at or below it are collected.
    pub floor: Revision,
    /// Of the last command that could change a key.
    pub last_change: Revision,
}

/// Told of keys that an entry changed, after they are visible. The meta range uses it.
pub type ChangeHook = Arc<dyn Fn(&RangeTable) + Send + Sync>;

/// What apply shares with the group: readable while entries are applied.
#[derive(Clone)]
pub struct Shared {
    pub(crate) table: RangeTable,
    pub(crate) machine: Arc<Mutex<Machine>>,
    pub(crate) applied: watch::Sender<AppliedAt>,
    pub(crate) feed: Feed,
    pub(crate) hook: Option<ChangeHook>,
}

/// The state machine that openraft drives.
pub struct RangeMachine {
    shared: Shared,
    membership: StoredMembership,
    applied: Option<LogId>,
    faults: Faults,
    /// For a negative control: the node's clock.
    clock: Option<Arc<NodeClock>>,
    /// For a negative control: entries applied since this start.
    since_start: usize,
}

impl RangeMachine {
    /// Restores the state machine from what the engine has of the range.
    pub fn open(table: RangeTable, hook: Option<ChangeHook>) -> Result<RangeMachine, io::Error> {
        let mut machine = RangeMachine {
            shared: Shared {
                table,
                machine: Arc::default(),
                applied: watch::Sender::default(),
                feed: Feed::default(),
                hook,
            },
            membership: StoredMembership::default(),
            applied: None,
            faults: Faults::default(),
            clock: None,
            since_start: 0,
        };
        machine.reload()?;
        Ok(machine)
    }

    /// Counts what followers find in memory with the node's other ranges.
    pub(crate) fn share_room(&mut self, room: &feed::Room) {
        self.shared.feed.share(room);
    }

    /// For the negative controls of tests.
    pub(crate) fn break_on_purpose(&mut self, faults: Faults, clock: &Arc<NodeClock>) {
        self.faults = faults;
        self.clock = Some(clock.clone());
        self.shared.machine.lock().break_on_purpose(faults);
    }

    /// What a faulty replica makes of a command.
    fn broken(&self, machine: &Machine, command: &mut Command) {
        if let (true, Some(command::Operation::Expire(expire)), Some(clock)) = (
            self.faults.expire_by_own_clock,
            &mut command.operation,
            &self.clock,
        ) {
            expire.items.retain(|item| item.at <= clock.now().0);
        }
        if let (true, Some(command::Operation::LeaseRenew(renew)), Some(clock)) = (
            self.faults.renew_by_own_clock,
            &mut command.operation,
            &self.clock,
        ) {
            let now = clock.now().0;
            let is_over = |lease: &Lease| lease.renewed.0 + lease.ttl <= now;
            renew
                .ids
                .retain(|id| !machine.leases().get(LeaseId(*id)).is_some_and(is_over));
        }
    }

    /// What the group may look at.
    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    fn reload(&mut self) -> Result<(), io::Error> {
        let table = &self.shared.table;
        let stored = table.meta_scan(b"").map_err(io::Error::other)?;
        let membership = stored
            .iter()
            .find(|(name, _)| name.as_ref() == META_MEMBERSHIP);
        self.membership = match membership {
            Some((_, value)) => {
                let wire = wire::Membership::decode(value.clone()).map_err(io::Error::other)?;
                membership_from_wire(&wire)
            }
            None => StoredMembership::default(),
        };
        let mut machine = Machine::restore(stored).map_err(io::Error::other)?;
        machine.break_on_purpose(self.faults);
        self.applied = table.durable().map(|p| log_id(p.term, p.index));
        table.set_history(machine.options().history > 0);
        let closed = machine.closed();
        let mut shared = self.shared.machine.lock();
        *shared = machine;
        if !self.faults.feed_over_snapshot {
            self.shared.feed.restart(closed);
        }
        drop(shared);
        self.publish();
        if let Some(hook) = &self.shared.hook {
            hook(&self.shared.table);
        }
        Ok(())
    }

    fn publish(&self) {
        let machine = self.shared.machine.lock();
        let (term, index) = self
            .applied
            .as_ref()
            .map_or((0, 0), |id| (log_id_term(id), id.index));
        let at = AppliedAt {
            term,
            index,
            revision: machine.last_revision(),
            closed: match self.faults.closed_too_far {
                true => Revision(machine.closed().0 + FAULTY_PROMISE_MICROSECONDS),
                false => machine.closed(),
            },
            floor: machine.floor(),
            last_change: machine.last_change(),
        };
        drop(machine);
        self.shared.applied.send_replace(at);
    }

    /// Applies a run of entries, makes them visible, then answers who waits.
    fn apply_batch(&mut self, batch: &mut Vec<EntryResponder<Consensus>>) -> Result<(), io::Error> {
        let mut answers: Vec<(ApplyResponder<Consensus>, Reply)> = Vec::with_capacity(batch.len());
        let is_restarted = self.since_start < FAULTY_ENTRIES && self.applied.is_some();
        let twice = self.faults.apply_twice && is_restarted;
        self.since_start = self.since_start.saturating_add(batch.len());
        let mut machine = self.shared.machine.lock();
        let feed = &self.shared.feed;
        let mut store = Staged::new(&self.shared.table, feed.is_on());
        for (entry, responder) in batch.drain(..) {
            let mut reply = Reply::default();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
                EntryPayload::Normal(bytes) => {
                    let mut command = bytes.decode().map_err(io::Error::other)?;
                    self.broken(&machine, &mut command);
                    if twice {
                        let unnamed = Command {
                            client: 0,
                            ..command.clone()
                        };
                        machine
                            .apply(unnamed, &mut store)
                            .map_err(io::Error::other)?;
                    }
                    let applied = machine
                        .apply(command, &mut store)
                        .map_err(io::Error::other)?;
                    reply.applied = Some(Box::new(applied));
                }
            }
            self.applied = Some(entry.log_id);
            let done = store.entry_done(position(&entry.log_id));
            done.map_err(io::Error::other)?;
            if let Some(responder) = responder {
                answers.push((responder, reply));
            }
        }
        store.publish();
        let changed = store.changed;
        if let Some(events) = store.events {
            feed.push(events, machine.closed());
        }
        drop(machine);
        self.publish();
        for (responder, reply) in answers {
            responder.send(reply);
        }
        if let (true, Some(hook)) = (changed, &self.shared.hook) {
            hook(&self.shared.table);
        }
        Ok(())
    }

    /// Seals the table in memory with the metadata as of the same entry, for the flusher.
    pub(crate) fn freeze(&mut self) {
        if self.applied.is_none() {
            return;
        }
        let mut records = self.shared.machine.lock().take_meta();
        let membership = membership_to_wire(&self.membership).encode_to_vec();
        records.push((Bytes::from_static(META_MEMBERSHIP), Some(membership.into())));
        self.shared.table.freeze(records);
    }

    fn meta_at(&self, position: Option<Position>) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: position.map(|p| log_id(p.term, p.index)),
            last_membership: self.membership.clone(),
        }
    }
}

fn position(id: &LogId) -> Position {
    Position {
        term: log_id_term(id),
        index: id.index,
    }
}

/// Changes of a batch on their way into the table. Reads of the machine see them; other readers
/// see whole entries only.
struct Staged<'a> {
    table: &'a RangeTable,
    done: Vec<Change>,
    own: Vec<Change>,
    position: Option<Position>,
    changed: bool,
    /// What followers are told; none: nobody follows.
    events: Option<Vec<Event>>,
}

impl<'a> Staged<'a> {
    fn new(table: &'a RangeTable, is_followed: bool) -> Staged<'a> {
        Staged {
            table,
            done: Vec::new(),
            own: Vec::new(),
            position: None,
            changed: false,
            events: is_followed.then(Vec::new),
        }
    }

    fn entry_done(&mut self, position: Position) -> Result<(), EngineError> {
        self.changed |= !self.own.is_empty();
        self.tell()?;
        self.done.append(&mut self.own);
        self.position = Some(position);
        Ok(())
    }

    /// Takes note of what the entry did, for those who follow the range.
    fn tell(&mut self) -> Result<(), EngineError> {
        let Some(mut events) = self.events.take() else {
            return Ok(());
        };
        let changes = self.own.iter().map(event_of).collect::<Vec<_>>();
        let existed = |key: &Bytes| {
            // As of before this entry: its own changes are not visible yet.
            self.publish();
            Ok::<_, EngineError>(self.table.get(key)?.is_some())
        };
        feed::of_entry(changes, existed, &mut events)?;
        self.events = Some(events);
        Ok(())
    }

    /// Makes all entries that are done visible.
    fn publish(&mut self) {
        if let Some(position) = self.position.take() {
            self.table.apply(position, std::mem::take(&mut self.done));
        }
    }
}

fn event_of(change: &Change) -> Event {
    match change {
        Change::Put { key, version } => Event {
            key: key.clone(),
            revision: Revision(version.revision),
            version: Some(version.clone()),
        },
        Change::Delete { key, revision } => Event {
            key: key.clone(),
            revision: Revision(*revision),
            version: None,
        },
    }
}

impl Staged<'_> {
    fn page(
        &self,
        start: Bytes,
        end: &Bytes,
        rows_max: usize,
        keys_only: bool,
    ) -> Result<ScanPage, EngineError> {
        self.table.scan(&ScanRequest {
            start,
            end: end.clone(),
            reverse: false,
            at: None,
            rows_max,
            bytes_max: usize::MAX,
            keys_only,
        })
    }
}

impl Store for Staged<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Version>, EngineError> {
        for change in self.own.iter().rev() {
            match change {
                Change::Put { key: k, version } if k == key => return Ok(Some(version.clone())),
                Change::Delete { key: k, .. } if k == key => return Ok(None),
                Change::Put { .. } | Change::Delete { .. } => {}
            }
        }
        self.publish();
        self.table.get(key)
    }

    fn keys(
        &mut self,
        start: &Bytes,
        end: &Bytes,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        self.publish();
        let mut keys = Vec::new();
        let mut next = Some(start.clone());
        // A page may be short for reasons of its own; the answer must not be, since all replicas
        // have to see the same keys.
        while let Some(start) = next.filter(|_| keys.len() < limit) {
            let page = self.page(start, end, limit - keys.len(), true)?;
            keys.extend(page.rows.into_iter().map(|(key, _)| key));
            next = page.resume;
        }
        Ok(keys)
    }

    fn scan(
        &mut self,
        start: &Bytes,
        end: &Bytes,
        at: Option<Revision>,
        see: &mut dyn FnMut(Bytes, Version),
    ) -> Result<(), EngineError> {
        self.publish();
        let mut next = Some(start.clone());
        while let Some(start) = next {
            let page = self.table.scan(&ScanRequest {
                start,
                end: end.clone(),
                reverse: false,
                at: at.map(|at| at.0),
                rows_max: SCAN_PAGE_ROWS,
                bytes_max: SCAN_PAGE_BYTES,
                keys_only: false,
            })?;
            page.rows
                .into_iter()
                .for_each(|(key, version)| see(key, version));
            next = page.resume;
        }
        Ok(())
    }

    fn stored_bytes(&mut self) -> Result<u64, EngineError> {
        self.publish();
        let (start, end) = self.table.interval();
        let mut bytes = 0;
        let mut next = Some(start);
        while let Some(start) = next {
            let page = self.page(start, &end, COUNT_PAGE_ROWS, false)?;
            let size = |(key, version): &(Bytes, Version)| (key.len() + version.value.len()) as u64;
            bytes += page.rows.iter().map(size).sum::<u64>();
            next = page.resume;
        }
        Ok(bytes)
    }

    fn put(&mut self, key: Bytes, version: Version) {
        self.own.push(Change::Put { key, version });
    }

    fn delete(&mut self, key: Bytes, revision: Revision) {
        self.own.push(Change::Delete {
            key,
            revision: revision.0,
        });
    }

    fn collect_below(&mut self, floor: Revision) {
        self.table.set_floor(floor.0);
    }

    fn keep_history(&mut self, keep: bool) {
        self.table.set_history(keep);
    }
}

impl RaftStateMachine<Consensus> for RangeMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Consensus>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::with_capacity(64);
        while let Some(item) = entries.try_next().await? {
            batch.push(item);
            if batch.len() >= APPLY_BATCH_ENTRIES_MAX {
                self.apply_batch(&mut batch)?;
            }
        }
        if !batch.is_empty() {
            self.apply_batch(&mut batch)?;
        }
        if self.shared.table.wants_flush() {
            self.freeze();
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        if !self.faults.purge_before_flush {
            self.freeze();
        }
        let meta = self.meta_at(self.applied.as_ref().map(position));
        Builder {
            table: self.shared.table.clone(),
            meta,
            unflushed: self.faults.purge_before_flush,
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let table = self.shared.table.clone();
        let imported = match snapshot {
            SnapshotData::Incoming(spool) => table.import(spool.chunks()),
            SnapshotData::Outgoing(outgoing) => table.import(outgoing.chunks()),
        };
        imported.map_err(io::Error::other)?;
        self.reload()?;
        if self.faults.snapshot_without_clock {
            self.shared.machine.lock().forget_causal();
        }
        if self.faults.snapshot_without_last {
            self.applied = meta.last_log_id;
            self.publish();
        }
        if self.applied != meta.last_log_id {
            return Err(io::Error::other(format!(
                "the snapshot covers {:?}, not {:?}",
                self.applied, meta.last_log_id
            )));
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let Some(applied) = self.applied else {
            return Ok(None);
        };
        let table = self.shared.table.clone();
        if !self.faults.snapshot_without_last {
            self.freeze();
            let flushed = table.flushed(position(&applied)).await;
            flushed.map_err(io::Error::other)?;
        }
        let export = table.export().map_err(io::Error::other)?;
        let meta = self.meta_at(Some(position(&applied)));
        let outgoing = Outgoing::new(position(&applied), export);
        Ok(Some(Snapshot {
            meta,
            snapshot: SnapshotData::Outgoing(Arc::new(outgoing)),
        }))
    }
}

/// Waits until the engine covers a position: all that a log purge needs to be safe.
pub struct Builder {
    table: RangeTable,
    meta: SnapshotMeta,
    /// For a negative control: it does not wait.
    unflushed: bool,
}

impl RaftSnapshotBuilder<Consensus> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let covered = self.meta.last_log_id.as_ref().map(position);
        // An empty range has nothing to wait for.
        if let Some(covered) = covered.filter(|_| !self.unflushed) {
            let flushed = self.table.flushed(covered).await;
            flushed.map_err(io::Error::other)?;
        }
        let covered = covered.unwrap_or_default();
        let export = self.table.export().map_err(io::Error::other)?;
        let snapshot = SnapshotData::Outgoing(Arc::new(Outgoing::new(covered, export)));
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use quorate_storage::disk::SimDisk;
    use quorate_storage::engine::{Engine, EngineOptions};

    use super::*;

    fn key(number: u32) -> Bytes {
        Bytes::copy_from_slice(&number.to_be_bytes())
    }

    /// The engine ends a page after so many keys that are gone; a step of a deletion by prefix
    /// that took the page for the whole would remove other keys on other replicas.
    #[test]
    fn a_step_sees_all_its_keys_behind_any_number_of_deleted_ones() {
        const GONE: u32 = 10_000;
        let options = EngineOptions::default();
        let engine = Engine::open(Arc::new(SimDisk::new()), Path::new("/e"), options).unwrap();
        let table = engine.open_range(1, (Bytes::new(), Bytes::new())).unwrap();
        let put = |number| Change::Put {
            key: key(number),
            version: Version {
                revision: 1,
                expiry: None,
                value: Bytes::new(),
                causal: None,
            },
        };
        let delete = |number| Change::Delete {
            key: key(number),
            revision: 2,
        };
        let at = |index| Position { term: 1, index };
        table.apply(at(1), (0..GONE + 3).map(put).collect());
        table.apply(at(2), (0..GONE).map(delete).collect());
        let keys = Staged::new(&table, false).keys(&Bytes::new(), &Bytes::new(), 100);
        let wanted: Vec<Bytes> = (GONE..GONE + 3).map(key).collect();
        assert_eq!(keys.unwrap(), wanted);
    }
}
