//! From anomalies to a verdict on the consistency that was asked for, and cycles in words.

use super::cycles::{Cycle, Cycles};
use super::graph::{Ground, Kind, Why};
use super::lattice;
use super::store::{Act, Store, UNREAD};
use crate::picture::Picture;
use crate::report::{Finding, Report, Verdict};

/// The names by which a model calls its steps.
pub(super) struct Words {
    /// Its writes.
    pub(super) write: &'static str,
    /// Reads see lists.
    pub(super) lists: bool,
}

/// Writes cycles into a report, as what they are.
pub(super) fn tell(cycles: &Cycles, store: &Store, words: &Words, report: &mut Report) {
    for (name, cycle) in &cycles.found {
        report.mention(finding(name, cycle, store, words));
    }
}

/// Decides: invalid if an anomaly rules out what was asked for.
pub(super) fn decide(report: &mut Report, asked: &'static str, partial: bool) {
    let names = report.counts.iter().map(|(name, _)| name.as_str());
    report.ruled_out = lattice::ruled_out(names);
    let broken = report.ruled_out.iter();
    if broken.clone().any(|model| lattice::includes(asked, model)) {
        report.verdict = Verdict::Invalid;
    } else if partial {
        let because = "there are cycles, and they were not searched to the end for the kinds \
                       that would decide";
        *report = report.clone().not_known(because);
    } else if !report.ruled_out.is_empty() {
        let remark = format!("none of what was found rules out {asked}");
        report.remarks.push(remark);
    }
}

fn finding(name: &str, cycle: &Cycle, store: &Store, words: &Words) -> Finding {
    let count = cycle.len();
    let kind = match name.split_once('-').map_or(name, |(base, _)| base) {
        "G0" => "writes that overwrite each other in a circle",
        "G1c" => "a circle of writes and of reads of them",
        "G" if name.starts_with("G-single") => "a circle with one read of what was overwritten",
        "G" => "a circle in which no two reads of what was overwritten follow each other",
        _ => "a circle with reads of what was overwritten",
    };
    let summary = format!("{kind}: {count} transactions, each of which must precede the next");
    let mut steps: Vec<String> = Vec::new();
    for (at, (node, _)) in cycle.iter().enumerate() {
        let described = store.describe(*node, words.write, words.lists);
        steps.push(format!("T{} = {described}", at + 1));
    }
    for (at, (node, kind)) in cycle.iter().enumerate() {
        let next = (at + 1) % count;
        let why = because(store, *node, cycle[next].0, *kind, words);
        steps.push(format!("T{} < T{}: {why}", at + 1, next + 1));
    }
    let nodes = steps[..count].iter().cloned();
    let picture = Picture::Circle(nodes.zip(steps[count..].iter().cloned()).collect());
    Finding::new(name, summary).steps(steps).picture(picture)
}

/// Why one transaction comes before another, in words.
fn because(store: &Store, from: u32, to: u32, kind: Kind, words: &Words) -> String {
    let key = shared_key(store, from, to, kind.why);
    let key = key.map(|key| format!(" of key {key}")).unwrap_or_default();
    let what = match kind.why {
        Why::WriteWrite => format!("the second's write{key} came after the first's"),
        Why::WriteRead => format!("the second read the first's write{key}"),
        Why::ReadWrite if words.lists => {
            format!("the first read a version{key} without the second's write")
        }
        Why::ReadWrite => format!("the first read a version{key} that the second's write replaced"),
        Why::Order | Why::Link => String::new(),
    };
    let ground = match kind.ground {
        Ground::Values => "",
        Ground::Session => "the process did the first before the second",
        Ground::Realtime => "the first had ended before the second began",
    };
    match (what.is_empty(), ground.is_empty()) {
        (false, false) => format!("{what}, where {ground} of its kind"),
        (false, true) => what,
        (true, _) => ground.to_owned(),
    }
}

/// The keys that both touch in the way that the reason says: it holds for one of them at least.
fn shared_key(store: &Store, from: u32, to: u32, why: Why) -> Option<String> {
    let writes = |act: Act| matches!(act, Act::Write(_));
    let reads = |act: Act| matches!(act, Act::Read(begin, _) if begin != UNREAD);
    let fits = |first: Act, second: Act| match why {
        Why::WriteWrite => writes(first) && writes(second),
        Why::WriteRead => writes(first) && reads(second),
        Why::ReadWrite => reads(first) && writes(second),
        Why::Order | Why::Link => false,
    };
    let pairs = store.steps(from).iter().flat_map(|first| {
        let seconds = store.steps(to).iter();
        seconds.map(move |second| (first, second))
    });
    let mut keys: Vec<u32> = pairs
        .filter(|(first, second)| first.key == second.key && fits(first.act, second.act))
        .map(|(first, _)| first.key)
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let keys = keys.iter().map(|key| store.keys.value(*key).to_string());
    let keys: Vec<String> = keys.collect();
    (!keys.is_empty()).then(|| keys.join(" or "))
}
