//! Many watchers of one prefix, puts at a steady rate: each event must come once and in order at each
//! watcher, and it is told how long after its acknowledgement it comes; first alone, then beside
//! watchers that stand still.
//!
//! `cargo run --release -p quorate-client --example watchers -- 127.0.0.1:7450 1000 1000 60 1`:
//! endpoints, watchers, puts a second, seconds, watchers that are never read.
#![allow(clippy::print_stdout)]

mod measure;

use std::time::Duration;

use quorate_client::{Client, ClientError, ClientOptions};

use self::measure::{Failure, begin_all, measure};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, watchers, rate, seconds, still] = &arguments[..] else {
        return Err("wanted: ENDPOINTS WATCHERS RATE SECONDS STILL".into());
    };
    let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
    let (watchers, rate): (usize, u32) = (watchers.parse()?, rate.parse()?);
    let events = rate * seconds.parse::<u32>()?;
    run(&endpoints, watchers, (rate, events)).await?;
    let connect = |first| client(&endpoints, first);
    let still = begin_all(connect, still.parse()?).await?;
    println!("beside {} that stand still:", still.len());
    run(&endpoints, watchers, (rate, events)).await
}

fn client(endpoints: &[String], first: usize) -> Result<Client, ClientError> {
    let mut endpoints = endpoints.to_vec();
    let first = first % endpoints.len();
    endpoints.rotate_left(first);
    Client::connect(ClientOptions {
        endpoints,
        timeout: Duration::from_secs(20),
        ..ClientOptions::default()
    })
}

async fn run(endpoints: &[String], watchers: usize, load: (u32, u32)) -> Result<(), Failure> {
    let watches = begin_all(|first| client(endpoints, first), watchers).await?;
    let delays = measure(&client(endpoints, 0)?, watches, load).await?;
    println!(
        "{} puts in {:.1?}, all told in {:.1?}",
        load.1, delays.written, delays.told
    );
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("the most", 1.0)] {
        let delay = delays.percentile(share);
        println!("{name}: {delay:?} after the acknowledgement");
    }
    Ok(())
}
