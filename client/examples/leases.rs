//! Many leases, each with a key, all kept alive at a third of their time: what that costs is read off
//! the nodes' processor time. Then nobody keeps them, and it is told how long their keys stay.
//!
//! `quorate keyspace create jobs --mode strong`, then
//! `cargo run --release -p quorate-client --example leases -- 127.0.0.1:7450 100000 60`:
//! endpoints, leases, seconds. Their time to live is 30 s.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use quorate_client::{Client, ClientOptions, ScanOptions, WriteOptions};
use quorate_types::LeaseId;
use tokio::time::Instant;

const TTL: Duration = Duration::from_secs(30);
const IN_FLIGHT: usize = 256;
const IDS_A_REQUEST: usize = 1_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, leases, seconds] = &arguments[..] else {
        return Err("wanted: ENDPOINTS LEASES SECONDS".into());
    };
    let client = Client::connect(ClientOptions {
        endpoints: endpoints.split(',').map(str::to_owned).collect(),
        keyspace: "jobs".to_owned(),
        timeout: Duration::from_secs(20),
        ..ClientOptions::default()
    })?;
    let ids: Vec<LeaseId> = (1..=leases.parse()?).map(LeaseId).collect();
    let began = Instant::now();
    make(&client, &ids).await?;
    println!("{} leases with keys in {:.1?}", ids.len(), began.elapsed());
    let until = Instant::now() + Duration::from_secs(seconds.parse()?);
    let mut rounds = 0;
    while Instant::now() < until {
        let begun = Instant::now();
        keep(&client, &ids).await?;
        rounds += 1;
        println!("round {rounds}: kept in {:.1?}", begun.elapsed());
        tokio::time::sleep_until(begun + TTL / 3).await;
    }
    let last = Instant::now();
    keep(&client, &ids).await?;
    println!("nobody keeps them from here on");
    loop {
        let left = count(&client).await?;
        println!("{:.1?}: {left} keys", last.elapsed());
        if left == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(if last.elapsed() < TTL {
            5
        } else {
            1
        }))
        .await;
    }
}

/// Grants in waves, and keeps what was granted before: it takes longer than their time.
async fn make(client: &Client, ids: &[LeaseId]) -> Result<(), quorate_client::ClientError> {
    let pipeline = client.pipeline();
    for (wave, chunk) in ids.chunks(20_000).enumerate() {
        let makes = chunk.iter().map(|id| {
            let pipeline = pipeline.clone();
            async move {
                pipeline.grant_lease(TTL, Some(*id)).await?;
                let options = WriteOptions {
                    lease: Some(*id),
                    ..WriteOptions::default()
                };
                pipeline
                    .put_with(format!("leased/{id}"), "v", options)
                    .await
            }
        });
        let made = stream::iter(makes).buffer_unordered(IN_FLIGHT);
        made.try_for_each(|_| async { Ok(()) }).await?;
        keep(client, &ids[..wave * 20_000]).await?;
    }
    Ok(())
}

async fn keep(client: &Client, ids: &[LeaseId]) -> Result<(), quorate_client::ClientError> {
    let keeps = ids
        .chunks(IDS_A_REQUEST)
        .map(|chunk| client.renew_leases(chunk, None));
    let kept = stream::iter(keeps).buffer_unordered(8);
    let lost = |ttls: &Vec<Option<Duration>>| ttls.iter().filter(|ttl| ttl.is_none()).count();
    let lost: usize = kept
        .map_ok(|ttls| lost(&ttls))
        .try_fold(0, |all, one| async move { Ok(all + one) })
        .await?;
    if lost > 0 {
        println!("{lost} leases are over");
    }
    Ok(())
}

async fn count(client: &Client) -> Result<usize, quorate_client::ClientError> {
    let options = ScanOptions {
        keys_only: true,
        ..ScanOptions::prefix("leased/")
    };
    let rows = client.scan_all(options);
    rows.try_fold(0, |all, _| async move { Ok(all + 1) }).await
}
