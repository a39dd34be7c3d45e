//! `quorate config diff`, `apply` and `rollback`: plans, and steps made of them.

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use quorate_client::config::{CONFIG_HISTORY_MIN, CONFIG_HISTORY_USUAL, Plan, StepInfo, Stepped};
use serde_json::{Map, Value, json};

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::global::Session;
use super::super::output::Output;
use super::{BundleArgs, config, preview};

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config diff app ./conf.d
  quorate config diff app app.yaml --prune --exit-code

`+` is added, `~` changed, `-` removed. Keys that are not in the bundle are kept, unless --prune is
given. A document's nested maps become paths: `db: {host: x}` is the key db/host. A string is kept
without quotes; numbers, true, false and null as JSON writes them; a list, and an empty map, as one
line of JSON.

With --output json, one object for each key that differs.")]
pub(in crate::cli) struct DiffArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    /// End with exit code 4 if anything differs
    #[arg(long)]
    exit_code: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config apply app ./conf.d -m 'raise the limits'
  quorate config apply app app.yaml --prune --yes
  quorate config apply app ./conf.d --dry-run

All keys change in one transaction: whoever reads, and whatever is killed meanwhile, sees all of the
step or nothing of it. Only what differs is written. The step is refused (exit code 4) if any key of
the bundle, or the last step, has changed since the preview was made. One step holds up to 9,984
keys, and 20 MiB of what differs; the keyspace must be an ordered one (as `default` is). Steps older
than --keep-history says go in the same transaction, with the values that no other step needs.

On a terminal it asks before it writes, unless --yes is given.")]
pub(in crate::cli) struct ApplyArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    signed: SignedArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config rollback app                # to before the last step
  quorate config rollback app 12 -m 'the new limits were too low'

Makes a new step which restores what was there after STEP, byte for byte, keys that came by hand
included; without STEP, what the last step changed is as it was before. Keys that never came with a
bundle are kept, unless --prune is given. A roll-back is a step like others, and can be rolled back.")]
pub(in crate::cli) struct RollbackArgs {
    /// A folder of keys
    prefix: OsString,
    /// A number that `quorate config history` shows [default: before the last step]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    step: Option<u64>,
    /// Remove all keys that were not there after STEP
    #[arg(long, requires = "step")]
    prune: bool,
    #[command(flatten)]
    signed: SignedArgs,
}

/// Who makes a step, why, and whether it is made at all.
#[derive(Args, Debug)]
struct SignedArgs {
    /// Who makes the step
    #[arg(long, env = "USER", default_value = "unknown", hide_env_values = true)]
    author: String,
    /// What the step is for
    #[arg(long, short, default_value = "", hide_default_value = true)]
    message: String,
    /// How many steps are kept, this one included; older ones go with it
    #[arg(
        long,
        value_name = "N",
        default_value_t = CONFIG_HISTORY_USUAL,
        value_parser = clap::value_parser!(u64).range(CONFIG_HISTORY_MIN..)
    )]
    keep_history: u64,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Show what would change, and end
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn diff(args: DiffArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let config = config(&client, &args.bundle.prefix)?;
    let plan = config.plan(args.bundle.read()?, args.bundle.prune).await?;
    preview::print(&mut output, &plan)?;
    output.flush()?;
    match args.exit_code && !plan.is_empty() {
        true => Err(CliError::Reported(Exit::Condition)),
        false => Ok(()),
    }
}

pub(super) async fn apply(args: ApplyArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let config = config(&client, &args.bundle.prefix)?.keep_history(args.signed.keep_history);
    let plan = config.plan(args.bundle.read()?, args.bundle.prune).await?;
    if !agreed(&mut output, &plan, &args.signed)? {
        return Ok(());
    }
    let SignedArgs {
        author, message, ..
    } = &args.signed;
    let made = config.apply(&plan, author, message).await?;
    print_step(&mut output, &plan, &made)
}

pub(super) async fn roll_back(args: RollbackArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let config = config(&client, &args.prefix)?.keep_history(args.signed.keep_history);
    let plan = config.plan_back(args.step, args.prune).await?;
    if !agreed(&mut output, &plan, &args.signed)? {
        return Ok(());
    }
    let SignedArgs {
        author, message, ..
    } = &args.signed;
    let made = config.roll_back(&plan, args.step, author, message).await?;
    print_step(&mut output, &plan, &made)
}

/// Shows the plan; whether a step is to be made of it.
fn agreed(output: &mut Output, plan: &Plan, signed: &SignedArgs) -> Result<bool, CliError> {
    // As JSON, one object tells what was done; what differs is `config diff`'s to tell.
    if !output.is_json() || signed.dry_run {
        preview::print(output, plan)?;
    }
    output.flush()?;
    if signed.dry_run {
        return Ok(false);
    }
    if !plan.is_worth_a_step() {
        if output.is_json() {
            let mut object = counts(plan);
            object.insert("step".to_owned(), Value::Null);
            output.json(&object.into())?;
        }
        output.flush()?;
        return Ok(false);
    }
    if signed.yes || !output.is_terminal() || !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    ask()
}

fn ask() -> Result<bool, CliError> {
    let mut terminal = std::io::stderr().lock();
    let asked = terminal
        .write_all(b"Make this step? [y/N] ")
        .and_then(|()| terminal.flush());
    let mut answer = String::new();
    asked
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer))
        .map_err(CliError::Output)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn counts(plan: &Plan) -> Map<String, Value> {
    let (added, changed, removed) = plan.counts();
    let counts = json!({
        "added": added, "changed": changed, "removed": removed,
        "unchanged": plan.unchanged.len(), "kept": plan.kept.len(),
    });
    match counts {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn print_step(output: &mut Output, plan: &Plan, made: &Stepped) -> Result<(), CliError> {
    if output.is_json() {
        let mut object = counts(plan);
        object.insert("step".to_owned(), made.step.number.into());
        object.insert("revision".to_owned(), made.revision.0.into());
        output.object(object, &made.receipt)?;
    } else {
        let StepInfo { number, .. } = made.step;
        output.line(format_args!("step {number} at revision {}", made.revision))?;
        output.remark_receipt(&made.receipt);
    }
    output.flush()
}
