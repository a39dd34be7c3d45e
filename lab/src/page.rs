//! The report as one page of HTML that needs nothing else to be looked at: what came of calls over
//! time with the faults shaded, the faults and their proofs, and what is wrong.

use std::fmt::Write;
use std::time::Duration;

use quorate_jepsen::picture::{STYLE, escaped, findings};

use crate::nemesis::Fault;
use crate::record::{Counts, SLICE};
use crate::results::Results;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 60.0;
/// Room for the time's axis, and a line for each nemesis.
const AXIS: f64 = 24.0;
const LANE: f64 = 16.0;

const PAGE_STYLE: &str = "body{max-width:1100px}table{border-collapse:collapse}\
td,th{text-align:left;padding:.15em 1em .15em 0;vertical-align:top}\
.held{background:#2a7d46}.broken{background:#b3261e}.open{background:#8a6d00}\
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}code{font-size:13px}";

/// How many calls ended in one way.
type Count = fn(&Counts) -> u64;

/// What calls came to, lowest in the picture first, with its colour.
const KINDS: [(&str, &str, Count); 4] = [
    ("done", "#4a90d9", |counts| counts.ok),
    ("condition did not hold", "#b9c6d3", |counts| counts.refused),
    ("not served", "#d9822b", |counts| counts.failed),
    ("unknown", "#b3261e", |counts| counts.unknown),
];

/// The page of a run.
pub(crate) fn html(results: &Results) -> String {
    let options = &results.plan.options;
    let outcome = results.outcome().name();
    let (total, served) = results.calls();
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{name}: {outcome}</title>\
         <style>{STYLE}{PAGE_STYLE}</style><h1>{name}: <b class=\"{outcome}\">{outcome}</b></h1>\
         <p>{total} calls, {served:.1} % answered; {nodes} nodes, hosts {hosts}; checked as \
         {model}: {verdict}</p><p><code>{command}</code></p>",
        name = options.workload.name(),
        nodes = options.nodes,
        hosts = results.plan.hosts.name(),
        model = results.judgement.model.name(),
        verdict = results.verdict(),
        command = escaped(&results.plan.command()),
    );
    for doubt in results.doubts() {
        let _ = write!(page, "<p>It does not count: {}</p>", escaped(&doubt));
    }
    for problem in results
        .recovery
        .iter()
        .flat_map(|recovery| recovery.problems())
    {
        let _ = write!(page, "<p><b>{}</b></p>", escaped(&problem));
    }
    page += &timeline(results);
    page += &faults(&results.faults);
    page += &findings(&results.judgement.report);
    page + "</html>\n"
}

/// Where a moment is drawn.
fn across(moment: Duration, whole: Duration) -> f64 {
    LEFT + (WIDTH - LEFT) * moment.as_secs_f64() / whole.as_secs_f64()
}

fn timeline(results: &Results) -> String {
    let slices = &results.slices;
    let whole = SLICE * u32::try_from(slices.len().max(1)).unwrap_or(u32::MAX);
    let most = slices.iter().map(Counts::total).max().unwrap_or(0).max(1) as f64;
    let nemeses = &results.plan.options.nemeses;
    let height = HEIGHT + AXIS + LANE * nemeses.len() as f64;
    let mut svg = format!(
        "<h2>Calls over time</h2><div class=\"scroll\"><svg width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"calls over time\">"
    );
    for fault in &results.faults {
        let (begin, end) = (across(fault.begin, whole), across(fault.end, whole));
        let lane = nemeses.iter().position(|nemesis| *nemesis == fault.nemesis);
        let lane = HEIGHT + AXIS + LANE * lane.unwrap_or(0) as f64;
        let (width, title) = ((end - begin).max(1.0), escaped(&fault.what));
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<rect x=\"{begin:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\" \
             fill=\"#f3ddd0\"/><rect x=\"{begin:.1}\" y=\"{lane:.1}\" width=\"{width:.1}\" \
             height=\"10\" fill=\"#c2571a\"><title>{title}</title></rect>"
        );
    }
    bars(&mut svg, slices, most, whole);
    axes(&mut svg, most, whole);
    for (place, nemesis) in nemeses.iter().enumerate() {
        let y = HEIGHT + AXIS + LANE * place as f64 + 10.0;
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{y}\" font-size=\"11\">{}</text>",
            nemesis.name()
        );
    }
    svg += "</svg></div><p>";
    for (name, colour, _) in KINDS {
        let _ = write!(
            svg,
            "<span class=\"key\" style=\"background:{colour}\"></span>{name}"
        );
    }
    svg + "<span class=\"key\" style=\"background:#f3ddd0\"></span>fault</p>"
}

fn bars(svg: &mut String, slices: &[Counts], most: f64, whole: Duration) {
    for (place, counts) in slices.iter().enumerate() {
        let begin = SLICE * u32::try_from(place).unwrap_or(u32::MAX);
        let (x, next) = (across(begin, whole), across(begin + SLICE, whole));
        let mut top = HEIGHT;
        for (_, colour, count) in KINDS {
            let height = count(counts) as f64 / most * (HEIGHT - 10.0);
            if height == 0.0 {
                continue;
            }
            top -= height;
            let width = (next - x - 1.0).max(1.0);
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                 fill=\"{colour}\"/>"
            );
        }
    }
}

fn axes(svg: &mut String, most: f64, whole: Duration) {
    let per_second = most / SLICE.as_secs_f64();
    let _ = write!(
        svg,
        "<text x=\"0\" y=\"12\" font-size=\"11\">{per_second:.0}/s</text>\
         <text x=\"0\" y=\"{HEIGHT}\" font-size=\"11\">0</text>\
         <line x1=\"{LEFT}\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\" stroke=\"#777\"/>"
    );
    let step = (whole.as_secs() / 10).max(1);
    for second in (0..=whole.as_secs()).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let x = across(Duration::from_secs(second), whole);
        let y = HEIGHT + 14.0;
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y}\" font-size=\"11\">{second} s</text>"
        );
    }
}

fn faults(faults: &[Fault]) -> String {
    let mut table =
        "<h2>Faults</h2><table><tr><th>from<th>to<th>nemesis<th>what<th>known by".to_owned();
    for fault in faults {
        let proof = fault
            .proof
            .as_deref()
            .unwrap_or("not known to have happened");
        let _ = write!(
            table,
            "<tr><td>{:.1} s<td>{:.1} s<td>{}<td>{}<td>{}",
            fault.begin.as_secs_f64(),
            fault.end.as_secs_f64(),
            fault.nemesis.name(),
            escaped(&fault.what),
            escaped(proof)
        );
    }
    table + "</table>"
}
