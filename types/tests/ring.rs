//! The ring's promises: even shares, little movement, zones first, and the same answer for
//! ever.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quorate_types::limits::NODE_WEIGHT_MAX;
use quorate_types::ring::VIRTUAL_NODES_PER_WEIGHT;
use quorate_types::{NodeId, RangeId, Ring, RingNode};

const REPLICATION: u8 = 3;
const RANGES: u64 = 20_000;
const SHARE_TOLERANCE: f64 = 0.15;
const MOVEMENT_FACTOR_MAX: f64 = 1.2;

fn node(id: u64, zone: &str, weight: u32) -> RingNode {
    RingNode {
        id: NodeId(id),
        zone: zone.to_owned(),
        weight,
    }
}

fn one_zone(ids: &BTreeSet<u64>) -> Vec<RingNode> {
    ids.iter().map(|id| node(*id, "a", 1)).collect()
}

/// How often each node is a primary.
fn replicas(ring: &Ring) -> BTreeMap<NodeId, u64> {
    let mut counts: BTreeMap<NodeId, u64> = ring.nodes().iter().map(|node| (node.id, 0)).collect();
    for range in 1..=RANGES {
        for primary in ring.place(RangeId(range), REPLICATION).primaries {
            *counts.get_mut(&primary).unwrap() += 1;
        }
    }
    counts
}

/// Each node's share of replicas, over its weight's share: 1 is even.
fn evenness(ring: &Ring) -> Vec<(NodeId, f64)> {
    let counts = replicas(ring);
    let placed: u64 = counts.values().sum();
    let weight: u32 = ring.nodes().iter().map(|node| node.weight).sum();
    ring.nodes()
        .iter()
        .map(|node| {
            let due = f64::from(node.weight) / f64::from(weight);
            (node.id, counts[&node.id] as f64 / placed as f64 / due)
        })
        .collect()
}

fn check_even(nodes: Vec<RingNode>) {
    for (id, ratio) in evenness(&Ring::new(nodes)) {
        assert!(
            (ratio - 1.0).abs() <= SHARE_TOLERANCE,
            "node {id} has {ratio:.3} of its share"
        );
    }
}

/// Adds a node and checks that replicas moved to it alone, and not too many of them.
fn check_movement(ids: &BTreeSet<u64>, newcomer: u64) {
    let before = Ring::new(one_zone(ids));
    let mut nodes = one_zone(ids);
    nodes.push(node(newcomer, "a", 1));
    let after = Ring::new(nodes);
    let mut moved = 0_u64;
    let mut placed = 0_u64;
    for range in (1..=RANGES).map(RangeId) {
        let old = before.place(range, REPLICATION).primaries;
        let new = after.place(range, REPLICATION).primaries;
        let gained: Vec<_> = new.iter().filter(|id| !old.contains(id)).collect();
        placed += new.len() as u64;
        moved += gained.len() as u64;
        assert!(
            gained.iter().all(|id| id.0 == newcomer),
            "range {range} moved from {old:?} to {new:?}"
        );
    }
    let share = moved as f64 / placed as f64;
    let most = MOVEMENT_FACTOR_MAX / (ids.len() as f64 + 1.0);
    assert!(
        share <= most,
        "{share:.4} of the replicas moved, at most {most:.4}"
    );
    assert!(share > 0.0, "the new node got nothing");
}

fn ids(count: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = BTreeSet<u64>> {
    let id = prop_oneof![1..100_u64, any::<u64>()];
    proptest::collection::btree_set(id, count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ten_nodes_share_evenly(ids in ids(10)) {
        check_even(one_zone(&ids));
    }

    #[test]
    fn a_new_node_takes_only_its_part(ids in ids(3..16), newcomer in any::<u64>()) {
        prop_assume!(!ids.contains(&newcomer));
        check_movement(&ids, newcomer);
    }

    #[test]
    fn a_walk_meets_every_node_once(ids in ids(0..40), point in any::<u64>()) {
        let ring = Ring::new(one_zone(&ids));
        let met: Vec<u64> = ring.walk(point).map(|id| id.0).collect();
        prop_assert_eq!(met.len(), ids.len());
        prop_assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), ids);
    }

    #[test]
    fn a_new_node_only_slips_into_a_walk(ids in ids(1..20), newcomer: u64, point: u64) {
        prop_assume!(!ids.contains(&newcomer));
        let before: Vec<_> = Ring::new(one_zone(&ids)).walk(point).collect();
        let mut nodes = one_zone(&ids);
        nodes.push(node(newcomer, "a", 1));
        let after: Vec<_> = Ring::new(nodes)
            .walk(point)
            .filter(|id| id.0 != newcomer)
            .collect();
        prop_assert_eq!(before, after);
    }

    #[test]
    fn placement_uses_zones_first_and_everyone_once(
        members in proptest::collection::btree_map(any::<u64>(), (0..4_u8, 1..4_u32), 0..12),
        range: u64,
        replication in 0..6_u8,
    ) {
        let nodes: Vec<_> = members
            .iter()
            .map(|(id, (zone, weight))| node(*id, &format!("zone-{zone}"), *weight))
            .collect();
        let zone_of = |id: &NodeId| members[&id.0].0;
        let placement = Ring::new(nodes).place(RangeId(range), replication);
        let wanted = usize::from(replication).min(members.len());
        prop_assert_eq!(placement.primaries.len(), wanted);
        let zones: BTreeSet<_> = members.values().map(|(zone, _)| zone).collect();
        let used: BTreeSet<_> = placement.primaries.iter().map(zone_of).collect();
        prop_assert_eq!(used.len(), zones.len().min(wanted));
        let mut all = placement.primaries;
        all.extend(placement.stand_ins);
        all.sort_unstable();
        let members: Vec<_> = members.keys().map(|id| NodeId(*id)).collect();
        prop_assert_eq!(all, members);
    }
}

#[test]
fn nodes_of_different_weight_share_by_weight() {
    check_even(
        (1..=10)
            .map(|id| node(id, "a", 1 + (id % 2) as u32))
            .collect(),
    );
}

#[test]
fn zones_of_equal_size_share_evenly() {
    check_even(
        (1..=10)
            .map(|id| node(id, &format!("zone-{}", id % 5), 1))
            .collect(),
    );
}

#[test]
fn shares_add_up_and_follow_the_weights() {
    let shares = Ring::new([node(1, "a", 1), node(2, "b", 3)]).shares();
    assert_eq!(shares.len(), 2);
    assert!((shares[0].1 + shares[1].1 - 1.0).abs() < 1e-9);
    assert!(
        (shares[0].1 - 0.25).abs() < 0.25 * SHARE_TOLERANCE,
        "{shares:?}"
    );
}

#[test]
fn a_ring_without_nodes_places_nothing() {
    let ring = Ring::new([node(1, "a", 0)]);
    assert!(ring.nodes().is_empty());
    assert_eq!(ring.walk(7).count(), 0);
    assert!(ring.place(RangeId(7), REPLICATION).primaries.is_empty());
    assert!(ring.shares().is_empty());
}

#[test]
fn weights_are_bounded() {
    let heavy = Ring::new([node(1, "a", u32::MAX), node(2, "a", NODE_WEIGHT_MAX)]);
    let share = heavy.shares()[0].1;
    assert!((share - 0.5).abs() < 0.05, "{share}");
}

#[test]
fn the_order_of_the_nodes_does_not_matter() {
    let forward = Ring::new((1..=5).map(|id| node(id, "a", 1)));
    let backward = Ring::new((1..=5).rev().map(|id| node(id, "a", 1)));
    for range in (1..200).map(RangeId) {
        assert_eq!(forward.place(range, 3), backward.place(range, 3));
    }
}

/// Ranges stay where they were placed only as long as this holds.
#[test]
fn placement_never_changes_between_versions() {
    assert_eq!(VIRTUAL_NODES_PER_WEIGHT, 128);
    let ring = Ring::new((1..=5).map(|id| node(id, ["a", "b", "c"][id as usize % 3], 1)));
    let placed: Vec<Vec<u64>> = (1..=6)
        .map(|range| {
            let placement = ring.place(RangeId(range), REPLICATION);
            let all = placement.primaries.iter().chain(&placement.stand_ins);
            all.map(|id| id.0).collect()
        })
        .collect();
    let golden: [[u64; 5]; 6] = [
        [2, 3, 4, 5, 1],
        [2, 4, 3, 5, 1],
        [4, 5, 3, 2, 1],
        [3, 4, 2, 5, 1],
        [2, 3, 4, 5, 1],
        [1, 3, 5, 2, 4],
    ];
    assert_eq!(placed, golden);
}
