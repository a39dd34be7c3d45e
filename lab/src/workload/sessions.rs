//! Sessions that hop over nodes with their tokens. Each caller writes keys of its own, with numbers
//! that rise, and reads everybody's: so the number that is read is the version, whatever the level.
//!
//! Without tokens it is the control: the same hops, and nothing that holds them together.

use async_trait::async_trait;
use bytes::Bytes;
use quorate_client::{ReadOptions, WriteOptions};
use quorate_jepsen::{Model, Options};
use quorate_types::{Copies, Ladder, Level};
use serde_json::{Value as Json, json};

use super::keys::{Versions, name};
use super::{Workload, for_reads};
use crate::caller::{Ask, Caller, Told, numbers};

/// Calls that go to another node than the caller's own, percent.
const STRAYS_PERCENT: usize = 60;
/// Calls to a caller's own keys, percent: what a session has written itself says most.
const OWN_PERCENT: usize = 80;

/// The workload.
pub(super) struct Sessions {
    /// An eventual level beside the strong ones.
    eventual: Option<Level>,
    tokens: bool,
    /// By key, the last number that was tried. A key belongs to one process.
    versions: Versions,
}

impl Sessions {
    pub(super) fn new(level: Option<Level>, tokens: bool) -> Self {
        Self {
            eventual: level.filter(Level::is_eventual),
            tokens,
            versions: Versions::default(),
        }
    }

    fn token(&self, caller: &Caller) -> Bytes {
        match self.tokens {
            true => caller.token.clone(),
            false => Bytes::new(),
        }
    }

    /// With tokens the level `session`, and what is read beside it; without, what they are to be
    /// told from: any replica.
    fn read_ladder(&self, caller: &mut Caller) -> Ladder {
        match (self.eventual, self.tokens) {
            (Some(level), _) if caller.random.percent(50) => for_reads(level),
            (None | Some(_), true) => Ladder::from(Level::Session),
            (Some(_), false) => Ladder::from(Level::eventual(Copies::One)),
            (None, false) => Ladder::from(Level::Stale),
        }
    }

    fn write_ladder(&self, caller: &mut Caller) -> Ladder {
        Ladder::from(match self.eventual {
            Some(level) if caller.random.percent(50) => level,
            Some(_) | None => Level::Linearizable,
        })
    }

    async fn read(&self, caller: &mut Caller, key: i64) {
        let client = caller.client(STRAYS_PERCENT);
        let ask = Ask {
            f: "read",
            key: Some(key),
            value: Json::Null,
        };
        let options = ReadOptions {
            ladder: Some(self.read_ladder(caller)),
            token: self.token(caller),
            ..ReadOptions::default()
        };
        let read = caller.call(ask, async {
            let got = client.get_with(name(key), options).await?;
            let highest = numbers(&got).last().copied();
            let told = json!({"value": highest, "version": highest.unwrap_or(0)});
            Ok(Told::Done(told, got.receipt.session_token))
        });
        if let Some(token) = read.await {
            caller.remember(&token);
        }
    }

    async fn write(&self, caller: &mut Caller, key: i64) {
        let client = caller.client(STRAYS_PERCENT);
        let version = self.versions.next(key);
        let ask = Ask {
            f: "write",
            key: Some(key),
            value: json!(version),
        };
        let options = WriteOptions {
            ladder: Some(self.write_ladder(caller)),
            token: self.token(caller),
            ..WriteOptions::default()
        };
        let write = caller.call(ask, async {
            let written = client.put_with(name(key), version.to_string(), options);
            let token = written.await?.receipt.session_token;
            Ok(Told::Done(
                json!({"value": version, "version": version}),
                token,
            ))
        });
        if let Some(token) = write.await {
            caller.remember(&token);
        }
    }
}

#[async_trait]
impl Workload for Sessions {
    /// A second copy of a write would come after later ones.
    fn retries(&self) -> bool {
        self.eventual.is_none()
    }

    async fn step(&self, caller: &mut Caller) {
        // A new process has new keys: what an old one left open may still be written to its own.
        let own = caller.process();
        let anybodys = match caller.random.percent(OWN_PERCENT) {
            true => None,
            false => self.versions.any(&mut caller.random),
        };
        match anybodys {
            Some(key) => self.read(caller, key).await,
            None if caller.random.percent(50) => self.read(caller, own).await,
            None => self.write(caller, own).await,
        }
    }

    fn model(&self) -> (Model, Options) {
        (Model::Sessions, Options::default())
    }
}
