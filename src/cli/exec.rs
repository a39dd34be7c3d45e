//! `quorate exec`: a command with configuration as its environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use quorate_client::cached::{Cached, CachedLadder, CachedState};
use quorate_types::parse_duration;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::cached::{self, CachedArgs};
use super::error::CliError;
use super::global::Session;
use super::lock::exit_code;
use super::output::Output;
use super::signal::StopSignals;
use super::{exit::Exit, input};
use crate::config::variables;

/// As long as a command has to end before it is killed.
const KILL_AFTER: &str = "10s";

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate exec --prefix app/ -- ./server
  quorate exec --prefix app/ --restart -- ./server
  quorate exec --prefix app/ --cache /var/cache/app -- ./server

The key app/db/host is the variable DB_HOST: what follows the prefix, in capital letters, with `_`
for all that is no letter or digit. All values are of one snapshot. Without --restart this process
becomes COMMAND. With it, COMMAND is stopped and started anew whenever a variable changes, and this
process ends as COMMAND does when that ends by itself.

With --cache, what servers answered is kept on disk; if none answers within the ladder's budgets,
COMMAND starts with that, and standard error says how old it is.")]
pub(super) struct ExecArgs {
    /// Keys that start with it are variables
    #[arg(long, value_name = "P")]
    prefix: OsString,
    /// Start COMMAND anew whenever a variable changes
    #[arg(long)]
    restart: bool,
    /// How long COMMAND has to stop before it is killed
    #[arg(long, value_name = "DURATION", default_value = KILL_AFTER, value_parser = parse_duration)]
    kill_after: Duration,
    /// Nothing but these variables
    #[arg(long)]
    pristine: bool,
    /// Leave letters as they are
    #[arg(long)]
    no_upcase: bool,
    #[command(flatten)]
    cached: CachedArgs,
    /// What is run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

type Variables = BTreeMap<String, OsString>;

pub(super) async fn run(args: ExecArgs, session: Session) -> Result<(), CliError> {
    let Session { client, output } = session;
    let ladder = args.cached.ladder()?;
    let mut copy = args.cached.open(&client, &args.prefix).await?;
    let state = cached::read(&copy, &ladder, &output).await?;
    let variables = args.variables(&state)?;
    let mut command = args.build(&variables)?;
    if !args.restart {
        // Returns only if it failed.
        let error = command.exec();
        return Err(CliError::file("run", args.command[0].as_ref(), error));
    }
    copy.follow();
    supervise(&args, &copy, &ladder, variables, &output).await
}

impl ExecArgs {
    fn variables(&self, state: &CachedState) -> Result<Variables, CliError> {
        let prefix = input::argument(&self.prefix).len();
        let keys: Vec<(&[u8], &Bytes)> = state
            .entries
            .iter()
            .filter(|(key, _)| key.len() > prefix)
            .map(|(key, entry)| (&key[prefix..], &entry.value))
            .collect();
        variables(keys, !self.no_upcase)
            .map_err(|error| CliError::refused(Exit::Failed, error.to_string(), ""))
    }

    fn build(&self, variables: &Variables) -> Result<std::process::Command, CliError> {
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or_else(|| CliError::usage("no COMMAND", "`quorate exec --prefix P -- COMMAND`"))?;
        let mut command = std::process::Command::new(program);
        if self.pristine {
            command.env_clear();
        }
        command.args(arguments).envs(variables);
        Ok(command)
    }
}

/// Runs the command until it ends by itself or this process is told to stop.
async fn supervise(
    args: &ExecArgs,
    copy: &Cached,
    ladder: &CachedLadder,
    mut variables: Variables,
    output: &Output,
) -> Result<(), CliError> {
    let mut stop = StopSignals::listen()?;
    let mut changes = copy.changes();
    loop {
        let mut command = Command::from(args.build(&variables)?);
        let spawned = command.kill_on_drop(true).spawn();
        let mut child =
            spawned.map_err(|error| CliError::file("run", args.command[0].as_ref(), error))?;
        let next = loop {
            tokio::select! {
                ended = child.wait() => {
                    let ended = ended
                        .map_err(|error| CliError::file("wait for", args.command[0].as_ref(), error))?;
                    return match ended.success() {
                        true => Ok(()),
                        false => Err(CliError::Reported(Exit::Command(exit_code(ended)))),
                    };
                }
                () = stop.next() => {
                    end(&mut child, args.kill_after).await;
                    return Ok(());
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        // The follower lives as long as the copy, which is borrowed here.
                        continue;
                    }
                    if let Some(next) = differing(args, copy, ladder, &variables, output).await {
                        break next;
                    }
                }
            }
        };
        end(&mut child, args.kill_after).await;
        variables = next;
    }
}

/// The variables now, if they are others, and can be variables.
async fn differing(
    args: &ExecArgs,
    copy: &Cached,
    ladder: &CachedLadder,
    variables: &Variables,
    output: &Output,
) -> Option<Variables> {
    let next = match cached::read(copy, ladder, output).await {
        Ok(state) => args.variables(&state),
        Err(error) => Err(error),
    };
    match next {
        Ok(next) => (next != *variables).then_some(next),
        Err(error) => {
            output.remark(&format!("COMMAND runs on as it is: {error}"));
            None
        }
    }
}

/// SIGTERM, and SIGKILL if that does not help in time.
async fn end(child: &mut Child, kill_after: Duration) {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended this moment.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(kill_after, child.wait())
        .await
        .is_err()
    {
        let _ = child.kill().await;
    }
}
