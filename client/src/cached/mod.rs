//! Reading when nothing answers: a last-known-good copy of a prefix, in memory and, if asked, on
//! disk, as the last rung of a ladder.
//!
//! A copy is a snapshot at one revision, never a mixture: it is replaced as a whole by each read
//! that a server has answered, and by the follower, which reads again whenever a watch says that
//! something has changed. Its age counts from when it was last known to be what the servers had.
//! What is served from it says so in its receipt, with that age.
//!
//! Not here: which levels servers serve, and retries (`attempts`).

mod copy;
mod file;
mod follow;
mod ladder;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use quorate_types::{Ladder, NodeId, RangeId, Revision, Timestamp};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::answer::{Entry, Micros, Receipt, Role};
use crate::client::Client;
use crate::environment;
use crate::error::ClientError;
use crate::options::{ReadOptions, ScanOptions};

use copy::Copy;
pub use ladder::CachedLadder;

/// Most bytes of keys and values of one copy.
pub const CACHED_MAX_BYTES: usize = 64 << 20;

/// What is copied, and where to.
#[derive(Clone, Debug, Default)]
pub struct CachedOptions {
    /// Keys that start with it; empty: all of the keyspace.
    pub prefix: Bytes,
    /// A folder for the copy's file, made if it is not there; none: in memory only.
    pub folder: Option<PathBuf>,
}

/// Why a read was not answered, by nobody and from no copy.
#[derive(Debug, Error)]
pub enum CachedError {
    /// A server refused, and would refuse again; or the copy was not looked at.
    #[error(transparent)]
    Refused(#[from] ClientError),
    /// No server answered in time; and the copy, if one may be taken at all, is not there or too
    /// old.
    #[error("no server answered, and {copy}")]
    Unanswered {
        /// What the servers said.
        #[source]
        source: ClientError,
        /// Why the copy was not taken.
        copy: String,
    },
    /// The ladder asks nobody but the copy, and that is not there or too old.
    #[error("{copy}")]
    NoCopy {
        /// Why it was not taken.
        copy: String,
    },
    /// The prefix has more than a copy may hold.
    #[error("more than {CACHED_MAX_BYTES} bytes under the prefix")]
    TooLarge,
    /// The copy's file.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A prefix as a server or the copy had it: one snapshot.
#[derive(Clone, Debug)]
pub struct CachedState {
    /// By whole key.
    pub entries: BTreeMap<Bytes, Entry>,
    /// What was delivered; [`Receipt::cached_age`] tells whether it came from the copy.
    pub receipt: Receipt,
}

/// A prefix with a copy of it. Dropped, it stops following.
#[derive(Debug)]
pub struct Cached {
    inner: Arc<Inner>,
    follower: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    prefix: Bytes,
    /// The copy's file.
    path: Option<PathBuf>,
    copy: Mutex<Option<Arc<Copy>>>,
    /// The revision of the copy, for those who wait for another.
    changed: watch::Sender<Revision>,
}

impl Client {
    /// A prefix with a copy of it; one that is on disk is taken up. Nobody is asked yet. A file that
    /// is damaged counts as none.
    ///
    /// # Errors
    ///
    /// [`CachedError::File`]: the folder cannot be made, or the file not be read.
    pub async fn cached(&self, options: CachedOptions) -> Result<Cached, CachedError> {
        let keyspace = self.keyspace_name().to_owned();
        let (path, copy) = match options.folder {
            Some(folder) => file::open(folder, keyspace, options.prefix.clone()).await?,
            None => (None, None),
        };
        let (changed, _) = watch::channel(copy.as_ref().map_or(Revision::ZERO, |it| it.revision));
        let inner = Inner {
            client: self.clone(),
            prefix: options.prefix,
            path,
            copy: Mutex::new(copy.map(Arc::new)),
            changed,
        };
        Ok(Cached {
            inner: Arc::new(inner),
            follower: None,
        })
    }
}

impl Cached {
    /// Reads the prefix: from servers at the ladder's levels, or else from the copy, if it is
    /// young enough. What servers answer is the copy from then on.
    ///
    /// # Errors
    ///
    /// [`CachedError`]. A refusal that would come again, as for a keyspace that is not there, is
    /// told: no copy hides it.
    pub async fn read(&self, ladder: &CachedLadder) -> Result<CachedState, CachedError> {
        let Some(served) = &ladder.served else {
            return self
                .inner
                .serve(ladder, Vec::new())
                .map_err(|copy| CachedError::NoCopy { copy });
        };
        match self.inner.ask(Some(served), ladder.budget()).await {
            Ok(state) => Ok(state),
            Err(CachedError::Refused(source)) if source.is_retryable() => {
                let failed = vec![source.to_string()];
                let served = self.inner.serve(ladder, failed);
                served.map_err(|copy| CachedError::Unanswered { source, copy })
            }
            Err(error) => Err(error),
        }
    }

    /// Reads one key of the prefix, as [`read`](Self::read) does; none: it is not there.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn get(
        &self,
        key: &[u8],
        ladder: &CachedLadder,
    ) -> Result<(Option<Entry>, Receipt), CachedError> {
        let mut state = self.read(ladder).await?;
        Ok((state.entries.remove(key), state.receipt))
    }

    /// Keeps the copy as young as the cluster lets it, from now on, in the background.
    pub fn follow(&mut self) {
        if self.follower.is_none() {
            self.follower = Some(tokio::spawn(follow::run(Arc::clone(&self.inner))));
        }
    }

    /// Tells the revision of the copy whenever there is another one.
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.inner.changed.subscribe()
    }

    /// The revision of the copy; none: there is none.
    pub fn revision(&self) -> Option<Revision> {
        self.inner.copy.lock().as_ref().map(|copy| copy.revision)
    }

    /// What the copy holds, whatever its age.
    pub fn values(&self) -> Vec<(Bytes, Bytes)> {
        let Some(copy) = self.inner.copy.lock().clone() else {
            return Vec::new();
        };
        let entries = copy.entries.iter();
        entries
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect()
    }

    /// How old the copy is; none: there is none, or its age cannot be told, since the clock went
    /// back.
    pub fn age(&self) -> Option<Duration> {
        self.inner.copy.lock().as_ref().and_then(|copy| age(copy))
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

/// When what a read has shown was what servers had, at the latest known.
fn true_at(asked_at: Timestamp, staleness: Duration) -> Timestamp {
    let micros = u64::try_from(staleness.as_micros()).unwrap_or(u64::MAX);
    Timestamp(asked_at.0.saturating_sub(micros))
}

/// A copy from the future is as old as nobody knows.
fn age(copy: &Copy) -> Option<Duration> {
    let micros = environment::wall_clock().0.checked_sub(copy.true_at.0)?;
    Some(Duration::from_micros(micros))
}

impl Inner {
    /// All keys of the prefix at these levels; none: at the keyspace's default.
    fn scan(&self, ladder: Option<&Ladder>, budget: Option<Duration>) -> ScanOptions {
        ScanOptions {
            read: ReadOptions {
                ladder: ladder.cloned(),
                timeout: budget.map(|budget| budget.min(self.client.timeout())),
                ..ReadOptions::default()
            },
            ..ScanOptions::prefix(self.prefix.clone())
        }
    }

    /// Whether servers have what the copy has; by revisions, which differ where values do.
    async fn is_still_true(&self) -> Result<bool, CachedError> {
        let Some(copy) = self.copy.lock().clone() else {
            return Ok(false);
        };
        let scan = ScanOptions {
            keys_only: true,
            ..self.scan(None, None)
        };
        let asked_at = environment::wall_clock();
        let mut pages = Box::pin(self.client.scan_pages(scan));
        let mut found = 0;
        let mut stale = Duration::ZERO;
        while let Some(page) = pages.try_next().await? {
            for entry in &page.entries {
                let held = copy.entries.get(&entry.key);
                if held.is_none_or(|(_, revision)| *revision != entry.revision) {
                    return Ok(false);
                }
            }
            found += page.entries.len();
            stale = page.receipt.staleness.unwrap_or_default();
        }
        if found != copy.entries.len() {
            return Ok(false);
        }
        let mut young = (*copy).clone();
        young.true_at = young.true_at.max(true_at(asked_at, stale));
        let young = Arc::new(young);
        {
            let mut held = self.copy.lock();
            if held.as_ref().is_none_or(|held| !Arc::ptr_eq(held, &copy)) {
                // Another read was faster, and it knew more.
                return Ok(true);
            }
            *held = Some(Arc::clone(&young));
        }
        self.store(young).await?;
        Ok(true)
    }

    /// Asks servers, and keeps what they say.
    async fn ask(
        &self,
        ladder: Option<&Ladder>,
        budget: Option<Duration>,
    ) -> Result<CachedState, CachedError> {
        let scan = self.scan(ladder, budget);
        let asked_at = environment::wall_clock();
        let mut pages = Box::pin(self.client.scan_pages(scan));
        let mut entries = BTreeMap::new();
        let mut last = None;
        let mut bytes = 0;
        while let Some(page) = pages.try_next().await? {
            for entry in page.entries {
                bytes += entry.key.len() + entry.value.len();
                if bytes > CACHED_MAX_BYTES {
                    return Err(CachedError::TooLarge);
                }
                entries.insert(entry.key.clone(), entry);
            }
            last = Some((page.at, page.receipt));
        }
        let Some((revision, receipt)) = last else {
            return Err(ClientError::malformed("that of a scan").into());
        };
        let true_at = true_at(asked_at, receipt.staleness.unwrap_or_default());
        self.keep(revision, true_at, &entries).await?;
        Ok(CachedState { entries, receipt })
    }

    /// Makes the entries the copy, if they are not older than it.
    async fn keep(
        &self,
        revision: Revision,
        true_at: Timestamp,
        entries: &BTreeMap<Bytes, Entry>,
    ) -> Result<(), CachedError> {
        let kept = entries.iter().map(|(key, entry)| {
            let kept = (entry.value.clone(), entry.revision);
            (key.clone(), kept)
        });
        let copy = Arc::new(Copy {
            keyspace: self.client.keyspace_name().to_owned(),
            prefix: self.prefix.clone(),
            revision,
            true_at,
            entries: kept.collect(),
        });
        let differs = {
            let mut held = self.copy.lock();
            if held.as_ref().is_some_and(|old| old.revision > revision) {
                return Ok(());
            }
            let old = held.replace(Arc::clone(&copy));
            old.is_none_or(|old| old.entries != copy.entries)
        };
        if differs {
            self.changed.send_replace(revision);
        }
        self.store(copy).await
    }

    /// Writes the copy's file, if there is to be one.
    async fn store(&self, copy: Arc<Copy>) -> Result<(), CachedError> {
        match &self.path {
            Some(path) => file::write(path.clone(), copy).await,
            None => Ok(()),
        }
    }

    /// Serves the copy, or says why not.
    fn serve(&self, ladder: &CachedLadder, failed: Vec<String>) -> Result<CachedState, String> {
        let Some(max_age) = ladder.max_age else {
            return Err("no copy may be taken: the ladder has no rung `cached:AGE`".to_owned());
        };
        let Some(copy) = self.copy.lock().clone() else {
            return Err("there is no copy".to_owned());
        };
        let Some(age) = age(&copy) else {
            return Err("the copy is from the future: this machine's clock went back".to_owned());
        };
        if age > max_age {
            return Err(format!("the copy is {age:.1?} old, above {max_age:?}"));
        }
        let entries = copy.entries.iter().map(|(key, (value, revision))| {
            let entry = Entry {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
                expires_at: None,
                dot: String::new(),
                siblings: 0,
            };
            (key.clone(), entry)
        });
        Ok(CachedState {
            entries: entries.collect(),
            receipt: receipt(copy.revision, age, ladder.cached_rung(), failed),
        })
    }
}

fn receipt(revision: Revision, age: Duration, rung: u32, failed: Vec<String>) -> Receipt {
    Receipt {
        level: None,
        rung,
        node: NodeId(0),
        role: Role::Unspecified,
        replicas: Vec::new(),
        stand_ins: Vec::new(),
        revision,
        context: Bytes::new(),
        staleness: Some(age),
        visible_after: None,
        tentative: false,
        siblings: 0,
        replaced_unseen: 0,
        replayed: false,
        micros: Micros::default(),
        range: RangeId(0),
        session_token: Bytes::new(),
        failed,
        session_missing: String::new(),
        cached_age: Some(age),
    }
}
