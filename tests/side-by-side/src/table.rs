//! What is shown: medians of both stores, their ratio, and whether it is what was wanted.

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};

use crate::cell::{Cell, SCALE, Work};
use crate::measure::{Run, Sample};

/// Throughput at more load may be lower by this share: noise of a shared machine.
const NOISE: f64 = 0.05;

/// Which way a ratio of Quorate to etcd should go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

impl Wanted {
    fn is_reached(self, ratio: f64) -> bool {
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
struct Row {
    name: String,
    other: f64,
    own: f64,
    unit: &'static str,
    wanted: Wanted,
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
        "{store:>8}  {cell}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {} us CPU of the nodes each{bytes}{error}",
        report.ops_per_second,
        report.p50_us as f64 / 1000.0,
        report.p99_us as f64 / 1000.0,
        sample.cpu_per_request.as_micros(),
    );
    // A closed terminal does not stop the measurement.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// The whole result as Markdown. All values are medians over the runs.
pub fn render(etcd: &[Run], quorate: &[Run], memory_keys: u64) -> String {
    let rows = rows(etcd, quorate, memory_keys);
    let header = ["work", "etcd", "Quorate", "ratio", "wanted", ""];
    let mut table = markdown(&header);
    for row in &rows {
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
    let scale = render_scale(etcd, quorate);
    let cost = render_cost(etcd, quorate);
    format!(
        "{table}\n\nPuts per second as load grows:\n\n{scale}\n\nProcessor time of all nodes per request:\n\n{cost}\n"
    )
}

fn rows(etcd: &[Run], quorate: &[Run], memory_keys: u64) -> Vec<Row> {
    use Wanted::{AtLeast, AtMost};
    use Work::{Empty, Get, Put, StaleGet};
    let throughput = |name: &str, other: Cell, own: Cell, wanted| Row {
        name: name.to_owned(),
        other: median(etcd, |run| per_second(run, other)),
        own: median(quorate, |run| per_second(run, own)),
        unit: "/s",
        wanted: AtLeast(wanted),
    };
    let bytes = |name: &str, other: Cell, own: Cell| Row {
        name: name.to_owned(),
        other: median(etcd, |run| run.samples.get(&other)?.bytes_per_request),
        own: median(quorate, |run| run.samples.get(&own)?.bytes_per_request),
        unit: "B",
        wanted: AtMost(1.0),
    };
    let unary = Cell::unary;
    let streams = Cell::streams;
    let empty = median(quorate, |run| per_second(run, unary(Empty, 64)));
    vec![
        Row {
            name: "put, 1 client, unary: p50".to_owned(),
            other: median(etcd, |run| p50_ms(run, unary(Put, 1))),
            own: median(quorate, |run| p50_ms(run, unary(Put, 1))),
            unit: "ms",
            wanted: AtMost(0.6),
        },
        throughput(
            "put, 64 clients, unary",
            unary(Put, 64),
            unary(Put, 64),
            3.0,
        ),
        throughput(
            "put, 256 in flight, one range",
            unary(Put, 256),
            streams(Put, 256, 1),
            15.0,
        ),
        throughput(
            "put, 256 in flight, 16 ranges",
            unary(Put, 256),
            streams(Put, 256, 16),
            8.0,
        ),
        throughput(
            "linearizable get, 64 clients, unary",
            unary(Get, 64),
            unary(Get, 64),
            1.7,
        ),
        throughput(
            "linearizable get, 256 in flight",
            unary(Get, 256),
            streams(Get, 256, 1),
            15.0,
        ),
        throughput(
            "stale get, 64 clients, unary",
            unary(StaleGet, 64),
            unary(StaleGet, 64),
            1.0,
        ),
        Row {
            name: "stale get against an empty call to Quorate".to_owned(),
            other: empty,
            ..throughput("", unary(StaleGet, 64), unary(StaleGet, 64), 0.85)
        },
        Row {
            name: format!("resident memory per node, {memory_keys} keys of 100 B"),
            other: median(etcd, resident_mb),
            own: median(quorate, resident_mb),
            unit: "MB",
            wanted: AtMost(0.6),
        },
        bytes(
            "bytes to disk per put, 64 clients",
            unary(Put, 64),
            unary(Put, 64),
        ),
        bytes(
            "bytes to disk per put, 256 in flight",
            unary(Put, 256),
            streams(Put, 256, 1),
        ),
    ]
}

/// Throughput of puts at growing load: the best so far must not be undercut.
fn render_scale(etcd: &[Run], quorate: &[Run]) -> Table {
    let mut table = markdown(&["in flight", "etcd", "Quorate", "of the best before", ""]);
    let mut best: f64 = 0.0;
    for in_flight in SCALE {
        let other = median(etcd, |run| {
            per_second(run, Cell::unary(Work::Put, in_flight))
        });
        let cell = Cell::streams(Work::Put, in_flight, 1);
        let own = median(quorate, |run| per_second(run, cell));
        let (share, reached) = match best {
            0.0 => ("-".to_owned(), true),
            best => (format!("{:.2}x", own / best), own >= best * (1.0 - NOISE)),
        };
        best = best.max(own);
        table.add_row([
            in_flight.to_string(),
            number(other),
            number(own),
            share,
            verdict(reached).to_owned(),
        ]);
    }
    table
}

fn render_cost(etcd: &[Run], quorate: &[Run]) -> Table {
    let mut table = markdown(&["store", "load", "per second", "p99 ms", "CPU us"]);
    for (name, runs) in [("etcd", etcd), ("Quorate", quorate)] {
        let cells = runs.iter().flat_map(|run| run.samples.keys());
        let mut cells: Vec<Cell> = cells.copied().collect();
        cells.sort();
        cells.dedup();
        for cell in cells {
            let p99 = |run: &Run| Some(run.samples.get(&cell)?.report.p99_us as f64 / 1e3);
            let cpu = |run: &Run| Some(run.samples.get(&cell)?.cpu_per_request.as_secs_f64() * 1e6);
            table.add_row([
                name.to_owned(),
                cell.to_string(),
                number(median(runs, |run| per_second(run, cell))),
                number(median(runs, p99)),
                number(median(runs, cpu)),
            ]);
        }
    }
    table
}

fn markdown(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn verdict(reached: bool) -> &'static str {
    match reached {
        true => "reached",
        false => "not reached",
    }
}

fn per_second(run: &Run, cell: Cell) -> Option<f64> {
    Some(run.samples.get(&cell)?.report.ops_per_second)
}

fn p50_ms(run: &Run, cell: Cell) -> Option<f64> {
    Some(run.samples.get(&cell)?.report.p50_us as f64 / 1e3)
}

fn resident_mb(run: &Run) -> Option<f64> {
    Some(run.resident_bytes? as f64 / 1e6)
}

/// The median of what runs have; not a number where none has it.
fn median(runs: &[Run], value: impl Fn(&Run) -> Option<f64>) -> f64 {
    let mut values: Vec<f64> = runs.iter().filter_map(value).collect();
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => (values[half - 1] + values[half]) / 2.0,
        (half, _) => values[half],
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
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

    #[test]
    fn a_table_without_measurements_can_be_shown() {
        let text = render(&[run(2_000_000)], &[run(1_000_000)], 7);
        assert!(text.contains("7 keys of 100 B"), "{text}");
        assert!(text.contains("0.50x"), "{text}");
    }
}
