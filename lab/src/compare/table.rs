//! The table for the terminal, as cells.

use super::probe::Act;
use super::results::{BehindTold, Comparison, Part, Phase, Row, WrittenTold};
use super::sample::Side;

/// What stands above the columns.
pub const HEADS: [&str; 14] = [
    "call",
    "level",
    "side",
    "before",
    "cut",
    "p50",
    "p99",
    "silence",
    "after cut",
    "after heal",
    "behind",
    "versions",
    "lost",
    "conflicts",
];

/// What the columns mean.
pub const LEGEND: &str = "\
BEFORE, CUT: calls that were served, of those that began then, or were under way when it was cut; P50, P99: of these
in the cut. SILENCE: the longest stretch of it in which none was served. AFTER CUT, AFTER HEAL: time to the first call
that began after it and was served. BEHIND: age of the oldest read, and VERSIONS that it missed, of strong writes / of
eventual ones, where a store has both. Of both sides together: LOST: acknowledged writes that a last read does not
account for; CONFLICTS: keys that hold several values in the end, of those that both sides wrote.";

const NONE: &str = "-";

/// A time for people, in three digits at most.
pub(crate) fn time(ms: f64) -> String {
    match ms {
        ms if ms < 0.05 => "0".to_owned(),
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 99_950.0 => format!("{:.1} s", ms / 1e3),
        ms => format!("{:.0} s", ms / 1e3),
    }
}

/// A share for people: all and nothing are told from nearly all and nearly nothing.
pub(crate) fn percent(share: Option<f64>) -> String {
    match share {
        None => NONE.to_owned(),
        Some(share) if share <= 0.0 => "0 %".to_owned(),
        Some(share) if share >= 1.0 => "100 %".to_owned(),
        Some(share) if (0.1..0.99).contains(&share) => format!("{:.0} %", share * 100.0),
        Some(share) => format!("{:.1} %", (share * 100.0).clamp(0.1, 99.9)),
    }
}

fn time_or_none(ms: Option<f64>) -> String {
    ms.map_or(NONE.to_owned(), time)
}

impl Comparison {
    /// A row of cells for each level and side.
    pub fn table(&self) -> Vec<Vec<String>> {
        let rows = self.rows.iter();
        rows.flat_map(|row| Side::BOTH.map(|side| cells(row, side)))
            .collect()
    }

    /// What stands below the table.
    pub fn summary(&self) -> String {
        let (setup, cut, ledger) = (&self.setup, &self.cut, &self.ledger);
        let nodes = |side: Side| {
            let nodes = cut.sides[side.place()].iter().map(usize::to_string);
            nodes.collect::<Vec<_>>().join(" ")
        };
        let mut text = format!(
            "{}: {} on {} nodes ({}), {} replicas, seed {}\ncut: {} | {} for {}, leader {}; {}\n",
            self.outcome,
            setup.target,
            setup.nodes,
            setup.hosts,
            setup.replication,
            setup.seed,
            nodes(Side::Majority),
            nodes(Side::Minority),
            time(cut.end_ms - cut.begin_ms),
            cut.leader
                .map_or("unknown".to_owned(), |leader| leader.to_string()),
            cut.proof.as_deref().unwrap_or("not known to have happened"),
        );
        text += &format!(
            "writes: {} acknowledged, {} lost; {} keys read {} times in the end; {} keys in conflict\n",
            ledger.acknowledged, ledger.lost, ledger.keys, ledger.last_reads, ledger.conflicts,
        );
        for (what, bytes) in &self.repair.bytes {
            text += &format!("{what}: {bytes} bytes\n");
        }
        if let Some(ms) = self.recovered_ms {
            text += &format!(
                "all nodes served and held the same {} after the last call\n",
                time(ms)
            );
        }
        for breach in &self.breaches {
            text += &format!("broken: {breach}\n");
        }
        for doubt in &self.doubts {
            text += &format!("does not count: {doubt}\n");
        }
        text + &format!("again: {}", setup.command)
    }
}

fn cells(row: &Row, side: Side) -> Vec<String> {
    let part = &row.sides[side.place()];
    let [before, cut, _] = &part.phases;
    // Of both sides together, so told once.
    let written = row.written.as_ref();
    let written = written.filter(|_| side == Side::Majority);
    let conflicts = |told: &WrittenTold| format!("{} of {}", told.conflicts, told.contended_keys);
    vec![
        row.act.to_string(),
        row.level.clone(),
        side.name().to_owned(),
        percent(before.served()),
        percent(cut.served()),
        time_or_none(cut.p50_ms),
        time_or_none(cut.p99_ms),
        time(part.silence_ms),
        time_or_none(part.first_after_cut_ms),
        time_or_none(part.first_after_heal_ms),
        behind(row.act, part, |told| time(told.max_ms)),
        behind(row.act, part, |told| told.max_versions.to_string()),
        written.map_or(NONE.to_owned(), |told| told.lost.to_string()),
        written.map_or(NONE.to_owned(), conflicts),
    ]
}

/// Of strong writes, and of eventual ones.
fn behind(act: Act, part: &Part, what: impl Fn(&BehindTold) -> String) -> String {
    let told: Vec<String> = part.behind.iter().flatten().map(what).collect();
    match act {
        Act::Write => NONE.to_owned(),
        Act::Read if told.is_empty() => NONE.to_owned(),
        Act::Read => told.join(" / "),
    }
}

/// All calls of a phase in a few words.
pub(crate) fn words(phase: &Phase) -> String {
    let served = percent(phase.served());
    let mut words = format!("{served} of {} calls served", phase.calls);
    if phase.refused > 0 {
        words += &format!(", {} refused", phase.refused);
    }
    if phase.silent > 0 {
        words += &format!(", {} without an answer", phase.silent);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let check = |ms, expected: &str| assert_eq!(time(ms), expected);
        check(0.0, "0");
        check(0.74, "0.7 ms");
        check(9.96, "10 ms");
        check(312.4, "312 ms");
        check(999.7, "1.0 s");
        check(19_960.0, "20.0 s");
        check(123_400.0, "123 s");
    }

    #[test]
    fn nearly_all_is_not_all() {
        let check = |share, expected: &str| assert_eq!(percent(Some(share)), expected);
        check(1.0, "100 %");
        check(0.9999, "99.9 %");
        check(0.5, "50 %");
        check(0.0001, "0.1 %");
        check(0.0, "0 %");
        assert_eq!(percent(None), "-");
    }
}
