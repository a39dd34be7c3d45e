//! How fast the checkers are, and how their time grows: `cargo bench -p quorate-jepsen`.
//!
//! Histories are made here, serializable or linearizable by construction, from a seed; making
//! them is not measured. Each size is checked from operations in memory. Peak memory is that of
//! the whole process so far. Exponents are of processor time, against the smallest size.

#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::time::{Duration, Instant};

use quorate_jepsen::history::{Moment, Name, Operation, Outcome, Process};
use quorate_jepsen::model::checker;
use quorate_jepsen::value::Value;
use quorate_jepsen::{Budget, Model, Options, Verdict};

const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
const CLIENTS: usize = 20;
const REGISTERS: u64 = 1_000;
/// Appends to a list before another key takes its place.
const LIST_MAX_ELEMENTS: usize = 32;
const LISTS: u64 = 50;

/// xorshift: the same history every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// Clients that take turns at random: each step one of them ends what it began, and begins anew.
struct Clients {
    dice: Dice,
    begun: Vec<(u64, Option<(Value, Value)>)>,
    position: u64,
}

impl Clients {
    fn new() -> Self {
        Self {
            dice: Dice(0x2545_f491_4f6c_dd1d),
            begun: vec![(0, None); CLIENTS],
            position: CLIENTS as u64,
        }
    }

    /// Makes `count` operations. The effect of each is decided between its two ends: `act` is
    /// called when another client's turn comes, and gives function, question and answer.
    fn run(
        &mut self,
        count: usize,
        mut act: impl FnMut(&mut Dice) -> (Value, Value),
        mut take: impl FnMut(Operation),
    ) {
        let f = Name::from("txn");
        for _ in 0..count {
            // One that is open takes effect now; another one returns, if it has had its effect.
            let client = self.dice.roll(CLIENTS as u64) as usize;
            let (invoked, effect) = self.begun[client].clone();
            let (asked, answered) = effect.unwrap_or_else(|| act(&mut self.dice));
            let other = self.dice.roll(CLIENTS as u64) as usize;
            if other != client && self.begun[other].1.is_none() {
                self.begun[other].1 = Some(act(&mut self.dice));
            }
            let name = match &asked {
                Value::List(pair) if pair[1].is_nil() => Name::from("read"),
                Value::List(pair) if pair.len() == 2 => Name::from("write"),
                _ => f.clone(),
            };
            take(operation(
                client,
                name,
                asked,
                answered,
                invoked,
                self.position,
            ));
            self.begun[client] = (self.position + 1, None);
            self.position += 2;
        }
    }
}

fn operation(
    client: usize,
    f: Name,
    asked: Value,
    answered: Value,
    invoked: u64,
    completed: u64,
) -> Operation {
    let moment = |position| Moment {
        position,
        line: position + 1,
        time_nanoseconds: None,
    };
    Operation {
        process: Process::Client(client as i64),
        f,
        key: None,
        asked,
        answered,
        invoked: moment(invoked),
        completed: Some(moment(completed)),
        outcome: Outcome::Ok,
    }
}

/// Registers under many keys: reads and writes of five values, so that there is no short cut.
fn registers(count: usize, values: u64, take: impl FnMut(Operation)) {
    let mut state = vec![Value::Nil; REGISTERS as usize];
    let mut written = 0;
    let act = |dice: &mut Dice| {
        let key = dice.roll(REGISTERS);
        let of = |value| Value::list([Value::Int(key as i64), value]);
        if dice.roll(2) == 0 {
            return (of(Value::Nil), of(state[key as usize].clone()));
        }
        written += 1;
        let value = Value::Int(if values == 0 {
            written
        } else {
            dice.roll(values) as i64
        });
        state[key as usize] = value.clone();
        (of(value.clone()), of(value))
    };
    Clients::new().run(count, act, take);
}

/// Transactions of four steps over lists that are replaced when they are long. So many reads of a
/// thousand miss the last element.
fn lists(count: usize, stale_per_mille: u64, take: impl FnMut(Operation)) {
    let mut state: Vec<(i64, Vec<Value>)> =
        (0..LISTS as i64).map(|key| (key, Vec::new())).collect();
    let (mut next_key, mut next) = (LISTS as i64, 0);
    let act = |dice: &mut Dice| {
        let mut steps = Vec::new();
        for _ in 0..4 {
            let slot = dice.roll(LISTS) as usize;
            if state[slot].1.len() >= LIST_MAX_ELEMENTS {
                state[slot] = (next_key, Vec::new());
                next_key += 1;
            }
            let (key, list) = &mut state[slot];
            let (name, value) = if dice.roll(2) == 0 {
                let stale = dice.roll(1000) < stale_per_mille;
                let shown = list.len() - usize::from(stale && !list.is_empty());
                ("r", Value::list(list[..shown].to_vec()))
            } else {
                next += 1;
                list.push(Value::Int(next));
                ("append", Value::Int(next))
            };
            steps.push(Value::list([Value::text(name), Value::Int(*key), value]));
        }
        let steps = Value::list(steps);
        (steps.clone(), steps)
    };
    Clients::new().run(count, act, take);
}

/// Operations that are made, and then measured, at a time.
const CHUNK_OPERATIONS: usize = 4_096;

/// Time as the clock and as the processor counts it; on a busy machine they differ.
#[derive(Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    processor: Duration,
}

/// Nanoseconds that this thread was on a processor, where the system tells.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

impl Spent {
    fn on<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begin = (Instant::now(), processor());
        let done = work();
        self.wall += begin.0.elapsed();
        self.processor += processor().saturating_sub(begin.1);
        done
    }
}

/// The time of taking in and checking, without that of making the operations.
fn measure(
    model: Model,
    independent: bool,
    expected: Verdict,
    make: impl FnOnce(&mut dyn FnMut(Operation)),
) -> Spent {
    let options = Options {
        independent,
        ..Options::default()
    };
    let mut checker = checker(model, &options).expect("a model");
    let mut spent = Spent::default();
    let mut chunk = Vec::with_capacity(CHUNK_OPERATIONS);
    let mut take = |chunk: &mut Vec<Operation>| {
        spent.on(|| {
            for operation in chunk.iter() {
                checker.operation(operation).expect("it fits the model");
            }
        });
        chunk.clear();
    };
    make(&mut |operation| {
        chunk.push(operation);
        if chunk.len() == CHUNK_OPERATIONS {
            take(&mut chunk);
        }
    });
    take(&mut chunk);
    let report = spent.on(|| checker.check(&mut Budget::unbounded()));
    assert_eq!(report.verdict, expected, "{}", report.to_text("bench"));
    spent
}

/// The most memory that this process ever held.
fn peak_megabytes() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|text| text.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.map_or("unknown".to_owned(), |kilobytes| {
        (kilobytes / 1024).to_string()
    })
}

fn row(name: &str, measured: impl Fn(usize) -> Spent) {
    let mut first = None;
    for size in SIZES {
        let spent = measured(size);
        let (wall, seconds) = (spent.wall.as_secs_f64(), spent.processor.as_secs_f64());
        let (first_size, first_seconds) = *first.get_or_insert((size, seconds));
        let exponent = match size == first_size {
            true => "-".to_owned(),
            false => {
                let grown = (seconds / first_seconds).log10();
                format!("{:.2}", grown / (size as f64 / first_size as f64).log10())
            }
        };
        let peak = peak_megabytes();
        println!(
            "{name:<24} {size:>9} operations {wall:>8.3} s, {seconds:>8.3} s of processor, \
             exponent {exponent:>5}, peak {peak} MiB"
        );
    }
}

fn main() {
    let registers = |values| {
        move |size| {
            let make = |take: &mut dyn FnMut(Operation)| registers(size, values, take);
            measure(Model::CasRegister, true, Verdict::Valid, make)
        }
    };
    row("cas-register, 5 values", registers(5));
    row("cas-register, unique", registers(0));
    row("list-append, valid", |size| {
        let make = |take: &mut dyn FnMut(Operation)| lists(size, 0, take);
        measure(Model::ListAppend, false, Verdict::Valid, make)
    });
    row("list-append, stale reads", |size| {
        let make = |take: &mut dyn FnMut(Operation)| lists(size, 10, take);
        measure(Model::ListAppend, false, Verdict::Invalid, make)
    });
}
