//! The comparison with Cassandra: which loads, and which ratios are wanted.
//!
//! Cassandra chooses for a whole node when a write is on disk (`commitlog_sync`), Quorate for
//! each write (`ack`): so Cassandra is measured in two clusters, Quorate in one.

use crate::cell::{Ack, Cell, Copies, Work};
use crate::measure::Run;
use crate::table::{Row, Wanted, median, per_second, render_cost, render_rows, resident_mb};

/// Requests in flight.
const LOADS: [usize; 2] = [64, 256];
/// What is wanted of throughput.
const THROUGHPUT: Wanted = Wanted::AtLeast(3.0);
/// What is wanted of memory.
const MEMORY: Wanted = Wanted::AtMost(0.1);

/// The loads that a cluster takes whose writes are acknowledged so.
pub fn cells(ack: Ack) -> Vec<Cell> {
    let work = [
        Work::EventualPut(Copies::One, ack),
        Work::EventualPut(Copies::Quorum, ack),
        Work::EventualGet(Copies::One),
        Work::EventualGet(Copies::Quorum),
    ];
    // Reads do not depend on it.
    let count = match ack {
        Ack::Disk => work.len(),
        Ack::Memory => 2,
    };
    (work[..count].iter())
        .flat_map(|work| LOADS.map(|in_flight| Cell::streams(*work, in_flight, 1)))
        .collect()
}

/// All loads.
pub fn all_cells() -> Vec<Cell> {
    [cells(Ack::Disk), cells(Ack::Memory)].concat()
}

/// The whole result as Markdown. All values are medians over the runs.
pub fn render(cassandra: &[Run], quorate: &[Run], memory_keys: u64) -> String {
    let throughput = all_cells().into_iter().map(|cell| Row {
        name: cell.to_string(),
        other: median(cassandra, |run| per_second(run, cell)),
        own: median(quorate, |run| per_second(run, cell)),
        unit: "/s",
        wanted: THROUGHPUT,
    });
    let memory = Row {
        name: format!("resident memory per node, {memory_keys} keys of 100 B"),
        other: median(cassandra, resident_mb),
        own: median(quorate, resident_mb),
        unit: "MB",
        wanted: MEMORY,
    };
    let rows: Vec<Row> = throughput.chain([memory]).collect();
    let table = render_rows("Cassandra", &rows);
    let cost = render_cost(&[("Cassandra", cassandra), ("Quorate", quorate)]);
    format!("{table}\n\nLatency, and processor time of all nodes per request:\n\n{cost}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_load_is_measured_twice() {
        let mut cells = all_cells();
        assert_eq!(cells.len(), 12);
        cells.sort();
        cells.dedup();
        assert_eq!(cells.len(), 12);
    }

    #[test]
    fn memory_is_compared() {
        let run = |resident_bytes| Run {
            resident_bytes: Some(resident_bytes),
            ..Run::default()
        };
        let text = render(&[run(2_000_000)], &[run(100_000)], 7);
        assert!(text.contains("0.05x"), "{text}");
    }
}
