//! The copies of one write: who has one, who does not, and which stand-ins are asked instead,
//! until all have answered, whether its client still waits or not.
//!
//! Not here: when a level is met (`coordinator`), and the way to a node (`lanes`).

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::internal::Store;
use quorate_types::causal::Dot;
use quorate_types::{NodeId, RangeId};
use tokio::sync::Notify;

use crate::node::Inner;
use crate::quorum::{Spread, Tally};
use crate::replica::Replica;
use crate::seam::PeerFailure;

/// A write that its coordinator has stored.
pub(crate) struct Spreading {
    pub(crate) range: RangeId,
    /// Holders answer once it is in memory.
    pub(crate) memory: bool,
    /// Its client waits for others than its coordinator.
    pub(crate) is_awaited: bool,
    /// Its name, or its first one.
    pub(crate) dot: Dot,
    replica: Arc<Replica>,
    /// The coordinator holds the range.
    primary_here: bool,
    store: Store,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    tally: Tally,
    /// Stand-ins that were not asked yet, the next one last.
    stand_ins: Vec<NodeId>,
    /// Primaries, and stand-ins, that do not have it.
    missing: Vec<NodeId>,
    /// Stand-ins asked so far.
    standing: usize,
    /// Nodes that were asked, and have not answered.
    under_way: usize,
    /// Its client has its answer, or has gone.
    is_left: bool,
}

/// What is to be spread.
pub(crate) struct Stored {
    pub(crate) range: RangeId,
    pub(crate) key: Bytes,
    pub(crate) dot: Dot,
    pub(crate) deltas: Vec<Bytes>,
    pub(crate) memory: bool,
    pub(crate) holders_wanted: u8,
    /// Where it is stored, and whether as a primary.
    pub(crate) replica: Arc<Replica>,
    pub(crate) primary_here: bool,
}

/// How far the copies of a write have come.
pub(crate) enum Progress {
    /// As many holders as are wanted have it.
    Met,
    /// Some who were asked have not answered.
    UnderWay,
    /// All who were asked have answered.
    Ended,
}

/// Waits for a write's copies; whoever drops it waits no more.
pub(crate) struct Waiter {
    inner: Arc<Inner>,
    write: Arc<Spreading>,
}

impl Spreading {
    /// Sends a write to all who shall have it.
    pub(crate) fn begin(inner: &Arc<Inner>, stored: Stored, spread: Spread) -> Waiter {
        let mut state = State {
            standing: usize::from(!stored.primary_here),
            stand_ins: spread.stand_ins.into_iter().rev().collect(),
            missing: spread.missing,
            ..State::default()
        };
        state.tally.add(inner.node, stored.primary_here);
        let mut to = spread.primaries;
        // Who flaps gets its copy like any primary, and a stand-in keeps a hint besides.
        let standing_wanted = state.missing.len() + spread.flapping;
        while state.standing < standing_wanted
            && let Some(stand_in) = state.stand_ins.pop()
        {
            state.standing += 1;
            to.push(stand_in);
        }
        state.under_way = to.len();
        let write = Arc::new(Spreading {
            range: stored.range,
            memory: stored.memory,
            is_awaited: stored.holders_wanted > 1,
            dot: stored.dot,
            replica: stored.replica,
            primary_here: stored.primary_here,
            store: Store {
                key: stored.key,
                deltas: stored.deltas,
                holders_wanted: u32::from(stored.holders_wanted),
            },
            state: Mutex::new(state),
            changed: Notify::new(),
        });
        for node in to {
            inner.send_store(node, write.clone());
        }
        Waiter {
            inner: inner.clone(),
            write,
        }
    }

    /// What a holder is sent.
    pub(crate) fn store(&self) -> Store {
        self.store.clone()
    }

    /// What it takes in a message, about.
    pub(crate) fn bytes(&self) -> usize {
        let deltas: usize = self.store.deltas.iter().map(Bytes::len).sum();
        self.store.key.len() + deltas
    }

    /// A node has it, as a primary or as a stand-in, or it has not: then a stand-in is asked.
    pub(crate) fn answered(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        node: NodeId,
        taken: Result<bool, &PeerFailure>,
    ) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        let mut instead = None;
        match taken {
            Ok(primary) => state.tally.add(node, primary),
            Err(_) => {
                if !state.missing.contains(&node) {
                    state.missing.push(node);
                }
                instead = state.next_stand_in();
            }
        }
        let has_ended = state.is_left && state.under_way == 0;
        drop(state);
        if let Some(stand_in) = instead {
            inner.send_store(stand_in, self.clone());
        }
        self.changed.notify_one();
        if has_ended {
            self.end();
        }
    }

    /// Where no stand-in keeps a hint for a primary that does not have the write, this node does,
    /// as a courtesy.
    fn end(&self) {
        let state = self.state.lock();
        let has = |node: &NodeId| state.tally.primaries.contains(node);
        let is_lacking = !state.missing.iter().all(has);
        let hints_elsewhere = !state.tally.stand_ins.is_empty();
        drop(state);
        if is_lacking && self.primary_here && !hints_elsewhere {
            let kept = self.replica.keep(&self.store.key, &self.store.deltas, 0);
            if let Err(error) = kept {
                tracing::debug!(range = %self.range, %error, "no hint is kept");
            }
        }
    }
}

impl State {
    /// The next stand-in is asked, if there is one.
    fn next_stand_in(&mut self) -> Option<NodeId> {
        let next = self.stand_ins.pop()?;
        self.standing += 1;
        self.under_way += 1;
        Some(next)
    }
}

impl Waiter {
    /// Who has it so far.
    pub(crate) fn tally(&self) -> Tally {
        self.write.state.lock().tally.clone()
    }

    /// Whether `wanted` holders have it, and whether more may come.
    pub(crate) fn progress(&self, wanted: usize, strict: bool) -> Progress {
        let state = self.write.state.lock();
        if state.tally.count(strict) >= wanted {
            Progress::Met
        } else if state.under_way > 0 {
            Progress::UnderWay
        } else {
            Progress::Ended
        }
    }

    /// Asks the next stand-in. Returns whether there was one.
    pub(crate) fn ask_stand_in(&self) -> bool {
        let next = self.write.state.lock().next_stand_in();
        if let Some(stand_in) = next {
            self.inner.send_store(stand_in, self.write.clone());
        }
        next.is_some()
    }

    /// Returns once one more has answered.
    pub(crate) async fn changed(&self) {
        self.write.changed.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.write.state.lock();
        state.is_left = true;
        let has_ended = state.under_way == 0;
        drop(state);
        if has_ended {
            self.write.end();
        }
    }
}
