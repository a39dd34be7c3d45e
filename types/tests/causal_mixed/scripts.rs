//! The smallest schedules of mistakes that random ones meet too seldom, each told as it
//! should go, and shown to go wrong with the mistake.
//!
//! Not here: the rules (see `primary`).

use quorate_types::causal::{Clock, Delta, Dots};
use quorate_types::{Actor, Dot, Revision, Timestamp};

use crate::course::{Course, Kind, Mistake};
use crate::exact::{DotSet, ExactDelta};
use crate::primary::Primary;
use crate::table::{Closed, Disk, Entry, Message};

const KEY: usize = 0;

/// Primaries, and the log that they apply.
struct Script {
    nodes: Vec<Primary>,
    log: Vec<Entry>,
}

fn dot(disk: u64, counter: u64) -> Dot {
    Dot::new(Actor { disk, start: 1 }, counter)
}

fn write(dot: Dot, value: Option<u64>, seen: &[Dot]) -> Message {
    let context: Dots = seen.iter().copied().collect();
    Message {
        key: KEY,
        exact: ExactDelta {
            dot,
            context: DotSet::new(),
            value,
        },
        real: Delta {
            dot,
            context,
            value: value.map(|value| Kind::Values.payload(value)),
            timestamp: Timestamp(1),
            expiry: None,
        },
    }
}

impl Script {
    fn new(mistake: Option<Mistake>) -> Self {
        let course = Course {
            mistake,
            ..Course::default()
        };
        let nodes = (1..=3).map(|identity| Primary::new(identity, Disk::new(false), course));
        Self {
            nodes: nodes.collect(),
            log: Vec::new(),
        }
    }

    /// All that it has goes into the log.
    fn absorb(&mut self, at: usize) {
        while let Some(absorb) = self.nodes[at].propose() {
            self.log.push(Entry::Absorb(absorb));
            self.catch_up(at);
        }
    }

    /// Applies the log to its end, on disk.
    fn catch_up(&mut self, at: usize) {
        self.apply(at);
        self.nodes[at].flush();
    }

    fn apply(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        for (index, entry) in self.log.iter().enumerate().skip(node.table.index) {
            node.apply(Revision(index as u64 + 2), entry);
        }
    }

    fn trim(&mut self, at: usize) -> Result<(), String> {
        self.nodes[at].remember();
        self.nodes[at].remember();
        self.nodes[at].trim()
    }

    fn exchange(&mut self, from: usize, to: usize) {
        if self.nodes[from].rows.get(&KEY) != self.nodes[to].rows.get(&KEY) {
            let state = (self.nodes[from].view(KEY), self.nodes[from].exact_view(KEY));
            self.nodes[to].join(KEY, &state);
        }
    }

    fn shown(&self, at: usize) -> Vec<Dot> {
        let view = self.nodes[at].view(KEY);
        view.live().map(|(dot, _)| *dot).collect()
    }
}

/// A row begins at the receiver after its key was compared, and before the log's state there
/// has what the sender has no row of any more.
fn begun_in_repair(mistake: Option<Mistake>) -> Vec<Dot> {
    let mut script = Script::new(mistake);
    script.nodes[0].accept(&write(dot(1, 1), Some(1), &[]));
    script.absorb(0);
    script.trim(0).expect("it shows the same");
    assert!(script.nodes[0].rows.is_empty());
    let (base, beginnings) = (script.nodes[0].base(), script.nodes[1].beginnings);
    script.exchange(0, 1);
    script.nodes[1].accept(&write(dot(2, 1), Some(2), &[]));
    script.catch_up(1);
    script.nodes[1].merge(&base, beginnings);
    script.shown(1)
}

#[test]
fn a_row_that_began_in_a_repair_shows_what_the_log_has() {
    assert_eq!(begun_in_repair(None), [dot(1, 1), dot(2, 1)]);
    let lost = begun_in_repair(Some(Mistake::BegunInRepair));
    assert_eq!(lost, [dot(2, 1)], "the first value is lost");
}

/// Two rows are equal, and the sender's clock says more about it: that a value which the log
/// has is dead. The receiver's base must not say in the log that all is known while the log
/// shows that value: no row could ever go. Returns how many rows are left.
fn merged_unsaid(mistake: Option<Mistake>) -> usize {
    let mut script = Script::new(mistake);
    for at in [0, 1] {
        script.nodes[at].accept(&write(dot(1, 1), Some(1), &[]));
        script.nodes[at].accept(&write(dot(1, 2), None, &[dot(1, 1)]));
    }
    for at in [0, 2] {
        script.nodes[at].accept(&write(dot(3, 1), Some(2), &[]));
    }
    script.absorb(2);
    script.nodes[0].accept(&write(dot(1, 3), None, &[dot(3, 1)]));
    script.catch_up(1);
    script.absorb(1);
    let (base, beginnings) = (script.nodes[0].base(), script.nodes[1].beginnings);
    assert_eq!(script.nodes[0].rows[&KEY], script.nodes[1].rows[&KEY]);
    script.exchange(0, 1);
    script.catch_up(1);
    script.nodes[1].merge(&base, beginnings);
    script.absorb(1);
    for at in [0, 1, 2] {
        script.catch_up(at);
        script.trim(at).expect("it shows the same");
        assert_eq!(
            script.shown(at),
            if at == 2 && mistake.is_some() {
                vec![dot(3, 1)]
            } else {
                vec![]
            }
        );
    }
    script.nodes.iter().map(|node| node.rows.len()).sum()
}

#[test]
fn a_merged_clock_goes_into_the_log_with_its_rows() {
    assert_eq!(merged_unsaid(None), 0);
    assert_eq!(merged_unsaid(Some(Mistake::MergedUnsaid)), 2);
}

/// A row knows a delete beyond a gap when the base is remembered, and not of its own any more
/// when the gap has closed.
fn settled_unsaid(mistake: Option<Mistake>) -> usize {
    let mut script = Script::new(mistake);
    let node = &mut script.nodes[0];
    node.accept(&write(dot(2, 2), None, &[]));
    node.remember();
    node.accept(&Message {
        key: KEY + 1,
        ..write(dot(2, 1), None, &[])
    });
    node.remember();
    let _ = node.trim();
    node.rows.len()
}

#[test]
fn a_row_whose_gap_closed_stays_until_the_log_knows_what_it_knew() {
    assert_eq!(settled_unsaid(None), 2);
    assert_eq!(settled_unsaid(Some(Mistake::SettledUnsaid)), 1);
}

/// Equal rows are left out of a repair, and the receiver drops its own before it takes over
/// what the sender's clock says of them.
fn dropped_in_repair(mistake: Option<Mistake>) -> Result<Vec<Dot>, String> {
    let mut script = Script::new(mistake);
    for at in [0, 1] {
        script.nodes[at].accept(&write(dot(1, 1), None, &[]));
    }
    for at in [0, 2] {
        script.nodes[at].accept(&write(dot(3, 1), Some(2), &[]));
    }
    script.absorb(2);
    script.nodes[0].accept(&write(dot(1, 2), None, &[dot(3, 1)]));
    script.catch_up(1);
    script.absorb(1);
    let (base, beginnings) = (script.nodes[0].base(), script.nodes[1].beginnings);
    script.exchange(0, 1);
    if mistake == Some(Mistake::TrimInRepair) {
        script.trim(1)?;
    }
    script.nodes[1].merge(&base, beginnings);
    // The sender's disk is lost: only the receiver can tell of the delete now.
    script.absorb(1);
    Ok(script.shown(1))
}

#[test]
fn a_row_stays_while_it_is_compared() {
    assert_eq!(dropped_in_repair(None), Ok(vec![]));
    let back = dropped_in_repair(Some(Mistake::TrimInRepair));
    assert_eq!(back, Ok(vec![dot(3, 1)]), "the deleted value came back");
}

/// What a primary shows of a key with a value of a start that is closed, and a later one, whose row
/// began before the log's state had the first.
fn shown_once_closed(mistake: Option<Mistake>) -> Vec<Dot> {
    let mut script = absorbed_and_closed(mistake);
    script.nodes[1].accept(&write(dot(1, 1), Some(2), &[]));
    script.catch_up(1);
    script.nodes[1].close_rows();
    script.shown(1)
}

/// A log that has a value, and after it that the value's start is closed.
fn absorbed_and_closed(mistake: Option<Mistake>) -> Script {
    let mut script = Script::new(mistake);
    script.nodes[0].accept(&write(dot(3, 1), Some(1), &[]));
    script.absorb(0);
    let mut closed = Clock::default();
    closed.close(3, 2);
    script.log.push(Entry::Close(Closed {
        real: closed,
        exact: DotSet::new(),
    }));
    script
}

/// A row that has not heard of a value would say with the overlay's clock that it is dead.
#[test]
fn rows_take_in_the_logs_state_before_a_start_is_closed_beside_them() {
    assert_eq!(shown_once_closed(None), [dot(1, 1), dot(3, 1)]);
    let lost = shown_once_closed(Some(Mistake::CloseBesideOldRows));
    assert_eq!(lost, [dot(1, 1)], "the first value is lost");
}

/// The same, where the log's state was not on disk when it was looked at what it has closed, and a
/// crash undid it.
fn shown_once_closed_and_started_again(mistake: Option<Mistake>) -> Vec<Dot> {
    let mut script = absorbed_and_closed(mistake);
    script.apply(1);
    script.nodes[1].close_rows();
    script.nodes[1].restart();
    script.nodes[1].accept(&write(dot(1, 1), Some(2), &[]));
    script.catch_up(1);
    script.nodes[1].close_rows();
    script.shown(1)
}

#[test]
fn a_start_is_closed_beside_rows_once_the_log_has_closed_it_on_disk() {
    let both = [dot(1, 1), dot(3, 1)];
    assert_eq!(shown_once_closed_and_started_again(None), both);
    let lost = shown_once_closed_and_started_again(Some(Mistake::CloseAtOnce));
    assert_eq!(lost, [dot(1, 1)], "the first value is lost");
}

/// A receiver that crashes within a repair forgets what its log's state knew of a key that it
/// made no row of for that reason.
fn shown_after_a_crash_in_a_repair(goes_on: bool) -> Vec<Dot> {
    let mut script = Script::new(None);
    script.nodes[0].accept(&write(dot(1, 1), Some(1), &[]));
    while let Some(absorb) = script.nodes[0].propose() {
        script.log.push(Entry::Absorb(absorb));
        for at in [0, 1] {
            let last = script.log.len();
            script.nodes[at].apply(Revision(last as u64 + 1), &script.log[last - 1]);
        }
    }
    let (base, beginnings) = (script.nodes[0].base(), script.nodes[1].beginnings);
    script.exchange(0, 1);
    assert!(script.nodes[1].rows.is_empty(), "the log's state says it");
    script.nodes[1].restart();
    // Nothing of the log is on either disk: the merge would not even wait.
    if goes_on {
        script.nodes[1].merge(&base, beginnings);
    }
    script.nodes[1].accept(&write(dot(2, 1), Some(2), &[]));
    script.catch_up(1);
    script.shown(1)
}

#[test]
fn a_repair_ends_where_its_receiver_starts_again() {
    let both = [dot(1, 1), dot(2, 1)];
    assert_eq!(shown_after_a_crash_in_a_repair(false), both);
    let lost = shown_after_a_crash_in_a_repair(true);
    assert_eq!(lost, [dot(2, 1)], "the first value is lost");
}
