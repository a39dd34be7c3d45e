//! A plan as people and programs read it.

use quorate_client::config::{Change, Plan};
use serde_json::{Map, Value};

use super::super::colour::Paint;
use super::super::error::CliError;
use super::super::json::put_bytes;
use super::super::output::Output;
use crate::config::{LineChange, line_changes};
use crate::transfer::shown;

/// Lines of differences that one key shows; the others are counted.
const LINES_SHOWN_MAX: usize = 40;
/// Longest line that is shown whole.
const LINE_SHOWN_CHARACTERS: usize = 160;
/// Keys that are shown with their lines; beyond, one line each.
const KEYS_WITH_LINES_MAX: usize = 50;

/// Writes what a plan would change: a line a key, with the lines that differ.
pub(super) fn print(output: &mut Output, plan: &Plan) -> Result<(), CliError> {
    if output.is_json() {
        for (key, change) in &plan.changes {
            output.json(&as_json(key, change))?;
        }
        return Ok(());
    }
    let paint = Paint::of(output);
    let with_lines = plan.changes.len() <= KEYS_WITH_LINES_MAX;
    for (key, change) in &plan.changes {
        let name = shown(key);
        match change {
            Change::Add { .. } => output.line(paint.added(format_args!("+ {name}")))?,
            Change::Replace { .. } => output.line(paint.changed(format_args!("~ {name}")))?,
            Change::Remove { .. } => output.line(paint.removed(format_args!("- {name}")))?,
        }
        if with_lines {
            print_lines(output, paint, change)?;
        }
    }
    output.line(summary(plan))
}

/// In words, how much a plan would change.
pub(super) fn summary(plan: &Plan) -> String {
    let (added, changed, removed) = plan.counts();
    let (unchanged, kept) = (plan.unchanged.len(), plan.kept.len());
    let mut text = format!(
        "{added} to add, {changed} to change, {removed} to remove, {unchanged} as they are"
    );
    if kept > 0 {
        text.push_str(&format!(", {kept} not in the bundle kept"));
    }
    text
}

fn print_lines(output: &mut Output, paint: Paint, change: &Change) -> Result<(), CliError> {
    let text = |value: Option<&bytes::Bytes>| match value {
        Some(value) => String::from_utf8(value.to_vec()).ok(),
        None => Some(String::new()),
    };
    let (Some(before), Some(after)) = (text(change.before()), text(change.after())) else {
        let bytes = |value: Option<&bytes::Bytes>| value.map_or(0, bytes::Bytes::len);
        let (before, after) = (bytes(change.before()), bytes(change.after()));
        return output.line(paint.faint(format_args!("    no text: {before} B to {after} B")));
    };
    let changes = line_changes(&before, &after);
    if changes
        .iter()
        .all(|one| matches!(one, LineChange::Same(_) | LineChange::Skipped(_)))
    {
        return output.line(paint.faint("    only line ends differ"));
    }
    for change in changes.iter().take(LINES_SHOWN_MAX) {
        output.line(match change {
            LineChange::Same(line) => paint.faint(format_args!("      {}", short(line))),
            LineChange::Gone(line) => paint.removed(format_args!("    - {}", short(line))),
            LineChange::New(line) => paint.added(format_args!("    + {}", short(line))),
            LineChange::Skipped(count) => paint.faint(format_args!("      … {count} line(s)")),
        })?;
    }
    match changes.len().checked_sub(LINES_SHOWN_MAX) {
        Some(more @ 1..) => output.line(paint.faint(format_args!("      … {more} more"))),
        Some(0) | None => Ok(()),
    }
}

/// A line without what a terminal would obey.
fn short(line: &str) -> String {
    let visible = |c: char| {
        if c.is_control() && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    };
    let mut text: String = line
        .chars()
        .take(LINE_SHOWN_CHARACTERS)
        .map(visible)
        .collect();
    if line.chars().nth(LINE_SHOWN_CHARACTERS).is_some() {
        text.push('…');
    }
    text
}

fn as_json(key: &[u8], change: &Change) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "key", key);
    let word = match change {
        Change::Add { .. } => "add",
        Change::Replace { .. } => "replace",
        Change::Remove { .. } => "remove",
    };
    object.insert("change".to_owned(), word.into());
    if let Some(before) = change.before() {
        put_bytes(&mut object, "before", before);
    }
    if let Some(after) = change.after() {
        put_bytes(&mut object, "after", after);
    }
    object.into()
}
