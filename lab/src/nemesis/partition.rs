//! Who no longer hears whom, as plain values.
//!
//! After Jepsen's grudges: halves, a ring in which each node sees a majority, a bridge.

use std::collections::BTreeSet;

use crate::hosts::Cut;
use crate::random::Random;

/// Cuts of a partition, and what it is in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) cuts: BTreeSet<Cut>,
    pub(super) what: String,
}

fn both_ways(a: usize, b: usize) -> [Cut; 2] {
    [Cut { from: a, to: b }, Cut { from: b, to: a }]
}

/// Nobody of one side hears anybody of the other.
fn between(one: &[usize], other: &[usize]) -> BTreeSet<Cut> {
    let pairs = one.iter().flat_map(|a| other.iter().map(|b| (*a, *b)));
    pairs.flat_map(|(a, b)| both_ways(a, b)).collect()
}

fn words(nodes: &[usize]) -> String {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    let words: Vec<String> = nodes.iter().map(usize::to_string).collect();
    words.join(" ")
}

/// Two sides, the first of so many nodes.
pub(super) fn sides(nodes: Vec<usize>, first: usize, random: &mut Random) -> Partition {
    let nodes = random.shuffled(nodes);
    let (one, other) = nodes.split_at(first);
    Partition {
        cuts: between(one, other),
        what: format!("{} | {}", words(one), words(other)),
    }
}

/// One node apart from all others.
pub(super) fn alone(nodes: &[usize], node: usize) -> Partition {
    let others: Vec<usize> = nodes.iter().copied().filter(|id| *id != node).collect();
    Partition {
        cuts: between(&[node], &others),
        what: format!("{node} | {}", words(&others)),
    }
}

/// Each node hears its neighbours on a ring, a majority with itself; no two hear the same ones.
pub(super) fn majority_ring(nodes: Vec<usize>, random: &mut Random) -> Partition {
    let ring = random.shuffled(nodes);
    let count = ring.len();
    let reach = (count / 2).div_ceil(2);
    let mut cuts = BTreeSet::new();
    for (place, node) in ring.iter().enumerate() {
        for (other_place, other) in ring.iter().enumerate() {
            let step = place.abs_diff(other_place);
            if step.min(count - step) > reach {
                cuts.extend(both_ways(*node, *other));
            }
        }
    }
    let what = ring.iter().map(usize::to_string).collect::<Vec<_>>();
    let what = format!("ring {}", what.join("-"));
    Partition { cuts, what }
}

/// Two sides, and one node that hears both.
pub(super) fn bridge(nodes: Vec<usize>, random: &mut Random) -> Partition {
    let nodes = random.shuffled(nodes);
    let (middle, rest) = nodes.split_at(1);
    let (one, other) = rest.split_at(rest.len() / 2);
    Partition {
        cuts: between(one, other),
        what: format!(
            "{} | {} with {} between",
            words(one),
            words(other),
            words(middle)
        ),
    }
}

/// One node is heard by nobody, or hears nobody.
pub(super) fn one_way(nodes: Vec<usize>, random: &mut Random) -> Partition {
    let node = *random.pick(&nodes);
    let others = nodes.into_iter().filter(|id| *id != node);
    if random.percent(50) {
        Partition {
            cuts: others.map(|to| Cut { from: node, to }).collect(),
            what: format!("{node} is not heard"),
        }
    } else {
        Partition {
            cuts: others.map(|from| Cut { from, to: node }).collect(),
            what: format!("{node} does not hear"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(partition: &Partition, nodes: usize, node: usize) -> usize {
        let heard = |from: &usize| {
            *from == node
                || !partition.cuts.contains(&Cut {
                    from: *from,
                    to: node,
                })
        };
        (1..=nodes).filter(heard).count()
    }

    #[test]
    fn on_a_ring_each_hears_a_majority_and_not_all() {
        for seed in 0..20 {
            for nodes in [4, 5, 7, 9] {
                let mut random = Random::of(seed, 0);
                let partition = majority_ring((1..=nodes).collect(), &mut random);
                for node in 1..=nodes {
                    let heard = hears(&partition, nodes, node);
                    assert!(heard > nodes / 2 && heard < nodes, "{nodes}: {heard}");
                }
            }
        }
    }

    #[test]
    fn across_a_bridge_only_one_hears_all() {
        let partition = bridge((1..=5).collect(), &mut Random::of(1, 0));
        let all = (1..=5).filter(|node| hears(&partition, 5, *node) == 5);
        assert_eq!(all.count(), 1);
    }

    #[test]
    fn sides_do_not_hear_each_other() {
        let partition = sides((1..=5).collect(), 2, &mut Random::of(1, 0));
        assert_eq!(partition.cuts.len(), 12);
        assert_eq!(alone(&[1, 2, 3], 2).cuts.len(), 4);
    }

    #[test]
    fn one_way_is_one_way() {
        for seed in 0..10 {
            let partition = one_way(vec![1, 2, 3], &mut Random::of(seed, 0));
            let back = |cut: &&Cut| {
                partition.cuts.contains(&Cut {
                    from: cut.to,
                    to: cut.from,
                })
            };
            assert_eq!(partition.cuts.len(), 2);
            assert_eq!(partition.cuts.iter().filter(back).count(), 0);
        }
    }
}
