//! What is kept of a step: who, when, why; the whole state after it, by hashes; what it changed.
//! Values and their text forms, nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::layout::{escape, unescape};

/// Why a step was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A bundle was applied.
    Apply,
    /// An earlier state was restored.
    Rollback,
}

/// One step, without its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInfo {
    /// From 1, without gaps.
    pub number: u64,
    /// Why.
    pub kind: StepKind,
    /// Of a roll-back: the step whose state it restored; none: that before the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<u64>,
    /// Who, by their own word.
    pub author: String,
    /// What for.
    pub message: String,
    /// When, in milliseconds since 1970, by the clock of who made it.
    pub time_ms: u64,
    /// Keys that were not there.
    pub added: usize,
    /// Keys that had another value.
    pub changed: usize,
    /// Keys that went.
    pub removed: usize,
    /// Contents that make up the [`Manifest`].
    pub(super) manifest: Vec<String>,
    /// Contents that make up the list of changes.
    pub(super) changes: Vec<String>,
}

/// One key of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The name of the content that is the value.
    pub name: String,
    /// It came with a bundle; if not, it was there already, and was kept.
    pub managed: bool,
}

/// All keys under the prefix after a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest(pub BTreeMap<Bytes, Line>);

impl Manifest {
    /// A line for each key: content, `m` for managed or `k` for kept, key.
    pub(super) fn encode(&self) -> String {
        let lines = self.0.iter().map(|(key, line)| {
            let mark = if line.managed { 'm' } else { 'k' };
            format!("{} {mark} {}\n", line.name, escape(key))
        });
        lines.collect()
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let line = |line: &str| {
            let mut parts = line.split(' ');
            let name = parts.next()?.to_owned();
            let managed = match parts.next()? {
                "m" => true,
                "k" => false,
                _ => return None,
            };
            let key = unescape(parts.next()?)?;
            Some((key, Line { name, managed }))
        };
        text.lines().map(line).collect::<Option<_>>().map(Self)
    }
}

/// Contents that are a key's value before and after a step; none: it was not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    pub before: Option<String>,
    pub after: Option<String>,
}

/// What a step changed, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns(pub BTreeMap<Bytes, Turn>);

impl Turns {
    /// A line for each key: content before, content after, key; `-` where there is none.
    pub(super) fn encode(&self) -> String {
        let or_dash = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        let lines = self.0.iter().map(|(key, turn)| {
            let (before, after) = (or_dash(&turn.before), or_dash(&turn.after));
            format!("{before} {after} {}\n", escape(key))
        });
        lines.collect()
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let name = |text: &str| (text != "-").then(|| text.to_owned());
        let line = |line: &str| {
            let mut parts = line.split(' ');
            let before = name(parts.next()?);
            let after = name(parts.next()?);
            Some((unescape(parts.next()?)?, Turn { before, after }))
        };
        text.lines().map(line).collect::<Option<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn manifests_and_turns_survive_their_text() {
        let line = |managed| Line {
            name: "1/ab".to_owned(),
            managed,
        };
        let keys = [Bytes::from("a b/\n%"), Bytes::from(&b"\xff"[..])];
        let manifest = Manifest(
            keys.iter()
                .cloned()
                .zip([line(true), line(false)])
                .collect(),
        );
        assert_eq!(Manifest::decode(&manifest.encode()), Some(manifest));
        let turn = Turn {
            before: None,
            after: Some("cd".to_owned()),
        };
        let turns = Turns(keys.into_iter().map(|key| (key, turn.clone())).collect());
        assert_eq!(Turns::decode(&turns.encode()), Some(turns));
    }

    #[test]
    fn what_is_no_manifest_is_noticed() {
        for text in ["ab\n", "ab x k\n", "ab m\n", "ab m %\n"] {
            assert_eq!(Manifest::decode(text), None, "{text}");
        }
    }
}
