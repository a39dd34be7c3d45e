//! Keeping a copy young: a watch tells that something has changed, and the prefix is read again, as
//! one snapshot; where nothing has, revisions alone are compared now and then.
//!
//! The events themselves are not taken: those of one transaction may come in several pieces, and a
//! copy is never half a step. Nor does the silence of a watch prove anything: whoever serves it may
//! be cut off.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use crate::environment;
use crate::watch::{Watch, WatchOptions};

/// What has changed is read after this, together with what changes meanwhile.
const GATHER: Duration = Duration::from_millis(50);
/// After a failure, the next attempt comes after up to this.
const AGAIN: Duration = Duration::from_secs(1);
/// A copy of which no change was told is compared with what servers have this often.
const COMPARE: Duration = Duration::from_secs(4);

/// Follows for ever. Failures are not told: the copy gets old, and says so.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        // The watch first, so that nothing falls between it and the read.
        match inner
            .client
            .watch(WatchOptions::prefix(inner.prefix.clone()))
            .await
        {
            Ok(mut watch) => while step(&inner, &mut watch).await.is_some() {},
            // As in keyspaces of mode eventual, or while nobody answers.
            Err(_) => {
                let _ = inner.ask(None, None).await;
            }
        }
        tokio::time::sleep(environment::jittered(AGAIN)).await;
    }
}

/// One read, and what follows until the next. None: the watch is over, or a read failed.
async fn step(inner: &Inner, watch: &mut Watch) -> Option<()> {
    inner.ask(None, None).await.ok()?;
    let mut compared = Instant::now();
    loop {
        match tokio::time::timeout_at(compared + COMPARE, watch.next_batch()).await {
            Ok(batch) if batch.as_ref().ok()?.events.is_empty() => {}
            Ok(_) => {
                gather(watch).await?;
                return Some(());
            }
            Err(_) => {
                if !inner.is_still_true().await.ok()? {
                    return Some(());
                }
                compared = Instant::now();
            }
        }
    }
}

/// Takes what comes together with an event.
async fn gather(watch: &mut Watch) -> Option<()> {
    let until = Instant::now() + GATHER;
    while let Ok(batch) = tokio::time::timeout_at(until, watch.next_batch()).await {
        batch.ok()?;
    }
    Some(())
}
