//! The seam to a store: what is asked of it, and what the lab does to its nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::probe::Probe;
use super::sample::{End, Side};
use super::sides::{Sides, Standing};
use crate::error::LabError;
use crate::hosts::Hosts;

/// One call.
pub(crate) struct Call {
    /// The level's place among [`Target::probes`].
    pub(crate) probe: usize,
    pub(crate) side: Side,
    /// Whom to ask.
    pub(crate) node: usize,
    pub(crate) key: String,
    /// What to write; none: a read.
    pub(crate) value: Option<i64>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) came_to: End,
    /// Of a write that was not served: whether it may take effect for all that.
    pub(crate) may_apply: bool,
    /// What a read found.
    pub(crate) values: Vec<i64>,
    /// What was the matter, without what differs from call to call.
    pub(crate) problem: Option<String>,
}

impl Answer {
    pub(crate) fn done(rung: u32, values: Vec<i64>) -> Self {
        Self {
            came_to: End::Done { rung },
            may_apply: true,
            values,
            problem: None,
        }
    }

    pub(crate) fn failed(came_to: End, may_apply: bool, problem: String) -> Self {
        Self {
            came_to,
            may_apply,
            values: Vec::new(),
            problem: Some(problem),
        }
    }
}

/// How the last reads are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastLevel {
    /// What the node itself has.
    Local,
    /// What a majority has decided.
    Decided,
}

/// A store that runs.
#[async_trait]
pub(crate) trait Target: Send + Sync {
    /// The store, with its version where it has one.
    fn name(&self) -> String;

    /// Its levels, reads first.
    fn probes(&self) -> &[Probe];

    /// How many rungs a level's ladder has.
    fn rungs(&self, probe: usize) -> usize;

    /// What the numbers must be read with.
    fn remarks(&self) -> Vec<String>;

    fn hosts(&self) -> &dyn Hosts;

    /// Who decides now.
    async fn standing(&self) -> Result<Standing, LabError>;

    /// One attempt, and no more.
    async fn perform(&self, call: &Call) -> Answer;

    /// All values of a key, once all is whole; or why they cannot be had.
    async fn last(&self, node: usize, key: &str, level: LastLevel) -> Result<Vec<i64>, String>;

    /// Bytes that were moved between nodes to bring them together, so far, by what moved them;
    /// empty where the store does not tell.
    async fn repaired(&self) -> BTreeMap<String, u64>;

    /// Makes all whole.
    async fn heal(&self) -> Result<(), LabError>;

    /// Waits until all nodes serve by themselves and hold the same, and says how long that took.
    async fn recover(&self) -> Result<Duration, Vec<String>>;

    /// Ends all processes, and takes the hosts away.
    async fn close(&self);

    /// Cuts the sides apart.
    async fn cut(&self, sides: &Sides) -> Result<(), LabError> {
        self.hosts().cut(&sides.cuts()).await
    }
}
