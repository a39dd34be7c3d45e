//! The crate `etcd-client` against a store that serves etcd's API.
//!
//! Usage: `etcd-crate-client ENDPOINT…`: when it prints "kill", the leader is to be killed, and a
//! line on its standard input says that it was. Prints "all is well" at the end, or why not.

use std::collections::BTreeSet;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions, LeaderKey, LockOptions,
    ProclaimOptions, ResignOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::time::{sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const WITHIN: Duration = Duration::from_secs(60);
const PUT_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
const PUTS: usize = 300;
const KILL_AT: usize = 100;
const LAST: &str = "death/puts/last";
const LEASE_SECONDS: i64 = 60;

#[tokio::main]
async fn main() -> ExitCode {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    let result = timeout(WITHIN, run(&endpoints)).await;
    match result {
        Ok(Ok(())) => {
            println!("all is well");
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            println!("failed: not done within {WITHIN:?}");
            ExitCode::FAILURE
        }
    }
}

async fn run(endpoints: &[String]) -> Result<()> {
    let options = ConnectOptions::new().with_timeout(PUT_MAX);
    let client = Client::connect(endpoints, Some(options)).await?;
    transactions(client.clone()).await?;
    println!("ok: transactions");
    locks(client.clone()).await?;
    println!("ok: locks");
    election(client.clone()).await?;
    println!("ok: election");
    death(client, Client::connect(endpoints, None).await?).await?;
    println!("ok: leader's death");
    Ok(())
}

async fn transactions(mut client: Client) -> Result<()> {
    client.put("crate/key", "one", None).await?;
    let swap = |from: &str, to: &str| {
        Txn::new()
            .when([Compare::value("crate/key", CompareOp::Equal, from)])
            .and_then([TxnOp::put("crate/key", to, None)])
            .or_else([TxnOp::get("crate/key", None)])
    };
    let swapped = client.txn(swap("one", "two")).await?;
    let refused = client.txn(swap("one", "three")).await?;
    let got = client
        .get("crate/", Some(GetOptions::new().with_prefix()))
        .await?;
    let value = got.kvs().first().map(|kv| kv.value().to_vec());
    match (swapped.succeeded(), refused.succeeded(), value) {
        (true, false, Some(value)) if value == b"two" => Ok(()),
        other => Err(format!("unexpected: {other:?}").into()),
    }
}

async fn lease(client: &mut Client) -> Result<i64> {
    Ok(client.lease_grant(LEASE_SECONDS, None).await?.id())
}

async fn locks(mut client: Client) -> Result<()> {
    let options = |lease| Some(LockOptions::new().with_lease(lease));
    let first = lease(&mut client).await?;
    let second = lease(&mut client).await?;
    let held = client.lock("crate/lock", options(first)).await?;
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.lock("crate/lock", options(second)).await });
    sleep(Duration::from_millis(300)).await;
    if waiting.is_finished() {
        return Err("a held lock was got".into());
    }
    client.unlock(held.key()).await?;
    let next = waiting.await??;
    client.unlock(next.key()).await?;
    Ok(())
}

async fn election(mut client: Client) -> Result<()> {
    let first = lease(&mut client).await?;
    let won = client.campaign("crate/election", "first", first).await?;
    let key: LeaderKey = won.leader().cloned().ok_or("no leader's key")?;
    let proclaim = ProclaimOptions::new().with_leader(key.clone());
    client.proclaim("still first", Some(proclaim)).await?;
    let leader = client.leader("crate/election").await?;
    let value = leader.kv().map(|kv| kv.value().to_vec());
    if value.as_deref() != Some(b"still first") {
        return Err(format!("{value:?} leads").into());
    }
    let resign = ResignOptions::new().with_leader(key);
    client.resign(Some(resign)).await?;
    match client.leader("crate/election").await {
        Ok(_) => Err("somebody still leads".into()),
        Err(_) => Ok(()),
    }
}

/// The leader dies while keys are put and watched: every acknowledged put is seen, once and in order.
async fn death(mut client: Client, mut watching: Client) -> Result<()> {
    let watch = watch(&mut watching, None).await?;
    let watched = tokio::spawn(follow(watching, watch));
    let mut input = BufReader::new(stdin()).lines();
    let mut acknowledged = BTreeSet::new();
    for number in 0..PUTS {
        if number == KILL_AT {
            println!("kill");
            input.next_line().await?;
        }
        let key = format!("death/puts/{number:04}");
        acknowledged.insert(put(&mut client, &key).await?);
    }
    put(&mut client, LAST).await?;
    let seen = watched.await??;
    match acknowledged.difference(&seen).next() {
        None => Ok(()),
        Some(lost) => Err(format!("the put of revision {lost} was never seen").into()),
    }
}

/// Puts a key, again if it is not known whether that was done.
async fn put(client: &mut Client, key: &str) -> Result<i64> {
    loop {
        if let Ok(answer) = client.put(key, "x", None).await {
            return Ok(answer.header().map_or(0, |header| header.revision()));
        }
        sleep(PAUSE).await;
    }
}

async fn watch(client: &mut Client, from: Option<i64>) -> Result<WatchStream> {
    let options = WatchOptions::new().with_prefix();
    let options = match from {
        Some(revision) => options.with_start_revision(revision),
        None => options,
    };
    Ok(client.watch("death/puts/", Some(options)).await?)
}

/// Reads events up to the last key's; where the node goes that tells them, from another one. Each
/// has a larger revision than the one before.
async fn follow(mut client: Client, mut events: WatchStream) -> Result<BTreeSet<i64>> {
    let mut seen = BTreeSet::new();
    loop {
        let Ok(Some(answer)) = events.message().await else {
            sleep(PAUSE).await;
            let next = seen.last().map(|revision| revision + 1);
            if let Ok(again) = watch(&mut client, next).await {
                events = again;
            }
            continue;
        };
        for event in answer.events() {
            let kv = event.kv().ok_or("an event without a key")?;
            let revision = kv.mod_revision();
            if event.event_type() != EventType::Put || seen.last() >= Some(&revision) {
                return Err(format!("revision {revision} after {:?}", seen.last()).into());
            }
            seen.insert(revision);
            if kv.key() == LAST.as_bytes() {
                return Ok(seen);
            }
        }
    }
}
