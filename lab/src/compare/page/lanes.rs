//! Every level over time, a lane for each: what came of its calls, how long they took, and how old
//! what they read was; the majority's side on the left, the minority's on the right, the cut shaded.

use std::fmt::Write;

use quorate_jepsen::picture::escaped;

use super::super::probe::Act;
use super::super::results::{Comparison, Course, Part, Row};
use super::super::sample::Side;
use super::super::table::{time, words};
use super::scale::{Across, Up, power_above};
use super::style::HATCH;

const LEFT: f64 = 196.0;
const PANEL: f64 = 372.0;
/// Between both panels: room for what the scales say.
const BETWEEN: f64 = 44.0;
const TOP: f64 = 40.0;
/// Of the shares, the latencies, the ages.
const STRIPS: [f64; 3] = [30.0, 34.0, 34.0];
const STRIP_GAP: f64 = 4.0;
const LANE_GAP: f64 = 20.0;
const AXIS: f64 = 22.0;
const LATENCY_LEAST_MS: f64 = 0.1;
const AGE_LEAST_MS: f64 = 1.0;

/// What all lanes share.
struct Lanes<'a> {
    comparison: &'a Comparison,
    latency_most_ms: f64,
    age_most_ms: f64,
    has_eventual: bool,
}

pub(super) fn picture(comparison: &Comparison) -> String {
    let courses = || {
        comparison
            .rows
            .iter()
            .flat_map(|row| &row.sides)
            .map(|part| &part.course)
    };
    let most = |values: &mut dyn Iterator<Item = f64>| power_above(values.fold(10.0, f64::max));
    let lanes = Lanes {
        comparison,
        latency_most_ms: most(&mut courses().flat_map(|it| it.max_ms.iter().flatten().copied())),
        age_most_ms: most(&mut courses().flat_map(|it| {
            let ages = it.behind_ms.iter().flatten();
            ages.flatten().copied()
        })),
        has_eventual: courses().any(|it| it.behind_ms[1].iter().flatten().next().is_some()),
    };
    lanes.legend() + &lanes.svg()
}

fn strips(row: &Row) -> usize {
    match row.act {
        Act::Read => 3,
        Act::Write => 2,
    }
}

fn lane_height(row: &Row) -> f64 {
    let strips = &STRIPS[..strips(row)];
    strips.iter().sum::<f64>() + STRIP_GAP * (strips.len() - 1) as f64
}

fn number_of(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Lanes<'_> {
    fn legend(&self) -> String {
        let swatch = |class: &str| {
            format!(
                "<svg width=\"18\" height=\"12\"><rect width=\"18\" height=\"12\" rx=\"2\" class=\"{class}\"/></svg>"
            )
        };
        let line = |class: &str| {
            format!("<svg width=\"26\" height=\"12\"><path d=\"M0 6H26\" class=\"{class}\"/></svg>")
        };
        let hatched = "<svg width=\"18\" height=\"12\"><rect width=\"18\" height=\"12\" rx=\"2\" \
                       fill=\"url(#hatch)\"/></svg>";
        let ladders = self.comparison.rows.iter().any(|row| row.rungs > 1);
        let mut keys = vec![(swatch("done"), "served")];
        if ladders {
            keys.push((swatch("lower"), "served on a lower rung"));
        }
        keys.push((swatch("refused"), "refused: the store says so"));
        keys.push((hatched.to_owned(), "no answer in time"));
        keys.push((swatch("band"), "latency, from the median to the slowest"));
        let strong = if self.has_eventual {
            "age, against strong writes"
        } else {
            "age of what was read"
        };
        keys.push((line("strong"), strong));
        if self.has_eventual {
            keys.push((line("late"), "age, against eventual writes"));
        }
        keys.push((swatch("shade"), "cut apart"));
        let keys = keys.into_iter();
        let keys = keys.map(|(picture, means)| format!("<span>{picture}{means}</span>"));
        format!(
            "<p class=\"soft\">Half a second a column. Above, what came of the calls; in the middle, how \
             long those took that were served (both scales are logarithmic); of reads, below, the age of \
             the oldest: how long ago what it misses had been acknowledged, on whichever \
             side.</p><div class=\"key\">{}</div>",
            keys.collect::<String>()
        )
    }

    fn svg(&self) -> String {
        let rows = &self.comparison.rows;
        let lanes: f64 = rows.iter().map(|row| lane_height(row) + LANE_GAP).sum();
        let height = TOP + lanes + AXIS;
        let width = LEFT + 2.0 * (PANEL + BETWEEN);
        let mut svg = format!(
            "<div class=\"scroll\"><svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\" aria-label=\"calls over time by level and side\">{HATCH}"
        );
        for side in Side::BOTH {
            let panel = self.panel(side);
            let middle = panel.left + panel.width / 2.0;
            let name = side.name();
            // Writing to a string does not fail.
            let _ = write!(
                svg,
                "<text x=\"{middle}\" y=\"14\" text-anchor=\"middle\" class=\"head\">the {name}\u{2019}s side</text>"
            );
            self.axis(&mut svg, panel, 32.0);
        }
        let mut y = TOP;
        for row in rows {
            self.names(&mut svg, row, y);
            for side in Side::BOTH {
                self.lane(&mut svg, row, side, y);
            }
            y += lane_height(row) + LANE_GAP;
        }
        for side in Side::BOTH {
            self.axis(&mut svg, self.panel(side), y + 4.0);
        }
        svg + "</svg></div>"
    }

    fn panel(&self, side: Side) -> Across {
        Across {
            left: LEFT + side.place() as f64 * (PANEL + BETWEEN),
            width: PANEL,
            whole_ms: self.comparison.cut.whole_ms,
        }
    }

    fn axis(&self, svg: &mut String, panel: Across, y: f64) {
        for second in panel.ticks() {
            let x = panel.at(second as f64 * 1e3);
            // Writing to a string does not fail.
            let _ = write!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" class=\"small soft\">{second} s</text>"
            );
        }
    }

    fn names(&self, svg: &mut String, row: &Row, y: f64) {
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{:.1}\" class=\"soft small\">{}</text>",
            y + 11.0,
            row.act
        );
        for (number, rung) in row.level.split(" > ").enumerate() {
            let rung = if number > 0 {
                format!("> {rung}")
            } else {
                rung.to_owned()
            };
            let _ = write!(
                svg,
                "<text x=\"0\" y=\"{:.1}\" class=\"mono\">{}</text>",
                y + 27.0 + 16.0 * number as f64,
                escaped(&rung)
            );
        }
    }

    fn lane(&self, svg: &mut String, row: &Row, side: Side, top: f64) {
        let (panel, part) = (self.panel(side), &row.sides[side.place()]);
        let told = title(row, side, part);
        *svg += &format!("<g><title>{}</title>", escaped(&told));
        let mut y = top;
        for (number, height) in STRIPS.iter().enumerate().take(strips(row)) {
            // Something to point at, where nothing is drawn.
            let _ = write!(
                svg,
                "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{height}\" fill-opacity=\"0\"/>",
                panel.left, panel.width
            );
            match number {
                0 => shares(svg, &part.course, panel, y, *height),
                1 => self.latencies(svg, &part.course, panel, y, *height),
                _ => self.ages(svg, &part.course, panel, y, *height),
            }
            y += height + STRIP_GAP;
        }
        self.shade(svg, panel, top, y - STRIP_GAP);
        *svg += "</g>";
    }

    fn shade(&self, svg: &mut String, panel: Across, top: f64, bottom: f64) {
        let cut = &self.comparison.cut;
        let (begin, end) = (panel.at(cut.begin_ms), panel.at(cut.end_ms));
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<rect x=\"{begin:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"shade\"/>\
             <path d=\"M{begin:.1} {top:.1}V{bottom:.1}M{end:.1} {top:.1}V{bottom:.1}\" class=\"edge\"/>",
            top - 2.0,
            end - begin,
            bottom - top + 4.0
        );
    }

    fn latencies(&self, svg: &mut String, course: &Course, panel: Across, y: f64, height: f64) {
        let up = Up {
            bottom: y + height,
            height,
            least_ms: LATENCY_LEAST_MS,
            most_ms: self.latency_most_ms,
        };
        scale(svg, panel, up);
        let columns = columns(course, panel);
        let mut band = String::new();
        let slices = course.p50_ms.iter().zip(&course.max_ms).zip(&columns);
        for ((median, slowest), (x, next)) in slices {
            if let (Some(median), Some(slowest)) = (median, slowest) {
                // At least a hair, where all took as long.
                let (low, high) = (up.at(*median), up.at(*slowest).min(up.at(*median) - 0.6));
                let _ = write!(band, "M{x:.1} {low:.1}H{next:.1}V{high:.1}H{x:.1}Z");
            }
        }
        let median = line(&course.p50_ms, &columns, up);
        let _ = write!(
            svg,
            "<path d=\"{band}\" class=\"band\"/><path d=\"{median}\" class=\"median\"/>"
        );
    }

    fn ages(&self, svg: &mut String, course: &Course, panel: Across, y: f64, height: f64) {
        let up = Up {
            bottom: y + height,
            height,
            least_ms: AGE_LEAST_MS,
            most_ms: self.age_most_ms,
        };
        scale(svg, panel, up);
        let columns = columns(course, panel);
        for (ages, class) in course.behind_ms.iter().zip(["strong", "late"]) {
            let path = line(ages, &columns, up);
            let _ = write!(svg, "<path d=\"{path}\" class=\"{class}\"/>");
        }
    }
}

fn title(row: &Row, side: Side, part: &Part) -> String {
    let [before, cut, after] = part.phases.each_ref().map(words);
    format!(
        "{} {} on the {}'s side\nbefore: {before}\ncut apart: {cut}\nhealed: {after}",
        row.act,
        row.level,
        side.name()
    )
}

/// Where each slice begins and ends.
fn columns(course: &Course, panel: Across) -> Vec<(f64, f64)> {
    let slice = course.slice_ms as f64;
    let slices = 0..course.done.len();
    let at = |slice_number: usize| panel.at(f64::from(number_of(slice_number)) * slice);
    slices.map(|number| (at(number), at(number + 1))).collect()
}

/// Lines for the powers of ten, with the lowest and the highest named on the right.
fn scale(svg: &mut String, panel: Across, up: Up) {
    let right = panel.left + panel.width;
    let ticks = up.ticks();
    let mut lines = String::new();
    for ms in &ticks {
        let y = up.at(*ms);
        let _ = write!(lines, "M{:.1} {y:.1}H{right:.1}", panel.left);
    }
    let _ = write!(svg, "<path d=\"{lines}\" class=\"axis\"/>");
    let ends = [(ticks.first(), 0.0), (ticks.last(), 8.0)];
    for (ms, down) in ends {
        let Some(ms) = ms else { continue };
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"small soft\" font-size=\"9\">{}</text>",
            right + 4.0,
            up.at(*ms) + down,
            time(*ms).replace(".0 ", " ")
        );
    }
}

/// A line through the middle of slices that have a value.
fn line(values: &[Option<f64>], columns: &[(f64, f64)], up: Up) -> String {
    let mut path = String::new();
    let mut pen_is_down = false;
    for (value, (x, next)) in values.iter().zip(columns) {
        if let Some(ms) = value {
            let step = if pen_is_down { 'L' } else { 'M' };
            let _ = write!(
                path,
                "{step}{:.1} {:.1}",
                f64::midpoint(*x, *next),
                up.at(*ms)
            );
        }
        pen_is_down = value.is_some();
    }
    path
}

/// What came of calls, from the bottom: served, on lower rungs, refused, not answered.
fn shares(svg: &mut String, course: &Course, panel: Across, y: f64, height: f64) {
    let kinds = [&course.done, &course.lower, &course.refused, &course.silent];
    let mut paths = [const { String::new() }; 4];
    for (slice, (x, next)) in columns(course, panel).into_iter().enumerate() {
        let total: u32 = kinds.iter().map(|counts| counts[slice]).sum();
        let mut bottom = y + height;
        for (counts, path) in kinds.iter().zip(&mut paths) {
            if counts[slice] == 0 {
                continue;
            }
            let top = bottom - height * f64::from(counts[slice]) / f64::from(total);
            // A hair of the card's colour between columns would flicker: they touch.
            let _ = write!(path, "M{x:.1} {bottom:.1}H{next:.1}V{top:.1}H{x:.1}Z");
            bottom = top;
        }
    }
    let fills = [
        "class=\"done\"",
        "class=\"lower\"",
        "class=\"refused\"",
        "fill=\"url(#hatch)\"",
    ];
    for (path, fill) in paths.iter().zip(fills) {
        if !path.is_empty() {
            let _ = write!(svg, "<path d=\"{path}\" {fill}/>");
        }
    }
    let (left, width) = (panel.left, panel.width);
    let _ = write!(
        svg,
        "<rect x=\"{left}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" class=\"frame\"/>"
    );
}
