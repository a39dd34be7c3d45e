//! `quorate jepsen run --matrix`: one run after the other, a row each.

use std::path::Path;
use std::time::Duration;

use quorate_lab::{Cell, LabError, Matrix, Outcome, Plan, PlanOptions, Results, matrix};
use quorate_types::chain;
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::input;
use crate::cli::output::Output;
use crate::cli::signal::StopSignals;
use crate::cli::table::table;

use super::run::told;

/// Largest file of a matrix.
const MATRIX_MAX_BYTES: u64 = 1 << 20;
const HEADS: [&str; 10] = [
    "run", "workload", "nemesis", "level", "mode", "outcome", "calls", "answered", "faults", "said",
];

/// A matrix by its name, or from a file.
pub(super) fn read(name: &str) -> Result<Matrix, CliError> {
    let file;
    let text = match name {
        "quick" => matrix::QUICK,
        "nightly" => matrix::NIGHTLY,
        path => {
            let bytes = input::read_file(Path::new(path), MATRIX_MAX_BYTES)?;
            file = String::from_utf8_lossy(&bytes).into_owned();
            &file
        }
    };
    matrix::parse(text).map_err(told)
}

/// Runs all cells with what `base` says besides; a cell that does not tell is tried once more, with
/// another seed.
pub(super) async fn run(
    matrix: Matrix,
    time: Option<Duration>,
    base: PlanOptions,
    signals: &mut StopSignals,
    mut output: Output,
) -> Result<(), CliError> {
    let mut rows = Vec::new();
    let mut worst = Outcome::Held;
    let count = matrix.cells.len();
    for (place, cell) in matrix.cells.iter().enumerate() {
        let mut options = PlanOptions {
            workload: cell.workload,
            nemeses: cell.nemeses.clone(),
            level: cell.level.clone(),
            mode: cell.mode,
            time: time.or(matrix.time).unwrap_or(base.time),
            seed: base.seed + place as u64,
            dir: base.dir.join(format!(
                "{:03}-{}-{}",
                place + 1,
                cell.workload.name(),
                cell.trouble()
            )),
            ..base.clone()
        };
        let mut ran = one(options.clone(), signals).await;
        if ran.as_ref().is_ok_and(is_worth_another_try) {
            options.seed += count as u64;
            ran = one(options, signals).await;
        }
        let (outcome, interrupted) = match &ran {
            Ok(results) => (results.outcome(), results.was_interrupted()),
            Err(_) => (Outcome::Open, false),
        };
        let row = row(place + 1, cell, &ran);
        if output.is_json() {
            let mut json = match &ran {
                Ok(results) => results.to_json(),
                Err(error) => json!({"outcome": outcome.name(), "error": chain(error)}),
            };
            json["run"] = json!(place + 1);
            output.json(&json)?;
        } else {
            output.line(row.join("  "))?;
        }
        output.flush()?;
        rows.push(row);
        worst = match (worst, outcome) {
            (Outcome::Broken, _) | (_, Outcome::Broken) => Outcome::Broken,
            (Outcome::Open, _) | (_, Outcome::Open) => Outcome::Open,
            (Outcome::Held, Outcome::Held) => Outcome::Held,
        };
        if interrupted {
            break;
        }
    }
    if !output.is_json() {
        output.line("")?;
        output.line(table(&HEADS, rows))?;
    }
    output.flush()?;
    end(worst)
}

/// The exit of an outcome.
pub(super) fn end(outcome: Outcome) -> Result<(), CliError> {
    match outcome {
        Outcome::Held => Ok(()),
        Outcome::Broken => Err(CliError::Reported(Exit::Failed)),
        Outcome::Open => Err(CliError::Reported(Exit::Usage)),
    }
}

/// An error of the lab is told in its row, and the next run goes on.
async fn one(options: PlanOptions, signals: &mut StopSignals) -> Result<Results, LabError> {
    let plan = Plan::new(options).await?;
    quorate_lab::run(plan, signals.next()).await
}

fn is_worth_another_try(results: &Results) -> bool {
    results.outcome() == Outcome::Open && !results.was_interrupted()
}

fn row(number: usize, cell: &Cell, ran: &Result<Results, LabError>) -> Vec<String> {
    let or_usual = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut row = vec![
        number.to_string(),
        cell.workload.name().to_owned(),
        cell.trouble(),
        or_usual(cell.level.as_ref().map(ToString::to_string)),
        or_usual(cell.mode.as_ref().map(ToString::to_string)),
    ];
    match ran {
        Ok(results) => {
            let (calls, answered) = results.calls();
            let said: Vec<String> = results
                .findings()
                .into_iter()
                .chain(results.doubts())
                .collect();
            let seed = results.plan().options().seed;
            row.extend([
                results.outcome().name().to_owned(),
                calls.to_string(),
                format!("{answered:.0}%"),
                results.faults_proven().to_string(),
                format!("seed {seed} {}", said.join("; "))
                    .trim_end()
                    .to_owned(),
            ]);
        }
        Err(error) => {
            let none = || "-".to_owned();
            row.extend([
                Outcome::Open.name().to_owned(),
                none(),
                none(),
                none(),
                chain(error),
            ]);
        }
    }
    row
}
