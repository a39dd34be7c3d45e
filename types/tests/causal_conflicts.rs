//! Runs the examples of `docs/CONFLICTS.md`: each code block is a script over three replicas.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_types::causal::{
    Dots, Field, Limits, RangeStore, Reading, Seen, Shown, Update, evaluate, plan,
};
use quorate_types::{Actor, ConflictPolicy, Timestamp};

const PAGE: &str = include_str!("../../docs/CONFLICTS.md");
const KEY: Bytes = Bytes::from_static(b"key");
const NOW: Timestamp = Timestamp(1_000_000);

struct Script {
    policy: ConflictPolicy,
    replicas: BTreeMap<&'static str, RangeStore>,
    reads: BTreeMap<String, Dots>,
    line: u64,
}

#[test]
fn the_examples_of_the_page_on_conflicts_hold() {
    let scripts: Vec<&str> = PAGE.split("```").skip(1).step_by(2).collect();
    assert!(scripts.len() >= 12, "the page lost its examples");
    for text in scripts {
        let mut script = Script::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Err(why) = script.run(line) {
                panic!("in\n{text}\nat `{line}`: {why}");
            }
        }
    }
}

impl Script {
    fn new() -> Self {
        let replica = |(disk, name)| (name, RangeStore::new(Actor { disk, start: 1 }));
        Self {
            policy: ConflictPolicy::Siblings,
            replicas: [(1, "a"), (2, "b"), (3, "c")].map(replica).into(),
            reads: BTreeMap::new(),
            line: 0,
        }
    }

    fn run(&mut self, line: &str) -> Result<(), String> {
        self.line += 1;
        if let Some(policy) = line.strip_prefix("policy ") {
            self.policy = policy.parse().map_err(|error| format!("{error}"))?;
            return Ok(());
        }
        if line == "repair" {
            for name in ["a", "b", "c", "a", "b"] {
                self.repair(name);
            }
            return Ok(());
        }
        let (name, rest) = line.split_once(' ').ok_or("what?")?;
        if let Some(expected) = rest.strip_prefix("=>") {
            return self.read(name, expected.trim());
        }
        if rest == "repair" {
            self.repair(name);
            return Ok(());
        }
        let (write, refusal) = match rest.split_once(" !! ") {
            Some((write, refusal)) => (write, Some(refusal.to_owned())),
            None => (rest, None),
        };
        let result = self.write(name, write);
        if result.as_ref().err() == refusal.as_ref() {
            return Ok(());
        }
        Err(format!("{result:?} where {refusal:?} was written"))
    }

    /// A replica hears of all that the others have.
    fn repair(&mut self, name: &str) {
        let images: Vec<_> = self.replicas.values().map(RangeStore::image).collect();
        let store = self.replicas.get_mut(name).expect("a replica of the page");
        for image in images {
            store.join_range(&image);
        }
    }

    fn read(&mut self, name: &str, expected: &str) -> Result<(), String> {
        let (expected, remembered) = match expected.split_once(" as ") {
            Some((expected, read)) => (expected, Some(read)),
            None => (expected, None),
        };
        let state = self.replicas[name].state(&KEY);
        let reading = evaluate(self.policy, &state, NOW).map_err(|error| error.to_string())?;
        if let Some(read) = remembered {
            self.reads.insert(read.to_owned(), state.context().clone());
        }
        let shown = text_of(&reading, self.policy);
        if shown == expected {
            Ok(())
        } else {
            Err(format!("it is {shown}"))
        }
    }

    fn write(&mut self, name: &str, text: &str) -> Result<(), String> {
        let (text, seen) = match text.split_once(" with ") {
            Some((text, "nothing")) => (text, Some(Dots::new())),
            Some((text, read)) => (text, Some(self.reads[read].clone())),
            None => (text, None),
        };
        let (text, timestamp) = match text.split_once(" at ") {
            Some((text, at)) => (text, at.parse().map_err(|_| "at what time?")?),
            None => (text, self.line),
        };
        let words: Vec<&str> = text.split(' ').collect();
        let update = update_of(&words)?;
        let store = self.replicas.get_mut(name).ok_or("which replica?")?;
        let seen = seen.as_ref().map_or(Seen::Coordinator, Seen::Client);
        let (view, asker) = (store.state(&KEY), (seen, store.actor(), None));
        let planned = plan(self.policy, &Limits::default(), &view, asker, &update)
            .map_err(|error| error.to_string())?;
        for planned in planned {
            let delta = planned.delta(store.next_dot(), Timestamp(timestamp), None);
            let _ = store.accept(&KEY, &delta);
        }
        Ok(())
    }
}

fn update_of(words: &[&str]) -> Result<Update, String> {
    let bytes = |word: &&str| Bytes::copy_from_slice(word.as_bytes());
    match words {
        ["put", value] => Ok(Update::Put(bytes(value))),
        ["latest", value] => Ok(Update::PutLatest(bytes(value))),
        ["delete"] => Ok(Update::Delete),
        ["incr", amount] => amount
            .parse()
            .map(Update::Increment)
            .map_err(|_| format!("by {amount}?")),
        ["add", elements @ ..] => Ok(Update::Add(elements.iter().map(bytes).collect())),
        ["remove", elements @ ..] => Ok(Update::Remove(elements.iter().map(bytes).collect())),
        ["field", name, rest @ ..] => Ok(Update::Fields(vec![(bytes(name), update_of(rest)?)])),
        _ => Err(format!("what is {words:?}?")),
    }
}

fn text_of(reading: &Reading, policy: ConflictPolicy) -> String {
    match reading {
        Reading::Absent if policy == ConflictPolicy::Set || policy == ConflictPolicy::Map => {
            "{}".to_owned()
        }
        Reading::Absent => String::new(),
        Reading::Siblings(values) => registers(values, " | "),
        Reading::Latest { shown, others } => {
            let all: Vec<Shown> = std::iter::once(shown).chain(others).cloned().collect();
            registers(&all, " over ")
        }
        Reading::Counter(sum) => sum.to_string(),
        Reading::Set(elements) => set(elements),
        Reading::Map(fields) => map(fields),
    }
}

fn word(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn registers(values: &[Shown], between: &str) -> String {
    let quoted: Vec<_> = values
        .iter()
        .map(|shown| format!("{:?}", word(&shown.value)))
        .collect();
    quoted.join(between)
}

fn set<'a>(elements: impl IntoIterator<Item = &'a Bytes>) -> String {
    let words: Vec<_> = elements.into_iter().map(word).collect();
    format!("{{{}}}", words.join(", "))
}

fn map(fields: &BTreeMap<Bytes, Field>) -> String {
    let named = |(name, field): (&Bytes, &Field)| format!("{}: {}", word(name), field_text(field));
    let fields: Vec<_> = fields.iter().map(named).collect();
    format!("{{{}}}", fields.join(", "))
}

fn field_text(field: &Field) -> String {
    let kinds = [
        (!field.registers.is_empty()).then(|| registers(&field.registers, " | ")),
        (!field.latest.is_empty()).then(|| registers(&field.latest, " over ")),
        field.counter.map(|sum| sum.to_string()),
        (!field.set.is_empty()).then(|| set(&field.set)),
        (!field.map.is_empty()).then(|| map(&field.map)),
    ];
    kinds
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" and ")
}
