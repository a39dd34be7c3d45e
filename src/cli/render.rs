//! `quorate render`: a template filled with configuration, as a file that is replaced as a whole.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use quorate_client::cached::{Cached, CachedLadder};
use tokio::process::Command;

use super::cached::{self, CachedArgs};
use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::input;
use super::output::Output;
use super::replace::replace_file;
use super::signal::StopSignals;
use crate::config::render;

/// Largest template, bytes.
const TEMPLATE_MAX_BYTES: u64 = 4 << 20;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate render nginx.conf.j2 nginx.conf --prefix app/
  quorate render nginx.conf.j2 nginx.conf --prefix app/ --on-change 'nginx -s reload'

A template is Jinja2's: {{ get('app/db/host') }}, {{ get('app/db/port', '5432') }},
{% for one in keys('app/backends/') %}{{ one.name }} {{ one.value }}{% endfor %}, and
get('app/list')|fromjson. Keys are whole keys, all values are of one snapshot.

OUT is replaced as a whole, and only if it differs; a template that fails, also half way, leaves it
as it was. With --on-change it goes on, fills the template again whenever a key of the prefix
changes, and runs COMMAND by `sh -c` after each replacement.")]
pub(super) struct RenderArgs {
    /// The template
    template: PathBuf,
    /// The file that is made of it
    out: PathBuf,
    /// Keys that the template may name start with it; none: all
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Go on, and run this after each replacement
    #[arg(long, value_name = "COMMAND")]
    on_change: Option<OsString>,
    #[command(flatten)]
    cached: CachedArgs,
}

pub(super) async fn run(args: RenderArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let ladder = args.cached.ladder()?;
    let mut copy = args.cached.open(&client, &args.prefix).await?;
    let Some(command) = &args.on_change else {
        let replaced = fill(&args, &copy, &ladder, &output).await?;
        return tell(&mut output, &args.out, replaced);
    };
    let mut stop = StopSignals::listen()?;
    copy.follow();
    let mut changes = copy.changes();
    // The first one must succeed: there is nothing to go on with otherwise.
    let mut filled = fill(&args, &copy, &ladder, &output).await;
    tell(&mut output, &args.out, *filled.as_ref().unwrap_or(&false))?;
    if filled.is_err() {
        return filled.map(drop);
    }
    loop {
        match filled {
            Ok(true) => run_command(command, &output).await?,
            Ok(false) => {}
            Err(error) => output.remark(&format!("{} stays: {error}", args.out.display())),
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = stop.next() => return Ok(()),
        }
        filled = fill(&args, &copy, &ladder, &output).await;
    }
}

/// Fills the template; whether the file was replaced.
async fn fill(
    args: &RenderArgs,
    copy: &Cached,
    ladder: &CachedLadder,
    output: &Output,
) -> Result<bool, CliError> {
    let template = input::read_file(&args.template, TEMPLATE_MAX_BYTES)?;
    let name = args.template.display().to_string();
    let template = String::from_utf8(template)
        .map_err(|_| CliError::usage(format!("{name} is no UTF-8 text"), ""))?;
    let state = cached::read(copy, ladder, output).await?;
    let values = state.entries.into_iter();
    let values = values.map(|(key, entry)| (key, entry.value)).collect();
    let text = render(&name, &template, values).map_err(|error| {
        let hint = format!("{} is as it was", args.out.display());
        CliError::refused(Exit::Failed, error.to_string(), hint)
    })?;
    let old = std::fs::read(&args.out).ok();
    if old.is_some_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    replace_file(&args.out, text.as_bytes())?;
    Ok(true)
}

fn tell(output: &mut Output, out: &Path, replaced: bool) -> Result<(), CliError> {
    let path = out.display();
    match (output.is_json(), replaced) {
        (true, _) => {
            let path = path.to_string();
            output.json(&serde_json::json!({"path": path, "replaced": replaced}))?;
        }
        (false, true) => output.line(format_args!("{path}: replaced"))?,
        (false, false) => output.line(format_args!("{path}: as it should be"))?,
    }
    output.flush()
}

/// Its failure is told, and ends nothing: the next change may help.
async fn run_command(command: &OsString, output: &Output) -> Result<(), CliError> {
    let ended = Command::new("sh").arg("-c").arg(command).status().await;
    let ended = ended.map_err(|error| CliError::file("run", Path::new("sh"), error))?;
    if !ended.success() {
        output.remark(&format!("the command failed: {ended}"));
    }
    Ok(())
}
