//! Many runs, as a text that says which: workloads, nemeses, levels and modes, and all combinations
//! of them.

use std::time::Duration;

use quorate_types::{Ladder, Mode, parse_duration};

use crate::error::LabError;
use crate::nemesis::Nemesis;
use crate::workload::WorkloadKind;

/// In at most eight minutes on two cores.
pub const QUICK: &str = include_str!("../matrix/quick.txt");
/// All of it, in a night.
pub const NIGHTLY: &str = include_str!("../matrix/nightly.txt");
/// Most runs of one matrix.
pub const CELLS_MAX: usize = 2000;

/// The usual of a column.
const USUAL: &str = "-";

/// One run of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What clients do.
    pub workload: WorkloadKind,
    /// What is done to the nodes, all at the same time.
    pub nemeses: Vec<Nemesis>,
    /// At which level; none: the workload's own.
    pub level: Option<Ladder>,
    /// In a keyspace of which mode; none: the workload's own.
    pub mode: Option<Mode>,
}

impl Cell {
    /// The nemeses in one word.
    pub fn trouble(&self) -> String {
        let names: Vec<&str> = self.nemeses.iter().map(|nemesis| nemesis.name()).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join("+"),
        }
    }
}

/// A matrix that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// The runs, in order.
    pub cells: Vec<Cell>,
    /// How long clients work in each, if the text says so.
    pub time: Option<Duration>,
}

/// Reads a matrix.
///
/// # Errors
///
/// [`LabError::Refused`] with the line and what is wrong in it.
pub fn parse(text: &str) -> Result<Matrix, LabError> {
    let mut matrix = Matrix::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let wrong = |what: String| {
            let hint =
                "wanted: WORKLOADS NEMESES LEVELS MODES, lists with commas, `-` for the usual";
            LabError::refused(format!("line {}: {what}", number + 1), hint)
        };
        match words.as_slice() {
            [] => {}
            ["time", time] => {
                let time = parse_duration(time).map_err(|error| wrong(error.to_string()))?;
                matrix.time = Some(time);
            }
            [workloads, nemeses, levels, modes] => {
                let cells = product([workloads, nemeses, levels, modes]).map_err(wrong)?;
                matrix.cells.extend(cells);
            }
            _ => return Err(wrong(format!("{} words", words.len()))),
        }
    }
    if matrix.cells.is_empty() || matrix.cells.len() > CELLS_MAX {
        let what = format!(
            "{} runs; from 1 to {CELLS_MAX} make a matrix",
            matrix.cells.len()
        );
        return Err(LabError::refused(what, ""));
    }
    Ok(matrix)
}

fn product([workloads, nemeses, levels, modes]: [&str; 4]) -> Result<Vec<Cell>, String> {
    let mut cells = Vec::new();
    for workload in workloads.split(',') {
        for nemeses in nemeses.split(',') {
            for level in levels.split(',') {
                for mode in modes.split(',') {
                    cells.push(cell([workload, nemeses, level, mode])?);
                }
            }
        }
    }
    Ok(cells)
}

fn cell([workload, nemeses, level, mode]: [&str; 4]) -> Result<Cell, String> {
    let usual = |word: &str| word == USUAL;
    let nemeses = match nemeses {
        "none" => Vec::new(),
        names => names.split('+').map(str::parse).collect::<Result<_, _>>()?,
    };
    let level = match usual(level) {
        true => None,
        false => Some(level.parse::<Ladder>().map_err(|error| error.to_string())?),
    };
    let mode = match usual(mode) {
        true => None,
        false => Some(mode.parse::<Mode>().map_err(|error| error.to_string())?),
    };
    Ok(Cell {
        workload: workload.parse()?,
        nemeses,
        level,
        mode,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_matrices_that_come_along_are_readable() {
        assert!(parse(QUICK).unwrap().cells.len() >= 20);
        assert!(parse(NIGHTLY).unwrap().cells.len() >= 96);
    }

    #[test]
    fn lists_are_multiplied() {
        let matrix = parse("time 3s\nregister,bank kill,halves+pause - mixed # both\n").unwrap();
        assert_eq!(matrix.time, Some(Duration::from_secs(3)));
        let troubles: Vec<String> = matrix.cells.iter().map(Cell::trouble).collect();
        assert_eq!(troubles, ["kill", "halves+pause", "kill", "halves+pause"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, wanted) in [
            ("", "0 runs"),
            ("register kill", "line 1"),
            ("\nregister gremlin - -", "line 2"),
            ("register kill eventual:never -", "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
