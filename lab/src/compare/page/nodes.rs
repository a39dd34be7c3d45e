//! The nodes on both sides of the cut.

use std::fmt::Write;

use super::super::results::Comparison;
use super::super::sample::Side;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 190.0;
const RADIUS: f64 = 20.0;

/// Where a node stands: on a ring around the middle of its side.
fn place(side: Side, number: usize, of: usize) -> (f64, f64) {
    let middle = match side {
        Side::Majority => 200.0,
        Side::Minority => 520.0,
    };
    let turn = std::f64::consts::TAU * (number as f64 + 0.25) / of as f64;
    let radius = if of == 1 { 0.0 } else { 50.0 };
    (
        middle + radius * 1.5 * turn.cos(),
        92.0 + radius * turn.sin(),
    )
}

pub(super) fn picture(comparison: &Comparison) -> String {
    let cut = &comparison.cut;
    let places: Vec<(usize, Side, (f64, f64))> = Side::BOTH
        .into_iter()
        .flat_map(|side| {
            let nodes = &cut.sides[side.place()];
            let placed = nodes.iter().enumerate();
            placed.map(move |(number, node)| (*node, side, place(side, number, nodes.len())))
        })
        .collect();
    let mut svg = format!(
        "<div class=\"scroll\"><svg width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"nodes on both sides of the cut\">"
    );
    for (number, (_, side, (x1, y1))) in places.iter().enumerate() {
        for (_, other, (x2, y2)) in &places[number + 1..] {
            let class = if side == other { "wire" } else { "gone" };
            // Writing to a string does not fail.
            let _ = write!(
                svg,
                "<line x1=\"{x1:.0}\" y1=\"{y1:.0}\" x2=\"{x2:.0}\" y2=\"{y2:.0}\" class=\"{class}\"/>"
            );
        }
    }
    for (node, _, (x, y)) in &places {
        let holds = cut.primaries.contains(node);
        let (class, label) = if holds {
            ("holder", "on-holder")
        } else {
            ("outsider", "")
        };
        let _ = write!(
            svg,
            "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"{RADIUS}\" class=\"{class}\"/>"
        );
        if cut.leader == Some(*node) {
            let radius = RADIUS + 4.5;
            let _ = write!(
                svg,
                "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"{radius}\" class=\"crown\"/>"
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\" class=\"{label}\" \
             font-size=\"15\">{node}</text>",
            y + 5.0
        );
    }
    for (side, x) in [(Side::Majority, 200), (Side::Minority, 520)] {
        let name = side.name();
        let _ = write!(
            svg,
            "<text x=\"{x}\" y=\"184\" text-anchor=\"middle\" class=\"soft\">the {name}\u{2019}s side</text>"
        );
    }
    svg += "</svg></div><div class=\"key\">";
    svg += "<span><svg width=\"16\" height=\"16\"><circle cx=\"8\" cy=\"8\" r=\"7\" class=\"holder\"/></svg>\
            holds a replica</span>";
    if cut.primaries.len() < comparison.setup.nodes {
        svg += "<span><svg width=\"16\" height=\"16\"><circle cx=\"8\" cy=\"8\" r=\"6.5\" \
                class=\"outsider\"/></svg>holds none, takes requests, and stands in</span>";
    }
    svg += "<span><svg width=\"18\" height=\"18\"><circle cx=\"9\" cy=\"9\" r=\"7\" class=\"crown\"/></svg>\
            led when it was cut</span>";
    svg += "<span><svg width=\"26\" height=\"10\"><line x1=\"0\" y1=\"5\" x2=\"26\" y2=\"5\" \
            class=\"gone\"/></svg>not heard during the cut</span></div>";
    svg
}
