//! Where values are drawn: time across, latencies and ages on a logarithmic scale, and the names of
//! rows beside them.

use std::fmt::Write;

use quorate_jepsen::picture::escaped;

use super::super::results::{Comparison, Row};

/// From a moment to a place, both in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Across {
    pub(super) left: f64,
    pub(super) width: f64,
    pub(super) whole_ms: f64,
}

impl Across {
    pub(super) fn at(&self, ms: f64) -> f64 {
        self.left + self.width * (ms / self.whole_ms.max(1.0)).clamp(0.0, 1.0)
    }

    /// Seconds to be written below, not too many of them.
    pub(super) fn ticks(&self) -> Vec<u64> {
        let seconds = (self.whole_ms / 1e3).floor() as u64;
        let steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
        let step = steps.into_iter().find(|step| seconds / step <= 9);
        let step = step.unwrap_or(7200);
        (0..=seconds / step).map(|tick| tick * step).collect()
    }
}

/// Logarithmic, from the bottom upwards; what is below the least stands at the bottom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Up {
    pub(super) bottom: f64,
    pub(super) height: f64,
    pub(super) least_ms: f64,
    pub(super) most_ms: f64,
}

impl Up {
    pub(super) fn at(&self, ms: f64) -> f64 {
        let share = (ms / self.least_ms).ln() / (self.most_ms / self.least_ms).ln();
        let share = if ms > 0.0 { share.clamp(0.0, 1.0) } else { 0.0 };
        self.bottom - self.height * share
    }

    /// Powers of ten within.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let powers = (0..9).map(|power| 10_f64.powi(power - 1));
        powers
            .filter(|ms| (self.least_ms..=self.most_ms).contains(ms))
            .collect()
    }
}

/// A level beside its row, each rung of a ladder in a line of its own; around this height.
pub(super) fn level_names(row: &Row, middle: f64) -> String {
    let rungs: Vec<&str> = row.level.split(" > ").collect();
    let first = middle + 4.0 - 7.5 * (rungs.len() - 1) as f64;
    let mut svg = format!(
        "<text x=\"0\" y=\"{first:.1}\" class=\"soft\">{}</text>",
        row.act
    );
    for (number, rung) in rungs.iter().enumerate() {
        let (y, sign) = (
            first + 15.0 * number as f64,
            if number > 0 { "&gt; " } else { "" },
        );
        let rung = escaped(rung);
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<text x=\"42\" y=\"{y:.1}\" class=\"mono\">{sign}{rung}</text>"
        );
    }
    svg
}

/// What stands in a line of a picture with a line for each level.
pub(super) enum Line<'a> {
    /// The name of a store, where there are several.
    Store(&'a str),
    Level(&'a Row),
}

/// Room between reads and writes, and between stores.
const GROUP_GAP: f64 = 14.0;
const STORE_HEIGHT: f64 = 26.0;

/// Where each line begins, from the top down, and where the last one ends.
pub(super) fn lines<'a>(
    stores: &[&'a Comparison],
    top: f64,
    row_height: f64,
) -> (Vec<(f64, Line<'a>)>, f64) {
    let (mut lines, mut y) = (Vec::new(), top);
    for (place, store) in stores.iter().enumerate() {
        if stores.len() > 1 {
            y += if place > 0 { GROUP_GAP } else { 0.0 };
            lines.push((y, Line::Store(&store.setup.target)));
            y += STORE_HEIGHT;
        }
        for (place, row) in store.rows.iter().enumerate() {
            if place > 0 && store.rows[place - 1].act != row.act {
                y += GROUP_GAP;
            }
            lines.push((y, Line::Level(row)));
            y += row_height;
        }
    }
    (lines, y)
}

/// A store's name above its levels.
pub(super) fn store_name(name: &str, y: f64) -> String {
    let (y, name) = (y + 16.0, escaped(name));
    format!("<text x=\"0\" y=\"{y:.1}\" class=\"head\" font-size=\"14\">{name}</text>")
}

/// The next power of ten.
pub(super) fn power_above(ms: f64) -> f64 {
    10_f64.powf(ms.max(1.0).log10().ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_from_left_to_right_with_few_ticks() {
        let across = Across {
            left: 10.0,
            width: 100.0,
            whole_ms: 45_000.0,
        };
        assert_eq!(across.at(0.0), 10.0);
        assert_eq!(across.at(22_500.0), 60.0);
        assert_eq!(across.at(99_000.0), 110.0);
        assert_eq!(across.ticks(), [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]);
    }

    #[test]
    fn tenfold_is_one_step_up() {
        let up = Up {
            bottom: 30.0,
            height: 30.0,
            least_ms: 1.0,
            most_ms: 1_000.0,
        };
        let rounded = |ms| (up.at(ms) * 1e6).round() / 1e6;
        assert_eq!(
            [0.0, 1.0, 10.0, 100.0, 5_000.0].map(rounded),
            [30.0, 30.0, 20.0, 10.0, 0.0]
        );
        assert_eq!(up.ticks(), [1.0, 10.0, 100.0, 1_000.0]);
        assert_eq!(power_above(1_001.0), 10_000.0);
        assert_eq!(power_above(0.0), 1.0);
    }
}
