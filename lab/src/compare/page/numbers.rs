//! All numbers as tables.

use std::fmt::Write;

use quorate_jepsen::picture::escaped;

use super::super::results::{BehindTold, Comparison, Part, Phase, Row};
use super::super::sample::Side;
use super::super::table::{percent, time};

/// A column of words.
const SAID: &str = "said";

fn time_or_dash(ms: Option<f64>) -> String {
    ms.map_or("\u{2013}".to_owned(), time)
}

pub(super) fn tables(comparison: &Comparison) -> String {
    calls(comparison) + &ages(comparison) + &writes(comparison) + &problems(comparison)
}

fn table(note: &str, heads: &[&str], rows: &str) -> String {
    let heads: String = heads
        .iter()
        .enumerate()
        .map(|(place, head)| match place {
            0 | 1 => format!("<th class=\"left\">{head}</th>"),
            _ if *head == SAID => format!("<th class=\"left\">{head}</th>"),
            _ => format!("<th>{head}</th>"),
        })
        .collect();
    format!(
        "<p class=\"soft\">{note}</p><div class=\"scroll\"><table><thead><tr>{heads}</tr></thead>\
         <tbody>{rows}</tbody></table></div>"
    )
}

/// Each rung of a ladder in a line of its own.
fn level(row: &Row) -> String {
    let level = escaped(&row.level).replace(" &gt; ", "<br>&gt; ");
    format!("<code>{level}</code>")
}

/// The level in the row of its first side alone.
fn begin(row: &Row, side: Side) -> String {
    let (class, name) = match side {
        Side::Majority => (" class=\"first\"", format!("{} {}", row.act, level(row))),
        Side::Minority => ("", String::new()),
    };
    format!(
        "<tr{class}><td class=\"left\">{name}</td><td class=\"left\">{}</td>",
        side.name()
    )
}

fn cells(cells: &[String]) -> String {
    cells
        .iter()
        .map(|cell| format!("<td>{cell}</td>"))
        .collect()
}

fn calls(comparison: &Comparison) -> String {
    let mut rows = String::new();
    for row in &comparison.rows {
        for side in Side::BOTH {
            let part = &row.sides[side.place()];
            rows += &begin(row, side);
            rows += &call_cells(part);
            rows += "</tr>";
        }
    }
    table(
        "Calls that were served, and the median and the 99th percentile of their latency; how long none was \
         served in the cut; how long it took from the cut, and from the heal, until one was.",
        &[
            "level",
            "side",
            "before",
            "p50",
            "p99",
            "cut",
            "p50",
            "p99",
            "healed",
            "p50",
            "p99",
            "silence",
            "after cut",
            "after heal",
        ],
        &rows,
    )
}

fn call_cells(part: &Part) -> String {
    let of_phase = |phase: &Phase| {
        [
            percent(phase.served()),
            time_or_dash(phase.p50_ms),
            time_or_dash(phase.p99_ms),
        ]
    };
    let mut all: Vec<String> = part.phases.iter().flat_map(of_phase).collect();
    all.push(time(part.silence_ms));
    all.push(time_or_dash(part.first_after_cut_ms));
    all.push(time_or_dash(part.first_after_heal_ms));
    cells(&all)
}

fn ages(comparison: &Comparison) -> String {
    let has_eventual = comparison.rows.iter().flat_map(|row| &row.sides);
    let has_eventual = has_eventual.clone().any(|part| part.behind[1].is_some());
    let mut rows = String::new();
    for row in &comparison.rows {
        for side in Side::BOTH {
            let behind = &row.sides[side.place()].behind;
            if behind.iter().all(Option::is_none) {
                continue;
            }
            rows += &begin(row, side);
            rows += &age_cells(behind[0].as_ref());
            if has_eventual {
                rows += &age_cells(behind[1].as_ref());
            }
            rows += "</tr>";
        }
    }
    let mut heads = vec!["level", "side"];
    let columns = ["reads", "behind", "median age", "oldest", "versions"];
    heads.extend(columns);
    let note = if has_eventual {
        heads.extend(columns);
        "How far reads were behind what had been acknowledged, over the whole run: first behind strong \
         writes, then behind eventual ones."
    } else {
        "How far reads were behind what had been acknowledged, over the whole run."
    };
    table(note, &heads, &rows)
}

fn age_cells(behind: Option<&BehindTold>) -> String {
    match behind {
        Some(told) => cells(&[
            told.reads.to_string(),
            percent(Some(told.stale as f64 / told.reads.max(1) as f64)),
            time(told.p50_ms),
            time(told.max_ms),
            told.max_versions.to_string(),
        ]),
        None => cells(&[
            "\u{2013}".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]),
    }
}

fn writes(comparison: &Comparison) -> String {
    let mut rows = String::new();
    for row in &comparison.rows {
        let Some(written) = &row.written else {
            continue;
        };
        let class = if written.lost > 0 {
            " class=\"worst\""
        } else {
            ""
        };
        // Writing to a string does not fail.
        let _ = write!(
            rows,
            "<tr class=\"first\"><td class=\"left\">{}</td><td class=\"left\">both</td><td>{}</td>\
             <td{class}>{}</td><td>{}</td><td>{}</td></tr>",
            level(row),
            written.acknowledged,
            written.lost,
            written.contended_keys,
            written.conflicts
        );
    }
    table(
        "Writes that were acknowledged, and what the last reads say of them.",
        &[
            "level",
            "sides",
            "acknowledged",
            "lost",
            "keys of both sides",
            "in conflict",
        ],
        &rows,
    )
}

fn problems(comparison: &Comparison) -> String {
    let mut rows = String::new();
    for row in &comparison.rows {
        for side in Side::BOTH {
            let problems = &row.sides[side.place()].problems;
            if problems.is_empty() {
                continue;
            }
            let said = problems.iter();
            let said = said.map(|(what, count)| format!("{} \u{00d7}{count}", escaped(what)));
            let said: Vec<String> = said.collect();
            // Each side may be the only one that has something to say.
            let _ = write!(
                rows,
                "<tr class=\"first\"><td class=\"left\">{} {}</td><td class=\"left\">{}</td>\
                 <td class=\"left\">{}</td></tr>",
                row.act,
                level(row),
                side.name(),
                said.join(", ")
            );
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    table(
        "What the store said where a call was not served.",
        &["level", "side", SAID],
        &rows,
    )
}
