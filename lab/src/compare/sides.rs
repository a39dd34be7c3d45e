//! Who stands on which side of the cut, as plain values.

use std::collections::BTreeSet;

use super::options::{CutShape, LeaderSide};
use super::sample::Side;
use crate::error::LabError;
use crate::hosts::Cut;
use crate::random::Random;

/// Who decides, when the sides are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// All nodes.
    pub(crate) nodes: Vec<usize>,
    /// Those whose majority decides.
    pub(crate) primaries: Vec<usize>,
    /// The one of them that leads, as far as is known.
    pub(crate) leader: Option<usize>,
}

/// The nodes of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sides {
    pub(crate) majority: Vec<usize>,
    pub(crate) minority: Vec<usize>,
}

impl Sides {
    pub(crate) fn nodes(&self, side: Side) -> &[usize] {
        match side {
            Side::Majority => &self.majority,
            Side::Minority => &self.minority,
        }
    }

    /// Nobody of one side hears anybody of the other.
    pub(crate) fn cuts(&self) -> BTreeSet<Cut> {
        let pairs = self.majority.iter().flat_map(|one| {
            let others = self.minority.iter();
            others.map(move |other| (*one, *other))
        });
        let both_ways = |(a, b)| [Cut { from: a, to: b }, Cut { from: b, to: a }];
        pairs.flat_map(both_ways).collect()
    }
}

/// Chooses the sides: the smaller one has as many primaries as do not make a majority, and nodes
/// beside them where there are any.
///
/// # Errors
///
/// Neither side would have a majority.
pub(crate) fn choose(
    standing: &Standing,
    shape: CutShape,
    leader_side: LeaderSide,
    random: &mut Random,
) -> Result<Sides, LabError> {
    let primaries = &standing.primaries;
    let small = match shape {
        CutShape::Halves => standing.nodes.len() / 2,
        CutShape::Leader => 1,
    };
    let wants_leader = shape == CutShape::Leader || leader_side == LeaderSide::Minority;
    let minority_most = primaries.len().saturating_sub(1) / 2;
    let mut order = random.shuffled(primaries.clone());
    // The first ones come to the minority.
    order.sort_by_key(|node| (Some(*node) == standing.leader) != wants_leader);
    let beside = standing.nodes.iter().copied();
    let beside: Vec<usize> = beside.filter(|node| !primaries.contains(node)).collect();
    let (few, rest) = order.split_at(minority_most.min(small));
    let mut minority = few.to_vec();
    minority.extend(
        random
            .shuffled(beside)
            .into_iter()
            .chain(rest.iter().copied()),
    );
    minority.truncate(small);
    minority.sort_unstable();
    let others = standing.nodes.iter().copied();
    let majority: Vec<usize> = others.filter(|node| !minority.contains(node)).collect();
    let deciding = primaries.iter().filter(|node| majority.contains(node));
    if 2 * deciding.count() <= primaries.len() {
        let what = format!(
            "cut in halves, neither side of {} nodes with {} replicas has a majority",
            standing.nodes.len(),
            primaries.len()
        );
        return Err(LabError::refused(
            what,
            "take an odd number, as in --nodes 5",
        ));
    }
    Ok(Sides { majority, minority })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn standing(nodes: usize, primaries: &[usize], leader: usize) -> Standing {
        Standing {
            nodes: (1..=nodes).collect(),
            primaries: primaries.to_vec(),
            leader: Some(leader),
        }
    }

    fn sides(standing: &Standing, leader_side: LeaderSide, seed: u64) -> Sides {
        let mut random = Random::of(seed, 0);
        choose(standing, CutShape::Halves, leader_side, &mut random).unwrap()
    }

    #[test]
    fn the_smaller_side_has_a_minority_of_primaries_and_a_node_that_can_stand_in() {
        let standing = standing(5, &[1, 3, 5], 3);
        for seed in 0..20 {
            let sides = sides(&standing, LeaderSide::Minority, seed);
            assert_eq!((sides.majority.len(), sides.minority.len()), (3, 2));
            let primaries = |nodes: &[usize]| nodes.iter().filter(|node| *node % 2 == 1).count();
            assert_eq!(primaries(&sides.minority), 1, "{sides:?}");
            assert!(sides.minority.contains(&3), "{sides:?}");
            assert_eq!(sides.cuts().len(), 12);
        }
    }

    #[test]
    fn the_leader_is_where_it_is_wanted() {
        let standing = standing(5, &[1, 2, 3, 4, 5], 2);
        for seed in 0..20 {
            let with_few = sides(&standing, LeaderSide::Minority, seed);
            assert!(with_few.minority.contains(&2), "{with_few:?}");
            let with_many = sides(&standing, LeaderSide::Majority, seed);
            assert!(with_many.majority.contains(&2), "{with_many:?}");
            assert_eq!(with_many.minority.len(), 2);
        }
        let random = &mut Random::of(1, 0);
        let alone = choose(&standing, CutShape::Leader, LeaderSide::Majority, random).unwrap();
        assert_eq!(alone.minority, [2]);
    }

    #[test]
    fn a_cut_that_leaves_no_majority_is_refused() {
        let random = &mut Random::of(1, 0);
        let even = standing(4, &[1, 2, 3, 4], 1);
        assert!(choose(&even, CutShape::Halves, LeaderSide::Minority, random).is_err());
        let three = standing(4, &[1, 2, 3], 1);
        assert!(choose(&three, CutShape::Halves, LeaderSide::Minority, random).is_ok());
    }
}
