//! Strong and eventual callers on the same keys: strong calls are to be linearizable on one copy
//! into which eventual writes are taken, whatever the eventual ones do meanwhile.

use async_trait::async_trait;
use quorate_client::ReadOptions;
use quorate_jepsen::{Model, Options};
use quorate_types::{Ack, Copies, Ladder, Level};

use super::keys::Keys;
use super::siblings::{read, write};
use super::{Workload, for_reads};
use crate::caller::Caller;

/// The workload.
pub(super) struct Mixed {
    keys: Keys,
}

impl Default for Mixed {
    fn default() -> Self {
        Self {
            keys: Keys::new(4, 80),
        }
    }
}

/// Eventual writes that try the log first, percent.
const LADDERS_PERCENT: usize = 25;
/// How they do. Whichever rung is met, it is a write of the eventual plane under one name.
const LADDER: &str = "linearizable@300ms > eventual:one";

/// Levels of eventual writes: how many, and whether stand-ins count.
const WRITES: [(Copies, bool); 5] = [
    (Copies::One, false),
    (Copies::One, true),
    (Copies::Quorum, false),
    (Copies::Quorum, true),
    (Copies::All, false),
];

fn eventual(caller: &mut Caller) -> Level {
    let (copies, strict) = *caller.random.pick(&WRITES);
    Level::Eventual {
        copies,
        strict,
        ack: Ack::Disk,
    }
}

fn reading(ladder: Ladder) -> ReadOptions {
    ReadOptions {
        ladder: Some(ladder),
        ..ReadOptions::default()
    }
}

#[async_trait]
impl Workload for Mixed {
    /// A second copy of an eventual write would come back after the first was replaced.
    fn retries(&self) -> bool {
        false
    }

    async fn step(&self, caller: &mut Caller) {
        let key = self.keys.key(&mut caller.random);
        let level = eventual(caller);
        let strong = Ladder::from(Level::Linearizable);
        match caller.random.below(100) {
            0..25 => {
                let options = ReadOptions {
                    fence: caller.random.percent(20),
                    ..reading(strong)
                };
                read(caller, "read", key, options).await;
            }
            25..45 => {
                let value = Some(self.keys.value());
                write(caller, "write", key, value, strong).await;
            }
            45..65 => read(caller, "eventual-read", key, reading(for_reads(level))).await,
            65..93 => {
                let value = Some(self.keys.value());
                let ladder = match caller.random.percent(LADDERS_PERCENT) {
                    true => LADDER.parse().expect("it is written as a ladder"),
                    false => Ladder::from(level),
                };
                write(caller, "eventual-write", key, value, ladder).await;
            }
            _ => write(caller, "eventual-delete", key, None, level.into()).await,
        }
    }

    fn model(&self) -> (Model, Options) {
        (Model::Mixed, Options::default())
    }
}
