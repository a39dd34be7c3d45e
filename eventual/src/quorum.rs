//! Counting: how many holders a level wants, and which nodes are asked in which order.
//!
//! Pure code over names of nodes; reachability is an argument.

use quorate_types::{Copies, NodeId};
use thiserror::Error;

/// Where a range lives, as one epoch of the catalog has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// Those who hold it.
    pub primaries: Vec<NodeId>,
    /// All others, in the order in which they stand in.
    pub stand_ins: Vec<NodeId>,
    /// Primaries in the zone of this node.
    pub local: usize,
}

/// The level wants more than there is. No effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{wanted} holders are wanted, but the range has {primaries} primaries")]
pub struct TooMany {
    /// What the level says.
    pub wanted: usize,
    /// N of the keyspace.
    pub primaries: usize,
}

impl Holders {
    /// How many holders a level wants.
    ///
    /// # Errors
    /// [`TooMany`], for a number above N.
    pub fn wanted(&self, copies: Copies) -> Result<usize, TooMany> {
        let primaries = self.primaries.len();
        let wanted = match copies {
            Copies::One => 1,
            Copies::Quorum => primaries / 2 + 1,
            // Without a primary in this zone the level is a plain quorum's.
            Copies::LocalQuorum if self.local == 0 => primaries / 2 + 1,
            Copies::LocalQuorum => self.local / 2 + 1,
            Copies::All => primaries,
            Copies::Count(count) => usize::from(count),
        };
        if wanted > primaries {
            return Err(TooMany { wanted, primaries });
        }
        Ok(wanted)
    }

    /// Whether a node holds the range.
    pub fn is_primary(&self, node: NodeId) -> bool {
        self.primaries.contains(&node)
    }

    /// Whether a node is one of the cluster.
    pub fn is_present(&self, node: NodeId) -> bool {
        self.is_primary(node) || self.stand_ins.contains(&node)
    }

    /// Whom a coordinator asks, and in which order: nodes that flap come after those that do not.
    pub fn spread(&self, me: NodeId, reach: impl Fn(NodeId) -> Reach) -> Spread {
        let others = |nodes: &[NodeId]| {
            let others = nodes.iter().copied().filter(|node| *node != me);
            let (mut present, mut flapping, mut away) = (Vec::new(), Vec::new(), Vec::new());
            for node in others {
                match reach(node) {
                    Reach::Steady => present.push(node),
                    Reach::Flapping => flapping.push(node),
                    Reach::Away => away.push(node),
                }
            }
            let count = flapping.len();
            present.append(&mut flapping);
            (present, count, away)
        };
        let (primaries, flapping, missing) = others(&self.primaries);
        let (stand_ins, _, _) = others(&self.stand_ins);
        Spread {
            primaries,
            flapping,
            missing,
            stand_ins,
        }
    }
}

/// What is known of the way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It lives.
    Steady,
    /// It lives now, but has come and gone of late.
    Flapping,
    /// It does not, as far as is known.
    Away,
}

/// Whom a write is sent to, beside its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Reachable primaries, the last `flapping` of which come and go.
    pub primaries: Vec<NodeId>,
    /// So many: a write is sent to them, and to as many stand-ins.
    pub flapping: usize,
    /// Primaries that are not.
    pub missing: Vec<NodeId>,
    /// Reachable stand-ins, in order.
    pub stand_ins: Vec<NodeId>,
}

/// Counts the holders of one write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Primaries that have it.
    pub primaries: Vec<NodeId>,
    /// Stand-ins that keep a hint of it.
    pub stand_ins: Vec<NodeId>,
}

impl Tally {
    /// One more holder; each counts once.
    pub fn add(&mut self, node: NodeId, primary: bool) {
        let list = if primary {
            &mut self.primaries
        } else {
            &mut self.stand_ins
        };
        if !list.contains(&node) {
            list.push(node);
        }
    }

    /// How many count: primaries alone if strict.
    pub fn count(&self, strict: bool) -> usize {
        let stand_ins = if strict { 0 } else { self.stand_ins.len() };
        self.primaries.len() + stand_ins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(local: usize) -> Holders {
        Holders {
            primaries: vec![NodeId(1), NodeId(2), NodeId(3)],
            stand_ins: vec![NodeId(4), NodeId(5)],
            local,
        }
    }

    #[test]
    fn a_level_wants_so_many() {
        let wanted = |copies| holders(1).wanted(copies);
        assert_eq!(wanted(Copies::One), Ok(1));
        assert_eq!(wanted(Copies::Quorum), Ok(2));
        assert_eq!(wanted(Copies::All), Ok(3));
        assert_eq!(wanted(Copies::LocalQuorum), Ok(1));
        assert_eq!(holders(0).wanted(Copies::LocalQuorum), Ok(2));
        let refused = TooMany {
            wanted: 4,
            primaries: 3,
        };
        assert_eq!(wanted(Copies::Count(4)), Err(refused));
        assert!(refused.to_string().contains("3 primaries"));
    }

    #[test]
    fn a_write_goes_to_reachable_primaries_and_stand_ins_in_order() {
        let only = |present: &'static [u64]| {
            move |node: NodeId| match present.contains(&node.0) {
                true => Reach::Steady,
                false => Reach::Away,
            }
        };
        let spread = holders(1).spread(NodeId(1), only(&[2, 4, 5]));
        assert_eq!(spread.primaries, [NodeId(2)]);
        assert_eq!(spread.missing, [NodeId(3)]);
        assert_eq!(spread.stand_ins, [NodeId(4), NodeId(5)]);
        let spread = holders(0).spread(NodeId(4), only(&[5]));
        assert_eq!(spread.primaries, []);
        assert_eq!(spread.missing.len(), 3);
        assert_eq!(spread.stand_ins, [NodeId(5)]);
    }

    #[test]
    fn who_flaps_is_asked_last() {
        let flapping = |node: NodeId| match node.0 {
            2 | 4 => Reach::Flapping,
            _ => Reach::Steady,
        };
        let spread = holders(1).spread(NodeId(1), flapping);
        assert_eq!(spread.primaries, [NodeId(3), NodeId(2)]);
        assert_eq!((spread.flapping, spread.missing.len()), (1, 0));
        assert_eq!(spread.stand_ins, [NodeId(5), NodeId(4)]);
    }

    #[test]
    fn a_holder_counts_once_and_stand_ins_only_if_sloppy() {
        let mut tally = Tally::default();
        tally.add(NodeId(1), true);
        tally.add(NodeId(1), true);
        tally.add(NodeId(4), false);
        assert_eq!((tally.count(true), tally.count(false)), (1, 2));
    }
}
