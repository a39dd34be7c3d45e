//! Reading configuration, making steps of plans, and the history of steps.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use quorate_types::limits::TXN_OPERATIONS_MAX;
use quorate_types::{Ladder, Level, Partitioning, Revision};

use super::error::ConfigError;
use super::layout::{ConfigPrefix, content_hash, content_name, hash_in};
use super::plan::{Others, Plan};
use super::step::{Line, Manifest, StepInfo, StepKind, Turn, Turns};
use super::{CONFIG_HISTORY_MIN, CONFIG_HISTORY_USUAL, CONFIG_KEYS_MAX, CONFIG_READ_MAX_BYTES};
use crate::answer::Receipt;
use crate::client::Client;
use crate::environment;
use crate::error::ClientError;
use crate::operation::{Expect, Operation, Txn};
use crate::options::{ReadOptions, ScanOptions, WriteOptions};

/// Bytes of a manifest that are kept as one content, below what a value may have.
const CHUNK_BYTES: usize = 512 << 10;
/// Operations of one batch of contents, and their bytes.
const CONTENTS_BATCH_MAX: usize = 1000;
const CONTENTS_BATCH_BYTES: usize = 4 << 20;
/// Contents that are asked for at the same time.
const CONTENTS_ASKED_MAX: usize = 32;
/// Keys of old steps and their contents that go in a step's transaction; its bytes are reckoned without.
const FORGOTTEN_IN_STEP_MAX: usize = 4000;
/// Keys that a refusal names.
const MOVED_NAMED_MAX: usize = 16;

/// The configuration under one prefix.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) client: Client,
    pub(super) prefix: ConfigPrefix,
    pub(super) keep_steps: u64,
}

/// A value, and the write that made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub value: Bytes,
    pub revision: Revision,
}

/// The last step, as a plan has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub revision: Revision,
    pub step: StepInfo,
    pub manifest: Manifest,
}

/// All that lies under a prefix, as of one moment.
#[derive(Clone, Debug)]
pub struct ConfigState {
    pub(super) prefix: ConfigPrefix,
    pub(super) entries: BTreeMap<Bytes, Held>,
    pub(super) head: Option<Head>,
}

impl ConfigState {
    /// Values by key below the prefix.
    pub fn values(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.entries.iter().map(|(key, held)| (key, &held.value))
    }

    /// The revision of a key's last write.
    pub fn revision_of(&self, key: &Bytes) -> Option<Revision> {
        self.entries.get(key).map(|held| held.revision)
    }

    /// The last step; none: nothing was ever applied here.
    pub fn last_step(&self) -> Option<&StepInfo> {
        self.head.as_ref().map(|head| &head.step)
    }
}

/// A step that was made.
#[derive(Clone, Debug)]
pub struct Stepped {
    /// As it is kept.
    pub step: StepInfo,
    /// Of its transaction.
    pub revision: Revision,
    /// What was delivered.
    pub receipt: Receipt,
}

impl Client {
    /// The configuration under a prefix. All its keys must lie in one range, as they do in an
    /// `ordered` keyspace.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`]: not a folder's name.
    pub fn config(&self, prefix: &str) -> Result<Config, ConfigError> {
        Ok(Config {
            client: self.clone(),
            prefix: ConfigPrefix::new(prefix)?,
            keep_steps: CONFIG_HISTORY_USUAL,
        })
    }
}

impl Config {
    /// How many steps are kept, the next one included: at least [`CONFIG_HISTORY_MIN`]; if not said,
    /// [`CONFIG_HISTORY_USUAL`]. A step that is made drops what is older.
    #[must_use]
    pub fn keep_history(self, steps: u64) -> Self {
        Self {
            keep_steps: steps.max(CONFIG_HISTORY_MIN),
            ..self
        }
    }

    /// Where it lies.
    pub fn prefix(&self) -> &ConfigPrefix {
        &self.prefix
    }

    /// Reads all of it, linearizably.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub async fn read(&self) -> Result<ConfigState, ConfigError> {
        // The head first: whatever changes after it is noticed by the step's compares.
        let head = self.head().await?;
        let mut scan = ScanOptions::prefix(self.prefix.as_str().to_owned());
        scan.read = linearizable();
        let mut pages = Box::pin(self.client.scan_pages(scan));
        let mut entries = BTreeMap::new();
        let mut bytes = 0;
        while let Some(page) = pages.try_next().await? {
            for entry in page.entries {
                let Some(key) = self.prefix.relative(&entry.key) else {
                    continue;
                };
                bytes += entry.key.len() + entry.value.len();
                if bytes > CONFIG_READ_MAX_BYTES {
                    return Err(ConfigError::TooLarge {
                        what: "bytes under the prefix",
                        found: bytes,
                        limit: CONFIG_READ_MAX_BYTES,
                    });
                }
                let (value, revision) = (entry.value, entry.revision);
                entries.insert(key, Held { value, revision });
            }
        }
        Ok(ConfigState {
            prefix: self.prefix.clone(),
            entries,
            head,
        })
    }

    /// What applying a bundle would change: values by key below the prefix. Keys that are not in
    /// it stay, or go with `prune`.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub async fn plan(
        &self,
        bundle: BTreeMap<Bytes, Bytes>,
        prune: bool,
    ) -> Result<Plan, ConfigError> {
        // Before anything is read: what is too large is too large for any state.
        if bundle.len() > CONFIG_KEYS_MAX {
            return Err(ConfigError::TooLarge {
                what: "keys",
                found: bundle.len(),
                limit: CONFIG_KEYS_MAX,
            });
        }
        let others = if prune { Others::Prune } else { Others::Keep };
        Plan::new(self.read().await?, bundle, &others)
    }

    /// The way back to the state after a step; none: to that before the last one. Keys that never
    /// came with a bundle stay, or go with `prune`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoStep`]; see [`ConfigError`].
    pub async fn plan_back(&self, to: Option<u64>, prune: bool) -> Result<Plan, ConfigError> {
        let state = self.read().await?;
        let Some(head) = &state.head else {
            return Err(self.no_step(to.unwrap_or(1), None));
        };
        let (names, gone) = match to {
            Some(number) => self.as_after(number, head).await?,
            None => self.as_before(&head.step).await?,
        };
        let bundle = self.contents(names, &state).await?;
        let others = match (prune, to) {
            // Undoing the last step says nothing about keys that it did not touch.
            (true, Some(_)) => Others::Prune,
            (_, _) => Others::Remove(&gone),
        };
        Plan::new(state, bundle, &others)
    }

    /// Makes a step of a plan, if nothing that the plan was made from has changed since.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Moved`] if something has; see [`ConfigError`]. With an unknown effect the
    /// step was made as a whole, or not at all.
    pub async fn apply(
        &self,
        plan: &Plan,
        author: &str,
        message: &str,
    ) -> Result<Stepped, ConfigError> {
        self.step(plan, StepKind::Apply, None, (author, message))
            .await
    }

    /// As [`apply`](Self::apply), of a plan that [`plan_back`](Self::plan_back) has made.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    pub async fn roll_back(
        &self,
        plan: &Plan,
        to: Option<u64>,
        author: &str,
        message: &str,
    ) -> Result<Stepped, ConfigError> {
        self.step(plan, StepKind::Rollback, to, (author, message))
            .await
    }

    /// The steps, the newest first; at most `limit`, 0: all.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub async fn steps(&self, limit: usize) -> Result<Vec<StepInfo>, ConfigError> {
        let scan = ScanOptions {
            reverse: true,
            limit: u32::try_from(limit).unwrap_or(0).min(1000),
            read: linearizable(),
            ..ScanOptions::prefix(self.prefix.steps_prefix())
        };
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut entries = Box::pin(self.client.scan_all(scan));
        let mut steps = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            steps.push(parse_step(&entry.value, &entry.key)?);
            if steps.len() == limit {
                break;
            }
        }
        Ok(steps)
    }

    /// All values under the prefix as they were after a step.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoStep`]; see [`ConfigError`].
    pub async fn at_step(&self, number: u64) -> Result<BTreeMap<Bytes, Bytes>, ConfigError> {
        let state = self.read().await?;
        let step = self.step_info(number).await?;
        let manifest = self.manifest(&step).await?;
        let names = manifest.0.into_iter().map(|(key, line)| (key, line.name));
        self.contents(names.collect(), &state).await
    }

    /// Contents of what a step's end had, and the keys that came with later bundles.
    async fn as_after(
        &self,
        number: u64,
        head: &Head,
    ) -> Result<(BTreeMap<Bytes, String>, BTreeSet<Bytes>), ConfigError> {
        if number == 0 || number > head.step.number {
            return Err(self.no_step(number, Some(head.step.number)));
        }
        let step = self.step_info(number).await?;
        let target = self.manifest(&step).await?;
        let later = head.manifest.0.iter();
        let gone = later
            .filter(|(key, line)| line.managed && !target.0.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        let names = target.0.into_iter().map(|(key, line)| (key, line.name));
        Ok((names.collect(), gone))
    }

    /// Contents of what a step replaced, and the keys that it added.
    async fn as_before(
        &self,
        step: &StepInfo,
    ) -> Result<(BTreeMap<Bytes, String>, BTreeSet<Bytes>), ConfigError> {
        let text = self.chunks(&step.changes).await?;
        let turns = Turns::decode(&text).ok_or_else(|| self.damaged(step.number))?;
        let (mut names, mut gone) = (BTreeMap::new(), BTreeSet::new());
        for (key, turn) in turns.0 {
            match turn.before {
                Some(name) => drop(names.insert(key, name)),
                None => drop(gone.insert(key)),
            }
        }
        Ok((names, gone))
    }

    async fn step(
        &self,
        plan: &Plan,
        kind: StepKind,
        restored: Option<u64>,
        (author, message): (&str, &str),
    ) -> Result<Stepped, ConfigError> {
        if plan.base.head.is_none() {
            self.check_layout().await?;
        }
        let number = plan.base.last_step().map_or(0, |step| step.number) + 1;
        let draft = Draft::of(plan, number);
        let stored = self.store_contents(&draft.contents).await;
        stored.map_err(|(error, name)| {
            let hash = name.as_deref().map(hash_in);
            let after = plan.after().into_iter();
            let mut of_hash = after.filter(|(_, value)| hash == Some(&content_hash(value)));
            self.refused(error, of_hash.next().map(|(key, _)| key))
        })?;
        let (added, changed, removed) = plan.counts();
        let step = StepInfo {
            number,
            kind,
            restored,
            author: author.to_owned(),
            message: message.to_owned(),
            time_ms: environment::wall_clock().0 / 1000,
            added,
            changed,
            removed,
            manifest: draft.manifest,
            changes: draft.changes,
        };
        let mut forgotten = self.forgotten(number).await?;
        let mut txn = self.transaction(plan, &step)?;
        let room = TXN_OPERATIONS_MAX.saturating_sub(txn.then.len());
        let room = room.min(FORGOTTEN_IN_STEP_MAX);
        let later = forgotten.split_off(room.min(forgotten.len()));
        for key in forgotten {
            txn = txn.then(Operation::delete(key));
        }
        let options = WriteOptions {
            ladder: Some(Ladder::from(Level::Linearizable)),
            ..WriteOptions::default()
        };
        let done = self.client.txn(txn, options).await.map_err(|error| {
            let at = refused_at(&error, "then");
            let key = at.and_then(|at| plan.changes.keys().nth(at));
            self.refused(error, key)
        })?;
        if !done.succeeded {
            return Err(self.moved(plan).await);
        }
        self.delete_contents(later).await;
        Ok(Stepped {
            step,
            revision: done.revision,
            receipt: done.receipt,
        })
    }

    /// A refusal that names the key, if it is one key's.
    fn refused(&self, source: ClientError, key: Option<&Bytes>) -> ConfigError {
        match key {
            Some(key) => ConfigError::Key {
                key: String::from_utf8_lossy(&self.prefix.key(key)).into_owned(),
                source,
            },
            None => ConfigError::Client(source),
        }
    }

    /// Said before anything is stored; later steps are where the first one was.
    async fn check_layout(&self) -> Result<(), ConfigError> {
        let name = self.client.keyspace_name();
        let keyspace = self.client.admin().keyspace(name).await?;
        let options = keyspace.and_then(|it| it.options).unwrap_or_default();
        // One that is not there is the transaction's to tell.
        let layout: Partitioning = options.partitioning.parse().unwrap_or_default();
        if layout.buckets() > 1 {
            return Err(ConfigError::Spread {
                keyspace: name.to_owned(),
                partitioning: layout.to_string(),
            });
        }
        Ok(())
    }

    /// One transaction: all that was seen is compared, all that differs is written.
    fn transaction(&self, plan: &Plan, step: &StepInfo) -> Result<Txn, ConfigError> {
        let expect = |revision: Option<Revision>| revision.map_or(Expect::Absent, Expect::Revision);
        let head = plan.base.head.as_ref().map(|head| head.revision);
        let mut txn = Txn::default().compare(self.prefix.head_key(), expect(head));
        for (key, revision) in plan.seen() {
            txn = txn.compare(self.prefix.key(key), expect(revision));
        }
        for (key, change) in &plan.changes {
            let key = self.prefix.key(key);
            txn = txn.then(match change.after() {
                Some(value) => Operation::put(key, value.clone()),
                None => Operation::delete(key),
            });
        }
        let record = serde_json::to_vec(step).map_err(|error| ConfigError::Damaged {
            what: format!("step {}", step.number),
            problem: error.to_string(),
        })?;
        Ok(txn
            .then(Operation::put(self.prefix.step_key(step.number), record))
            .then(Operation::put(
                self.prefix.head_key(),
                step.number.to_string(),
            )))
    }

    /// Which keys are not as the plan saw them, as far as a second look tells.
    async fn moved(&self, plan: &Plan) -> ConfigError {
        let Ok(now) = self.read().await else {
            return ConfigError::Moved {
                moved: vec!["a key of the bundle".to_owned()],
            };
        };
        let head = |state: &ConfigState| state.head.as_ref().map(|head| head.revision);
        let steps = (head(&now) != head(&plan.base)).then(|| match now.last_step() {
            Some(step) => format!("step {} by {} was made", step.number, step.author),
            None => "the steps are gone".to_owned(),
        });
        let keys = plan
            .seen()
            .filter(|(key, revision)| now.revision_of(key) != *revision);
        let keys = keys.map(|(key, _)| String::from_utf8_lossy(&self.prefix.key(key)).into_owned());
        ConfigError::Moved {
            moved: steps
                .into_iter()
                .chain(keys)
                .take(MOVED_NAMED_MAX)
                .collect(),
        }
    }

    async fn head(&self) -> Result<Option<Head>, ConfigError> {
        let got = self.client.get_with(self.prefix.head_key(), linearizable());
        let Some(entry) = got.await?.entry else {
            return Ok(None);
        };
        let number = std::str::from_utf8(&entry.value).ok();
        let number = number.and_then(|text| text.parse().ok());
        let step = self
            .step_info(number.ok_or_else(|| self.damaged(0))?)
            .await?;
        let manifest = self.manifest(&step).await?;
        Ok(Some(Head {
            revision: entry.revision,
            step,
            manifest,
        }))
    }

    async fn step_info(&self, number: u64) -> Result<StepInfo, ConfigError> {
        let key = self.prefix.step_key(number);
        match self
            .client
            .get_with(key.clone(), linearizable())
            .await?
            .entry
        {
            Some(entry) => parse_step(&entry.value, &key),
            None => Err(self.no_step(number, None)),
        }
    }

    pub(super) async fn manifest(&self, step: &StepInfo) -> Result<Manifest, ConfigError> {
        let text = self.chunks(&step.manifest).await?;
        Manifest::decode(&text).ok_or_else(|| self.damaged(step.number))
    }

    pub(super) async fn chunks(&self, hashes: &[String]) -> Result<String, ConfigError> {
        let mut text = Vec::new();
        for hash in hashes {
            text.extend_from_slice(&self.content(hash).await?);
        }
        String::from_utf8(text).map_err(|error| ConfigError::Damaged {
            what: self.prefix.to_string(),
            problem: error.to_string(),
        })
    }

    /// Values by their names; those that are there now are not asked for.
    async fn contents(
        &self,
        names: BTreeMap<Bytes, String>,
        now: &ConfigState,
    ) -> Result<BTreeMap<Bytes, Bytes>, ConfigError> {
        let values = names.into_iter().map(|(key, name)| async move {
            match now.entries.get(&key) {
                Some(held) if content_hash(&held.value) == hash_in(&name) => {
                    Ok((key, held.value.clone()))
                }
                Some(_) | None => self.content(&name).await.map(|value| (key, value)),
            }
        });
        let values = stream::iter(values).buffer_unordered(CONTENTS_ASKED_MAX);
        values.try_collect().await
    }

    async fn content(&self, name: &str) -> Result<Bytes, ConfigError> {
        let damaged = |problem: &str| ConfigError::Damaged {
            what: format!("content {name}"),
            problem: problem.to_owned(),
        };
        let got = self
            .client
            .get_with(self.prefix.content_key(name), linearizable());
        let entry = got.await?.entry.ok_or_else(|| damaged("it is not there"))?;
        if content_hash(&entry.value) != hash_in(name) {
            return Err(damaged("it has another hash"));
        }
        Ok(entry.value)
    }

    /// Stores contents under their names. Whoever is killed on the way leaves what nobody reads,
    /// and what the next attempt stores again.
    /// An error comes with the name of the content that was refused, if it was one.
    async fn store_contents(
        &self,
        contents: &BTreeMap<String, Bytes>,
    ) -> Result<(), (ClientError, Option<String>)> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (name, content) in contents {
            bytes += content.len();
            batch.push((name, content));
            if batch.len() == CONTENTS_BATCH_MAX || bytes > CONTENTS_BATCH_BYTES {
                self.store_batch(&std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        self.store_batch(&batch).await
    }

    async fn store_batch(
        &self,
        batch: &[(&String, &Bytes)],
    ) -> Result<(), (ClientError, Option<String>)> {
        if batch.is_empty() {
            return Ok(());
        }
        let put = |(name, content): &(&String, &Bytes)| {
            Operation::put(self.prefix.content_key(name), Bytes::clone(content))
        };
        let operations = batch.iter().map(put).collect();
        let options = WriteOptions {
            ladder: Some(Ladder::from(Level::Linearizable)),
            ..WriteOptions::default()
        };
        let done = self.client.batch_with(operations, options).await;
        let done = done.map_err(|error| {
            let at = refused_at(&error, "operations");
            let name = at
                .and_then(|at| batch.get(at))
                .map(|(name, _)| (*name).clone());
            (error, name)
        })?;
        for (at, result) in done.results.into_iter().enumerate() {
            let name = batch.get(at).map(|(name, _)| (*name).clone());
            result.map_err(|error| (error, name))?;
        }
        Ok(())
    }

    fn no_step(&self, number: u64, last: Option<u64>) -> ConfigError {
        ConfigError::NoStep {
            number,
            prefix: self.prefix.to_string(),
            there: match last {
                Some(last) => format!("there are 1 to {last}"),
                None => "it is not kept, or nothing was applied there".to_owned(),
            },
        }
    }

    fn damaged(&self, number: u64) -> ConfigError {
        ConfigError::Damaged {
            what: format!("step {number} of {:?}", self.prefix.as_str()),
            problem: "it cannot be read".to_owned(),
        }
    }
}

/// The place in a list that a refusal is about, as in `then[3].put.value`.
fn refused_at(error: &ClientError, list: &str) -> Option<usize> {
    let ClientError::Server(error) = error else {
        return None;
    };
    let field = &error.violations.first()?.field;
    let place = field.strip_prefix(list)?.strip_prefix('[')?;
    place.split_once(']')?.0.parse().ok()
}

/// What a step needs stored before it can name it.
struct Draft {
    manifest: Vec<String>,
    changes: Vec<String>,
    /// By their name; those that the last step names are stored already.
    contents: BTreeMap<String, Bytes>,
}

impl Draft {
    fn of(plan: &Plan, number: u64) -> Draft {
        let nothing = Manifest::default();
        let last = plan
            .base
            .head
            .as_ref()
            .map_or(&nothing, |head| &head.manifest);
        let stored = last
            .0
            .values()
            .map(|line| (hash_in(&line.name), &line.name));
        let stored: BTreeMap<&str, &String> = stored.collect();
        let mut contents = BTreeMap::new();
        let mut named = |content: &Bytes| {
            let hash = content_hash(content);
            if let Some(name) = stored.get(hash.as_str()) {
                return String::clone(name);
            }
            // Of older steps nothing is named again: what none of two steps in a row names may go.
            let name = content_name(number, &hash);
            contents.insert(name.clone(), content.clone());
            name
        };
        let mut manifest = Manifest::default();
        for (key, value) in plan.after() {
            let managed =
                !plan.kept.contains(key) || last.0.get(key).is_some_and(|line| line.managed);
            let name = named(value);
            manifest.0.insert(key.clone(), Line { name, managed });
        }
        let mut turns = Turns::default();
        for (key, change) in &plan.changes {
            let turn = Turn {
                before: change.before().map(&mut named),
                after: change.after().map(&mut named),
            };
            turns.0.insert(key.clone(), turn);
        }
        let mut chunks = |text: String| -> Vec<String> {
            let chunks = text.as_bytes().chunks(CHUNK_BYTES);
            chunks
                .map(|chunk| named(&Bytes::copy_from_slice(chunk)))
                .collect()
        };
        Draft {
            manifest: chunks(manifest.encode()),
            changes: chunks(turns.encode()),
            contents,
        }
    }
}

pub(super) fn parse_step(value: &[u8], key: &Bytes) -> Result<StepInfo, ConfigError> {
    serde_json::from_slice(value).map_err(|error| ConfigError::Damaged {
        what: String::from_utf8_lossy(key).into_owned(),
        problem: error.to_string(),
    })
}

pub(super) fn linearizable() -> ReadOptions {
    ReadOptions {
        ladder: Some(Ladder::from(Level::Linearizable)),
        ..ReadOptions::default()
    }
}
