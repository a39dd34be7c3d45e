//! How results are shown: rows of two stores' medians with their ratio, and what each load cost.
//!
//! Which rows there are stands with each comparison (`against_etcd`, `against_cassandra`).

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};

use crate::cell::Cell;
use crate::measure::{Run, Sample};

/// Which way a ratio of Quorate to the other store should go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// Smaller is better.
    AtMost(f64),
    /// Larger is better.
    AtLeast(f64),
}

impl Wanted {
    /// Whether `ratio` is as wanted; one that was not measured is not.
    pub fn is_reached(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("at most {most}x"),
            Self::AtLeast(least) => format!("at least {least}x"),
        }
    }
}

/// One row: a value of each store, larger or smaller is better as `wanted` says.
pub struct Row {
    /// What is compared.
    pub name: String,
    /// The other store's value.
    pub other: f64,
    /// Quorate's.
    pub own: f64,
    /// Of both.
    pub unit: &'static str,
    /// Of the ratio.
    pub wanted: Wanted,
}

/// Says on standard error what a cell showed, as soon as it is known.
pub fn progress(store: &str, cell: Cell, sample: &Sample) {
    let report = &sample.report;
    let error = match report.messages.first() {
        Some((message, _)) => format!(", {} errors: {message}", report.errors),
        None => String::new(),
    };
    let bytes = match sample.bytes_per_request {
        Some(bytes) => format!(", {bytes:.0} B to disk each"),
        None => String::new(),
    };
    let line = format!(
        "{store:>9}  {cell}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {} us CPU of the nodes each{bytes}{error}",
        report.ops_per_second,
        report.p50_us as f64 / 1000.0,
        report.p99_us as f64 / 1000.0,
        sample.cpu_per_request.as_micros(),
    );
    // A closed terminal does not stop the measurement.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Rows as a Markdown table, under the other store's name.
pub fn render_rows(other: &str, rows: &[Row]) -> Table {
    let header = ["work", other, "Quorate", "ratio", "wanted", ""];
    let mut table = markdown(&header);
    for row in rows {
        let ratio = row.own / row.other;
        table.add_row([
            row.name.clone(),
            format!("{} {}", number(row.other), row.unit),
            format!("{} {}", number(row.own), row.unit),
            format!("{ratio:.2}x"),
            row.wanted.text(),
            verdict(row.wanted.is_reached(ratio)).to_owned(),
        ]);
    }
    table
}

/// Throughput, latency and processor time of every load of the stores, by name.
pub fn render_cost(stores: &[(&str, &[Run])]) -> Table {
    let mut table = markdown(&[
        "store",
        "load",
        "per second",
        "p50 ms",
        "p99 ms",
        "CPU us",
        "errors",
    ]);
    for &(name, runs) in stores {
        let cells = runs.iter().flat_map(|run| run.samples.keys());
        let mut cells: Vec<Cell> = cells.copied().collect();
        cells.sort();
        cells.dedup();
        for cell in cells {
            let p50 = |run: &Run| p50_ms(run, cell);
            let errors = |run: &Run| Some(run.samples.get(&cell)?.report.errors as f64);
            let p99 = |run: &Run| Some(run.samples.get(&cell)?.report.p99_us as f64 / 1e3);
            let cpu = |run: &Run| Some(run.samples.get(&cell)?.cpu_per_request.as_secs_f64() * 1e6);
            table.add_row([
                name.to_owned(),
                cell.to_string(),
                number(median(runs, |run| per_second(run, cell))),
                number(median(runs, p50)),
                number(median(runs, p99)),
                number(median(runs, cpu)),
                number(median(runs, errors)),
            ]);
        }
    }
    table
}

/// An empty Markdown table; all columns but the first are numbers.
pub fn markdown(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// In the last column.
pub fn verdict(reached: bool) -> &'static str {
    match reached {
        true => "reached",
        false => "not reached",
    }
}

/// Requests a second.
pub fn per_second(run: &Run, cell: Cell) -> Option<f64> {
    Some(run.samples.get(&cell)?.report.ops_per_second)
}

/// The middle latency.
pub fn p50_ms(run: &Run, cell: Cell) -> Option<f64> {
    Some(run.samples.get(&cell)?.report.p50_us as f64 / 1e3)
}

/// Memory of the node with the most.
pub fn resident_mb(run: &Run) -> Option<f64> {
    Some(run.resident_bytes? as f64 / 1e6)
}

/// The median of what runs have; not a number where none has it.
pub fn median(runs: &[Run], value: impl Fn(&Run) -> Option<f64>) -> f64 {
    let mut values: Vec<f64> = runs.iter().filter_map(value).collect();
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => (values[half - 1] + values[half]) / 2.0,
        (half, _) => values[half],
    }
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "-".to_owned(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(resident_bytes: u64) -> Run {
        Run {
            resident_bytes: Some(resident_bytes),
            ..Run::default()
        }
    }

    #[test]
    fn medians_of_odd_and_even_and_no_runs() {
        let bytes = |run: &Run| Some(run.resident_bytes? as f64);
        assert_eq!(median(&[run(9), run(1), run(5)], bytes), 5.0);
        assert_eq!(median(&[run(1), run(4)], bytes), 2.5);
        assert!(median(&[], bytes).is_nan());
        assert!(median(&[run(1)], |_| None).is_nan());
    }

    #[test]
    fn what_was_not_measured_is_not_reached() {
        assert!(Wanted::AtMost(0.6).is_reached(0.6));
        assert!(!Wanted::AtMost(0.6).is_reached(f64::NAN));
        assert!(!Wanted::AtLeast(3.0).is_reached(f64::NAN));
        assert!(!Wanted::AtLeast(3.0).is_reached(2.99));
    }
}
