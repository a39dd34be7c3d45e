//! Closing of starts that are over. A clock names every start of a node that wrote; what lies in
//! the gaps of one that is over will never come, and saying so ("closed below") takes a few bytes
//! for all starts of a disk together.
//!
//! A start may be closed once no node keeps a hint of it, those included that cannot be reached
//! now, and after that a full repair of all primaries has ended: then whatever was acknowledged
//! of it is on all primaries. The primary with the lowest id closes; the others take it over with
//! its clock. A start of a node that has left the cluster stays open: nobody can say that it is
//! over.
//!
//! Beside a log its leader closes, and by an entry: it repairs with all other primaries, has the log
//! take in all its rows, and then the log that the starts are closed. From that entry on the log's
//! state shows all that was acknowledged of them. The clock beside it follows on each primary by
//! itself, once the log's state *on that disk* has closed them, and with all rows brought up to that
//! state in the same moment: a row that has not heard of a value would else say that it is dead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_proto::internal::{
    StartsAsked, StartsHeld, eventual_request::Request, eventual_response::Response, starts_held,
};
use quorate_types::NodeId;
use quorate_types::causal::{Clock, Dots};
use tokio::time::Instant;

use crate::error::EventualError;
use crate::node::{Inner, settle_all};
use crate::replica::Replica;
use crate::seam::{PeerFailure, Place, Proposal};
use crate::step::Step;

/// A node has so long to say what it keeps.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A log has so long to decide one entry.
const DECIDE_TIMEOUT: Duration = Duration::from_secs(5);
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
            if !place.holders.is_primary(self.node) {
                continue;
            }
            if let Err(error) = self.close_rows(&replica).await {
                tracing::debug!(range = %replica.range, %error, "rows do not know of a closing yet");
            }
            let closes = self.is_to_close(&replica, &place);
            if !closes || !replica.is_filled() || !has_old_starts(&self.taken_in(&replica)) {
                continue;
            }
            if let Err(error) = self.close_starts(&replica, &place).await {
                tracing::debug!(range = %replica.range, %error, "starts stay open for now");
            }
        }
    }

    fn is_to_close(&self, replica: &Replica, place: &Place) -> bool {
        match replica.has_log() {
            true => self.decisions.leader(replica.range) == Some(self.node),
            false => place.holders.primaries.iter().min() == Some(&self.node),
        }
    }

    /// What this replica has taken in, and what its log has.
    fn taken_in(&self, replica: &Replica) -> Dots {
        let mut dots = replica.clock().dots().clone();
        if let Some((decided, _)) = self.decisions.taken_in(replica.range) {
            dots.union(&decided);
        }
        dots
    }

    /// Closes beside a log what the log has closed.
    async fn close_rows(&self, replica: &Replica) -> Result<(), EventualError> {
        let Some((decided, index)) = self.decisions.taken_in(replica.range) else {
            return Ok(());
        };
        let clock = replica.clock();
        let starts = decided.closed();
        let starts: Vec<(u64, u32)> = starts
            .filter(|(disk, start)| !clock.has_closed(*disk, *start))
            .collect();
        // After a crash the log's state is that of the disk, and rows would begin with that.
        if starts.is_empty() || !self.knows_on_disk(replica, index).await {
            return Ok(());
        }
        replica.close_beside_log(starts)?.wait().await?;
        settle_all(replica).await
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
        let taken_in = self.taken_in(replica);
        let is_old = |(disk, start): &(u64, u32)| {
            let mut actors = taken_in.actors();
            actors.any(|(actor, _)| actor.disk == *disk && actor.start < *start)
        };
        let starts: Vec<_> = open.into_iter().filter(is_old).collect();
        if starts.is_empty() {
            return Ok(());
        }
        self.counts.starts_closed.fetch_add(1, Ordering::Relaxed);
        match replica.has_log() {
            true => self.close_by_log(replica, &starts).await,
            false => replica.do_step(&Step::Close { starts })?.wait().await,
        }
    }

    /// Has the log take in all rows of this replica, which knows by now what any primary did, and
    /// then that the starts are closed.
    async fn close_by_log(
        &self,
        replica: &Replica,
        starts: &[(u64, u32)],
    ) -> Result<(), EventualError> {
        let rows = replica.unabsorbed()?;
        let pieces = rows.chunks(self.options.absorb_keys_max.max(1));
        for items in pieces.filter(|_| !self.options.faults.close_unabsorbed) {
            let (items, base) = (items.to_vec(), None);
            self.have_decided(replica, Proposal::Absorb { items, base })
                .await?;
        }
        let mut closed = Clock::default();
        for (disk, start) in starts {
            closed.close(*disk, *start);
        }
        let (items, base) = (Vec::new(), Some(closed.dots().to_bytes()));
        self.have_decided(replica, Proposal::Absorb { items, base })
            .await
    }

    async fn have_decided(
        &self,
        replica: &Replica,
        proposal: Proposal,
    ) -> Result<(), EventualError> {
        let deadline = Instant::now() + DECIDE_TIMEOUT;
        let decided = self.decisions.decide(replica.range, proposal, deadline);
        decided.await.map(drop)
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

/// Whether starts may be named that are over: two of one disk, or one with gaps.
fn has_old_starts(taken_in: &Dots) -> bool {
    let disks: Vec<u64> = taken_in.actors().map(|(actor, _)| actor.disk).collect();
    let mut counters = taken_in.actors().map(|(_, counters)| counters);
    // Actors are sorted by disk.
    disks.windows(2).any(|pair| pair[0] == pair[1])
        || counters.any(|counters| counters.gapless() != counters.top())
}
