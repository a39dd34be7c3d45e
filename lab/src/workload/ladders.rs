//! Writes by ladder, each of a new key, and reads by ladder: the strong rung if it can be had in
//! time, else a weaker one. Each acknowledged write is there in the end, exactly once, also where
//! its strong attempt was given up; and each receipt is true: the rung that it names was met.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use quorate_client::{ReadOptions, Receipt, WriteOptions};
use quorate_jepsen::{Model, Options};
use quorate_types::{Copies, Ladder, Level, Revision};
use serde_json::{Value as Json, json};

use super::Workload;
use super::keys::name;
use crate::caller::{Ask, Caller, Told, numbers};

const WRITE: &str = "linearizable@200ms > eventual:quorum@150ms > eventual:one";
const READ: &str = "linearizable@200ms > eventual:one";
/// Keys back from the newest one that are read.
const RECENT_KEYS: usize = 30;
/// More of them say the same.
const BREACHES_MAX: usize = 20;

/// The workload.
pub(super) struct Ladders {
    replication: usize,
    newest: AtomicI64,
    /// Keys whose write was acknowledged as linearizable.
    strong: Mutex<HashSet<i64>>,
    breaches: Mutex<Vec<String>>,
}

impl Ladders {
    pub(super) fn new(replication: u8) -> Self {
        Self {
            replication: usize::from(replication),
            newest: AtomicI64::new(0),
            strong: Mutex::default(),
            breaches: Mutex::default(),
        }
    }

    fn breach(&self, what: String) {
        let breaches = self.breaches.lock();
        let mut breaches = breaches.expect("nobody panics while adding to a list");
        if breaches.len() < BREACHES_MAX {
            breaches.push(what);
        }
    }

    fn is_strong(&self, key: i64) -> bool {
        let strong = self.strong.lock();
        strong.expect("nobody panics while looking").contains(&key)
    }

    async fn write(&self, caller: &mut Caller) {
        let client = caller.client(50);
        let key = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let ask = Ask {
            f: "add",
            key: None,
            value: json!(key),
        };
        let ladder = ladder(WRITE);
        let options = WriteOptions {
            ladder: Some(ladder.clone()),
            ..WriteOptions::default()
        };
        let write = caller.call(ask, async {
            let written = client.put_with(name(key), key.to_string(), options).await?;
            Ok(Told::Done(json!(key), written))
        });
        let Some(written) = write.await else {
            return;
        };
        if let Err(wrong) = honest(&ladder, &Said::of(&written.receipt), self.replication) {
            self.breach(format!("the receipt of the write of {key}: {wrong}"));
        }
        let is_strong = written.receipt.level == Some(Level::Linearizable);
        // The log has given it a revision, or nobody has.
        if is_strong != (written.revision != Revision::default()) {
            let (level, revision) = (written.receipt.level, written.revision);
            self.breach(format!(
                "the write of {key} at {level:?} is revision {revision}"
            ));
        }
        if is_strong {
            let strong = self.strong.lock();
            strong
                .expect("nobody panics while adding to a set")
                .insert(key);
        }
    }

    /// Not part of the recording, which is of whole sets: what it says is checked here.
    async fn read(&self, caller: &mut Caller) {
        let client = caller.client(50);
        let newest = self.newest.load(Ordering::Relaxed);
        let back = caller.random.below(RECENT_KEYS);
        let key = newest - i64::try_from(back).expect("it is small");
        let was_strong = self.is_strong(key);
        let ladder = ladder(READ);
        let options = ReadOptions {
            ladder: Some(ladder.clone()),
            ..ReadOptions::default()
        };
        let Ok(got) = client.get_with(name(key), options).await else {
            return;
        };
        if let Err(wrong) = honest(&ladder, &Said::of(&got.receipt), self.replication) {
            self.breach(format!("the receipt of a read of {key}: {wrong}"));
        }
        let values = numbers(&got);
        let is_missing = was_strong && got.receipt.level == Some(Level::Linearizable);
        if (is_missing && values.is_empty()) || values.iter().any(|value| *value != key) {
            let level = got.receipt.level;
            self.breach(format!("a read of {key} at {level:?} shows {values:?}"));
        }
    }
}

fn ladder(text: &str) -> Ladder {
    text.parse().expect("the ladders here are written as such")
}

/// What a receipt says of a ladder.
struct Said {
    level: Option<Level>,
    rung: u32,
    /// How many nodes took part.
    took_part: usize,
    /// Why the rungs above were not met.
    says_why: bool,
}

impl Said {
    fn of(receipt: &Receipt) -> Self {
        Self {
            level: receipt.level,
            rung: receipt.rung,
            took_part: receipt.replicas.len() + receipt.stand_ins.len(),
            says_why: !receipt.failed.is_empty(),
        }
    }
}

/// Whether that can be so.
fn honest(ladder: &Ladder, said: &Said, replication: usize) -> Result<(), String> {
    let place = usize::try_from(said.rung).unwrap_or(usize::MAX);
    let Some(rung) = ladder.rungs().get(place) else {
        return Err(format!("there is no rung {place}"));
    };
    if said.level != Some(rung.level) {
        let (level, wanted) = (said.level, rung.level);
        return Err(format!("rung {place} is {wanted}, not {level:?}"));
    }
    if place > 0 && !said.says_why {
        return Err(format!("rung {place}, and no word of those above"));
    }
    let took_part = said.took_part;
    let needed = match rung.level {
        Level::Eventual { copies, .. } => match copies {
            Copies::One | Copies::LocalQuorum => 1,
            Copies::Quorum => replication / 2 + 1,
            Copies::All => replication,
            Copies::Count(count) => usize::from(count),
        },
        Level::Linearizable | Level::Bounded(_) | Level::Session | Level::Stale => 0,
    };
    if took_part < needed {
        return Err(format!(
            "{took_part} took part, and {} takes {needed}",
            rung.level
        ));
    }
    Ok(())
}

#[async_trait]
impl Workload for Ladders {
    /// A second copy of a write would be a second write.
    fn retries(&self) -> bool {
        false
    }

    async fn step(&self, caller: &mut Caller) {
        if caller.random.percent(50) {
            self.write(caller).await;
        } else {
            self.read(caller).await;
        }
    }

    async fn finish(&self, caller: &mut Caller) {
        let client = caller.client(0);
        let ask = Ask {
            f: "read",
            key: None,
            value: Json::Null,
        };
        let newest = self.newest.load(Ordering::Relaxed);
        let read = caller.call(ask, async {
            let mut values = Vec::new();
            for key in 1..=newest {
                let options = ReadOptions {
                    ladder: Some(Level::eventual(Copies::One).into()),
                    ..ReadOptions::default()
                };
                let got = client.get_with(name(key), options).await?;
                values.extend(numbers(&got));
            }
            Ok(Told::Done(json!(values), ()))
        });
        read.await;
    }

    fn breaches(&self) -> Vec<String> {
        let breaches = self.breaches.lock();
        breaches
            .expect("nobody panics while adding to a list")
            .clone()
    }

    fn model(&self) -> (Model, Options) {
        (Model::SetFull, Options::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rung: u32, level: Level, took_part: usize) -> Said {
        Said {
            level: Some(level),
            rung,
            took_part,
            says_why: rung > 0,
        }
    }

    #[test]
    fn receipts_that_cannot_be_so_are_found() {
        let ladder = ladder(WRITE);
        let quorum = Level::eventual(Copies::Quorum);
        let check = |said: Said| honest(&ladder, &said, 3);
        assert_eq!(check(said(0, Level::Linearizable, 0)), Ok(()));
        assert_eq!(check(said(1, quorum, 2)), Ok(()));
        assert!(check(said(1, quorum, 1)).is_err(), "one is no quorum");
        assert!(check(said(0, quorum, 3)).is_err(), "another rung's level");
        assert!(check(said(7, quorum, 3)).is_err(), "no such rung");
        let silent = Said {
            says_why: false,
            ..said(1, quorum, 3)
        };
        assert!(check(silent).is_err(), "no reason");
    }
}
