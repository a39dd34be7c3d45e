//! `quorate storage inspect`: what is in a stopped node's folder, without changing it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use quorate_storage::disk::{FolderLock, RealDisk};
use quorate_storage::log::{self, GroupReport, LogError, LogId, LogReport};
use quorate_types::chain;
use serde_json::{Value, json};

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::table::{bytes, table};

#[derive(Debug, Subcommand)]
pub(super) enum StorageCommand {
    /// Show a stopped node's log and engine files, read-only
    Inspect(InspectArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate storage inspect quorate-dev/node-1

The node must be stopped. Exit code 7: the log is damaged, and could not be opened.")]
pub(super) struct InspectArgs {
    /// The node's folder
    dir: PathBuf,
}

pub(super) fn run(command: StorageCommand, mut output: Output) -> Result<(), CliError> {
    let StorageCommand::Inspect(args) = command;
    let log_dir = args.dir.join("log");
    fs::metadata(&log_dir).map_err(|error| CliError::file("inspect", &log_dir, error))?;
    let disk = RealDisk::shared();
    let _lock = lock(&args.dir)?;
    let report = log::inspect(&disk, &log_dir).map_err(|error| refused(&error))?;
    let engine = engine_files(&args.dir.join("engine"))?;
    match output.is_json() {
        true => output.json(&as_json(&report, &engine))?,
        false => print(&mut output, &report, &engine)?,
    }
    output.flush()?;
    match &report.damage {
        Some(damage) => Err(refused(damage)),
        None => Ok(()),
    }
}

/// What a running node writes reads like damage: it must be stopped, and stay so.
fn lock(dir: &Path) -> Result<Box<dyn FolderLock>, CliError> {
    RealDisk::shared()
        .lock_folder(dir)
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => CliError::refused(
                Exit::Failed,
                format!("{} is in use by a running node", dir.display()),
                "stop the node first; `quorate status` shows running ones",
            ),
            _ => CliError::file("lock", dir, error),
        })
}

fn refused(error: &LogError) -> CliError {
    CliError::refused(
        Exit::DataLoss,
        format!("the log cannot be opened: {}", chain(error)),
        "`quorate node replace ID` puts a new node in the place of one whose log is damaged",
    )
}

/// Names and sizes of the engine's files; none if there are none yet.
fn engine_files(dir: &Path) -> Result<Vec<(String, u64)>, CliError> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CliError::file("list", dir, error)),
    };
    let mut files = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| CliError::file("list", dir, error))?;
        let metadata = entry
            .metadata()
            .map_err(|error| CliError::file("look at", &entry.path(), error))?;
        files.push((entry.file_name().display().to_string(), metadata.len()));
    }
    files.sort();
    Ok(files)
}

fn shown(id: Option<LogId>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| format!("{}.{}", id.term, id.index))
}

fn print(
    output: &mut Output,
    report: &LogReport,
    engine: &[(String, u64)],
) -> Result<(), CliError> {
    let owner = report.identity.as_ref().map_or_else(
        || "no owner: no segment reads well".to_owned(),
        |identity| format!("node {}", identity.node),
    );
    output.line(format_args!(
        "log of {owner}, format {}, last batch {}, ends in segment {} at byte {}\n",
        report.version, report.last_batch, report.end.0, report.end.1
    ))?;
    let segments = report.segments.iter().map(|segment| {
        [
            segment.number.to_string(),
            bytes(segment.bytes),
            segment.batches.to_string(),
            segment.records.to_string(),
        ]
    });
    output.line(table(&["segment", "size", "batches", "records"], segments))?;
    let heads = [
        "group",
        "vote",
        "committed",
        "purged",
        "first",
        "last",
        "payload",
    ];
    let groups = report.groups.iter().map(|(id, group)| row(*id, group));
    output.line(format_args!("\n{}\n", table(&heads, groups)))?;
    let files = engine
        .iter()
        .map(|(name, size)| [name.clone(), bytes(*size)]);
    output.line(table(&["engine file", "size"], files))
}

fn row(id: u64, group: &GroupReport) -> [String; 7] {
    let vote = group.vote.map_or_else(
        || "-".to_owned(),
        |vote| format!("term {} for {}", vote.term, vote.node),
    );
    [
        id.to_string(),
        vote,
        shown(group.committed),
        shown(group.purged),
        group
            .first
            .map_or_else(|| "-".to_owned(), |index| index.to_string()),
        shown(group.last),
        bytes(group.payload_bytes),
    ]
}

fn as_json(report: &LogReport, engine: &[(String, u64)]) -> Value {
    let id = |id: Option<LogId>| id.map(|id| json!({"term": id.term, "index": id.index}));
    let segments = report.segments.iter().map(|segment| {
        json!({
            "number": segment.number,
            "bytes": segment.bytes,
            "batches": segment.batches,
            "records": segment.records,
        })
    });
    let groups = report.groups.iter().map(|(group, held)| {
        json!({
            "group": group,
            "vote": held.vote.map(|vote| json!({
                "term": vote.term, "node": vote.node, "committed": vote.committed,
            })),
            "committed": id(held.committed),
            "purged": id(held.purged),
            "first": held.first,
            "last": id(held.last),
            "payload_bytes": held.payload_bytes,
        })
    });
    let files = engine
        .iter()
        .map(|(name, size)| json!({"name": name, "bytes": size}));
    json!({
        "log": {
            "version": report.version,
            "node": report.identity.as_ref().map(|identity| identity.node),
            "last_batch": report.last_batch,
            "end": {"segment": report.end.0, "offset": report.end.1},
            "segments": segments.collect::<Vec<_>>(),
            "groups": groups.collect::<Vec<_>>(),
            "damage": report.damage.as_ref().map(|damage| chain(damage)),
        },
        "engine": {"files": files.collect::<Vec<_>>()},
    })
}
