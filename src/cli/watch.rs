//! `quorate watch`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use quorate_client::{Watch, WatchBatch, WatchEvent, WatchKind, WatchOptions, WatchState};
use quorate_types::Revision;

use super::error::CliError;
use super::global::Session;
use super::output::Output;
use super::signal::StopSignals;
use super::{input, json, typed};

#[derive(Args, Debug)]
#[command(
    after_help = "Each event is one line. It goes on over lost leaders and nodes, and no event
is lost or comes twice. Ctrl-C ends it.

A revision is what `put` and `get --output json` print. With --from what has
happened since then comes first, as long as the keyspace keeps its history.

With --tentative a write of the eventual plane is told twice: `tentative` when
it is visible at the node that serves the watch, and when the log has decided
it, with the same name (`decided 1.2:34`; `decided` alone for a delete, or what
another write has replaced before). Tentative lines come at best: from now on
only, each once, never behind the decided one; a slow reader is told how many
were skipped. In keyspaces of mode eventual, which have no log, nothing else
comes.

Example:
  quorate watch config/
  quorate watch --key config/limits --previous
  quorate watch config/ --from 1762000000000000 --output json
  quorate watch config/ --no-deletes --limit 1     # wait for the next put
  quorate watch config/ --tentative"
)]
pub(super) struct WatchArgs {
    /// Keys that start with this; none: all
    prefix: Option<OsString>,
    /// One key
    #[arg(long, value_name = "KEY", conflicts_with_all = ["prefix", "start", "end"])]
    key: Option<OsString>,
    /// From this key on
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    start: Option<OsString>,
    /// Up to this key, without it
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    end: Option<OsString>,
    /// From this revision on, not from now
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// Leave out puts
    #[arg(long, conflicts_with = "no_deletes")]
    no_puts: bool,
    /// Leave out deletes
    #[arg(long)]
    no_deletes: bool,
    /// With each event the value that it replaced
    #[arg(long)]
    previous: bool,
    /// Also what is visible before the log has decided it
    #[arg(long)]
    tentative: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Say after each such time up to which revision all events have come
    #[arg(long, value_name = "DURATION", value_parser = parse_interval)]
    progress: Option<Duration>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    quorate_types::parse_duration(text).map_err(|error| error.to_string())
}

pub(super) async fn run(args: WatchArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    // From here on Ctrl-C ends the watch, and the command well.
    let mut signals = StopSignals::listen()?;
    let bytes = |text: &Option<OsString>| text.as_deref().map(input::argument).unwrap_or_default();
    let options = WatchOptions {
        key: bytes(&args.key),
        prefix: bytes(&args.prefix),
        start: bytes(&args.start),
        end: bytes(&args.end),
        from: args.from.map(Revision),
        no_puts: args.no_puts,
        no_deletes: args.no_deletes,
        previous: args.previous,
        tentative: args.tentative,
        progress_interval: args.progress,
        ..WatchOptions::default()
    };
    let mut watch = tokio::select! {
        watch = client.watch(options) => watch?,
        () = signals.next() => return Ok(()),
    };
    if output.is_terminal() {
        output.remark("watching; Ctrl-C ends it");
    }
    tokio::select! {
        ended = follow(&args, &mut watch, &mut output) => ended?,
        () = signals.next() => {}
    }
    output.flush()
}

async fn follow(args: &WatchArgs, watch: &mut Watch, output: &mut Output) -> Result<(), CliError> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let batch = watch.next_batch().await?;
        for event in &batch.events {
            if left > 0 {
                print(output, event)?;
                left -= 1;
            }
        }
        print_beside(output, &batch)?;
        if args.progress.is_some() && batch.events.is_empty() {
            print_progress(output, &batch)?;
        }
        // Whoever reads along has each event when it comes.
        output.flush()?;
    }
    Ok(())
}

fn print_progress(output: &mut Output, batch: &WatchBatch) -> Result<(), CliError> {
    let revision = batch.complete.0;
    if output.is_json() {
        return output.json(&serde_json::json!({"type": "progress", "revision": revision}));
    }
    output.line(format_args!("{revision}\tcomplete"))
}

/// What became of tentative events, and how many there would have been.
fn print_beside(output: &mut Output, batch: &WatchBatch) -> Result<(), CliError> {
    let (settled, skipped) = (&batch.settled, batch.skipped);
    if output.is_json() {
        if !settled.is_empty() {
            output.json(&serde_json::json!({"type": "decided", "dots": settled}))?;
        }
        if skipped > 0 {
            output.json(&serde_json::json!({"type": "skipped", "tentative": skipped}))?;
        }
        return Ok(());
    }
    if !settled.is_empty() {
        output.line(format_args!("decided\t{}", settled.join(" ")))?;
    }
    if skipped > 0 {
        output.line(format_args!("skipped\t{skipped} tentative"))?;
    }
    Ok(())
}

fn print(output: &mut Output, event: &WatchEvent) -> Result<(), CliError> {
    if output.is_json() {
        return output.json(&json::event(event).into());
    }
    let what = match event.kind {
        WatchKind::Put => "put",
        WatchKind::Delete => "delete",
    };
    let is_tentative = event.state == WatchState::Tentative;
    let when = match is_tentative {
        true => "tentative".to_owned(),
        false => event.entry.revision.to_string(),
    };
    output.bytes(format!("{when}\t{what}\t").as_bytes())?;
    output.bytes(&event.entry.key)?;
    if event.kind == WatchKind::Put {
        output.bytes(b"\t")?;
        match &event.typed {
            // Its text has a line for each part.
            Some(value) => {
                let mut object = serde_json::Map::new();
                typed::put_typed(&mut object, value);
                output.bytes(serde_json::Value::Object(object).to_string().as_bytes())?;
            }
            None => output.bytes(&event.entry.value)?,
        }
    }
    if let Some(previous) = &event.previous {
        output.bytes(b"\twas\t")?;
        output.bytes(&previous.value)?;
    } else if event.previous_omitted {
        output.bytes(b"\twas not kept")?;
    }
    if !event.siblings.is_empty() {
        let count = event.siblings.len();
        output.bytes(format!("\tand {count} concurrent").as_bytes())?;
    }
    if !event.dots.is_empty() {
        let word = if is_tentative { "" } else { "decided " };
        output.bytes(format!("\t{word}{}", event.dots.join(" ")).as_bytes())?;
    }
    output.bytes(b"\n")
}
