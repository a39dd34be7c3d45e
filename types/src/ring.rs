//! The consistent-hash ring: which nodes hold a range, and who stands in for them.
//!
//! Pure code over a set of nodes; the catalog decides when its answer is acted on.
//!
//! Each node owns [`VIRTUAL_NODES_PER_WEIGHT`] tokens per unit of weight, at hashed places.
//! A walk from a single point would leave a node's share to the luck of the gaps before its
//! tokens: over 300 rings of ten nodes and three replicas, shares had a standard deviation of
//! 5.2 %, the worst was 20 % off. More tokens would cost memory, and tokens moved to even out
//! the gaps would move again with every change of membership. So a walk starts from
//! [`WALK_PROBES`] points at the same time and takes next whichever token is nearest ahead of
//! its point (multi-probe consistent hashing, Appleton and O'Reilly 2015, applied to virtual
//! nodes): the distances that decide become short against the gaps, and the share follows the
//! number of tokens (1.7 %, the worst 6.4 %). A node's distance depends on its own tokens
//! alone, so a new node only slips into each walk's order, and the others keep theirs.
//!
//! Limits of the even shares: a range's primaries are distinct, so a node much heavier than
//! the others gets less than its weight; and where zones are of unequal size, spreading over
//! zones comes before even shares.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{NodeId, RangeId};
use crate::limits::NODE_WEIGHT_MAX;
use crate::stable_hash::{GOLDEN_STEP, mix, stable_hash};

/// Tokens of a node per unit of its weight.
pub const VIRTUAL_NODES_PER_WEIGHT: u32 = 128;

/// Points that a walk starts from at the same time.
pub const WALK_PROBES: usize = 8;

/// Walks that [`Ring::shares`] counts.
const SHARE_SAMPLES: u32 = 16_384;

/// A node as the ring knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingNode {
    /// Who.
    pub id: NodeId,
    /// The failure domain that it shares with others.
    pub zone: String,
    /// Its capacity in relation to the others'. Zero takes it off the ring; more than
    /// [`NODE_WEIGHT_MAX`] counts as that.
    pub weight: u32,
}

/// Where a range lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The nodes that hold it, in order; fewer than asked for if there are not so many.
    pub primaries: Vec<NodeId>,
    /// All other nodes, in the order in which they stand in.
    pub stand_ins: Vec<NodeId>,
}

/// A place on the ring, and the node (by its index) whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Token {
    position: u64,
    node: usize,
}

/// The ring over a set of nodes. Equal sets give equal rings, whatever the order.
#[derive(Clone, Debug)]
pub struct Ring {
    /// By id; of two with the same id the later one counts.
    nodes: Vec<RingNode>,
    /// By position.
    tokens: Vec<Token>,
}

impl Ring {
    /// The ring of these nodes.
    pub fn new(nodes: impl IntoIterator<Item = RingNode>) -> Self {
        let by_id: BTreeMap<NodeId, RingNode> =
            nodes.into_iter().map(|node| (node.id, node)).collect();
        let nodes: Vec<RingNode> = by_id.into_values().filter(|node| node.weight > 0).collect();
        let mut tokens: Vec<Token> = nodes
            .iter()
            .enumerate()
            .flat_map(|(index, node)| tokens_of(index, node))
            .collect();
        tokens.sort_unstable();
        Self { nodes, tokens }
    }

    /// The nodes on the ring, by id; those of weight zero are not on it.
    pub fn nodes(&self) -> &[RingNode] {
        &self.nodes
    }

    /// All nodes, each once, in the order in which a walk from `point` meets them.
    pub fn walk(&self, point: u64) -> impl Iterator<Item = NodeId> + '_ {
        self.walk_indexes(point).map(|index| self.nodes[index].id)
    }

    /// Where a range lives: primaries from as many zones as there are, or as are needed, and
    /// otherwise in the walk's order; after them the stand-ins in the walk's order.
    pub fn place(&self, range: RangeId, replication: u8) -> Placement {
        let wanted = usize::from(replication);
        let walk: Vec<usize> = self.walk_indexes(point_of(range)).collect();
        let mut zones = BTreeSet::new();
        let (mut primaries, others): (Vec<usize>, Vec<usize>) = walk
            .into_iter()
            .partition(|index| zones.len() < wanted && zones.insert(&self.nodes[*index].zone));
        let more = others.len().min(wanted - primaries.len());
        primaries.extend(&others[..more]);
        let ids = |indexes: &[usize]| indexes.iter().map(|index| self.nodes[*index].id).collect();
        Placement {
            primaries: ids(&primaries),
            stand_ins: ids(&others[more..]),
        }
    }

    /// Each node's part of all first places, by id; together 1. Counted over a fixed sample
    /// of walks, so about 1 % of the whole beside the truth at worst.
    pub fn shares(&self) -> Vec<(NodeId, f64)> {
        let mut firsts = vec![0_u32; self.nodes.len()];
        for sample in 0..SHARE_SAMPLES {
            if let Some(first) = self.walk_indexes(mix(u64::from(sample))).next() {
                firsts[first] += 1;
            }
        }
        self.nodes
            .iter()
            .zip(firsts)
            .map(|(node, count)| (node.id, f64::from(count) / f64::from(SHARE_SAMPLES)))
            .collect()
    }

    fn walk_indexes(&self, point: u64) -> Walk<'_> {
        Walk::new(self, point)
    }
}

/// The point of the ring at which a range's walk starts.
fn point_of(range: RangeId) -> u64 {
    stable_hash(&range.0.to_be_bytes())
}

/// A node's tokens: each at the hash of its id and the token's number.
fn tokens_of(index: usize, node: &RingNode) -> impl Iterator<Item = Token> {
    let count = node.weight.min(NODE_WEIGHT_MAX) * VIRTUAL_NODES_PER_WEIGHT;
    let id = node.id.0.to_be_bytes();
    (0..count).map(move |number| {
        let mut name = [0; 12];
        name[..8].copy_from_slice(&id);
        name[8..].copy_from_slice(&number.to_be_bytes());
        Token {
            position: stable_hash(&name),
            node: index,
        }
    })
}

/// One of a walk's starting points, and how far it has come.
#[derive(Clone, Copy, Debug)]
struct Probe {
    point: u64,
    /// Index of the next token ahead.
    next: usize,
    /// Tokens not yet passed.
    left: usize,
}

/// A walk under way: nodes by their distance from the nearest probe behind them.
struct Walk<'a> {
    ring: &'a Ring,
    probes: [Probe; WALK_PROBES],
    seen: Vec<bool>,
    unseen: usize,
}

impl<'a> Walk<'a> {
    fn new(ring: &'a Ring, point: u64) -> Self {
        let probes = std::array::from_fn(|number| {
            let step = GOLDEN_STEP.wrapping_mul(number as u64);
            let point = mix(point.wrapping_add(step));
            Probe {
                point,
                next: ring.tokens.partition_point(|token| token.position < point),
                left: ring.tokens.len(),
            }
        });
        Self {
            ring,
            probes,
            seen: vec![false; ring.nodes.len()],
            unseen: ring.nodes.len(),
        }
    }

    /// The token nearest ahead of any probe, and that probe moved past it. Equal distances
    /// go to the lower node id, so that they do not depend on who else is there.
    fn step(&mut self) -> Option<Token> {
        let tokens = &self.ring.tokens;
        let ahead = |probe: &Probe| tokens[probe.next % tokens.len()];
        let nearest = self
            .probes
            .iter_mut()
            .filter(|probe| probe.left > 0)
            .min_by_key(|probe| {
                let token = ahead(probe);
                (token.position.wrapping_sub(probe.point), token.node)
            })?;
        let token = ahead(nearest);
        nearest.next += 1;
        nearest.left -= 1;
        Some(token)
    }
}

impl Iterator for Walk<'_> {
    type Item = usize;

    /// The next node, by its index.
    fn next(&mut self) -> Option<usize> {
        if self.unseen == 0 {
            return None;
        }
        loop {
            let node = self.step()?.node;
            if !std::mem::replace(&mut self.seen[node], true) {
                self.unseen -= 1;
                return Some(node);
            }
        }
    }
}
