//! Registers against all linearizations.

use quorate_jepsen::history::Outcome;
use quorate_jepsen::value::Value;
use quorate_jepsen::{Budget, Model, Options, Verdict, check};

use crate::dice::Dice;
use crate::recording::{Slot, operations, schedule};

/// What a call does; reads say what they saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Read(Option<i64>),
    Write(i64),
    Cas(i64, i64),
}

fn step(state: Option<i64>, call: Call) -> Option<Option<i64>> {
    match call {
        Call::Read(seen) => (seen == state).then_some(state),
        Call::Write(value) => Some(Some(value)),
        Call::Cas(old, new) => (state == Some(old)).then_some(Some(new)),
    }
}

/// Calls as a real register would have answered them, now and then with a wrong read.
fn play(dice: &mut Dice, slots: &mut [Slot], unique: bool) -> Vec<Call> {
    let values = 3;
    let mut calls: Vec<Call> = (0..slots.len())
        .map(|number| match dice.roll(if unique { 2 } else { 3 }) {
            0 => Call::Read(None),
            1 if unique => Call::Write(number as i64 + 10),
            1 => Call::Write(dice.roll(values) as i64),
            _ => Call::Cas(dice.roll(values) as i64, dice.roll(values) as i64),
        })
        .collect();
    let mut order: Vec<usize> = (0..slots.len()).collect();
    order.sort_by_key(|slot| slots[*slot].effect);
    let mut state = None;
    for slot in order {
        let lost = slots[slot].outcome == Outcome::Unknown && dice.percent(40);
        if slots[slot].outcome == Outcome::Fail || lost {
            continue;
        }
        if let Call::Read(seen) = &mut calls[slot] {
            *seen = match dice.roll(100) {
                0..15 if unique => Some(10 + dice.roll(7) as i64),
                0..15 => Some(dice.roll(values) as i64),
                15..18 => None,
                _ => state,
            };
        }
        match step(state, calls[slot]) {
            Some(next) => state = next,
            // A client that never hears does not learn that it failed.
            None if matches!(calls[slot], Call::Cas(..)) && slots[slot].completed.is_some() => {
                slots[slot].outcome = Outcome::Fail;
            }
            None => {}
        }
    }
    calls
}

/// Tries all orders.
fn is_linearizable(
    slots: &[Slot],
    calls: &[Call],
    done: &mut Vec<bool>,
    state: Option<i64>,
) -> bool {
    let open = |done: &[bool], slot: usize| !done[slot] && slots[slot].outcome != Outcome::Fail;
    let must = |slot: usize| slots[slot].outcome == Outcome::Ok;
    if (0..slots.len()).all(|slot| !open(done, slot) || !must(slot)) {
        return true;
    }
    (0..slots.len()).any(|slot| {
        let blocked = (0..slots.len()).any(|other| {
            open(done, other) && must(other) && slots[other].returned() < slots[slot].invoked
        });
        if !open(done, slot) || blocked {
            return false;
        }
        // What nobody heard of a read says nothing.
        let unheard = matches!(calls[slot], Call::Read(_)) && !must(slot);
        let Some(next) = (if unheard {
            None
        } else {
            step(state, calls[slot])
        }) else {
            return false;
        };
        done[slot] = true;
        let found = is_linearizable(slots, calls, done, next);
        done[slot] = false;
        found
    })
}

fn value(value: Option<i64>) -> Value {
    value.map_or(Value::Nil, Value::Int)
}

fn agree(seed: u64, unique: bool) -> bool {
    let mut dice = Dice::new(seed);
    let count = 2 + dice.roll(6) as usize;
    let mut slots = schedule(&mut dice, count);
    let calls = play(&mut dice, &mut slots, unique);
    let what: Vec<(&str, Value, Value)> = calls
        .iter()
        .map(|call| match *call {
            Call::Read(seen) => ("read", Value::Nil, value(seen)),
            Call::Write(written) => ("write", Value::Int(written), Value::Int(written)),
            Call::Cas(old, new) => {
                let pair = Value::list([Value::Int(old), Value::Int(new)]);
                ("cas", pair.clone(), pair)
            }
        })
        .collect();
    let operations = operations(&slots, &what);
    let told = operations.clone().into_iter().map(Ok);
    let mut budget = Budget::unbounded();
    let report = check(told, Model::CasRegister, &Options::default(), &mut budget)
        .expect("a register's history");
    let expected = is_linearizable(&slots, &calls, &mut vec![false; slots.len()], None);
    assert_eq!(
        report.verdict == Verdict::Valid,
        expected,
        "seed {seed}, unique values: {unique}\n{slots:#?}\n{calls:?}\n{}",
        report.to_text("cas-register")
    );
    assert_ne!(report.verdict, Verdict::Unknown, "seed {seed}");
    expected
}

#[test]
fn registers_agree_with_all_linearizations() {
    let seeds = crate::seeds();
    let count = seeds.end - seeds.start;
    let valid = seeds.filter(|seed| agree(*seed, seed % 3 == 0)).count() as u64;
    assert!(
        count < 100 || (valid > count / 10 && valid < count * 9 / 10),
        "{valid} of {count}"
    );
}
