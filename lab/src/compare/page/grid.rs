//! Availability as a grid: a row for each level, and before, during and after the cut on each side.
//! Blue is served, orange is not; the number says how much.

use std::fmt::Write;

use super::super::results::{Comparison, Phase};
use super::super::sample::Side;
use super::super::table::{percent, time, words};
use super::scale::{Line, level_names, lines, store_name};

const LEFT: f64 = 224.0;
const CELL: (f64, f64) = (126.0, 36.0);
/// Between phases.
const GAP: f64 = 14.0;
const TOP: f64 = 52.0;
const PHASES: [&str; 3] = ["before", "cut apart", "healed"];
/// Colours are strong enough from here on for light text.
const STRONG: f64 = 0.55;

fn left_of(phase: usize, side: usize) -> f64 {
    LEFT + phase as f64 * (2.0 * CELL.0 + GAP) + side as f64 * CELL.0
}

pub(super) fn picture(stores: &[&Comparison]) -> String {
    let (lines, bottom) = lines(stores, TOP, CELL.1);
    let height = bottom + 6.0;
    let width = left_of(PHASES.len() - 1, 1) + CELL.0 + 4.0;
    let mut svg = format!(
        "<p class=\"soft\">Calls that were served, of all that began then (those under way when it was cut count \
         as cut); below, the median of their latency.</p><div class=\"scroll\"><svg width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"availability by level and side\">"
    );
    for (number, phase) in PHASES.iter().enumerate() {
        let middle = left_of(number, 1);
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<text x=\"{middle}\" y=\"18\" text-anchor=\"middle\" class=\"head\">{phase}</text>"
        );
        for side in Side::BOTH {
            let middle = left_of(number, side.place()) + CELL.0 / 2.0;
            let name = side.name();
            let _ = write!(
                svg,
                "<text x=\"{middle}\" y=\"40\" text-anchor=\"middle\" class=\"soft\">{name}</text>"
            );
        }
    }
    for (y, line) in lines {
        let row = match line {
            Line::Level(row) => row,
            Line::Store(name) => {
                svg += &store_name(name, y);
                continue;
            }
        };
        svg += &level_names(row, y + CELL.1 / 2.0);
        for side in Side::BOTH {
            for (number, phase) in row.sides[side.place()].phases.iter().enumerate() {
                cell(&mut svg, left_of(number, side.place()), y, phase);
            }
        }
    }
    svg + "</svg></div>"
}

fn cell(svg: &mut String, x: f64, y: f64, phase: &Phase) {
    let (width, height) = (CELL.0 - 2.0, CELL.1 - 2.0);
    let served = phase.served();
    let (class, strength) = match served {
        None => ("empty", 1.0),
        Some(share) if share >= 0.5 => ("good", 2.0 * share - 1.0),
        Some(share) => ("bad", 1.0 - 2.0 * share),
    };
    let label = match class {
        "good" if strength >= STRONG => "on-good",
        "bad" if strength >= STRONG => "on-bad",
        _ => "",
    };
    let middle = x + CELL.0 / 2.0 - 1.0;
    let told = words(phase);
    // Writing to a string does not fail.
    let _ = write!(
        svg,
        "<g><title>{told}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\" \
         class=\"{class}\" fill-opacity=\"{strength:.2}\"/>"
    );
    let has_latency = phase.p50_ms.is_some();
    let base = if has_latency {
        y + 14.5
    } else {
        y + CELL.1 / 2.0 + 3.5
    };
    let _ = write!(
        svg,
        "<text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\" class=\"head {label}\">{}</text>",
        percent(served)
    );
    if let Some(ms) = phase.p50_ms {
        let base = y + 27.0;
        let _ = write!(
            svg,
            "<text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\" class=\"small {label}\">{}</text>",
            time(ms)
        );
    }
    *svg += "</g>";
}
