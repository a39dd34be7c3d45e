//! The comparison with etcd by etcd's own API and client: which loads, and which ratios are wanted.

use crate::cell::{Cell, Work};
use crate::measure::Run;
use crate::range_memory::Reading;
use crate::table::{Row, Wanted, median, p50_ms, per_second, render_cost, render_rows};

/// The cells of both stores.
pub fn cells() -> Vec<Cell> {
    vec![
        Cell::unary(Work::Put, 1),
        Cell::unary(Work::Put, 64),
        Cell::unary(Work::Get, 64),
        Cell::unary(Work::StaleGet, 64),
        Cell::unary(Work::Watch, 1),
        Cell::unary(Work::Watch, 64),
    ]
}

/// The whole result as Markdown. All values are medians over the runs.
pub fn render(etcd: &[Run], quorate: &[Run], keys: u64) -> String {
    let table = render_rows("etcd", &rows(etcd, quorate, keys));
    let cost = render_cost(&[("etcd", etcd), ("Quorate", quorate)]);
    format!("{table}\n\nProcessor time of all nodes per request:\n\n{cost}\n")
}

fn rows(etcd: &[Run], quorate: &[Run], keys: u64) -> Vec<Row> {
    use Wanted::{AtLeast, AtMost};
    let throughput = |name: &str, work, wanted| Row {
        name: format!("{name}, 64 clients"),
        other: median(etcd, |run| per_second(run, Cell::unary(work, 64))),
        own: median(quorate, |run| per_second(run, Cell::unary(work, 64))),
        unit: "/s",
        wanted: AtLeast(wanted),
    };
    let latency = |name: &str, work, clients, wanted| Row {
        name: format!("{name}, {clients} client(s): p50"),
        other: median(etcd, |run| p50_ms(run, Cell::unary(work, clients))),
        own: median(quorate, |run| p50_ms(run, Cell::unary(work, clients))),
        unit: "ms",
        wanted: AtMost(wanted),
    };
    let grown = |runs: &[Run], reading| {
        median(runs, |run| {
            Some(*run.range_bytes.get(&reading)? as f64 / 1e6)
        })
    };
    let memory = |name: &str, reading| Row {
        name: format!("memory for a Range over {keys} keys of 100 B, {name} (etcd: whole)"),
        other: grown(etcd, Reading::Whole),
        own: grown(quorate, reading),
        unit: "MB",
        wanted: AtMost(0.2),
    };
    vec![
        throughput("put", Work::Put, 2.5),
        throughput("linearizable Range", Work::Get, 1.5),
        throughput("serializable Range", Work::StaleGet, 1.0),
        latency("put", Work::Put, 1, 1.0),
        latency("put until its event is there", Work::Watch, 1, 0.6),
        latency("put until its event is there", Work::Watch, 64, 0.6),
        memory("streamed", Reading::Streamed),
        memory("in pages of 1,000", Reading::Pages),
    ]
}
