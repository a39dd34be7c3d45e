//! Recorded histories with declared verdicts, from a folder that is not in this repository:
//! `QUORATE_HISTORIES` names it. Its `verdicts.tsv` says which model each file is held against,
//! with which options, and what is to come out.

#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_jepsen::history::operations;
use quorate_jepsen::{Budget, Model, Options, Report, check};

/// How long one file may take before it is called unknown.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);

fn options(text: &str) -> Options {
    let mut options = Options::default();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("an option with its value");
        match word {
            "--independent" => options.independent = true,
            "--negative-balances" => options.negative_balances = true,
            "--consistency" => options.consistency = Some(value().to_owned()),
            "--group-size" => options.group_size_keys = value().parse().expect("a number"),
            other => panic!("verdicts.tsv asks for {other}"),
        }
    }
    options
}

fn checked(path: &Path, model: Model, options: &Options) -> Report {
    let begin = Instant::now();
    let expired = || begin.elapsed() > FILE_TIMEOUT;
    let mut budget = Budget::new(&expired, 4 << 30);
    let file = BufReader::new(File::open(path).expect("a file of verdicts.tsv"));
    check(operations(file, path), model, options, &mut budget)
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

#[test]
fn declared_verdicts_come_out() {
    let Some(folder) = std::env::var_os("QUORATE_HISTORIES") else {
        eprintln!("SKIPPED: QUORATE_HISTORIES names no folder of recorded histories");
        return;
    };
    let folder = Path::new(&folder);
    let verdicts = fs::read_to_string(folder.join("verdicts.tsv")).expect("verdicts.tsv");
    let mut wrong = Vec::new();
    let mut times: BTreeMap<&str, (u32, Duration)> = BTreeMap::new();
    for line in verdicts.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [file, model, declared, given] = fields[..] else {
            panic!("verdicts.tsv: {line}");
        };
        let begin = Instant::now();
        let model = model
            .parse()
            .unwrap_or_else(|error| panic!("{model}: {error}"));
        let report = checked(&folder.join(file), model, &options(given));
        let sum = times
            .entry(file.split('/').next().unwrap_or(file))
            .or_default();
        *sum = (sum.0 + 1, sum.1 + begin.elapsed());
        if report.verdict.to_string() != declared {
            wrong.push(format!(
                "{file}: declared {declared}\n{}",
                report.to_text("found")
            ));
        }
    }
    for (group, (files, time)) in &times {
        eprintln!("{group}: {files} files in {} ms", time.as_millis());
    }
    assert!(
        wrong.is_empty(),
        "{} disagree:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(!times.is_empty(), "verdicts.tsv names no file");
}
