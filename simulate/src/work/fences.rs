//! Eventual writes at a quorum of primaries, then fenced reads elsewhere: each read sees the write.
//! A key is written once, so it is a linearizable register.

use quorate_proto::v1::Copies;
use serde_json::json;

use super::{Client, told};
use crate::ask::{Level, Write};
use crate::history::End;

/// Reads of a key, by its writer, after its write.
const READS: usize = 2;
/// Keys back from the newest one that are read by others.
const RECENT_KEYS: u64 = 6;

impl Client {
    pub(super) async fn fence(&mut self) {
        if self.dice.percent(40) {
            let back = self.dice.below(RECENT_KEYS) as i64;
            let key = (self.keys.newest() - back).max(0);
            return self.read("read", key, Level::Fenced).await;
        }
        let key = self.keys.value();
        let (at, within) = (self.node(), self.within());
        let call = self.call("write", key, json!(key));
        let write = Write {
            keyspace: self.tape.work().keyspace(),
            key,
            value: Some(key),
            level: Level::Eventual {
                copies: Copies::Quorum,
                strict: true,
            },
            context: None,
            name: Some(self.next_name(at)),
        };
        let written = self.world.write(at, write, within).await;
        let (end, value) = told(&written, |()| json!(key));
        self.end(&call, end, &value);
        if end == End::Ok {
            for _ in 0..READS {
                self.read("read", key, Level::Fenced).await;
            }
        }
    }
}
