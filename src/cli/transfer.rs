//! `quorate import` and `quorate export`: arguments, progress and summaries; the work itself
//! is in `crate::transfer`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quorate_client::{Client, ClientError, Pipeline, ReadOptions, ScanOptions, WriteOptions};
use quorate_types::{ConflictPolicy, Mode, Revision, format_duration};
use serde_json::{Value, json};

use super::consistency::LevelArgs;
use super::error::CliError;
use super::global::Session;
use super::input;
use super::output::Output;
use super::signal::StopSignals;
use super::table;
use crate::transfer::{
    self, ImportOptions, ImportSummary, Observer, SkipKind, Store, Target, TransferError,
};

/// How often a progress bar is drawn anew.
const DRAW_PAUSE: Duration = Duration::from_millis(100);
/// Names of each kind that are passed over and told; the others are counted.
const SKIPPED_NAMED_MAX: u64 = 5;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate import /etc --prefix etc/
  quorate import keys.jsonl

One key a file, named by its path in the folder; or one key a line: {\"key\":…,\"value\":…}, with
key_base64 and value_base64 where bytes are not UTF-8. What is stored already is not written
again, so it can be stopped and repeated.")]
pub(super) struct ImportArgs {
    /// A folder, or a file whose name ends in .jsonl
    path: PathBuf,
    /// Goes in front of each key
    #[arg(long, value_name = "P")]
    prefix: Option<OsString>,
    /// Import what symbolic links point to, instead of passing them over
    #[arg(long)]
    follow_links: bool,
    #[command(flatten)]
    level: LevelArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate export etc/ --to etc-copy
  quorate export --to keys.jsonl

A folder's files are named by what follows the prefix. All keys are of one revision (where the
keyspace has any: not in mode eventual). Nothing has the final name before all of it is there.
Keyspaces of counters, sets and maps are refused.")]
pub(super) struct ExportArgs {
    /// Keys that start with this; none: all
    prefix: Option<OsString>,
    /// A folder, or a file whose name ends in .jsonl; neither is there yet
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// As of this revision, not the newest
    #[arg(long, value_name = "REVISION")]
    at: Option<u64>,
    #[command(flatten)]
    level: LevelArgs,
}

/// The cluster as an import sees it: all requests on one stream.
struct Pipelined {
    pipeline: Pipeline,
    read: ReadOptions,
    write: WriteOptions,
}

impl Store for Pipelined {
    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, ClientError> {
        let got = self.pipeline.get_with(key, self.read.clone()).await?;
        Ok(got.entry.map(|entry| entry.value))
    }

    async fn put(&self, key: Bytes, value: Bytes) -> Result<(), ClientError> {
        self.pipeline
            .put_with(key, value, self.write.clone())
            .await
            .map(|_| ())
    }
}

pub(super) async fn import(args: ImportArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let store = Pipelined {
        pipeline: client.pipeline(),
        read: args.level.read_back(),
        write: args.level.write()?,
    };
    let options = ImportOptions {
        path: args.path,
        prefix: args
            .prefix
            .as_deref()
            .map(input::argument)
            .unwrap_or_default(),
        follow_links: args.follow_links,
    };
    let mut signals = StopSignals::listen()?;
    let total = std::io::stderr()
        .is_terminal()
        .then(|| transfer::count_items(&options))
        .flatten();
    let mut progress = Progress::show(total);
    let (summary, result) = transfer::import(&store, options, &mut progress, signals.next()).await;
    progress.finish();
    if let Err(TransferError::File { .. } | TransferError::NotImportable { .. }) = result {
        // Nothing was begun.
        return Ok(result?);
    }
    match output.is_json() {
        true => output.json(&summary_json(&summary))?,
        false => output.line(summary_text(&summary))?,
    }
    output.flush()?;
    Ok(result?)
}

/// A scan shows one value a key, and nothing of counters, sets and maps.
async fn refuse_what_has_no_form(client: &Client, output: &Output) -> Result<(), CliError> {
    let name = client.keyspace_name();
    let Some(keyspace) = client.admin().keyspace(name).await? else {
        // The scan says so.
        return Ok(());
    };
    let options = keyspace.options.unwrap_or_default();
    match (options.conflict.parse(), options.mode.parse()) {
        (Ok(ConflictPolicy::Counter | ConflictPolicy::Set | ConflictPolicy::Map), _) => {
            Err(CliError::usage(
                format!(
                    "keyspace {name} is of policy {}: export writes plain values only",
                    options.conflict
                ),
                "`quorate get KEY --output json` shows what a key has come to",
            ))
        }
        (Ok(ConflictPolicy::Siblings), Ok(Mode::Eventual)) => {
            output.remark(
                "of a key with siblings only the value that a get shows first is exported; keys \
                 are as they are when read, not of one moment",
            );
            Ok(())
        }
        // A policy of a later version: what the scan gives is plain.
        (Ok(ConflictPolicy::Siblings | ConflictPolicy::LastWriteWins) | Err(_), _) => Ok(()),
    }
}

fn skipped(summary: &ImportSummary) -> u64 {
    summary.skipped.values().sum()
}

fn summary_text(summary: &ImportSummary) -> String {
    let mut text = format!(
        "written {} ({}), unchanged {}, skipped {}, failed {}",
        summary.written,
        table::bytes(summary.bytes_written),
        summary.unchanged,
        skipped(summary),
        summary.failed,
    );
    let kinds: Vec<String> = summary
        .skipped
        .iter()
        .map(|(kind, count)| format!("{count} {}", kind.plural()))
        .collect();
    if !kinds.is_empty() {
        text.push_str(&format!("\nskipped: {}", kinds.join(", ")));
    }
    text
}

fn summary_json(summary: &ImportSummary) -> Value {
    let kinds: BTreeMap<String, u64> = summary
        .skipped
        .iter()
        .map(|(kind, count)| (kind.plural().replace(' ', "_"), *count))
        .collect();
    json!({
        "written": summary.written,
        "unchanged": summary.unchanged,
        "skipped": skipped(summary),
        "skipped_kinds": kinds,
        "failed": summary.failed,
        "bytes_written": summary.bytes_written,
        "interrupted": summary.interrupted,
    })
}

pub(super) async fn export(args: ExportArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let prefix = args
        .prefix
        .as_deref()
        .map(input::argument)
        .unwrap_or_default();
    let options = ScanOptions {
        read: ReadOptions {
            at: args.at.map(Revision),
            ..args.level.read()?
        },
        ..ScanOptions::prefix(prefix.clone())
    };
    refuse_what_has_no_form(&client, &output).await?;
    let mut signals = StopSignals::listen()?;
    let target = Target::create(&args.to, &prefix)?;
    let mut progress = Progress::show(None);
    let exported = tokio::select! {
        exported = transfer::export(target, client.scan_all(options), &mut progress) => exported,
        () = signals.next() => Err(TransferError::Interrupted),
    };
    progress.finish();
    let summary = exported?;
    match output.is_json() {
        true => output.json(&json!({"keys": summary.keys, "bytes": summary.bytes}))?,
        false => output.line(format_args!(
            "exported {} key(s), {}, to {}",
            summary.keys,
            table::bytes(summary.bytes),
            args.to.display()
        ))?,
    }
    output.flush()
}

/// A count that moves, on a terminal.
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    pub(super) fn show(what: &'static str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {human_pos} {msg} ({elapsed})")
            .expect("the template is written as one");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
            .with_style(style)
            .with_message(what);
        bar.enable_steady_tick(DRAW_PAUSE);
        Self(bar)
    }

    pub(super) fn advance(&self, count: u64) {
        self.0.inc(count);
    }

    pub(super) fn set(&self, count: u64) {
        self.0.set_position(count);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What a transfer says while it goes on. Draws only on a terminal.
struct Progress {
    bar: ProgressBar,
    bytes: u64,
    skipped: BTreeMap<SkipKind, u64>,
}

impl Progress {
    fn show(total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{bar:40} {human_pos}/{human_len} keys, {per_sec}, {msg}, {eta} left",
            None => "{spinner} {human_pos} keys, {per_sec}, {msg}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is written as one");
        let bar =
            ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style);
        bar.enable_steady_tick(DRAW_PAUSE);
        Self {
            bar,
            bytes: 0,
            skipped: BTreeMap::new(),
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| {
            // Without a standard error there is nobody left to tell.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }

    fn finish(&self) {
        let elapsed = Duration::from_millis(self.bar.elapsed().as_millis() as u64);
        self.bar.finish_and_clear();
        if !self.bar.is_hidden() {
            self.say(&format!("took {}", format_duration(elapsed)));
        }
    }
}

impl Observer for Progress {
    fn skipped(&mut self, kind: SkipKind, name: &str) {
        let count = self.skipped.entry(kind).or_default();
        *count += 1;
        let count = *count;
        match count {
            1..=SKIPPED_NAMED_MAX => self.say(&format!("skipped: {name} ({})", kind.singular())),
            _ if count == SKIPPED_NAMED_MAX + 1 => {
                self.say(&format!("skipped: … further {}", kind.plural()));
            }
            _ => {}
        }
    }

    fn failed(&mut self, name: &str, problem: &str) {
        self.say(&format!("error: {name}: {problem}"));
    }

    fn advanced(&mut self, keys: u64, bytes: u64) {
        self.bytes += bytes;
        self.bar.inc(keys);
        self.bar.set_message(table::bytes(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_by_kind() {
        let summary = ImportSummary {
            written: 3,
            unchanged: 2,
            skipped: BTreeMap::from([(SkipKind::SymbolicLink, 4), (SkipKind::EmptyFolder, 1)]),
            failed: 1,
            bytes_written: 2048,
            interrupted: false,
        };
        assert_eq!(
            summary_text(&summary),
            "written 3 (2.0 KiB), unchanged 2, skipped 5, failed 1\n\
             skipped: 4 symbolic links, 1 empty folders"
        );
        let json = summary_json(&summary);
        assert_eq!(json["skipped"], 5);
        assert_eq!(json["skipped_kinds"]["symbolic_links"], 4);
    }
}
