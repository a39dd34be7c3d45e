//! `quorate flag`: feature flags as definitions under a prefix, and what they come to for somebody.
//!
//! What a flag is, and how it is evaluated, is in `quorate_client::flags`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::TryStreamExt;
use quorate_client::flags::{
    Evaluation, EvaluationContext, FLAGS_PREFIX, Flag, FlagError, FlagType, Rule, evaluate_one,
};
use quorate_client::{CasOutcome, Client, Entry, Expect, ScanOptions, WriteOptions};
use serde_json::{Map, Value, json};

use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::input;
use super::output::Output;
use super::table::table;
use crate::transfer::shown;

/// Largest definition, bytes.
const DEFINITION_MAX_BYTES: u64 = 1 << 20;

/// What can be done with feature flags.
#[derive(Debug, Subcommand)]
pub(super) enum FlagCommand {
    /// Make or change a flag
    Set(SetArgs),
    /// Say which value a flag has for somebody
    Get(GetArgs),
    /// List the flags
    List(ListArgs),
    /// Say why a flag has its value for somebody
    Explain(GetArgs),
}

#[derive(Args, Debug)]
struct FlagPrefix {
    /// Where the flags lie
    #[arg(long, value_name = "P", default_value = FLAGS_PREFIX)]
    prefix: String,
}

impl FlagPrefix {
    fn key(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}{name}", self.prefix))
    }
}

#[derive(Args, Debug)]
#[command(after_help = r##"Example:
  quorate flag set new-checkout false
  quorate flag set new-checkout --percent 25        # the same quarter of all, wherever asked
  quorate flag set new-checkout --disable           # everybody has the program's own default
  quorate flag set banner '"Hello"'
  quorate flag set theme -f theme.json
with theme.json:
  {"type": "string", "variants": {"dark": "#000", "light": "#fff"}, "default": "light",
   "rules": [
     {"name": "staff", "if": [{"attribute": "mail", "test": "ends_with", "values": ["@x.org"]}],
      "serve": "dark"},
     {"split": {"dark": 10, "light": 90}, "by": "targeting_key"}]}

Types: boolean, string, number, json. The first rule whose conditions all hold picks the variant.
Tests: in (the default), not_in, starts_with, ends_with, contains, above, below, exists. A split
gives each variant its share of all targeting keys (or of what `by` names); growing one of two
shares moves nobody out of it.

VALUE, --percent, --enable and --disable change a flag that is there only if nobody else does so
meanwhile (exit code 4)."##)]
pub(super) struct SetArgs {
    /// The flag
    name: String,
    /// One value for everybody, as JSON; what is no JSON is a text. Removes all rules
    #[arg(conflicts_with_all = ["file", "percent"])]
    value: Option<String>,
    /// The whole definition, as JSON; `-`: standard input
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["percent", "enable", "disable"])]
    file: Option<PathBuf>,
    /// A boolean flag that is on for this share of all. Replaces all rules
    #[arg(long, value_name = "0..100", value_parser = parse_percent)]
    percent: Option<f64>,
    /// The program's own default for everybody
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// The opposite
    #[arg(long)]
    enable: bool,
    #[command(flatten)]
    at: FlagPrefix,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate flag get new-checkout --for user-7
  quorate flag explain new-checkout --for user-7 --with country=de --with age=42
  quorate flag get theme --for user-7 --output json

`get` prints the value; exit code 3 where there is no such flag, 1 where it cannot be evaluated.
With --output json: value, variant, reason and error_code in OpenFeature's words. `explain` shows
each rule that was looked at.")]
pub(super) struct GetArgs {
    /// The flag
    name: String,
    /// The targeting key: who asks
    #[arg(long = "for", value_name = "KEY")]
    targeting_key: Option<String>,
    /// An attribute that rules look at; VALUE as JSON, what is no JSON is a text
    #[arg(long = "with", value_name = "NAME=VALUE", value_parser = parse_attribute)]
    attributes: Vec<(String, Value)>,
    /// Of this type, or it is an error
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    wanted: Option<FlagType>,
    /// The program's own default, as JSON; what is no JSON is a text
    #[arg(long, value_name = "VALUE")]
    default: Option<String>,
    #[command(flatten)]
    at: FlagPrefix,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate flag list
  quorate flag list --output json")]
pub(super) struct ListArgs {
    #[command(flatten)]
    at: FlagPrefix,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "a share goes from 0 to 100".to_owned())
}

fn parse_attribute(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), as_value(value))),
        Some(_) | None => Err("wanted: NAME=VALUE, as in country=de".to_owned()),
    }
}

fn parse_type(text: &str) -> Result<FlagType, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "a type is boolean, string, number or json".to_owned())
}

/// JSON as it is, anything else as a text.
fn as_value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

pub(super) async fn run(command: FlagCommand, session: Session) -> Result<(), CliError> {
    match command {
        FlagCommand::Set(args) => set(args, session).await,
        FlagCommand::Get(args) => get(args, session).await,
        FlagCommand::List(args) => list(args, session).await,
        FlagCommand::Explain(args) => explain(args, session).await,
    }
}

fn no_flag(name: &str) -> CliError {
    CliError::refused(
        Exit::NotFound,
        format!("no flag {name:?}"),
        "`quorate flag list` shows those that are there",
    )
}

fn broken(name: &str, error: &FlagError) -> CliError {
    CliError::refused(
        Exit::Usage,
        format!("{name}: {error}"),
        "`quorate flag set --help` shows a definition",
    )
}

async fn set(args: SetArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    if args.name.is_empty() || args.name.contains('/') {
        return Err(CliError::usage(
            "a flag's name is not empty and has no `/`",
            "",
        ));
    }
    let key = args.at.key(&args.name);
    let there = client.get(key.clone()).await?.entry;
    let flag = wanted(&args, there.as_ref())?;
    flag.validate()
        .map_err(|error| broken(&args.name, &error))?;
    let text = serde_json::to_vec(&flag)
        .map_err(|error| CliError::refused(Exit::Failed, error.to_string(), ""))?;
    let expect = there.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
    let set = client.compare_and_set(key, expect, text, WriteOptions::default());
    let written = match set.await? {
        CasOutcome::Done(written) => written,
        CasOutcome::Refused { .. } => {
            return Err(CliError::refused(
                Exit::Condition,
                format!("somebody else has changed {:?} meanwhile", args.name),
                "look at it again: `quorate flag list`",
            ));
        }
    };
    if output.is_json() {
        let mut object = Map::new();
        object.insert("flag".to_owned(), args.name.into());
        object.insert("revision".to_owned(), written.revision.0.into());
        output.object(object, &written.receipt)?;
    } else {
        output.line(written.revision)?;
        output.remark_receipt(&written.receipt);
    }
    output.flush()
}

/// What the flag is to be.
fn wanted(args: &SetArgs, there: Option<&Entry>) -> Result<Flag, CliError> {
    if let Some(file) = &args.file {
        let text = input::read_file_or_stdin(file, DEFINITION_MAX_BYTES)?;
        return Flag::parse(&text).map_err(|error| broken(&file.display().to_string(), &error));
    }
    let there = there.map(|entry| Flag::parse(&entry.value));
    let there = there
        .transpose()
        .map_err(|error| broken(&args.name, &error))?;
    let mut flag = match (&args.value, args.percent, there) {
        (Some(value), _, there) => of_value(as_value(value), there),
        (None, Some(percent), there) => of_percent(percent, there)?,
        (None, None, Some(there)) if args.enable || args.disable => there,
        (None, None, None) if args.enable || args.disable => return Err(no_flag(&args.name)),
        (None, None, _) => {
            let hint = "give a VALUE, --file, --percent, --enable or --disable";
            return Err(CliError::usage("nothing to set", hint));
        }
    };
    flag.enabled = if args.enable {
        true
    } else {
        flag.enabled && !args.disable
    };
    Ok(flag)
}

/// One value for everybody; what people have written down about the flag stays.
fn of_value(value: Value, there: Option<Flag>) -> Flag {
    let mut flag = Flag::constant(value);
    if let Some(there) = there {
        (flag.enabled, flag.salt) = (there.enabled, there.salt);
        flag.description = there.description;
    }
    flag
}

fn of_percent(percent: f64, there: Option<Flag>) -> Result<Flag, CliError> {
    let mut flag = there.unwrap_or_else(|| Flag::constant(false.into()));
    let named = |wanted: bool| {
        let found = flag
            .variants
            .iter()
            .find(|(_, value)| **value == Value::Bool(wanted));
        found.map(|(name, _)| name.clone())
    };
    let (Some(on), Some(off)) = (named(true), named(false)) else {
        let hint = "`-f FILE` with a split shares among other variants";
        return Err(CliError::usage(
            "only a boolean flag has a percentage",
            hint,
        ));
    };
    flag.rules = vec![Rule {
        split: BTreeMap::from([(on, percent), (off, 100.0 - percent)]),
        ..Rule::default()
    }];
    Ok(flag)
}

/// Evaluates a flag as it is in the cluster now.
async fn evaluate(args: &GetArgs, client: &Client) -> Result<Evaluation, CliError> {
    let entry = client.get(args.at.key(&args.name)).await?.entry;
    let found = entry.map(|entry| Flag::parse(&entry.value));
    let context = EvaluationContext {
        targeting_key: args.targeting_key.clone(),
        attributes: args.attributes.iter().cloned().collect(),
    };
    let mut evaluation = evaluate_one(found.as_ref(), &args.name, &context, args.wanted);
    if evaluation.value.is_none() {
        evaluation.value = args.default.as_deref().map(as_value);
    }
    Ok(evaluation)
}

fn as_json(name: &str, evaluation: &Evaluation) -> Map<String, Value> {
    let object = json!({
        "flag": name,
        "value": evaluation.value,
        "variant": evaluation.variant,
        "reason": evaluation.reason.as_str(),
        "error_code": evaluation.error.as_ref().map(|(code, _)| code.as_str()),
        "error_message": evaluation.error.as_ref().map(|(_, problem)| problem),
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

async fn get(args: GetArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let evaluation = evaluate(&args, &client).await?;
    if output.is_json() {
        output.json(&as_json(&args.name, &evaluation).into())?;
    } else if let Some(value) = &evaluation.value {
        match value {
            Value::String(text) => output.line(text)?,
            value => output.line(value)?,
        }
    }
    output.flush()?;
    ending(&args, &evaluation, &output)
}

/// A caller's default is an answer; without one there is none.
fn ending(args: &GetArgs, evaluation: &Evaluation, output: &Output) -> Result<(), CliError> {
    use quorate_client::flags::FlagErrorCode;
    match &evaluation.error {
        Some((code, problem)) if args.default.is_some() => {
            output.remark(&format!("the default, for: {code}: {problem}"));
            Ok(())
        }
        Some((FlagErrorCode::FlagNotFound, _)) => Err(no_flag(&args.name)),
        Some((code, problem)) => {
            let message = format!("{code}: {problem}");
            Err(CliError::refused(
                Exit::Failed,
                message,
                "--default VALUE is taken instead",
            ))
        }
        None if evaluation.value.is_none() => {
            output.remark("the flag is disabled: programs have their own default");
            Ok(())
        }
        None => Ok(()),
    }
}

async fn explain(args: GetArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let evaluation = evaluate(&args, &client).await?;
    if output.is_json() {
        let mut object = as_json(&args.name, &evaluation);
        object.insert("trace".to_owned(), json!(evaluation.trace));
        output.json(&object.into())?;
    } else {
        for line in &evaluation.trace {
            output.line(line)?;
        }
        let value = evaluation
            .value
            .as_ref()
            .map_or("none".to_owned(), Value::to_string);
        let variant = evaluation.variant.as_deref().unwrap_or("none");
        let reason = evaluation.reason;
        output.line(format_args!(
            "value {value}, variant {variant}, reason {reason}"
        ))?;
    }
    output.flush()?;
    ending(&args, &evaluation, &output)
}

async fn list(args: ListArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let scan = ScanOptions::prefix(args.at.prefix.clone());
    let mut entries = Box::pin(client.scan_all(scan));
    let mut rows = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        let name = shown(&entry.key[args.at.prefix.len()..]);
        let flag = Flag::parse(&entry.value);
        if output.is_json() {
            let mut object = Map::new();
            object.insert("flag".to_owned(), name.into());
            match flag {
                Ok(flag) => object.insert("definition".to_owned(), json!(flag)),
                Err(error) => object.insert("problem".to_owned(), error.to_string().into()),
            };
            object.insert("revision".to_owned(), entry.revision.0.into());
            output.json(&object.into())?;
        } else {
            rows.push(row(name, flag));
        }
    }
    if !output.is_json() {
        let heads = ["flag", "type", "on", "default", "rules", "what for"];
        output.line(table(&heads, rows))?;
    }
    output.flush()
}

fn row(name: String, flag: Result<Flag, FlagError>) -> [String; 6] {
    match flag {
        Ok(flag) => [
            name,
            format!("{:?}", flag.kind).to_lowercase(),
            if flag.enabled { "yes" } else { "no" }.to_owned(),
            flag.default,
            flag.rules.len().to_string(),
            flag.description,
        ],
        Err(error) => {
            let dash = || "-".to_owned();
            [
                name,
                dash(),
                dash(),
                dash(),
                dash(),
                format!("no flag: {error}"),
            ]
        }
    }
}
