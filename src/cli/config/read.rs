//! `quorate config history`, `show` and `export`: what was made, what is there, and back to files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use quorate_client::config::{
    Config, LayeredValue, StepInfo, StepKind, explain_layers, split_layers,
};
use quorate_types::Timestamp;
use serde_json::{Map, json};

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::global::Session;
use super::super::json::put_bytes;
use super::super::output::Output;
use super::super::table::table;
use super::config;
use crate::config::{Form, nest, write};
use crate::transfer::{Target, shown};

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config history app
  quorate config history app --limit 5 --output json

The time is that of the clock of who made the step.")]
pub(in crate::cli) struct HistoryArgs {
    /// A folder of keys
    prefix: OsString,
    /// So many at most; 0: all
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: usize,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config show app
  quorate config show app --step 12 --output json
  quorate config show app --layers base,env/prod,host/web-1 --explain

A key and its value a line. A value of several lines stands below its key. Layers are folders of the
prefix that are read as one, in one snapshot: a key's value is that of the last layer which has it.
--explain says which one that is, and what it hides.")]
pub(in crate::cli) struct ShowArgs {
    /// A folder of keys
    prefix: OsString,
    /// As it was after this step, not as it is now
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u64).range(1..))]
    step: Option<u64>,
    /// Folders of the prefix that are read as one, the weakest first
    #[arg(long, value_name = "LAYER,…", value_delimiter = ',')]
    layers: Vec<String>,
    /// Say which layer each value comes from, and what it hides
    #[arg(long, requires = "layers")]
    explain: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config export app ./conf.d
  quorate config export app app.yaml
  quorate config export app app.json --step 12

A folder's files are the values, byte for byte. A name that ends in .yaml, .toml or .json makes one
document with nested maps; there a value that reads as a number, a truth, a list or a map is that, all others are
strings. Nothing has the final name before all of it is there.")]
pub(in crate::cli) struct ExportArgs {
    /// A folder of keys
    prefix: OsString,
    /// A folder, or a .yaml, .yml, .toml or .json file; it is not there yet
    path: PathBuf,
    /// As it was after this step, not as it is now
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u64).range(1..))]
    step: Option<u64>,
}

pub(super) async fn history(args: HistoryArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let config = config(&client, &args.prefix)?;
    let steps = config.steps(args.limit).await?;
    if steps.is_empty() {
        return Err(CliError::refused(
            Exit::NotFound,
            format!("nothing was applied under {:?}", config.prefix().as_str()),
            "`quorate config apply PREFIX DIR` makes the first step",
        ));
    }
    if output.is_json() {
        for step in &steps {
            output.json(&step_json(step))?;
        }
    } else {
        let heads = ["step", "time", "author", "+", "~", "-", "what for"];
        output.line(table(&heads, steps.iter().map(row)))?;
    }
    output.flush()
}

fn time(step: &StepInfo) -> String {
    Timestamp::from_millis(step.time_ms).to_rfc3339()
}

fn row(step: &StepInfo) -> [String; 7] {
    let back = match (step.kind, step.restored) {
        (StepKind::Apply, _) => String::new(),
        (StepKind::Rollback, Some(number)) => format!("[back to {number}] "),
        (StepKind::Rollback, None) => format!("[undoes {}] ", step.number - 1),
    };
    let first_line = step.message.lines().next().unwrap_or_default();
    [
        step.number.to_string(),
        time(step),
        shown(step.author.as_bytes()),
        step.added.to_string(),
        step.changed.to_string(),
        step.removed.to_string(),
        format!("{back}{}", shown(first_line.as_bytes())),
    ]
}

fn step_json(step: &StepInfo) -> serde_json::Value {
    json!({
        "step": step.number, "kind": step.kind, "restored": step.restored,
        "author": step.author, "message": step.message, "time": time(step),
        "added": step.added, "changed": step.changed, "removed": step.removed,
    })
}

/// Values of a prefix by relative key, and what is known of each one's write.
async fn values(
    config: &Config,
    step: Option<u64>,
) -> Result<BTreeMap<Bytes, (Bytes, Option<u64>)>, CliError> {
    if let Some(step) = step {
        let values = config.at_step(step).await?.into_iter();
        return Ok(values.map(|(key, value)| (key, (value, None))).collect());
    }
    let state = config.read().await?;
    let values = state.values().map(|(key, value)| {
        let revision = state.revision_of(key).map(|revision| revision.0);
        (key.clone(), (value.clone(), revision))
    });
    Ok(values.collect())
}

fn nothing(config: &Config) -> CliError {
    CliError::refused(
        Exit::NotFound,
        format!("no keys under {:?}", config.prefix().as_str()),
        "`quorate scan` lists what is there",
    )
}

pub(super) async fn show(args: ShowArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let config = config(&client, &args.prefix)?;
    let values = values(&config, args.step).await?;
    if values.is_empty() {
        return Err(nothing(&config));
    }
    if !args.layers.is_empty() {
        let values = values.into_iter().map(|(key, (value, _))| (key, value));
        return show_layers(&args, &values.collect(), output);
    }
    for (key, (value, revision)) in &values {
        if output.is_json() {
            let mut object = Map::new();
            put_bytes(&mut object, "key", key);
            put_bytes(&mut object, "value", value);
            if let Some(revision) = revision {
                object.insert("revision".to_owned(), json!(revision));
            }
            output.json(&object.into())?;
        } else {
            print_value(&mut output, key, value)?;
        }
    }
    output.flush()
}

fn show_layers(
    args: &ShowArgs,
    values: &BTreeMap<Bytes, Bytes>,
    mut output: Output,
) -> Result<(), CliError> {
    let layers = split_layers(values, &args.layers);
    if let Some((layer, _)) = layers.iter().find(|(_, values)| values.is_empty()) {
        output.remark(&format!("the layer {layer:?} has no keys"));
    }
    for (key, one) in &explain_layers(layers) {
        if output.is_json() {
            let mut object = layered(&one.wins);
            put_bytes(&mut object, "key", key);
            if args.explain {
                let hidden: Vec<_> = one.hidden.iter().map(layered).collect();
                object.insert("hidden".to_owned(), json!(hidden));
            }
            output.json(&object.into())?;
            continue;
        }
        print_value(&mut output, key, &one.wins.value)?;
        if args.explain {
            output.line(format_args!("    from {}", one.wins.layer))?;
            for hidden in &one.hidden {
                let value = shown(&hidden.value);
                output.line(format_args!("    hides {} = {value}", hidden.layer))?;
            }
        }
    }
    output.flush()
}

fn layered(value: &LayeredValue) -> Map<String, serde_json::Value> {
    let mut object = Map::new();
    put_bytes(&mut object, "value", &value.value);
    object.insert("layer".to_owned(), json!(value.layer));
    object
}

fn print_value(output: &mut Output, key: &[u8], value: &[u8]) -> Result<(), CliError> {
    let key = shown(key);
    match std::str::from_utf8(value) {
        Ok(text) if text.trim_end_matches('\n').contains('\n') => {
            output.line(format_args!("{key}:"))?;
            text.lines()
                .try_for_each(|line| output.line(format_args!("    {line}")))
        }
        Ok(text) => output.line(format_args!("{key} = {}", text.trim_end_matches('\n'))),
        Err(_) => output.line(format_args!("{key} = {} B that are no text", value.len())),
    }
}

pub(super) async fn export(args: ExportArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let config = config(&client, &args.prefix)?;
    let values = values(&config, args.step).await?;
    if values.is_empty() {
        return Err(nothing(&config));
    }
    match Form::of(&args.path) {
        Some(form) => export_document(&args.path, form, &values)?,
        None => export_folder(&args.path, &values)?,
    }
    let (keys, path) = (values.len(), args.path.display().to_string());
    if output.is_json() {
        output.json(&json!({"keys": keys, "path": path}))?;
    } else {
        output.line(format_args!("{keys} key(s) to {path}"))?;
    }
    output.flush()
}

fn export_folder(
    path: &Path,
    values: &BTreeMap<Bytes, (Bytes, Option<u64>)>,
) -> Result<(), CliError> {
    let mut target = Target::create(path, b"")?;
    for (key, (value, _)) in values {
        if let Err(unfit) = target.put(key, value)? {
            return Err(CliError::refused(
                Exit::Failed,
                format!("the key {:?} cannot be a file: {unfit}", shown(key)),
                "`quorate export PREFIX --to FILE.jsonl` takes any key",
            ));
        }
    }
    Ok(target.finish()?)
}

fn export_document(
    path: &Path,
    form: Form,
    values: &BTreeMap<Bytes, (Bytes, Option<u64>)>,
) -> Result<(), CliError> {
    let document = nest(values.iter().map(|(key, (value, _))| (key, value)));
    let document = document.map_err(|error| {
        CliError::refused(Exit::Failed, error.to_string(), "export to a folder")
    })?;
    let text = write(&document, form).map_err(|error| {
        let hint = "export to .json, or to a folder";
        CliError::refused(Exit::Failed, error.to_string(), hint)
    })?;
    super::super::replace::replace_file(path, text.as_bytes())
}
