//! Interval sets against sets of numbers one by one.

use std::collections::BTreeSet;

use quorate_types::causal::{Dots, Intervals};
use quorate_types::{Actor, Dot};

use crate::for_all;
use crate::random::Random;

fn numbers(random: &mut Random) -> BTreeSet<u64> {
    let count = random.below(14);
    (0..count).map(|_| 1 + random.below(16) as u64).collect()
}

fn intervals(random: &mut Random, numbers: &BTreeSet<u64>) -> Intervals {
    let mut order: Vec<u64> = numbers.iter().copied().collect();
    random.shuffle(&mut order);
    let mut set = Intervals::default();
    for number in order {
        assert!(set.insert(number));
        assert!(!set.insert(number));
    }
    set
}

fn members(set: &Intervals) -> BTreeSet<u64> {
    set.ranges()
        .flat_map(|(first, last)| first..=last)
        .collect()
}

#[test]
fn intervals_are_sets() {
    for_all(|random| {
        let (left, right) = (numbers(random), numbers(random));
        let (mine, theirs) = (intervals(random, &left), intervals(random, &right));
        assert_eq!(members(&mine), left);
        assert_eq!(mine.len(), left.len() as u64);
        assert_eq!(mine.top(), left.last().copied().unwrap_or(0));
        assert_eq!(mine.lowest(), left.first().copied());
        assert_eq!(mine.is_empty(), left.is_empty());
        let gapless = (1..).take_while(|number| left.contains(number)).count() as u64;
        assert_eq!(mine.gapless(), gapless);
        for number in 0..18 {
            assert_eq!(mine.contains(number), left.contains(&number));
        }
        let mut union = mine.clone();
        assert_eq!(union.union(&theirs), !right.is_subset(&left));
        // Equal sets have equal forms.
        assert_eq!(union, intervals(random, &(&left | &right)));
        assert_eq!(mine.without(&theirs), intervals(random, &(&left - &right)));
        assert_eq!(mine.common(&theirs), intervals(random, &(&left & &right)));
        let floor = random.below(17) as u64;
        let above: BTreeSet<u64> = left
            .iter()
            .copied()
            .filter(|number| *number > floor)
            .collect();
        assert_eq!(mine.above(floor), intervals(random, &above));
    });
}

#[test]
fn intervals_reach_the_highest_number() {
    let mut set = Intervals::up_to(u64::MAX - 2);
    assert!(set.insert(u64::MAX));
    assert_eq!(set.gapless(), u64::MAX - 2);
    assert!(set.insert(u64::MAX - 1));
    assert_eq!(set, Intervals::up_to(u64::MAX));
    assert!(set.without(&Intervals::up_to(u64::MAX)).is_empty());
    assert_eq!(set.above(u64::MAX - 1).lowest(), Some(u64::MAX));
    assert!(!set.insert(0) && !set.contains(0));
}

fn some_dots(random: &mut Random) -> BTreeSet<Dot> {
    let count = random.below(20);
    let dot = |random: &mut Random| {
        let (disk, start) = (random.below(3) as u64, random.below(2) as u32);
        Dot::new(Actor { disk, start }, 1 + random.below(5) as u64)
    };
    (0..count).map(|_| dot(random)).collect()
}

#[test]
fn sets_of_dots_are_sets() {
    for_all(|random| {
        let (left, right) = (some_dots(random), some_dots(random));
        let (mine, theirs): (Dots, Dots) = (
            left.iter().copied().collect(),
            right.iter().copied().collect(),
        );
        assert_eq!(mine.len(), left.len() as u64);
        assert!(left.iter().all(|dot| mine.contains(*dot)));
        assert!((&right - &left).iter().all(|dot| !mine.contains(*dot)));
        let set = |dots: BTreeSet<Dot>| dots.into_iter().collect::<Dots>();
        let mut union = mine.clone();
        assert_eq!(union.union(&theirs), !right.is_subset(&left));
        assert_eq!(union, set(&left | &right));
        assert_eq!(mine.without(&theirs), set(&left - &right));
        assert_eq!(mine.common(&theirs), set(&left & &right));
    });
}
