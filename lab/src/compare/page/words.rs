//! What happened, in sentences that are made of the numbers.

use std::fmt::Write;

use quorate_jepsen::picture::escaped;

use super::super::probe::Act;
use super::super::results::{Comparison, Part, Row};
use super::super::sample::Side;
use super::super::table::time;

/// From this share on a level was there all the time.
const ALWAYS: f64 = 0.99;
/// Up to this share it was away all the time, but for what was on its way.
const NEVER: f64 = 0.02;

/// A silence that is told of a level which went on; shorter ones are those between calls.
const PAUSE_TOLD_MS: f64 = 500.0;

fn level(row: &Row) -> String {
    format!("<code>{}</code>", escaped(&row.level))
}

fn part(row: &Row, side: Side) -> &Part {
    &row.sides[side.place()]
}

fn served_in_cut(row: &Row, side: Side) -> Option<f64> {
    part(row, side).phases[1].served()
}

/// Names with commas, and the last one with an `and`.
fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

pub(super) fn told(comparison: &Comparison) -> String {
    let mut said: Vec<(bool, String)> = Vec::new();
    for side in [Side::Minority, Side::Majority] {
        for act in [Act::Write, Act::Read] {
            said.extend(availability(comparison, side, act).map(|text| (false, text)));
        }
    }
    said.extend(election(comparison).map(|text| (false, text)));
    said.extend(recovery(comparison).map(|text| (false, text)));
    said.extend(oldest(comparison).map(|text| (false, text)));
    said.extend(writes(comparison));
    said.extend(repair(comparison).map(|text| (false, text)));
    let mut html = "<ul class=\"said\">".to_owned();
    for (warns, text) in said {
        let class = if warns { " class=\"warn\"" } else { "" };
        // Writing to a string does not fail.
        let _ = write!(html, "<li{class}>{text}</li>");
    }
    html + "</ul>"
}

/// Which levels of one kind were there during the cut.
fn availability(comparison: &Comparison, side: Side, act: Act) -> Option<String> {
    let of_act = || comparison.rows.iter().filter(|row| row.act == act);
    let named = |wanted: &dyn Fn(f64) -> bool| {
        let rows = of_act().filter(|row| served_in_cut(row, side).is_some_and(wanted));
        rows.map(level).collect::<Vec<_>>()
    };
    let always = of_act().filter(|row| served_in_cut(row, side).is_some_and(|it| it >= ALWAYS));
    let always: Vec<String> = always.map(|row| level(row) + &pause(row, side)).collect();
    let never = named(&|share| share <= NEVER);
    let between = of_act().filter_map(|row| {
        let share = served_in_cut(row, side).filter(|share| *share > NEVER && *share < ALWAYS)?;
        Some(format!("{} ({:.0} %)", level(row), share * 100.0))
    });
    let between: Vec<String> = between.collect();
    let (what, all) = match act {
        Act::Read => ("reads", "all levels of reads"),
        Act::Write => ("writes", "all levels of writes"),
    };
    let name = side.name();
    if always.len() == of_act().count() {
        return Some(format!(
            "On the {name}\u{2019}s side {all} went on through the whole cut."
        ));
    }
    let mut parts = Vec::new();
    if !always.is_empty() {
        parts.push(format!("went on: {}", list(&always)));
    }
    if !between.is_empty() {
        parts.push(format!("partly: {}", list(&between)));
    }
    if !never.is_empty() {
        parts.push(format!("away: {}", list(&never)));
    }
    let parts = (!parts.is_empty()).then(|| parts.join("; "))?;
    Some(format!(
        "On the {name}\u{2019}s side, {what} \u{2013} {parts}."
    ))
}

/// That a level which went on had been away for a while, where it had.
fn pause(row: &Row, side: Side) -> String {
    match part(row, side).silence_ms {
        ms if ms >= PAUSE_TOLD_MS => format!(" (after {})", time(ms)),
        _ => String::new(),
    }
}

fn linearizable_write(comparison: &Comparison) -> Option<&Row> {
    let mut rows = comparison.rows.iter();
    rows.find(|row| row.act == Act::Write && row.level == "linearizable")
}

fn election(comparison: &Comparison) -> Option<String> {
    let leader = comparison.cut.leader?;
    let first = part(linearizable_write(comparison)?, Side::Majority).first_after_cut_ms;
    let after = match first {
        Some(ms) => format!("served its first strong write {} after it", time(ms)),
        None => "served no strong write until the heal".to_owned(),
    };
    let led = comparison.cut.sides[Side::Minority.place()].contains(&leader);
    Some(match led {
        true => format!("The cut took the leader away from the majority, which {after}."),
        false => format!("The leader stayed with the majority, which {after}."),
    })
}

fn recovery(comparison: &Comparison) -> Option<String> {
    let row = linearizable_write(comparison)?;
    let heal = part(row, Side::Minority).first_after_heal_ms?;
    let mut text = format!(
        "After the heal the minority\u{2019}s side served its first strong write within {}.",
        time(heal)
    );
    if let Some(ms) = comparison.recovered_ms {
        let _ = write!(
            text,
            " {} after the last call all nodes served by themselves and held the same.",
            time(ms)
        );
    }
    Some(text)
}

fn oldest(comparison: &Comparison) -> Option<String> {
    let reads = comparison.rows.iter().filter(|row| row.act == Act::Read);
    let oldest = reads.flat_map(|row| {
        Side::BOTH.into_iter().flat_map(move |side| {
            let behind = part(row, side).behind.iter().flatten();
            behind.map(move |behind| (row, side, behind))
        })
    });
    let (row, side, behind) = oldest.max_by(|a, b| a.2.max_ms.total_cmp(&b.2.max_ms))?;
    Some(format!(
        "The oldest read was {} behind, by {} writes: {}, on the {}\u{2019}s side.",
        time(behind.max_ms),
        behind.max_versions,
        level(row),
        side.name()
    ))
}

fn writes(comparison: &Comparison) -> Vec<(bool, String)> {
    let ledger = &comparison.ledger;
    let lost = match ledger.lost {
        0 => "none is lost".to_owned(),
        lost => format!("<b>{lost} are lost</b>"),
    };
    let mut said = vec![(
        ledger.lost > 0,
        format!(
            "{} writes were acknowledged, and {lost}: {} keys were read {} times in the end, at both \
             sides, and each acknowledged write is there, or was replaced by one that had seen it.",
            ledger.acknowledged, ledger.keys, ledger.last_reads
        ),
    )];
    let written = comparison
        .rows
        .iter()
        .filter_map(|row| row.written.as_ref());
    let contended: usize = written.map(|written| written.contended_keys).sum();
    if contended > 0 {
        said.push((
            false,
            format!(
                "Of {contended} keys that both sides wrote, {} came to conflicts: in these both values stand \
                 beside each other, and wait for somebody who has seen both.",
                ledger.conflicts
            ),
        ));
    }
    said
}

fn repair(comparison: &Comparison) -> Option<String> {
    let bytes = &comparison.repair.bytes;
    if bytes.is_empty() {
        return None;
    }
    let parts = bytes
        .iter()
        .map(|(what, bytes)| format!("{what} {}", amount(*bytes)));
    let parts: Vec<String> = parts.collect();
    Some(format!(
        "To come together again the nodes moved {} beside the log: {}.",
        amount(comparison.repair.total_bytes()),
        list(&parts)
    ))
}

fn amount(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

pub(super) fn measured(stores: &[&Comparison]) -> String {
    let mut html = "<p>Each level has its own stream of calls on each side, at a steady rate: a call that is due is \
         made whether those before it were answered or not, in turn to the nodes of its side. Clients are \
         never cut off from nodes; nodes are, from each other. Nothing is tried twice.</p><p>A read is behind by \
         the acknowledged writes that it surely missed: acknowledged before it began, and begun after whatever \
         it found had ended. Its age is how long ago the first of them had been acknowledged. A write is lost if \
         a last read neither shows it nor shows one that may have replaced it; across the cut nobody replaces \
         what he cannot have heard of.</p>"
        .to_owned();
    for store in stores {
        let setup = &store.setup;
        let remarks: Vec<String> = setup.remarks.iter().map(|remark| escaped(remark)).collect();
        let proof = store.cut.proof.as_deref();
        // Writing to a string does not fail.
        let _ = write!(
            html,
            "<p><b>{target}.</b> {remarks} Hosts: {hosts}; the cut: {proof}. It took {took}. The same \
             again:</p><pre>{command}</pre>",
            target = escaped(&setup.target),
            remarks = remarks.join(" "),
            hosts = setup.hosts,
            proof = proof.unwrap_or("not known to have happened"),
            took = time(setup.took_ms as f64),
            command = escaped(&setup.command),
        );
    }
    html
}
