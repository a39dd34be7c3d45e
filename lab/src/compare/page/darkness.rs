//! How long no call was served: bars for the longest silence of the cut on each side, and a mark for
//! the first call that was served after the heal.

use std::fmt::Write;

use super::super::results::{Comparison, Part};
use super::super::sample::Side;
use super::super::table::time;
use super::scale::{Line, Up, level_names, lines, power_above, store_name};

const LEFT: f64 = 224.0;
const WIDTH: f64 = 690.0;
const BAR: f64 = 11.0;
const ROW: f64 = 38.0;
const TOP: f64 = 26.0;
/// Shorter than this is shorter than calls are apart.
const LEAST_MS: f64 = 10.0;

/// The scale lies on its side: its places are taken from the left.
fn across(stores: &[&Comparison]) -> Up {
    let rows = stores.iter().flat_map(|store| &store.rows);
    let parts = rows.flat_map(|row| &row.sides);
    let longest = parts.map(|part| part.silence_ms.max(part.first_after_heal_ms.unwrap_or(0.0)));
    let longest = longest.fold(LEAST_MS * 10.0, f64::max);
    Up {
        bottom: 0.0,
        height: -WIDTH,
        least_ms: LEAST_MS,
        most_ms: power_above(longest),
    }
}

pub(super) fn picture(stores: &[&Comparison]) -> String {
    let scale = across(stores);
    let (lines, bottom) = lines(stores, TOP + 5.0, ROW);
    let height = bottom + 4.0;
    let width = LEFT + WIDTH + 110.0;
    let mut svg = format!(
        "<p class=\"soft\">The longest stretch of the cut in which no call was served (on a logarithmic scale: \
         each line is ten times the one before), and the time from the heal to the first call that \
         was.</p><div class=\"key\"><span>{major}majority\u{2019}s side</span><span>{minor}minority\u{2019}s \
         side</span><span>{mark}first served after the heal</span></div><div class=\"scroll\">\
         <svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"longest silence by level and side\">",
        major = swatch("<rect y=\"2\" width=\"22\" height=\"10\" rx=\"2\" class=\"done\"/>"),
        minor = swatch("<rect y=\"2\" width=\"22\" height=\"10\" rx=\"2\" class=\"refused\"/>"),
        mark = swatch(&diamond(11.0, 7.0)),
    );
    for ms in scale.ticks() {
        let x = LEFT + scale.at(ms);
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{height}\" class=\"axis\"/>\
             <text x=\"{x:.1}\" y=\"16\" text-anchor=\"middle\" class=\"small soft\">{}</text>",
            time(ms).replace(".0 ", " ")
        );
    }
    for (y, line) in lines {
        let row = match line {
            Line::Level(row) => row,
            Line::Store(name) => {
                svg += &store_name(name, y);
                continue;
            }
        };
        svg += &level_names(row, y + BAR + 1.0);
        for side in Side::BOTH {
            let y = y + side.place() as f64 * (BAR + 2.0);
            bar(&mut svg, &row.sides[side.place()], side, y, &scale);
        }
    }
    svg + "</svg></div>"
}

fn swatch(shape: &str) -> String {
    format!("<svg width=\"22\" height=\"14\">{shape}</svg>")
}

fn diamond(x: f64, y: f64) -> String {
    format!(
        "<path d=\"M{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}Z\" fill=\"var(--ink)\"/>",
        x - 5.0,
        y - 5.0,
        x + 5.0,
        y + 5.0
    )
}

fn bar(svg: &mut String, part: &Part, side: Side, y: f64, scale: &Up) {
    let class = match side {
        Side::Majority => "done",
        Side::Minority => "refused",
    };
    let width = scale.at(part.silence_ms).max(2.0);
    let silence = time(part.silence_ms);
    let heal = part.first_after_heal_ms;
    let healed = heal.map_or("none served after the heal".to_owned(), |ms| {
        format!("first served {} after the heal", time(ms))
    });
    // Writing to a string does not fail.
    let _ = write!(
        svg,
        "<g><title>{} side: silent for {silence}; {healed}</title><rect x=\"{LEFT}\" y=\"{y:.1}\" \
         width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" class=\"{class}\"/>",
        side.name()
    );
    let mark = heal.map(|ms| LEFT + scale.at(ms));
    // The number keeps clear of the mark.
    let end = LEFT + width;
    let label = match mark {
        Some(mark) if mark > end - 6.0 && mark < end + 62.0 => mark + 10.0,
        Some(_) | None => end + 6.0,
    };
    let _ = write!(
        svg,
        "<text x=\"{label:.1}\" y=\"{:.1}\" class=\"small\">{silence}</text>",
        y + BAR - 2.0
    );
    if let Some(mark) = mark {
        *svg += &diamond(mark, y + BAR / 2.0);
    }
    *svg += "</g>";
}
