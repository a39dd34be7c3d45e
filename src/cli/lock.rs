//! `quorate lock` and `quorate elect`: one holder at a time, with a fencing token; and what writes
//! say that demand one.

use std::ffi::OsString;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use quorate_client::{Client, Fence, Fenced, HeldLock, Written};
use quorate_types::{Revision, parse_duration};
use serde_json::{Map, json};
use tokio::process::Command;

use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::json::put_bytes;
use super::output::Output;
use super::signal::StopSignals;
use super::{input, lease};
use crate::transfer::shown;

/// As long as a holder that is gone keeps others out, unless it says otherwise.
const TTL_DEFAULT: &str = "10s";
/// Waits for ever, as good as.
const WAIT_DEFAULT: Duration = Duration::from_secs(365 * 86_400);

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate keyspace create jobs --mode strong; export QUORATE_KEYSPACE=jobs
  quorate lock backup -- ./backup.sh
  quorate lock backup --wait 0s -- ./backup.sh
  quorate lock job -- sh -c 'quorate put job/state done --lock \"$QUORATE_LOCK\"'

The lock is the key NAME; it goes with a lease that this command keeps alive while COMMAND runs, and
ends with it. Exits as COMMAND does; with 4 where the lock was not to be had, or was lost: then
COMMAND is killed.

A lock by itself keeps nobody out for certain. A holder that is held up past its lease, by a slow
disk or a paused machine, wakes up, does not know, and writes over what the next holder has written.
Only the place that is written can refuse it. $QUORATE_LOCK is NAME=TOKEN, where the token rises
with each holder: `quorate put --lock \"$QUORATE_LOCK\"` is done only while the lock has not moved
on. Any other place must do the same: keep the highest token it has seen, and refuse lower ones.")]
pub(super) struct LockArgs {
    /// The lock's key
    name: OsString,
    /// How long others wait if this holder is gone
    #[arg(long, value_name = "DURATION", default_value = TTL_DEFAULT, value_parser = parse_duration)]
    ttl: Duration,
    /// Give up after so long [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// What is run while the lock is held
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate keyspace create jobs --mode strong; export QUORATE_KEYSPACE=jobs
  quorate elect scheduler host-7
  quorate get scheduler            # who leads, from anywhere

Waits until it is elected, prints NAME=TOKEN, and leads until it is stopped (Ctrl-C: it resigns at
once) or has lost the election (exit code 4). What a leader writes should demand its token, as with
`quorate lock`: `quorate put KEY VALUE --lock NAME=TOKEN`.")]
pub(super) struct ElectArgs {
    /// The election's key
    name: OsString,
    /// Who this is, for those who ask
    value: OsString,
    /// How long others wait if this leader is gone
    #[arg(long, value_name = "DURATION", default_value = TTL_DEFAULT, value_parser = parse_duration)]
    ttl: Duration,
    /// Give up after so long [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
}

/// The lock that a write demands.
#[derive(Args, Debug)]
pub(super) struct FenceArgs {
    /// Only while this lock has not moved on: `quorate lock` and `quorate elect` give NAME=TOKEN.
    /// The lock must lie in the key's range
    #[arg(long = "lock", value_name = "NAME=TOKEN", value_parser = parse_fence)]
    demanded: Option<Fence>,
}

impl FenceArgs {
    pub(super) fn fence(&self) -> Option<&Fence> {
        self.demanded.as_ref()
    }
}

fn parse_fence(text: &str) -> Result<Fence, String> {
    const WANTED: &str = "wanted: NAME=TOKEN, as `quorate lock` gives it in $QUORATE_LOCK";
    let (name, token) = text.rsplit_once('=').ok_or(WANTED)?;
    let token: u64 = token.parse().map_err(|_| WANTED)?;
    if name.is_empty() || token == 0 {
        return Err(WANTED.to_owned());
    }
    Ok(Fence {
        name: Bytes::copy_from_slice(name.as_bytes()),
        token: Revision(token),
    })
}

/// A write that demanded a lock, if that had not moved on.
pub(super) fn done(fence: &Fence, fenced: Fenced) -> Result<Written, CliError> {
    let token = match fenced {
        Fenced::Done { revision, receipt } => {
            return Ok(Written {
                revision,
                dot: String::new(),
                receipt,
            });
        }
        Fenced::MovedOn { token, .. } => token,
    };
    let now = match token {
        Some(token) => format!("its token is {token} now"),
        None => "nobody holds it".to_owned(),
    };
    Err(CliError::refused(
        Exit::Condition,
        format!(
            "lock {:?} has moved on from token {}: {now}",
            shown(&fence.name),
            fence.token
        ),
        "stop: another holder may be at work",
    ))
}

fn named(fence: &Fence) -> OsString {
    let text = [&fence.name[..], b"=", fence.token.to_string().as_bytes()].concat();
    std::os::unix::ffi::OsStringExt::from_vec(text)
}

/// Takes the lock, or says that it was not to be had.
async fn take(
    client: &Client,
    (name, value): (Bytes, Bytes),
    ttl: Duration,
    wait: Option<Duration>,
) -> Result<HeldLock, CliError> {
    let wait = wait.unwrap_or(WAIT_DEFAULT);
    let taken = client.lock(name.clone(), value, ttl, wait).await?;
    taken.ok_or_else(|| {
        CliError::refused(
            Exit::Condition,
            format!("lock {:?} is held by others", shown(&name)),
            "`quorate get NAME` shows by whom; `--wait 1m` waits longer",
        )
    })
}

pub(super) async fn lock(args: LockArgs, session: Session) -> Result<(), CliError> {
    let Session { client, output } = session;
    let mut stop = StopSignals::listen()?;
    let name = input::argument(&args.name);
    let value = Bytes::from(format!("process {}", std::process::id()));
    let taking = take(&client, (name, value), args.ttl, args.wait);
    let mut held = tokio::select! {
        held = taking => held?,
        // What was taken meanwhile goes with its lease.
        () = stop.next() => return Err(CliError::Reported(Exit::Failed)),
    };
    let (program, arguments) = args
        .command
        .split_first()
        .ok_or_else(|| CliError::usage("no COMMAND", "`quorate lock NAME -- COMMAND`"))?;
    let child = Command::new(program)
        .args(arguments)
        .env("QUORATE_LOCK", named(&held.fence))
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(source) => {
            let _ = held.unlock().await;
            return Err(CliError::file("run", program.as_ref(), source));
        }
    };
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended,
            why = held.lost() => {
                // It may be at work beside the next holder: it gets no time to end in.
                let _ = child.kill().await;
                return Err(lost(&output, &held, why));
            }
            // The terminal tells COMMAND as well, and its end is waited for.
            () = stop.next() => {}
        }
    };
    if let Err(error) = held.unlock().await {
        output.remark(&format!("the lock is free once its lease is over: {error}"));
    }
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CliError::Reported(Exit::Command(exit_code(status)))),
        Err(source) => Err(CliError::file("wait for", program.as_ref(), source)),
    }
}

/// As shells tell it: the code, or 128 and the signal.
pub(super) fn exit_code(status: std::process::ExitStatus) -> u8 {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or(signal.map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn lost(output: &Output, held: &HeldLock, why: quorate_client::LeaseLost) -> CliError {
    let name = shown(&held.fence.name);
    output.remark(&lease::lost(held.lease.id, why).to_string());
    CliError::refused(
        Exit::Condition,
        format!("lock {name:?} is lost: another may hold it"),
        "what was written with `--lock` is safe; look after what was not",
    )
}

pub(super) async fn elect(args: ElectArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let mut stop = StopSignals::listen()?;
    let (name, value) = (input::argument(&args.name), input::argument(&args.value));
    let taking = take(&client, (name, value), args.ttl, args.wait);
    let mut held = tokio::select! {
        held = taking => held?,
        () = stop.next() => return Err(CliError::Reported(Exit::Failed)),
    };
    print_elected(&mut output, &held.fence)?;
    tokio::select! {
        why = held.lost() => return Err(lost(&output, &held, why)),
        () = stop.next() => {}
    }
    held.unlock().await?;
    Ok(())
}

fn print_elected(output: &mut Output, fence: &Fence) -> Result<(), CliError> {
    if output.is_json() {
        let mut object = Map::new();
        put_bytes(&mut object, "name", &fence.name);
        object.insert("token".to_owned(), json!(fence.token.0));
        output.json(&object.into())?;
    } else {
        output.line(named(fence).display())?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_fence_is_a_name_and_a_token() {
        let fence = parse_fence("a=b=7").unwrap();
        assert_eq!((&fence.name[..], fence.token), (&b"a=b"[..], Revision(7)));
        for text in ["", "a", "a=", "=7", "a=0", "a=x", "a=-1"] {
            assert!(parse_fence(text).is_err(), "{text}");
        }
    }
}
