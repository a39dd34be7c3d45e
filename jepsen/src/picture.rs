//! Findings as pictures: a page of HTML that needs nothing else to be looked at.
//!
//! A timeline shows calls as bars, a row for each process; a circle shows transactions with why
//! each must precede the next. Only what a finding names is drawn.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::report::{Finding, Report};

/// What there is to see of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Calls in time.
    Timeline(Vec<Bar>),
    /// Transactions, each with why it precedes the next; the last one precedes the first.
    Circle(Vec<(String, String)>),
}

/// One call in a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Who called.
    pub row: String,
    /// Position of the invocation.
    pub begin: u64,
    /// Position of the return; none if it never returned.
    pub end: Option<u64>,
    /// What was called.
    pub label: String,
    /// This is the one that fits nowhere.
    pub wrong: bool,
}

const BAR_HEIGHT: usize = 26;
const ROW_HEIGHT: usize = 40;
/// Where bars begin, right of the rows' names.
const LEFT: usize = 110;
/// Width of the step from one event to the next.
const EVENT_WIDTH: usize = 90;

/// How pages with findings look.
pub const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;\
padding:0 1em;color:#222;background:#fff}h1 b{padding:.1em .5em;border-radius:.3em;color:#fff}\
.valid{background:#2a7d46}.invalid{background:#b3261e}.unknown{background:#8a6d00}\
section{border-top:1px solid #ccc;margin-top:1.5em}.scroll{overflow-x:auto}\
svg{font:13px system-ui,sans-serif}li{margin:.2em 0}\
.node{border:1px solid #888;border-radius:.5em;padding:.4em .8em;background:#f6f6f6}\
.why{margin:.2em 0 .2em 2em;color:#555}.why:before{content:'\u{2193} '}";

/// The page of a report.
pub fn html(report: &Report, model: &str) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{model}: {verdict}</title>\
         <style>{STYLE}</style><h1>{model}: <b class=\"{verdict}\">{verdict}</b></h1>\
         <p>{operations} operations</p>",
        verdict = report.verdict,
        operations = report.operations,
    );
    if let Some(because) = &report.unknown {
        page += &format!("<p>Not known: {}</p>", escaped(because));
    }
    if !report.ruled_out.is_empty() {
        let models = report.ruled_out.join(", ");
        page += &format!("<p>Ruled out: {models}, and whatever is stronger</p>");
    }
    page + &findings(report) + "</html>\n"
}

/// What is wrong, as pieces of a page with [`STYLE`].
pub fn findings(report: &Report) -> String {
    let sections: String = report.findings.iter().map(section).collect();
    let remarks = report.remarks.iter();
    let remarks = remarks.map(|remark| format!("<p>{}</p>", escaped(remark)));
    sections + &remarks.collect::<String>()
}

fn section(finding: &Finding) -> String {
    let key = finding.key.as_ref();
    let key = key.map(|key| format!(" (key {})", escaped(key)));
    let mut section = format!(
        "<section><h2>{}{}</h2><p>{}</p>",
        escaped(&finding.anomaly),
        key.unwrap_or_default(),
        escaped(&finding.summary)
    );
    match &finding.picture {
        Some(Picture::Timeline(bars)) => section += &timeline(bars),
        Some(Picture::Circle(nodes)) => section += &circle(nodes),
        None => {
            let steps = finding.steps.iter();
            let steps = steps.map(|step| format!("<li>{}</li>", escaped(step)));
            section += &format!("<ul>{}</ul>", steps.collect::<String>());
        }
    }
    section + "</section>"
}

/// Text as it stands between tags and in attributes.
pub fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// Events are spread evenly: their order tells, not how long they took.
fn timeline(bars: &[Bar]) -> String {
    let ends = bars.iter().flat_map(|bar| [Some(bar.begin), bar.end]);
    let mut columns: BTreeMap<u64, usize> = ends.flatten().map(|at| (at, 0)).collect();
    for (column, (_, place)) in columns.iter_mut().enumerate() {
        *place = LEFT + column * EVENT_WIDTH;
    }
    let mut rows: BTreeMap<&str, usize> = bars.iter().map(|bar| (bar.row.as_str(), 0)).collect();
    for (row, (_, place)) in rows.iter_mut().enumerate() {
        *place = row * ROW_HEIGHT;
    }
    let (width, height) = (LEFT + columns.len() * EVENT_WIDTH, rows.len() * ROW_HEIGHT);
    let mut svg = format!("<div class=\"scroll\"><svg width=\"{width}\" height=\"{height}\">");
    for (row, y) in &rows {
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{}\">{}</text>",
            y + 18,
            escaped(row)
        );
    }
    for bar in bars {
        let (x, y) = (columns[&bar.begin], rows[bar.row.as_str()]);
        let end = bar.end.map_or(width, |end| columns[&end]);
        let fill = match (bar.wrong, bar.end) {
            (true, _) => "#f4b6b1",
            (false, Some(_)) => "#cfe0f5",
            (false, None) => "#eee3c2",
        };
        let label = escaped(&bar.label);
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{BAR_HEIGHT}\" rx=\"4\" \
             fill=\"{fill}\" stroke=\"#777\"/><text x=\"{}\" y=\"{}\">{label}</text>",
            end.saturating_sub(x).max(8),
            x + 6,
            y + 18
        );
    }
    svg + "</svg></div>"
}

fn circle(nodes: &[(String, String)]) -> String {
    let mut text = String::new();
    for (node, why) in nodes {
        let (node, why) = (escaped(node), escaped(why));
        let _ = write!(
            text,
            "<div class=\"node\">{node}</div><div class=\"why\">{why}</div>"
        );
    }
    let first = nodes.first().map(|(node, _)| escaped(node));
    text + &format!("<div class=\"node\">{}</div>", first.unwrap_or_default())
}
