//! What a node expects of a range's holders, by what it has seen of them lately.
//!
//! How stale an eventual read may be is estimated as in "Probabilistically Bounded Staleness for
//! Practical Partial Quorums" (Bailis et al., VLDB 2012, section 5: the WARS model): writes and
//! reads are drawn from the latencies that were measured, and it is counted how often a read is
//! answered by nobody who has the write. Not here: what a level makes of it.

use std::time::Duration;

use quorate_types::{NodeId, RangeId};

use crate::error::EventualError;
use crate::node::{EventualNode, Inner};
use crate::quorum::Holders;

/// Writes that are drawn for one estimate.
const DRAWS: u32 = 2_000;
/// Measurements without which nothing is estimated.
const SAMPLES_MIN: usize = 16;

/// What is known of one holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HolderOutlook {
    /// Who.
    pub node: NodeId,
    /// It holds the range; else it stands in.
    pub is_primary: bool,
    /// It was heard lately; always so of this node.
    pub reachable: bool,
    /// How long its last answers to reads took; none of this node.
    pub reads: Vec<Duration>,
    /// How long its last acknowledgements of copies took; none of this node.
    pub copies: Vec<Duration>,
}

impl EventualNode {
    /// The holders of a range: its primaries, then its stand-ins in order.
    ///
    /// # Errors
    /// [`EventualError`] where the catalog has no such range with an eventual plane.
    pub fn outlook(&self, range: RangeId) -> Result<Vec<HolderOutlook>, EventualError> {
        let inner = &self.inner;
        Ok(inner.outlook(&inner.place(range)?.holders))
    }
}

impl Inner {
    /// As [`EventualNode::outlook`].
    pub(crate) fn outlook(&self, holders: &Holders) -> Vec<HolderOutlook> {
        let all = holders.primaries.iter().map(|node| (*node, true));
        let all = all.chain(holders.stand_ins.iter().map(|node| (*node, false)));
        let holders = all.map(|(node, is_primary)| HolderOutlook {
            node,
            is_primary,
            reachable: node == self.node || self.peers.reachable(node),
            reads: self.latencies.recent(node),
            copies: self.copy_latencies.recent(node),
        });
        holders.collect()
    }
}

/// An estimate of how long after a write was acknowledged with one copy 999 of 1,000 reads of
/// `reads` holders through `me` see it, whichever primary took it in. `None`: too little is known,
/// or a primary is away that a read may be answered by later.
pub fn visible_after(me: NodeId, holders: &[HolderOutlook], reads: usize) -> Option<Duration> {
    let primaries: Vec<&HolderOutlook> = holders.iter().filter(|one| one.is_primary).collect();
    if primaries.iter().any(|one| !one.reachable) || reads == 0 {
        return None;
    }
    if reads >= primaries.len() {
        return Some(Duration::ZERO);
    }
    // What this node sees of others, others see of each other.
    let copies: Vec<Duration> = primaries
        .iter()
        .flat_map(|one| &one.copies)
        .copied()
        .collect();
    let others = primaries.iter().filter(|one| one.node != me);
    let is_known = others
        .clone()
        .all(|one| one.reads.len() >= SAMPLES_MIN || reads == 1);
    if copies.len() < SAMPLES_MIN || !is_known {
        return None;
    }
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut waits: Vec<Duration> = (0..DRAWS)
        .map(|_| one_write(me, &primaries, &copies, reads, &mut draw))
        .collect();
    waits.sort_unstable();
    waits.get(waits.len() * 999 / 1_000).copied()
}

/// How long a read must wait after one write's acknowledgement to see it.
fn one_write(
    me: NodeId,
    primaries: &[&HolderOutlook],
    copies: &[Duration],
    reads: usize,
    draw: &mut Draw,
) -> Duration {
    let writer = draw.below(primaries.len());
    // Of each primary, when it answers a read, and when it had the write: half of what a message
    // and its answer take, for either.
    let mut answers: Vec<(Duration, Duration)> = primaries
        .iter()
        .enumerate()
        .map(|(at, one)| {
            let arrived = match at == writer {
                true => Duration::ZERO,
                false => copies[draw.below(copies.len())] / 2,
            };
            let answered = match one.reads.is_empty() || one.node == me {
                true => Duration::ZERO,
                false => one.reads[draw.below(one.reads.len())],
            };
            (answered, arrived)
        })
        .collect();
    answers.sort_unstable();
    let seen = answers.iter().take(reads);
    let needed = seen.map(|(answered, arrived)| arrived.saturating_sub(*answered / 2));
    needed.min().unwrap_or_default()
}

/// Numbers that look drawn and are the same each time (xorshift, Marsaglia 2003).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    fn holders(copies_millis: u64) -> Vec<HolderOutlook> {
        let holder = |node| HolderOutlook {
            node: NodeId(node),
            is_primary: node <= 3,
            reachable: true,
            reads: vec![Duration::from_millis(1); if node == 1 { 0 } else { 20 }],
            copies: vec![Duration::from_millis(copies_millis); if node == 1 { 0 } else { 20 }],
        };
        (1..=4).map(holder).collect()
    }

    #[test]
    fn a_read_of_one_waits_for_the_copy_and_a_read_of_all_for_nothing() {
        let late = visible_after(ME, &holders(40), 1);
        assert_eq!(late, Some(Duration::from_millis(20)));
        assert!(visible_after(ME, &holders(2), 1) < late);
        // Of two, one is asked over the wire meanwhile.
        assert!(visible_after(ME, &holders(40), 2) < late);
        assert_eq!(visible_after(ME, &holders(40), 3), Some(Duration::ZERO));
    }

    #[test]
    fn nothing_is_estimated_of_who_is_away_or_unknown() {
        let mut away = holders(2);
        away[2].reachable = false;
        assert_eq!(visible_after(ME, &away, 1), None);
        let mut unknown = holders(2);
        for holder in &mut unknown {
            holder.copies.clear();
        }
        assert_eq!(visible_after(ME, &unknown, 1), None);
    }
}
