//! The end of history: which steps a new one drops, and which contents go with them.
//!
//! A step names contents that it has stored itself, or that the step before it names for its state:
//! so what a step names and the next one does not, no later one names either.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::TryStreamExt;

use super::error::ConfigError;
use super::step::{Manifest, StepInfo, Turns};
use super::store::{Config, linearizable, parse_step};
use crate::operation::Operation;
use crate::options::{ScanOptions, WriteOptions};

/// Steps that one step drops, where many more are there than are to be kept.
const STEPS_DROPPED_MAX: usize = 16;
/// Deletes of one batch.
const DELETES_BATCH_MAX: usize = 1000;

/// What a step names; `None`: what it keeps is damaged.
type Names = Option<BTreeSet<String>>;

impl Config {
    /// Keys that go once a step of this number is made: steps first, then what they alone name.
    pub(super) async fn forgotten(&self, number: u64) -> Result<Vec<Bytes>, ConfigError> {
        let last = number.saturating_sub(self.keep_steps);
        if last == 0 {
            return Ok(Vec::new());
        }
        let steps = self.oldest_steps(STEPS_DROPPED_MAX + 1).await?;
        let (mut records, mut contents) = (Vec::new(), Vec::new());
        let mut next: Option<Names> = None;
        for pair in steps.windows(2) {
            let [step, following] = pair else { break };
            if step.number > last {
                break;
            }
            let names = match next.take() {
                Some(names) => names,
                None => self.names_of(step).await?,
            };
            let kept = self.names_of(following).await?;
            records.push(self.prefix.step_key(step.number));
            // Of what is damaged nobody knows what it shares: better too much stays.
            if let (Some(names), Some(kept)) = (&names, &kept) {
                let gone = names.difference(kept);
                contents.extend(gone.map(|name| self.prefix.content_key(name)));
            }
            next = Some(kept);
        }
        records.extend(contents);
        Ok(records)
    }

    async fn oldest_steps(&self, limit: usize) -> Result<Vec<StepInfo>, ConfigError> {
        let scan = ScanOptions {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            read: linearizable(),
            ..ScanOptions::prefix(self.prefix.steps_prefix())
        };
        let mut entries = Box::pin(self.client.scan_all(scan));
        let mut steps = Vec::new();
        while steps.len() < limit
            && let Some(entry) = entries.try_next().await?
        {
            steps.push(parse_step(&entry.value, &entry.key)?);
        }
        Ok(steps)
    }

    async fn names_of(&self, step: &StepInfo) -> Result<Names, ConfigError> {
        let texts = async {
            let manifest = self.manifest(step).await?;
            Ok((manifest, self.chunks(&step.changes).await?))
        };
        let (manifest, turns) = match texts.await {
            Ok(texts) => texts,
            Err(ConfigError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(turns) = Turns::decode(&turns) else {
            return Ok(None);
        };
        Ok(Some(named(step, manifest, turns)))
    }

    /// Deletes what no step names any more and had no room in a step's transaction. What is left
    /// because this fails is left for good, and read by nobody: the step was made.
    pub(super) async fn delete_contents(&self, keys: Vec<Bytes>) {
        for batch in keys.chunks(DELETES_BATCH_MAX) {
            let deletes = batch.iter().cloned().map(Operation::delete).collect();
            let options = WriteOptions {
                ladder: linearizable().ladder,
                ..WriteOptions::default()
            };
            if self.client.batch_with(deletes, options).await.is_err() {
                return;
            }
        }
    }
}

fn named(step: &StepInfo, manifest: Manifest, turns: Turns) -> BTreeSet<String> {
    let values = manifest.0.into_values().map(|line| line.name);
    let turned = turns.0.into_values();
    let turned = turned.flat_map(|turn| [turn.before, turn.after]).flatten();
    let own = step.manifest.iter().chain(&step.changes).cloned();
    values.chain(turned).chain(own).collect()
}
