//! What keeps a node in step with the catalog: its copy, its groups, its peers; and how the
//! catalog itself is changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_proto::internal::{Command, Conditional, PrefixLimits, RangeOptions, Write, command};
use quorate_proto::v1::{Expect, expect::State};
use quorate_types::{NodeId, RangeId, chain, encode_key};
use tokio::time::Instant;

use crate::catalog::{self, CATALOG_KEY, CatalogError, CatalogView};
use crate::group::{Group, ProposeError};
use crate::machine::ApplyOutcome;
use crate::machine::window::WINDOW_RESULTS_DEFAULT;
use crate::node::{Inner, RaftNode, StartError};
use crate::peer::{CallError, Class};

const COPY_FILE: &str = "catalog.copy";
/// A change of the catalog is given up after this long without an answer.
const UPDATE_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1_500);
const UPDATE_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Nodes that are asked for the newest catalog before a change is refused by an older one.
const NEWEST_TURNS_MAX: usize = 6;
const SUPERVISE_INTERVAL: Duration = Duration::from_millis(200);
const OPTIONS_TIMEOUT: Duration = Duration::from_secs(2);
/// Setting: results that the exactly-once window remembers per client.
pub const SETTING_WINDOW: &str = "window-results";

/// Why the catalog was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// The change itself is refused. No effect.
    #[error(transparent)]
    Refused(#[from] CatalogError),
    /// The meta range did not answer in time. Whether the change was made is not known.
    #[error("the meta range did not answer in time")]
    TimedOut,
}

impl RaftNode {
    /// Changes the catalog: `change` makes the next one from the present one, and is called again
    /// if somebody else was faster. Returns when this node has the new catalog.
    pub async fn update_catalog(
        &self,
        deadline: Instant,
        change: impl Fn(&wire::Catalog) -> Result<wire::Catalog, CatalogError> + Send + Sync,
    ) -> Result<Arc<CatalogView>, UpdateError> {
        self.inner.update_catalog(deadline, change).await
    }
}

/// What came of asking one node to change the catalog.
enum Attempt {
    Done,
    /// Somebody else changed it: this is what is there now.
    Behind(wire::Catalog),
    /// Ask again, there if it is known where.
    Elsewhere(Option<NodeId>),
}

impl Inner {
    pub(crate) async fn update_catalog(
        &self,
        deadline: Instant,
        change: impl Fn(&wire::Catalog) -> Result<wire::Catalog, CatalogError> + Send + Sync,
    ) -> Result<Arc<CatalogView>, UpdateError> {
        let mut base = self.catalog.borrow().wire().clone();
        let mut hint = None;
        let mut turn = 0;
        while Instant::now() < deadline {
            let next = match change(&base) {
                Ok(next) => next,
                // Judged by a copy that may be old: ask for the newest before refusing.
                Err(error) => match self.newest_catalog(hint, turn, deadline).await {
                    Some(newest) if newest.epoch > base.epoch => {
                        base = newest;
                        continue;
                    }
                    _ => return Err(error.into()),
                },
            };
            let to = hint.take().or_else(|| self.meta_candidate(turn));
            turn += 1;
            match self.try_update(to, base.epoch, &next).await {
                Attempt::Done => return self.await_epoch(next.epoch, deadline).await,
                Attempt::Behind(current) => base = current,
                Attempt::Elsewhere(where_to) => {
                    hint = where_to;
                    tokio::time::sleep(UPDATE_RETRY_PAUSE).await;
                }
            }
        }
        Err(UpdateError::TimedOut)
    }

    /// Asks for a change that nobody makes, to learn what there is. Who is asked first may know
    /// no more than who leads: a node that joins has only addresses.
    async fn newest_catalog(
        &self,
        mut hint: Option<NodeId>,
        turn: usize,
        deadline: Instant,
    ) -> Option<wire::Catalog> {
        let introduction = wire::Catalog {
            nodes: vec![self.options.node.clone()],
            ..wire::Catalog::default()
        };
        for turn in (turn..).take(NEWEST_TURNS_MAX) {
            let to = hint.take().or_else(|| self.meta_candidate(turn));
            // An epoch that never was: it always conflicts.
            match self.try_update(to, u64::MAX, &introduction).await {
                Attempt::Behind(current) => return Some(current),
                Attempt::Done => return None,
                Attempt::Elsewhere(where_to) => hint = where_to,
            }
            if Instant::now() >= deadline {
                return None;
            }
            if hint.is_none() {
                tokio::time::sleep(UPDATE_RETRY_PAUSE).await;
            }
        }
        None
    }

    /// The meta leader if it is known here, else some member of the meta range.
    fn meta_candidate(&self, turn: usize) -> Option<NodeId> {
        if let Some(leader) = self.group(RangeId::META).and_then(|g| g.leader()) {
            return Some(leader);
        }
        let mut known: Vec<NodeId> = self.meta_voters();
        known.extend(self.options.join.iter().map(|(id, _)| *id));
        known.extend(self.catalog.borrow().nodes().iter().map(|n| n.id));
        known.retain(|id| *id != self.node || self.group(RangeId::META).is_some());
        (!known.is_empty()).then(|| known[turn % known.len()])
    }

    async fn try_update(
        &self,
        to: Option<NodeId>,
        expected_epoch: u64,
        next: &wire::Catalog,
    ) -> Attempt {
        let Some(to) = to else {
            return Attempt::Elsewhere(None);
        };
        let update = wire::CatalogUpdate {
            expected_epoch,
            next: Some(next.clone()),
        };
        let answer = if to == self.node {
            self.serve_update(update).await
        } else {
            let body = Body::CatalogUpdate(update);
            let called = self
                .calls
                .call(to, Class::Bulk, 0, body, UPDATE_ATTEMPT_TIMEOUT)
                .await;
            match called {
                Ok(Body::CatalogUpdated(answer)) => answer,
                Ok(_)
                | Err(
                    CallError::NotSent(_)
                    | CallError::Lost
                    | CallError::TimedOut
                    | CallError::Refused(_),
                ) => return Attempt::Elsewhere(None),
            }
        };
        match answer {
            wire::CatalogUpdated { done: true, .. } => Attempt::Done,
            wire::CatalogUpdated {
                current: Some(current),
                ..
            } => Attempt::Behind(current),
            wire::CatalogUpdated { leader_hint, .. } => {
                Attempt::Elsewhere((leader_hint != 0).then_some(NodeId(leader_hint)))
            }
        }
    }

    async fn await_epoch(
        &self,
        epoch: u64,
        deadline: Instant,
    ) -> Result<Arc<CatalogView>, UpdateError> {
        let mut watch = self.catalog.subscribe();
        let reached = watch.wait_for(|c| c.epoch() >= epoch);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(catalog)) => Ok(catalog.clone()),
            Ok(Err(_)) | Err(_) => Err(UpdateError::TimedOut),
        }
    }

    /// Answers travel on connections of our own making: of a node that is new, or has moved, the
    /// change that it asks for says where it is. One that was removed is not met again.
    pub(crate) fn meet(&self, from: NodeId, update: &wire::CatalogUpdate) {
        let catalog = self.catalog.borrow();
        let removed = catalog.node(from).is_some_and(|node| node.removed);
        let nodes = update.next.iter().flat_map(|next| &next.nodes);
        let said = nodes.filter(|node| NodeId(node.id) == from).last();
        if let Some(node) = said.filter(|node| !removed && !node.removed) {
            self.seams.transport.set_peer(from, &node.endpoint);
        }
    }

    /// A node that was away while it was replaced hears of it, and closes its replicas.
    pub(crate) fn tell_if_removed(&self, from: NodeId, epoch: u64) {
        let view = self.catalog.borrow().clone();
        if let Some(node) = view
            .node(from)
            .filter(|n| n.removed && epoch < view.epoch())
        {
            self.seams.transport.set_peer(from, &node.endpoint);
            self.give_catalog(from, &wire::CatalogRequest { epoch });
        }
    }

    /// The meta leader's part of a change.
    pub(crate) async fn serve_update(&self, update: wire::CatalogUpdate) -> wire::CatalogUpdated {
        let elsewhere = |hint: Option<NodeId>| wire::CatalogUpdated {
            leader_hint: hint.map_or(0, |n| n.0),
            ..Default::default()
        };
        let Some(meta) = self.group(RangeId::META) else {
            return elsewhere(None);
        };
        if !meta.is_leader() {
            return elsewhere(meta.leader());
        }
        let deadline = Instant::now() + UPDATE_ATTEMPT_TIMEOUT;
        if meta.read_barrier(deadline).await.is_err() {
            return elsewhere(meta.leader());
        }
        let Ok((current, expect)) = stored_catalog(&meta) else {
            return elsewhere(None);
        };
        let Some(next) = update
            .next
            .filter(|_| current.epoch == update.expected_epoch)
        else {
            return wire::CatalogUpdated {
                current: Some(current),
                ..Default::default()
            };
        };
        match meta.propose(replace_catalog(&next, expect), deadline).await {
            Ok(proposed) => match proposed.applied.outcome {
                ApplyOutcome::Compared {
                    succeeded: true, ..
                } => wire::CatalogUpdated {
                    done: true,
                    ..Default::default()
                },
                _ => elsewhere(Some(self.node)),
            },
            Err(ProposeError::NotLeader { hint }) => elsewhere(hint),
            Err(ProposeError::Unknown | ProposeError::NoMajority | ProposeError::Stopped) => {
                elsewhere(None)
            }
        }
    }

    /// Takes a catalog, if it is newer than the one that is known.
    pub(crate) fn offer_catalog(&self, bytes: Bytes) {
        match CatalogView::decode(bytes) {
            Ok(view) => self.publish_catalog(view),
            Err(error) => tracing::error!(%error, "a catalog that cannot be used"),
        }
    }

    pub(crate) fn take_catalog(&self, catalog: wire::Catalog) {
        match CatalogView::new(catalog) {
            Ok(view) => self.publish_catalog(view),
            Err(error) => tracing::error!(%error, "a catalog that cannot be used"),
        }
    }

    fn publish_catalog(&self, view: CatalogView) {
        self.catalog.send_if_modified(|known| {
            let newer = view.epoch() > known.epoch();
            if newer {
                *known = Arc::new(view);
            }
            newer
        });
    }

    /// The last catalog that this node knew, so that it can route and open its groups alone.
    pub(crate) fn load_catalog_copy(&self) -> Result<(), StartError> {
        let path = self.options.dir.join(COPY_FILE);
        let disk = &self.seams.disk;
        if disk.exists(&path).map_err(StartError::CatalogCopy)? {
            let bytes = disk.read_whole(&path).map_err(StartError::CatalogCopy)?;
            match CatalogView::decode(bytes.into()) {
                Ok(view) => self.publish_catalog(view),
                // It is a copy: the meta range has the truth.
                Err(error) => tracing::warn!(%error, "the copy of the catalog is ignored"),
            }
        }
        Ok(())
    }

    fn save_catalog_copy(&self, view: &CatalogView) {
        let path = self.options.dir.join(COPY_FILE);
        let bytes = view.wire().encode_to_vec();
        if let Err(error) = self.seams.disk.write_atomically(&path, &bytes) {
            tracing::warn!(%error, "the catalog was not copied to disk");
        }
    }

    /// Where the peers are when this node starts. The copy of the catalog may be old: what the
    /// operator says now is newer.
    /// Returns the copy, for [`Inner::supervise`] to see what changes after it.
    pub(crate) fn know_peers(&self) -> Arc<CatalogView> {
        let copy = self.catalog.borrow().clone();
        self.follow_peers(&CatalogView::default(), &copy);
        let transport = &self.seams.transport;
        for node in &self.options.bootstrap {
            transport.set_peer(NodeId(node.id), &node.endpoint);
        }
        for (id, address) in &self.options.join {
            transport.set_peer(*id, address);
        }
        copy
    }

    /// Takes over the addresses that a new catalog has changed.
    fn follow_peers(&self, before: &CatalogView, now: &CatalogView) {
        let moved = now.nodes().iter().filter(|node| {
            let same = |old: &catalog::NodeView| old.endpoint == node.endpoint;
            !node.removed && !before.node(node.id).is_some_and(same)
        });
        for node in moved {
            self.seams.transport.set_peer(node.id, &node.endpoint);
        }
    }

    /// Opens and closes groups until they are those of the catalog.
    pub(crate) async fn reconcile(self: &Arc<Self>) -> Result<(), StartError> {
        let view = self.catalog.borrow().clone();
        let mut wanted = BTreeSet::from([RangeId::META]);
        let removed = view.node(self.node).is_some_and(|n| n.removed);
        if view.meta_voters().contains(&self.node) {
            self.open_meta(&[]).await?;
        }
        for keyspace in view.keyspaces() {
            for range in keyspace
                .ranges
                .iter()
                .filter(|r| r.replicas.contains(&self.node))
            {
                wanted.insert(range.id);
                self.open_group(range.id, &range.interval, &range.founders)
                    .await?;
            }
        }
        if removed {
            // Replaced: whatever is on this disk is not spoken for any more.
            wanted.clear();
        }
        if view.epoch() > 0 {
            self.close_others(&wanted).await;
        }
        Ok(())
    }

    async fn close_others(&self, wanted: &BTreeSet<RangeId>) {
        let gone: Vec<_> = self
            .all_groups()
            .into_iter()
            .filter(|g| !wanted.contains(&g.range))
            .collect();
        for group in gone {
            self.groups.write().remove(&group.range);
            if let Err(error) = group.raft.shutdown().await {
                tracing::warn!(range = %group.range, %error, "a closed replica did not stop well");
            }
            self.log.remove_group(group.range.0, Box::new(|_| {}));
            if let Err(error) = self.engine.drop_range(group.range.0) {
                tracing::warn!(range = %group.range, %error, "a closed replica's keys remain");
            }
        }
    }

    /// Follows the catalog for ever; on the meta leader also makes the first one.
    pub(crate) async fn supervise(self: Arc<Self>, mut before: Arc<CatalogView>) {
        let mut watch = self.catalog.subscribe();
        loop {
            let view = watch.borrow_and_update().clone();
            if view.epoch() > 0 {
                self.save_catalog_copy(&view);
            }
            self.follow_peers(&before, &view);
            before = view.clone();
            if let Err(error) = self.reconcile().await {
                tracing::error!(error = %chain(&error), "a replica cannot be opened");
            }
            loop {
                self.make_first_catalog().await;
                self.register().await;
                self.apply_options(&view).await;
                match tokio::time::timeout(SUPERVISE_INTERVAL, watch.changed()).await {
                    Ok(Ok(())) => break,
                    Ok(Err(_)) => return,
                    Err(_) => {}
                }
            }
        }
    }

    async fn make_first_catalog(&self) {
        let missing = self.catalog.borrow().epoch() == 0;
        let leads = self.group(RangeId::META).is_some_and(|g| g.is_leader());
        if !missing || !leads || self.options.bootstrap.is_empty() {
            return;
        }
        let deadline = Instant::now() + UPDATE_ATTEMPT_TIMEOUT;
        let first = |base: &wire::Catalog| match base.epoch {
            0 => {
                let nodes = self.options.bootstrap.clone();
                catalog::first_catalog(&self.options.cluster, nodes, &self.meta_voters())
            }
            _ => Ok(base.clone()),
        };
        if let Err(error) = self.update_catalog(deadline, first).await {
            tracing::debug!(%error, "the first catalog was not made");
        }
    }

    /// Tells the catalog where this node is, if it does not know.
    async fn register(&self) {
        let view = self.catalog.borrow().clone();
        let me = &self.options.node;
        let known = view.wire().nodes.contains(me);
        let removed = view.node(self.node).is_some_and(|n| n.removed);
        if known || removed || (view.epoch() == 0 && self.options.join.is_empty()) {
            return;
        }
        let deadline = Instant::now() + UPDATE_ATTEMPT_TIMEOUT;
        let change = |base: &wire::Catalog| {
            if base.epoch == 0 {
                return Err(CatalogError::Refused("there is no catalog yet".to_string()));
            }
            let nothing = || CatalogError::Refused("nothing to register".to_string());
            catalog::with_node(base, me).ok_or_else(nothing)
        };
        if let Err(error) = self.update_catalog(deadline, change).await {
            tracing::debug!(%error, "this node was not registered");
        }
    }

    /// Brings the options of ranges led here in line with their keyspaces'. They change at one
    /// position of the range's log.
    async fn apply_options(&self, view: &CatalogView) {
        let window = view
            .wire()
            .settings
            .get(SETTING_WINDOW)
            .and_then(|w| w.parse().ok());
        for keyspace in view.keyspaces() {
            let history = keyspace.options.history.as_micros();
            let wanted = RangeOptions {
                history: u64::try_from(history).unwrap_or(u64::MAX),
                quota: quota_of_a_range(keyspace),
                window: window.unwrap_or(WINDOW_RESULTS_DEFAULT),
                prefixes: prefixes_of_a_range(keyspace),
            };
            for range in &keyspace.ranges {
                let Some(group) = self.group(range.id).filter(|g| g.is_leader()) else {
                    continue;
                };
                if *group.shared.machine.lock().options() == wanted {
                    continue;
                }
                let operation = Some(command::Operation::Options(wanted.clone()));
                let command = Command {
                    operation,
                    ..Command::default()
                };
                let deadline = Instant::now() + OPTIONS_TIMEOUT;
                if let Err(error) = group.propose(command, deadline).await {
                    tracing::debug!(range = %range.id, %error, "options were not set");
                }
            }
        }
    }
}

/// A keyspace's quota is shared out evenly: each range decides by itself.
fn quota_of_a_range(keyspace: &catalog::KeyspaceView) -> u64 {
    let ranges = keyspace.ranges.len().max(1) as u64;
    keyspace
        .options
        .quota_bytes
        .map_or(0, |quota| (quota / ranges).max(1))
}

/// Keyspaces with quotas of prefixes have one range, which counts all of them.
fn prefixes_of_a_range(keyspace: &catalog::KeyspaceView) -> Vec<PrefixLimits> {
    let partitioning = &keyspace.options.partitioning;
    let quotas = keyspace.options.quotas.iter();
    quotas
        .map(|(prefix, quota)| PrefixLimits {
            prefix: encode_key(keyspace.id, partitioning, prefix.as_bytes()),
            unseen: u32::try_from(partitioning.prefix_bytes()).unwrap_or(0),
            max_keys: quota.max_keys,
            max_bytes: quota.max_bytes,
        })
        .collect()
}

/// The catalog in the meta range's keys, and what a compare-and-set must expect to replace it.
fn stored_catalog(meta: &Group) -> Result<(wire::Catalog, State), ()> {
    match meta.table().get(CATALOG_KEY) {
        Ok(Some(version)) => {
            let catalog = wire::Catalog::decode(version.value).map_err(drop)?;
            Ok((catalog, State::Revision(version.revision)))
        }
        Ok(None) => Ok((wire::Catalog::default(), State::Absent(true))),
        Err(_) => Err(()),
    }
}

fn replace_catalog(next: &wire::Catalog, expect: State) -> Command {
    let write = Write {
        key: Bytes::from_static(CATALOG_KEY),
        value: next.encode_to_vec().into(),
        ..Write::default()
    };
    let conditional = Conditional {
        write: Some(write),
        expect: Some(Expect {
            state: Some(expect),
        }),
        delete: false,
    };
    let operation = Some(command::Operation::Conditional(conditional));
    Command {
        operation,
        ..Command::default()
    }
}
