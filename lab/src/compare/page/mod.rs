//! The report: one page of HTML that needs nothing else to be looked at, drawn of the results
//! alone. Pictures are SVG with the page's own colours, so that they follow light and dark.

mod darkness;
mod grid;
mod lanes;
mod nodes;
mod numbers;
mod scale;
mod style;
mod words;

use std::fmt::Write;

use quorate_jepsen::picture::escaped;

use super::results::Comparison;
use super::table::time;
use style::STYLE;

/// The page of a comparison; other ones stand beside it in the pictures that hold several.
pub fn html(comparison: &Comparison, beside: &[Comparison]) -> String {
    let stores: Vec<&Comparison> = std::iter::once(comparison).chain(beside).collect();
    let (setup, cut) = (&comparison.setup, &comparison.cut);
    let outcome = &comparison.outcome;
    let target = escaped(&setup.target);
    let seconds = time(cut.end_ms - cut.begin_ms);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <link rel=\"icon\" href=\"data:,\"><title>{target} through a cut: {outcome}</title>\
         <style>{STYLE}</style></head><body><header><h1>{target} through a cut <b class=\"badge \
         {outcome}\">{outcome}</b></h1><p class=\"lead\">The same clients on both sides of one cut, at \
         every level at once: {nodes} nodes, {replication} replicas, cut apart for {seconds}. \
         {rate:.0} calls a second in all; a call has {timeout} and one attempt.</p></header>",
        nodes = setup.nodes,
        replication = setup.replication,
        rate = setup.rate_per_second,
        timeout = time(setup.timeout_ms as f64),
    );
    for breach in &comparison.breaches {
        // Writing to a string does not fail.
        let _ = write!(page, "<p class=\"alarm\">Broken: {}</p>", escaped(breach));
    }
    for doubt in &comparison.doubts {
        let _ = write!(
            page,
            "<p class=\"alarm\">It does not count: {}</p>",
            escaped(doubt)
        );
    }
    page += "<main>";
    page += &section("nodes", "Who is where", &nodes::picture(comparison));
    page += &section("said", "What happened", &words::told(comparison));
    page += &section(
        "grid",
        "Available, by level and side",
        &grid::picture(&stores),
    );
    page += &section(
        "darkness",
        "How long it was dark",
        &darkness::picture(&stores),
    );
    page += &section("lanes", "Call by call", &lanes::picture(comparison));
    page += &section("numbers", "In numbers", &numbers::tables(comparison));
    page += &section("reading", "How it was measured", &words::measured(&stores));
    page + "</main></body></html>\n"
}

fn section(id: &str, title: &str, content: &str) -> String {
    format!("<section id=\"{id}\"><h2>{title}</h2>{content}</section>")
}

#[cfg(test)]
mod tests;
