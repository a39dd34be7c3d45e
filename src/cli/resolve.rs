//! `quorate resolve`: shows the concurrent values of a key, and puts one in their place.
//!
//! It writes with the context of its own read, so what was written meanwhile stays beside.
//! Editing in a text editor is in `edit`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use quorate_client::config::merge_values;
use quorate_client::{Client, Entry, Got, ReadOptions, WriteOptions};
use quorate_types::Revision;
use quorate_types::limits::VALUE_MAX_BYTES_CAP;
use serde_json::{Map, Value, json};

use super::consistency::LevelArgs;
use super::error::CliError;
use super::exit::Exit;
use super::get::{not_found, print};
use super::global::Session;
use super::output::Output;
use super::{edit, input, json};
use crate::config::{Form, parse, write};
use crate::transfer::shown;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate resolve title                    # shows the values, numbered
  quorate resolve title --pick 2           # keeps the second one
  quorate resolve title --value 'A and B'  # puts this in their place
  quorate resolve title --edit             # opens them all in $EDITOR
  quorate resolve app.json --merge         # joins maps, name by name
  quorate resolve app.json --merge --base 1762000000000000

--merge takes values as JSON, those of keys that end in .yaml, .yml or .toml as that, and writes the
same; remarks in them are lost. It compares with what all of them were made from, if --base gives its
revision: what only one has changed is taken. Places that two have changed otherwise are listed,
nothing is written, and the exit code is 4.

Where there is nothing to resolve it says so, and the exit code is 0.")]
pub(super) struct ResolveArgs {
    /// The key, byte for byte
    key: OsString,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// With --merge: the revision of the value that they were made from
    #[arg(long, value_name = "REVISION", requires = "merge")]
    base: Option<u64>,
    #[command(flatten)]
    level: LevelArgs,
}

/// What comes in the place of the siblings; nothing: they are shown.
#[derive(Args, Debug)]
#[group(required = false, multiple = false)]
struct ChoiceArgs {
    /// This one of them: by its number, or by its dot
    #[arg(long, value_name = "N")]
    pick: Option<String>,
    /// This value
    #[arg(long, value_name = "VALUE")]
    value: Option<OsString>,
    /// What this file holds; `-`: standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What $VISUAL or $EDITOR makes of them, between conflict markers
    #[arg(long)]
    edit: bool,
    /// Nothing: the key goes
    #[arg(long)]
    delete: bool,
    /// What all of them have in common and what each has changed, as maps
    #[arg(long)]
    merge: bool,
}

/// What a resolution writes.
enum Choice {
    Value(Bytes),
    Delete,
}

impl ChoiceArgs {
    /// None: only show.
    fn of(&self, siblings: &[&Entry]) -> Result<Option<Choice>, CliError> {
        Ok(Some(if let Some(wanted) = &self.pick {
            Choice::Value(picked(siblings, wanted)?)
        } else if let Some(value) = &self.value {
            Choice::Value(input::argument(value))
        } else if let Some(file) = &self.file {
            let value = input::read_file_or_stdin(file, VALUE_MAX_BYTES_CAP as u64)?;
            Choice::Value(value.into())
        } else if self.edit {
            Choice::Value(edit::merged(siblings)?)
        } else if self.delete {
            Choice::Delete
        } else {
            return Ok(None);
        }))
    }
}

fn picked(siblings: &[&Entry], wanted: &str) -> Result<Bytes, CliError> {
    let by_number = wanted.parse::<usize>().ok().and_then(|number| {
        let index = number.checked_sub(1)?;
        siblings.get(index).copied()
    });
    let by_dot = || siblings.iter().copied().find(|one| one.dot == wanted);
    match by_number.or_else(by_dot) {
        Some(one) => Ok(one.value.clone()),
        None => Err(CliError::usage(
            format!(
                "--pick {wanted}: there are values 1 to {}, and none of that dot",
                siblings.len()
            ),
            "`quorate resolve KEY` shows them",
        )),
    }
}

pub(super) async fn run(args: ResolveArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let key = input::argument(&args.key);
    let (read, write) = args.level.resolve()?;
    let got = client.get_with(key.clone(), read).await?;
    args.level.remember(&got.receipt)?;
    let Some(first) = &got.entry else {
        return Err(not_found(&key, client.keyspace_name(), None));
    };
    if got.siblings.is_empty() {
        return nothing_to_do(&mut output, &key, &got);
    }
    let siblings: Vec<&Entry> = std::iter::once(first).chain(&got.siblings).collect();
    let choice = match args.choice.merge {
        true => Some(merged(&client, &args, &siblings, &mut output).await?),
        false => args.choice.of(&siblings)?,
    };
    let Some(choice) = choice else {
        print(&mut output, first, &got, false)?;
        output.flush()?;
        if !output.is_json() {
            output.remark(
                "hint: --pick N, --value V, --merge, --edit or --delete puts one in their place",
            );
        }
        return Ok(());
    };
    let write = WriteOptions {
        context: Some(got.receipt.context.clone()),
        ..write
    };
    settle(&client, &mut output, key, choice, &args.level, write).await
}

/// All siblings as one value, or a list of what conflicts.
async fn merged(
    client: &Client,
    args: &ResolveArgs,
    siblings: &[&Entry],
    output: &mut Output,
) -> Result<Choice, CliError> {
    let form = form_of(&args.key);
    let base = match args.base {
        Some(revision) => {
            let read = ReadOptions {
                at: Some(Revision(revision)),
                ..ReadOptions::default()
            };
            let got = client.get_with(input::argument(&args.key), read).await?;
            got.entry
                .map(|entry| parsed("the base", form, &entry.value))
                .transpose()?
        }
        None => None,
    };
    let mut values = Vec::new();
    for (at, sibling) in siblings.iter().enumerate() {
        values.push(parsed(&format!("value {}", at + 1), form, &sibling.value)?);
    }
    let mut values = values.into_iter();
    let mut whole = values.next();
    let mut conflicts = Vec::new();
    for value in values {
        let merged = merge_values(base.as_ref(), whole.as_ref(), Some(&value));
        whole = merged.value;
        conflicts.extend(merged.conflicts);
    }
    if conflicts.is_empty() {
        return Ok(Choice::Value(written(form, whole.as_ref())?.into()));
    }
    for one in &conflicts {
        let path = if one.path.is_empty() { "/" } else { &one.path };
        if output.is_json() {
            output.json(&json!({
                "conflict": path, "base": one.base, "ours": one.ours, "theirs": one.theirs,
            }))?;
        } else {
            let shown = |value: &Option<Value>| match value {
                Some(value) => value.to_string(),
                None => "removed".to_owned(),
            };
            let (ours, theirs) = (shown(&one.ours), shown(&one.theirs));
            output.line(format_args!("{path}: {ours} or {theirs}"))?;
        }
    }
    output.flush()?;
    Err(CliError::refused(
        Exit::Condition,
        format!("{} place(s) were changed by more than one", conflicts.len()),
        "nothing was written; `--edit` or `--value` decides",
    ))
}

/// How the values of a key are written: as its name ends, else as JSON.
fn form_of(key: &OsString) -> Form {
    Form::of(Path::new(key)).unwrap_or(Form::Json)
}

fn parsed(what: &str, form: Form, value: &Bytes) -> Result<Value, CliError> {
    let no_text = |_| unresolved(format!("{what} is no text, and cannot be merged"));
    let text = std::str::from_utf8(value).map_err(no_text)?;
    let no_document = |error| unresolved(format!("{what} cannot be merged: {error}"));
    parse(text, form).map_err(no_document)
}

/// The merged value, as its siblings were written; JSON on one line.
fn written(form: Form, merged: Option<&Value>) -> Result<String, CliError> {
    match (form, merged) {
        (_, None) => Ok(String::new()),
        (Form::Json, Some(value)) => Ok(value.to_string()),
        (Form::Yaml | Form::Toml, Some(value)) => {
            write(value, form).map_err(|error| unresolved(error.to_string()))
        }
    }
}

async fn settle(
    client: &Client,
    output: &mut Output,
    key: Bytes,
    choice: Choice,
    level: &LevelArgs,
    options: WriteOptions,
) -> Result<(), CliError> {
    let (dot, receipt) = match choice {
        Choice::Value(value) => {
            let written = client.put_with(key.clone(), value, options).await?;
            (written.dot, written.receipt)
        }
        Choice::Delete => {
            let deleted = client.delete_with(key.clone(), options).await?;
            (deleted.dot, deleted.receipt)
        }
    };
    level.remember(&receipt)?;
    if output.is_json() {
        let mut object = Map::new();
        json::put_bytes(&mut object, "key", &key);
        object.insert("resolved".to_owned(), json!(true));
        object.insert("dot".to_owned(), json!(dot));
        output.object(object, &receipt)?;
        return output.flush();
    }
    output.line(&dot)?;
    if receipt.siblings > 0 {
        output.remark(&format!(
            "{} more value(s) were written meanwhile: resolve again",
            receipt.siblings
        ));
    }
    output.remark_receipt(&receipt);
    output.flush()
}

fn nothing_to_do(output: &mut Output, key: &[u8], got: &Got) -> Result<(), CliError> {
    if output.is_json() {
        let mut object = Map::new();
        json::put_bytes(&mut object, "key", key);
        object.insert("resolved".to_owned(), json!(false));
        object.insert("siblings".to_owned(), json!([]));
        output.object(object, &got.receipt)?;
        return output.flush();
    }
    let why = match &got.typed {
        Some(_) => "counters, sets and maps merge by themselves",
        None => "it has one value",
    };
    output.line(format_args!(
        "nothing to resolve for {:?}: {why}",
        shown(key)
    ))?;
    output.flush()
}

/// An editor that failed, or left its work undone. Nothing was written.
pub(super) fn unresolved(message: impl Into<String>) -> CliError {
    CliError::refused(
        Exit::Failed,
        message,
        "nothing was written; `--value` or `-f FILE` takes the merged value as well",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_sibling_is_picked_by_number_or_dot() {
        let entry = |value: &'static str, dot: &str| Entry {
            key: "k".into(),
            value: value.into(),
            revision: Revision(1),
            expires_at: None,
            dot: dot.to_owned(),
            siblings: 0,
        };
        let (a, b) = (entry("a", "1.1.7"), entry("b", "2.1.1"));
        let siblings = [&a, &b];
        assert_eq!(picked(&siblings, "2").unwrap(), "b");
        assert_eq!(picked(&siblings, "1.1.7").unwrap(), "a");
        for wanted in ["0", "3", "9.9.9", ""] {
            let error = picked(&siblings, wanted).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{wanted}");
        }
    }
}
