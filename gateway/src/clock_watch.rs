//! Is this node's clock the odd one out? A node that sees itself further than `max_clock_offset`
//! from most of its peers refuses clients: its promises about age would not hold. What comes from
//! other nodes it serves all the same.
//!
//! A beat's delay makes a peer's clock look behind, never ahead. So of the last few beats the one
//! that looks farthest ahead is nearest to the truth, and a busy node does not suspect its clock.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_types::NodeId;
use quorate_types::limits::CLOCK_OFFSET_MAX;

use crate::gateway::{Gateway, WeakGateway};

/// How often the peers' clocks are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Looks that are remembered of each peer.
const LOOKS_KEPT: usize = 10;

/// What is known of the peers' clocks.
#[derive(Debug, Default)]
struct Judge {
    looks: HashMap<NodeId, VecDeque<i64>>,
}

impl Judge {
    /// Takes a look: the clocks of those peers that are heard minus ours, milliseconds. Returns how
    /// far ours is from theirs if it is too far from more than half of all `peers`.
    fn look(&mut self, peers: usize, offsets: &[(NodeId, i64)]) -> Option<i64> {
        self.looks
            .retain(|node, _| offsets.iter().any(|(seen, _)| seen == node));
        let mut far = Vec::new();
        for (node, offset) in offsets {
            let looks = self.looks.entry(*node).or_default();
            looks.push_back(*offset);
            if looks.len() > LOOKS_KEPT {
                looks.pop_front();
            }
            let nearest = looks.iter().copied().max().unwrap_or(0);
            // Before there are enough looks, a delay may be taken for an offset.
            let certain = nearest > 0 || looks.len() == LOOKS_KEPT;
            if certain && u128::from(nearest.unsigned_abs()) > CLOCK_OFFSET_MAX.as_millis() {
                far.push(nearest);
            }
        }
        far.sort_unstable();
        (far.len() * 2 > peers).then(|| far[far.len() / 2])
    }
}

/// Looks at the clocks until the gateway is gone.
pub(crate) async fn watch(gateway: WeakGateway) {
    let mut judge = Judge::default();
    while let Some(gateway) = gateway.upgrade() {
        let (peers, offsets) = offsets(&gateway);
        let offset = judge.look(peers, &offsets).unwrap_or(0);
        let before = gateway.clock_offset_ms().swap(offset, Ordering::Relaxed);
        if (before == 0) != (offset == 0) {
            tracing::warn!(
                offset_ms = offset,
                "the distance of this node's clock to most others"
            );
        }
        drop(gateway);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// How many peers there are, and the clocks of those that are heard.
fn offsets(gateway: &Gateway) -> (usize, Vec<(NodeId, i64)>) {
    let node = gateway.node();
    let catalog = node.catalog();
    let present = catalog.nodes().iter().filter(|peer| !peer.removed);
    let mut peers: Vec<NodeId> = present.map(|peer| peer.id).collect();
    peers.retain(|peer| *peer != node.node_id());
    let heard = peers.iter().filter(|peer| node.peer_reachable(**peer));
    let offsets = heard.filter_map(|peer| Some((*peer, node.peer_clock_offset_ms(*peer)?)));
    (peers.len(), offsets.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges after as many equal looks as are kept.
    fn judged(offsets: &[i64]) -> Option<i64> {
        let peers: Vec<_> = (1..).map(NodeId).zip(offsets.iter().copied()).collect();
        let mut judge = Judge::default();
        for _ in 1..LOOKS_KEPT {
            judge.look(peers.len(), &peers);
        }
        judge.look(peers.len(), &peers)
    }

    #[test]
    fn a_clock_far_from_most_is_noticed() {
        assert_eq!(judged(&[]), None);
        assert_eq!(judged(&[10, -20]), None);
        assert_eq!(judged(&[5_000, 0]), None);
        assert_eq!(judged(&[5_000, 4_000]), Some(5_000));
        assert_eq!(judged(&[-5_000, -4_000, 0]), Some(-4_000));
        assert_eq!(judged(&[499, -499]), None);
    }

    #[test]
    fn late_beats_are_no_offset() {
        let mut judge = Judge::default();
        for delay in [-900, -800, -5, -2_000, -700, -900, -900, -900, -900] {
            assert_eq!(judge.look(1, &[(NodeId(1), delay)]), None);
        }
        assert_eq!(judge.look(1, &[(NodeId(1), 0)]), None);
    }
}
