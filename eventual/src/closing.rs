//! Closing of starts that are over. A clock names every start of a node that wrote; what lies in
//! the gaps of one that is over will never come, and saying so ("closed below") takes a few bytes
//! for all starts of a disk together.
//!
//! A start may be closed once no node keeps a hint of it, those included that cannot be reached
//! now, and after that a full repair of all primaries has ended: then whatever was acknowledged
//! of it is on all primaries. The primary with the lowest id closes; the others take it over with
//! its clock. A start of a node that has left the cluster stays open: nobody can say that it is
//! over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_proto::internal::{
    StartsAsked, StartsHeld, eventual_request::Request, eventual_response::Response, starts_held,
};
use quorate_types::NodeId;

use crate::error::EventualError;
use crate::node::Inner;
use crate::replica::Replica;
use crate::seam::{PeerFailure, Place};
use crate::step::Step;

/// A node has so long to say what it keeps.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// After so many rounds of comparisons of one primary with all others, each has what any had.
const REPAIR_ROUNDS: usize = 2;

/// For each disk, the lowest start that must stay open.
type Open = BTreeMap<u64, u32>;

impl Inner {
    /// Closes what can be closed in all ranges that this node is to look after.
    pub(crate) async fn close_all(&self) {
        for replica in self.all_replicas() {
            let Ok(place) = self.place(replica.range) else {
                continue;
            };
            let is_first = place.holders.primaries.iter().min() == Some(&self.node);
            // Beside a log a clock speaks for its rows alone, and the log may show what it would
            // claim dead.
            let beside_log = replica.has_log();
            if !is_first || beside_log || !replica.is_filled() || !has_old_starts(&replica) {
                continue;
            }
            if let Err(error) = self.close_starts(&replica, &place).await {
                tracing::debug!(range = %replica.range, %error, "starts stay open for now");
            }
        }
    }

    async fn close_starts(
        &self,
        replica: &Arc<Replica>,
        place: &Place,
    ) -> Result<(), EventualError> {
        let open = self.open_starts(replica, place).await?;
        let others = place.holders.primaries.iter();
        let others: Vec<NodeId> = others.copied().filter(|node| *node != self.node).collect();
        for _ in 0..REPAIR_ROUNDS {
            for node in &others {
                if !self.options.faults.close_before_repair {
                    self.repair_with(replica, *node).await?;
                }
            }
        }
        if self.place(replica.range)?.holders != place.holders {
            return Err(EventualError::Peer("the primaries have changed".to_owned()));
        }
        let clock = replica.clock();
        let is_old = |(disk, start): &(u64, u32)| {
            let mut actors = clock.dots().actors();
            actors.any(|(actor, _)| actor.disk == *disk && actor.start < *start)
        };
        let starts: Vec<_> = open.into_iter().filter(is_old).collect();
        if !starts.is_empty() {
            self.counts.starts_closed.fetch_add(1, Ordering::Relaxed);
            replica.do_step(&Step::Close { starts })?.wait().await?;
        }
        Ok(())
    }

    /// Asks all nodes for their own start, and for those of which they keep hints.
    async fn open_starts(&self, replica: &Replica, place: &Place) -> Result<Open, EventualError> {
        let mut open = Open::new();
        let all = place
            .holders
            .primaries
            .iter()
            .chain(&place.holders.stand_ins);
        for node in all {
            let mut held = match *node == self.node {
                true => self.starts_held(replica, true),
                false => self.ask_starts(replica, *node).await?,
            };
            if self.options.faults.close_despite_hints {
                held.hinted.clear();
            }
            if held.is_leaving {
                return Err(EventualError::Peer(format!("{node} has not handed over")));
            }
            let own = (node.0, held.start);
            let hinted = held.hinted.iter().map(|hinted| (hinted.disk, hinted.start));
            for (disk, start) in hinted.chain([own]) {
                let lowest = open.entry(disk).or_insert(start);
                *lowest = start.min(*lowest);
            }
        }
        // A disk with hints, but without a node, has not said which of its starts is its last.
        open.retain(|disk, _| place.holders.is_present(NodeId(*disk)));
        Ok(open)
    }

    async fn ask_starts(
        &self,
        replica: &Replica,
        node: NodeId,
    ) -> Result<StartsHeld, EventualError> {
        let request = Request::StartsAsked(StartsAsked {});
        match self.ask(node, replica.range, request, ASK_TIMEOUT).await? {
            Response::StartsHeld(held) => Ok(held),
            _ => Err(PeerFailure::NoAnswer(node).into()),
        }
    }

    /// What this node says when it is asked.
    pub(crate) fn starts_held(&self, replica: &Replica, primary: bool) -> StartsHeld {
        let hinted = replica.with_hints(crate::hints::Hints::starts).into_iter();
        let hinted = hinted.map(|(disk, start)| starts_held::Hinted { disk, start });
        StartsHeld {
            start: self.actor.start,
            hinted: hinted.collect(),
            is_leaving: !primary && replica.is_filled(),
        }
    }
}

/// Whether the clock may name starts that are over: two of one disk, or one with gaps.
fn has_old_starts(replica: &Replica) -> bool {
    let clock = replica.clock();
    let disks: Vec<u64> = clock.dots().actors().map(|(actor, _)| actor.disk).collect();
    // Actors are sorted by disk.
    disks.windows(2).any(|pair| pair[0] == pair[1]) || clock.gaps().next().is_some()
}
