//! Transactions against all serial orders.

use std::collections::BTreeMap;

use quorate_jepsen::history::Outcome;
use quorate_jepsen::value::Value;
use quorate_jepsen::{Budget, Model, Options, Verdict, check};

use crate::dice::Dice;
use crate::recording::{Slot, operations, schedule};

const KEYS: u64 = 3;

/// A step: what a read saw is the list of all values that the key had, in order; a register shows
/// the last of them.
#[derive(Clone, Debug)]
enum Step {
    Read(u64, Vec<i64>),
    Write(u64, i64),
}

type State = BTreeMap<u64, Vec<i64>>;

/// What a transaction is held to, besides some serial order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Any,
    Session,
    Time,
}

fn plan(dice: &mut Dice, count: usize) -> Vec<Vec<Step>> {
    let mut next = 0;
    let mut steps = |dice: &mut Dice| {
        let key = dice.roll(KEYS);
        if dice.percent(50) {
            return Step::Read(key, Vec::new());
        }
        next += 1;
        Step::Write(key, next)
    };
    (0..count)
        .map(|_| (0..1 + dice.roll(3)).map(|_| steps(dice)).collect())
        .collect()
}

fn apply(state: &mut State, steps: &[Step]) {
    for step in steps {
        if let Step::Write(key, value) = step {
            state.entry(*key).or_default().push(*value);
        }
    }
}

/// Fills in what a snapshot shows, and what the transaction itself wrote by then.
fn fill(state: &State, steps: &mut [Step]) {
    let mut own = state.clone();
    for step in steps {
        match step {
            Step::Read(key, seen) => *seen = own.get(key).cloned().unwrap_or_default(),
            Step::Write(key, value) => own.entry(*key).or_default().push(*value),
        }
    }
}

/// A store that commits in the order of the effects. Reads come from a snapshot of some commits
/// ago, mostly the last; now and then single reads come from anywhere.
fn play(dice: &mut Dice, slots: &[Slot], transactions: &mut [Vec<Step>]) {
    let mut order: Vec<usize> = (0..slots.len()).collect();
    order.sort_by_key(|slot| slots[*slot].effect);
    let mut history: Vec<State> = vec![State::new()];
    let stale = dice.percent(50);
    let dirty = dice.percent(10);
    for slot in order {
        let back = if stale { dice.roll(3) as usize } else { 0 };
        let at = history.len() - 1 - back.min(history.len() - 1);
        fill(&history[at], &mut transactions[slot]);
        let lost = slots[slot].outcome == Outcome::Unknown && dice.percent(40);
        let gone = slots[slot].outcome == Outcome::Fail && !dirty;
        if !lost && !gone {
            let mut state = history[history.len() - 1].clone();
            apply(&mut state, &transactions[slot]);
            history.push(state);
        }
    }
    if dice.percent(30) {
        disturb(dice, &history, transactions);
    }
}

/// Lets one read see what the key was at another time.
fn disturb(dice: &mut Dice, history: &[State], transactions: &mut [Vec<Step>]) {
    let transaction = dice.index(transactions);
    let at = dice.index(history);
    let step = dice.index(&transactions[transaction]);
    if let Step::Read(key, seen) = &mut transactions[transaction][step] {
        *seen = history[at].get(key).cloned().unwrap_or_default();
    }
}

struct Game<'a> {
    slots: &'a [Slot],
    transactions: &'a [Vec<Step>],
    lists: bool,
    order: Order,
}

impl Game<'_> {
    fn fits(&self, state: &State, slot: usize) -> bool {
        if self.slots[slot].outcome != Outcome::Ok {
            return true;
        }
        let mut filled = self.transactions[slot].clone();
        fill(state, &mut filled);
        filled
            .iter()
            .zip(&self.transactions[slot])
            .all(|pair| match pair {
                (Step::Read(_, expected), Step::Read(_, seen)) if self.lists => expected == seen,
                (Step::Read(_, expected), Step::Read(_, seen)) => expected.last() == seen.last(),
                _ => true,
            })
    }

    fn precedes(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.slots[one], &self.slots[other]);
        match self.order {
            Order::Any => false,
            Order::Session => one.process == other.process && one.invoked < other.invoked,
            Order::Time => one.returned() < other.invoked,
        }
    }

    fn has_order(&self, done: &mut Vec<bool>, state: &State) -> bool {
        let slots = 0..self.slots.len();
        let open =
            |done: &[bool], slot: usize| !done[slot] && self.slots[slot].outcome != Outcome::Fail;
        let must = |slot: usize| self.slots[slot].outcome == Outcome::Ok;
        if slots.clone().all(|slot| !open(done, slot) || !must(slot)) {
            return true;
        }
        slots.clone().any(|slot| {
            let blocked = slots.clone().any(|other| {
                other != slot && open(done, other) && must(other) && self.precedes(other, slot)
            });
            if !open(done, slot) || blocked || !self.fits(state, slot) {
                return false;
            }
            let mut next = state.clone();
            apply(&mut next, &self.transactions[slot]);
            done[slot] = true;
            let found = self.has_order(done, &next);
            done[slot] = false;
            found
        })
    }
}

fn values(steps: &[Step], lists: bool, answered: bool) -> Value {
    let parts: Vec<Value> = steps
        .iter()
        .map(|step| match step {
            Step::Write(key, value) => {
                let name = if lists { "append" } else { "w" };
                Value::list([
                    Value::text(name),
                    Value::Int(*key as i64),
                    Value::Int(*value),
                ])
            }
            Step::Read(key, seen) => {
                let mut ints = seen.iter().copied().map(Value::Int);
                let value = match (answered, lists) {
                    (false, _) => Value::Nil,
                    (true, true) => Value::list(ints.collect::<Vec<_>>()),
                    (true, false) => ints.next_back().unwrap_or_default(),
                };
                Value::list([Value::text("r"), Value::Int(*key as i64), value])
            }
        })
        .collect();
    Value::list(parts)
}

fn agree(seed: u64, lists: bool) -> bool {
    let mut dice = Dice::new(seed);
    let count = 2 + dice.roll(5) as usize;
    let slots = schedule(&mut dice, count);
    let mut transactions = plan(&mut dice, count);
    play(&mut dice, &slots, &mut transactions);
    let what: Vec<(&str, Value, Value)> = transactions
        .iter()
        .map(|steps| {
            (
                "txn",
                values(steps, lists, false),
                values(steps, lists, true),
            )
        })
        .collect();
    let operations = operations(&slots, &what);
    let model = if lists {
        Model::ListAppend
    } else {
        Model::RwRegister
    };
    let mut valid = true;
    for (order, name) in [
        (Order::Any, "serializable"),
        (Order::Session, "strong-session-serializable"),
        (Order::Time, "strict-serializable"),
    ] {
        let options = Options {
            consistency: Some(name.to_owned()),
            ..Options::default()
        };
        let told = operations.clone().into_iter().map(Ok);
        let report = check(told, model, &options, &mut Budget::unbounded())
            .expect("a history of transactions");
        let game = Game {
            slots: &slots,
            transactions: &transactions,
            lists,
            order,
        };
        let expected = game.has_order(&mut vec![false; count], &State::new());
        assert_eq!(
            report.verdict == Verdict::Valid,
            expected,
            "seed {seed}, {model}, {name}\n{slots:#?}\n{transactions:#?}\n{}",
            report.to_text(name)
        );
        assert_ne!(report.verdict, Verdict::Unknown, "seed {seed}");
        valid &= expected;
    }
    valid
}

fn all_agree(lists: bool) {
    let seeds = crate::seeds();
    let count = seeds.end - seeds.start;
    let valid = seeds.filter(|seed| agree(*seed, lists)).count() as u64;
    assert!(
        count < 100 || (valid > count / 10 && valid < count * 9 / 10),
        "{valid} of {count}"
    );
}

#[test]
fn lists_agree_with_all_serial_orders() {
    all_agree(true);
}

#[test]
fn transactions_of_registers_agree_with_all_serial_orders() {
    all_agree(false);
}
