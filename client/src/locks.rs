//! Locks: a key that only one client can make, and that goes with that client's lease; and writes
//! that are done only while a lock has not moved on.
//!
//! A lease alone makes no lock. Whoever holds it may be held up past its end, by the collection of
//! its garbage or a slow network, wake up, and write what it had prepared, over what the next holder
//! has written since. Only the place that is written can tell: it is shown the **fencing token**, the
//! revision that made the lock's key, and refuses a holder that is not the last one.

use std::time::Duration;

use bytes::Bytes;
use quorate_types::Revision;
use tokio::time::Instant;

use crate::answer::{CasOutcome, Receipt, Written};
use crate::client::Client;
use crate::environment;
use crate::error::ClientError;
use crate::leases::{Granted, LeaseKeeper, LeaseLost};
use crate::operation::{Expect, Operation, Txn};
use crate::options::WriteOptions;
use crate::watch::{Watch, WatchOptions};

/// Who waits for a lock is told when it is free. Where nobody tells, it asks again after about this.
const ASK_AGAIN_UNTOLD: Duration = Duration::from_millis(200);
/// And whatever is told, after this: who tells may be cut off.
const ASK_AGAIN_TOLD: Duration = Duration::from_secs(2);
/// How long it may take until one is told of a lock.
const BEGIN_MAX: Duration = Duration::from_secs(1);

/// A lock as its holder had it: what a write can demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The lock's key.
    pub name: Bytes,
    /// The revision that made it: rises with each holder.
    pub token: Revision,
}

/// A lock that is held, while it is there and its lease is not lost.
#[derive(Debug)]
pub struct HeldLock {
    /// What writes demand that must not come after the next holder's.
    pub fence: Fence,
    /// Its lease.
    pub lease: Granted,
    client: Client,
    keeper: LeaseKeeper,
}

/// What came of a write that demanded a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// The lock had not moved on, and it was done.
    Done {
        /// Of the write.
        revision: Revision,
        /// What was delivered.
        receipt: Receipt,
    },
    /// The lock had moved on: nothing was changed.
    MovedOn {
        /// The token now; none: nobody holds the lock.
        token: Option<Revision>,
        /// What was delivered.
        receipt: Receipt,
    },
}

impl Client {
    /// Takes a lock, waiting for it up to `wait`; none: others held it all the time. The lock is
    /// the key `name`; `value` says who holds it, for whoever reads the key.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]. Whatever may have been taken goes with its lease.
    pub async fn lock(
        &self,
        name: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
        wait: Duration,
    ) -> Result<Option<HeldLock>, ClientError> {
        let (name, value) = (name.into(), value.into());
        let until = Instant::now() + wait;
        let lease = self.grant_lease(ttl, None).await?;
        let keeper = self.keep_lease(&lease);
        let taken = self.wait_for(&name, &value, &lease, until).await;
        if let Ok(Some(written)) = taken {
            let token = written.revision;
            return Ok(Some(HeldLock {
                fence: Fence { name, token },
                lease,
                client: self.clone(),
                keeper,
            }));
        }
        // If it is not revoked now, it is over when its time has come.
        let _ = self.revoke_lease(lease.id).await;
        taken.map(|_| None)
    }

    async fn wait_for(
        &self,
        name: &Bytes,
        value: &Bytes,
        lease: &Granted,
        until: Instant,
    ) -> Result<Option<Written>, ClientError> {
        let mut freed = Freed::default();
        loop {
            let options = WriteOptions {
                lease: Some(lease.id),
                ..WriteOptions::default()
            };
            let taken = self.compare_and_set(name.clone(), Expect::Absent, value.clone(), options);
            if let CasOutcome::Done(written) = taken.await? {
                return Ok(Some(written));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            freed.wait(self, name, until).await;
        }
    }

    /// Writes a key if a lock in the same range has not moved on.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; reason `RANGES_SPANNED` where the lock lies in another range than the
    /// key: nothing could be promised then.
    pub async fn put_fenced(
        &self,
        fence: &Fence,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Fenced, ClientError> {
        let put = Operation::Put {
            key: key.into(),
            value: value.into(),
            ttl: options.ttl,
            lease: options.lease,
        };
        self.fenced(fence, put, options).await
    }

    /// Removes a key if a lock in the same range has not moved on.
    ///
    /// # Errors
    ///
    /// As [`put_fenced`](Self::put_fenced).
    pub async fn delete_fenced(
        &self,
        fence: &Fence,
        key: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Fenced, ClientError> {
        self.fenced(fence, Operation::delete(key), options).await
    }

    async fn fenced(
        &self,
        fence: &Fence,
        operation: Operation,
        options: WriteOptions,
    ) -> Result<Fenced, ClientError> {
        let txn = Txn::default()
            .compare(fence.name.clone(), Expect::Revision(fence.token))
            .then(operation)
            .otherwise(Operation::get(fence.name.clone()));
        let done = self.txn(txn, options).await?;
        let (revision, receipt) = (done.revision, done.receipt);
        if done.succeeded {
            return Ok(Fenced::Done { revision, receipt });
        }
        let there = done.results.into_iter().find_map(|result| result.entry);
        let token = there.map(|entry| entry.revision);
        Ok(Fenced::MovedOn { token, receipt })
    }
}

/// How one who waits hears that a lock may be free.
#[derive(Debug, Default)]
struct Freed {
    /// Of the deletes of its key.
    watch: Option<Watch>,
}

impl Freed {
    /// Waits until it is worth asking for the lock again.
    async fn wait(&mut self, client: &Client, name: &Bytes, until: Instant) {
        let now = Instant::now();
        if let Some(watch) = &mut self.watch {
            let again = now + environment::jittered(ASK_AGAIN_TOLD);
            let told = tokio::time::timeout_at(again.min(until), watch.next()).await;
            if let Ok(Err(_)) = told {
                self.watch = None;
            }
            return;
        }
        let options = WatchOptions {
            no_puts: true,
            ..WatchOptions::key(name.clone())
        };
        let begun =
            tokio::time::timeout_at(until.min(now + BEGIN_MAX), client.watch(options)).await;
        match begun {
            // The lock may have gone before this could be told: it is asked for at once.
            Ok(Ok(watch)) => self.watch = Some(watch),
            Ok(Err(_)) | Err(_) => {
                let again = now + environment::jittered(ASK_AGAIN_UNTOLD);
                tokio::time::sleep_until(again.min(until)).await;
            }
        }
    }
}

impl HeldLock {
    /// Waits until the lock cannot be relied on any more.
    pub async fn lost(&mut self) -> LeaseLost {
        self.keeper.lost().await
    }

    /// Gives the lock back at once.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; the lock is free then when its lease's time has come.
    pub async fn unlock(self) -> Result<(), ClientError> {
        self.client.revoke_lease(self.lease.id).await.map(drop)
    }
}
