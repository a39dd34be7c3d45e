//! Many watchers of one prefix: each event once and in order at each of them, how long after its
//! acknowledgement it comes, and what changes while one of them stands still.
//!
//! `QUORATE_WATCHERS=1000 QUORATE_EVENTS=60000 QUORATE_RATE=1000 cargo test --test cluster
//! many_watch_one_prefix -- --nocapture` is the long run.

#[path = "../../client/examples/watchers/measure.rs"]
mod measure;

use std::time::Duration;

use quorate_client::{Client, ClientOptions};

use self::measure::{Failure, begin_all, measure};
use crate::harness::{Cluster, rounds};

/// Nothing is waited for any longer, once all should be written.
const PATIENCE: Duration = Duration::from_secs(120);
const WATCHERS_USUAL: usize = 50;
const EVENTS_USUAL: usize = 400;
const RATE_USUAL: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watch_one_prefix() -> Result<(), Failure> {
    let watchers = rounds("QUORATE_WATCHERS", WATCHERS_USUAL);
    let events = u32::try_from(rounds("QUORATE_EVENTS", EVENTS_USUAL))?;
    let rate = u32::try_from(rounds("QUORATE_RATE", RATE_USUAL))?;
    let cluster = Cluster::start(3).await;
    let connect = |connection: usize| {
        let mut endpoints = cluster.endpoints();
        endpoints.rotate_left(connection % 3);
        endpoints.truncate(1);
        Client::connect(ClientOptions {
            endpoints,
            ..ClientOptions::default()
        })
    };
    for still in [0, 1] {
        let still = begin_all(connect, still).await?;
        let watches = begin_all(connect, watchers).await?;
        let writer = cluster.client();
        let measured = measure(&writer, watches, (rate, events));
        let within = PATIENCE + Duration::from_secs(u64::from(events / rate));
        let delays = tokio::time::timeout(within, measured).await??;
        eprintln!(
            "{watchers} watchers and {} that stands still, {events} events in {:.1?}, all told in \
             {:.1?}: delivered {:.1?} after the acknowledgement at the median, {:.1?} at p99, {:.1?} \
             at the most",
            still.len(),
            delays.written,
            delays.told,
            delays.percentile(0.5),
            delays.percentile(0.99),
            delays.percentile(1.0)
        );
    }
    Ok(())
}
