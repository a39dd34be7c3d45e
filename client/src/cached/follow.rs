//! Keeping a copy young: a watch tells that something has changed, or that nothing has; then the
//! prefix is read again, as one snapshot.
//!
//! The events themselves are not taken: those of one transaction may come in several pieces, and a
//! copy is never half a step.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::{Ladder, Level, Timestamp};

use super::Inner;
use crate::environment;
use crate::watch::{Watch, WatchOptions};

/// How often servers say that nothing has changed: the copy is that much older than need be.
const PROGRESS: Duration = Duration::from_secs(1);
/// What has changed is read after this, together with what changes meanwhile.
const GATHER: Duration = Duration::from_millis(50);
/// After a failure, the next attempt comes after up to this.
const AGAIN: Duration = Duration::from_secs(1);
/// A file that is only older than need be is written this often.
const FILE_AGE: Duration = Duration::from_secs(5);

/// Follows for ever. Failures are not told: the copy gets old, and says so.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let options = WatchOptions {
            progress_interval: Some(PROGRESS),
            ..WatchOptions::prefix(inner.prefix.clone())
        };
        // The watch first, so that nothing falls between it and the read.
        if let Ok(mut watch) = inner.client.watch(options).await {
            while step(&inner, &mut watch).await.is_some() {}
        } else {
            // Without a watch, as in keyspaces of mode eventual, or while nobody answers.
            read(&inner).await;
        }
        tokio::time::sleep(environment::jittered(AGAIN)).await;
    }
}

async fn read(inner: &Inner) -> Option<()> {
    let ladder = Ladder::from(Level::Linearizable);
    inner.ask(&ladder, None).await.ok().map(drop)
}

/// One read, and what follows until the next. None: the watch is over, or the read failed.
async fn step(inner: &Inner, watch: &mut Watch) -> Option<()> {
    read(inner).await?;
    let mut written = tokio::time::Instant::now();
    loop {
        let batch = watch.next_batch().await.ok()?;
        if !batch.events.is_empty() {
            gather(watch).await?;
            return Some(());
        }
        let copy = {
            let mut held = inner.copy.lock();
            let old = held.as_ref()?;
            if batch.complete < old.revision {
                continue;
            }
            // All that happened up to then has come, and it was nothing: a revision is a time.
            let then = Timestamp(batch.complete.0).min(environment::wall_clock());
            let mut copy = (**old).clone();
            copy.true_at = copy.true_at.max(then);
            let copy = Arc::new(copy);
            *held = Some(Arc::clone(&copy));
            copy
        };
        if written.elapsed() >= FILE_AGE {
            inner.store(copy).await.ok()?;
            written = tokio::time::Instant::now();
        }
    }
}

/// Takes what comes together with an event.
async fn gather(watch: &mut Watch) -> Option<()> {
    let until = tokio::time::Instant::now() + GATHER;
    while let Ok(batch) = tokio::time::timeout_at(until, watch.next_batch()).await {
        batch.ok()?;
    }
    Some(())
}
