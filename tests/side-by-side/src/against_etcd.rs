//! The comparison with etcd: which loads, and which ratios are wanted.

use comfy_table::Table;

use crate::cell::{Cell, Work};
use crate::measure::Run;
use crate::table::{
    Row, Wanted, markdown, median, number, p50_ms, per_second, render_cost, render_rows,
    resident_mb, verdict,
};

/// The loads under which puts must not become slower: requests in flight.
const SCALE: [usize; 5] = [1, 8, 64, 256, 1000];
/// Throughput at more load may be lower by this share: noise of a shared machine.
const NOISE: f64 = 0.05;

/// The cells of etcd: it knows unary calls and one range.
pub fn etcd_cells() -> Vec<Cell> {
    let puts = SCALE.map(|clients| Cell::unary(Work::Put, clients));
    let gets = [
        Cell::unary(Work::Get, 64),
        Cell::unary(Work::Get, 256),
        Cell::unary(Work::StaleGet, 64),
    ];
    [puts.as_slice(), &gets].concat()
}

/// The cells of Quorate.
pub fn quorate_cells() -> Vec<Cell> {
    let unary = [Cell::unary(Work::Put, 1), Cell::unary(Work::Put, 64)];
    let puts = SCALE.map(|in_flight| Cell::streams(Work::Put, in_flight, 1));
    let others = [
        Cell::streams(Work::Put, 256, 16),
        Cell::unary(Work::Get, 64),
        Cell::streams(Work::Get, 256, 1),
        Cell::unary(Work::StaleGet, 64),
        Cell::unary(Work::Empty, 64),
    ];
    [unary.as_slice(), &puts, &others].concat()
}

/// The whole result as Markdown. All values are medians over the runs.
pub fn render(etcd: &[Run], quorate: &[Run], memory_keys: u64) -> String {
    let table = render_rows("etcd", &rows(etcd, quorate, memory_keys));
    let scale = render_scale(etcd, quorate);
    let cost = render_cost(&[("etcd", etcd), ("Quorate", quorate)]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_asked_is_in_flight() {
        for cell in etcd_cells().into_iter().chain(quorate_cells()) {
            let (clients, depth) = cell.clients_and_depth();
            assert_eq!(clients * depth, cell.in_flight, "{cell}");
        }
    }

    #[test]
    fn a_table_without_measurements_can_be_shown() {
        let run = |resident_bytes| Run {
            resident_bytes: Some(resident_bytes),
            ..Run::default()
        };
        let text = render(&[run(2_000_000)], &[run(1_000_000)], 7);
        assert!(text.contains("7 keys of 100 B"), "{text}");
        assert!(text.contains("0.50x"), "{text}");
    }
}
