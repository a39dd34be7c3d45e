//! What runs in the background on every node: beats between nodes, flushes, log purges, expiry,
//! collection of old versions, and the quieting of groups that nobody uses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_proto::internal::{Command, Expire, command, expire};
use quorate_types::{NodeId, RangeId, Revision};
use tokio::time::Instant;

use crate::catalog::CatalogView;
use crate::consensus::log_id_term;
use crate::group::Group;
use crate::liveness::BEAT_INTERVAL;
use crate::node::Inner;
use crate::peer::Class;

/// After so many beats the gauges of peers are brought up to date.
const BEATS_A_GAUGE: u64 = 10;
/// So often the lease timers are looked at.
const LEASE_INTERVAL: Duration = Duration::from_millis(200);
const UPKEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Keys that one entry expires at the most.
const EXPIRE_KEYS_MAX: usize = 1_000;
/// Old versions are collected when the floor can rise by at least this, microseconds.
const COLLECT_STEP_MICROSECONDS: u64 = 10_000_000;
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What upkeep remembers of a group between two looks.
#[derive(Clone, Copy, Debug)]
struct Seen {
    uses: u64,
    applied: u64,
    since: Instant,
    snapshot: u64,
}

impl Inner {
    pub(crate) fn start_tasks(self: &Arc<Self>, known: Arc<CatalogView>) {
        let mut tasks = self.tasks.lock();
        tasks.push(tokio::spawn(self.clone().beat()).abort_handle());
        tasks.push(tokio::spawn(self.clone().upkeep()).abort_handle());
        tasks.push(tokio::spawn(self.clone().tend_leases()).abort_handle());
        tasks.push(tokio::spawn(self.clone().supervise(known)).abort_handle());
    }

    /// Tells the peers that this node lives, and wakes quiet groups whose leader does not.
    async fn beat(self: Arc<Self>) {
        let mut silent: BTreeMap<NodeId, bool> = BTreeMap::new();
        let mut beats: u64 = 0;
        loop {
            let beat = wire::NodeBeat {
                started: self.started,
                catalog_epoch: self.catalog.borrow().epoch(),
                clock: self.clock.now().0,
            };
            for peer in self.peers() {
                // A peer that cannot be reached is noticed by its silence.
                let _ = self.calls.tell(peer, Class::Consensus, 0, Body::Beat(beat));
                let quiet_now = !self.inbound.heard_lately(peer);
                let quiet_before = silent.insert(peer, quiet_now).unwrap_or(false);
                if quiet_now && !quiet_before {
                    self.wake_groups_led_by(peer);
                }
            }
            if beats.is_multiple_of(BEATS_A_GAUGE) {
                self.gauge_peers();
            }
            beats += 1;
            tokio::time::sleep(BEAT_INTERVAL).await;
        }
    }

    fn gauge_peers(&self) {
        for peer in self.peers() {
            let seen = self.inbound.look_at(peer);
            let set = |name: &'static str, value: f64| {
                metrics::gauge!(name, "peer" => peer.to_string()).set(value);
            };
            set("quorate_peer_phi", seen.phi);
            set(
                "quorate_peer_reachable",
                f64::from(u8::from(seen.reachable)),
            );
            set("quorate_peer_steady", f64::from(u8::from(seen.steady)));
        }
    }

    pub(crate) fn peers(&self) -> Vec<NodeId> {
        let view = self.catalog.borrow().clone();
        let mut peers: Vec<NodeId> = view
            .nodes()
            .iter()
            .filter(|n| !n.removed)
            .map(|n| n.id)
            .collect();
        if view.epoch() == 0 {
            peers.extend(self.options.bootstrap.iter().map(|n| NodeId(n.id)));
            peers.extend(self.options.join.iter().map(|(id, _)| *id));
        }
        peers.sort_unstable();
        peers.dedup();
        peers.retain(|p| *p != self.node);
        peers
    }

    fn wake_groups_led_by(&self, peer: NodeId) {
        for group in self.all_groups() {
            if group.is_quiet() && group.leader() == Some(peer) {
                group.start_ticks();
            }
        }
    }

    /// A peer that restarted knows no leaders: the leaders here let themselves be heard.
    pub(crate) fn wake_groups_with(&self, peer: NodeId) {
        for group in self.all_groups() {
            let holds = group.raft.voter_ids().any(|id| id == peer.0);
            if holds && group.is_quiet() && group.is_leader() {
                group.start_ticks();
            }
        }
    }

    /// A leader says that its group goes quiet; this replica does too if it is as far.
    pub(crate) fn take_quiesce(&self, from: NodeId, range: RangeId, quiesce: &wire::Quiesce) {
        let Some(group) = self.group(range) else {
            return;
        };
        let metrics = group.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = quiesce.last.unwrap_or_default();
        let same = metrics.current_leader == Some(from.0)
            && metrics.current_term == quiesce.term
            && metrics.last_log_index == Some(last.index)
            && metrics
                .last_applied
                .as_ref()
                .is_some_and(|id| id.index == last.index);
        drop(metrics);
        if same {
            group.stop_ticks();
        }
    }

    async fn upkeep(self: Arc<Self>) {
        let mut seen: BTreeMap<RangeId, Seen> = BTreeMap::new();
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            for group in self.all_groups() {
                self.tend(&group, &mut seen).await;
            }
            seen.retain(|range, _| self.groups.read().contains_key(range));
        }
    }

    /// Proposes that leases whose time has come end, and what is left of others, and notices groups
    /// that have ended. Not part of the upkeep, which may wait for a disk.
    async fn tend_leases(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LEASE_INTERVAL).await;
            self.notice_failed_groups();
            for group in self.all_groups() {
                let due = group.leases_due();
                for expire in due.expire {
                    self.propose_in_background(&group, command::Operation::LeaseExpire(expire));
                }
                for checkpoint in due.checkpoint {
                    let operation = command::Operation::LeaseCheckpoint(checkpoint);
                    self.propose_in_background(&group, operation);
                }
            }
        }
    }

    async fn tend(self: &Arc<Self>, group: &Arc<Group>, seen: &mut BTreeMap<RangeId, Seen>) {
        let uses = group.uses.load(Ordering::Relaxed);
        let applied = group.applied().index;
        let fresh = Seen {
            uses,
            applied,
            since: Instant::now(),
            snapshot: 0,
        };
        let known = seen.entry(group.range).or_insert(fresh);
        if known.uses != uses || known.applied != applied {
            *known = Seen {
                snapshot: known.snapshot,
                ..fresh
            };
        }
        let durable = group.shared.table.durable().map_or(0, |p| p.index);
        if group.shared.table.wants_flush()
            || applied >= durable.saturating_add(self.options.flush_entries)
        {
            group.flush().await;
        }
        self.purge(group, known).await;
        group.shared.feed.tend(Instant::now());
        if group.is_leader() {
            self.expire(group);
            self.collect(group);
            if known.since.elapsed() >= self.options.quiet_after {
                self.quiesce(group);
            }
        }
    }

    /// Lets the log forget what the engine has on disk.
    async fn purge(&self, group: &Group, seen: &mut Seen) {
        let durable = match self.options.faults.purge_before_flush {
            true => group.applied().index,
            false => group.shared.table.durable().map_or(0, |p| p.index),
        };
        if durable < seen.snapshot + self.options.purge_entries {
            return;
        }
        seen.snapshot = durable;
        let trigger = group.raft.trigger();
        if trigger.snapshot().await.is_err() {
            return;
        }
        // Purges up to the last snapshot, less what is kept for late followers.
        let upto = durable.saturating_sub(self.options.kept_entries);
        if let Err(error) = trigger.purge_log(upto).await {
            tracing::debug!(range = %group.range, %error, "not purged");
        }
    }

    /// Proposes the removal of values whose time has come by this leader's clock. Apply judges
    /// again, by the entry's revision.
    fn expire(&self, group: &Arc<Group>) {
        let now = self.clock.now().0;
        let due = group
            .shared
            .machine
            .lock()
            .expiry()
            .due(now, EXPIRE_KEYS_MAX);
        if due.is_empty() {
            return;
        }
        let items = due.into_iter().map(|(at, key)| {
            let current = group.shared.table.get(&key).ok().flatten();
            let matching = current.filter(|v| v.expiry == Some(at));
            expire::Item {
                key,
                revision: matching.map_or(0, |v| v.revision),
                at,
            }
        });
        let operation = command::Operation::Expire(Expire {
            items: items.collect(),
        });
        self.propose_in_background(group, operation);
    }

    /// Raises the floor below which superseded versions go.
    fn collect(&self, group: &Arc<Group>) {
        let at = group.applied();
        let machine = group.shared.machine.lock();
        // There clients say what may go.
        if machine.etcd().is_some() {
            return;
        }
        let history = machine.options().history;
        drop(machine);
        let oldest = Revision(self.clock.now().0.saturating_sub(history));
        // Nothing is superseded after the last change: an idle range is collected once, and rests.
        let floor = oldest.min(at.last_change);
        let far = floor.0 >= at.floor.0.saturating_add(COLLECT_STEP_MICROSECONDS);
        let last = floor == at.last_change && floor > at.floor;
        if history > 0 && (far || last) {
            self.propose_in_background(group, command::Operation::CollectBelow(floor.0));
        }
    }

    fn propose_in_background(&self, group: &Arc<Group>, operation: command::Operation) {
        let group = group.clone();
        tokio::spawn(async move {
            let command = Command {
                operation: Some(operation),
                ..Command::default()
            };
            let deadline = Instant::now() + PROPOSAL_TIMEOUT;
            if let Err(error) = group.propose(command, deadline).await {
                tracing::debug!(range = %group.range, %error, "upkeep was not decided");
            }
        });
    }

    /// Stops the ticks of a group that nobody uses, on all replicas, if they are equally far.
    fn quiesce(&self, group: &Arc<Group>) {
        if group.is_quiet() {
            return;
        }
        let metrics = group.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (Some(last), Some(applied)) = (metrics.last_log_index, metrics.last_applied) else {
            return;
        };
        let peers: Vec<u64> = group
            .raft
            .voter_ids()
            .filter(|id| *id != self.node.0)
            .collect();
        let matched = |peer: &u64| {
            let replication = metrics.replication.as_ref().and_then(|r| r.get(peer));
            replication.is_some_and(|m| m.as_ref().is_some_and(|id| id.index == last))
        };
        let ready = applied.index == last
            && peers
                .iter()
                .all(|p| matched(p) && self.inbound.heard_lately(NodeId(*p)));
        let term = metrics.current_term;
        drop(metrics);
        if !ready {
            return;
        }
        let last = wire::LogId {
            term: log_id_term(&applied),
            index: last,
        };
        let quiesce = wire::Quiesce {
            term,
            last: Some(last),
        };
        for peer in peers {
            let body = Body::Quiesce(quiesce);
            // A follower that misses it keeps its ticks, hears nothing, asks for votes, and so
            // wakes the others: harmless.
            let _ = self
                .calls
                .tell(NodeId(peer), Class::Consensus, group.range.0, body);
        }
        group.stop_ticks();
    }
}
