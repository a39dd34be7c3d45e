//! Elements are added and never removed. Strongly, each is a key of its own and a read is a scan
//! over all ranges; eventually, one key of a keyspace of sets holds them all.

use async_trait::async_trait;
use futures::TryStreamExt;
use quorate_client::{Client, ClientError, ReadOptions, ScanOptions, TypedValue, WriteOptions};
use quorate_jepsen::{Model, Options};
use quorate_types::{Copies, Ladder, Level};
use serde_json::{Value as Json, json};

use super::keys::Keys;
use super::{Workload, for_reads};
use crate::caller::{Ask, Caller, Told, number};

const STRAYS_PERCENT: usize = 15;
const PREFIX: &str = "element/";
/// Rows of a page: few, so that scans have many.
const PAGE_ROWS: u32 = 100;
/// The one key of all elements.
const KEY: &str = "set";

/// The workload.
pub(super) struct Set {
    keys: Keys,
    /// The eventual level; none: strongly.
    eventual: Option<Level>,
}

impl Set {
    pub(super) fn new(level: Option<Level>) -> Self {
        Self {
            keys: Keys::new(1, u64::MAX),
            eventual: level.filter(Level::is_eventual),
        }
    }

    async fn add(&self, caller: &mut Caller) {
        let client = caller.client(STRAYS_PERCENT);
        let element = self.keys.value();
        let ask = Ask {
            f: "add",
            key: None,
            value: json!(element),
        };
        let level = self.eventual;
        caller
            .call(ask, async {
                let options = WriteOptions {
                    ladder: level.map(Ladder::from),
                    ..WriteOptions::default()
                };
                match level {
                    Some(_) => {
                        client.set_add(KEY, [element.to_string()], options).await?;
                    }
                    None => {
                        let key = format!("{PREFIX}{element}");
                        client.put_with(key, element.to_string(), options).await?;
                    }
                }
                Ok(Told::Done(json!(element), ()))
            })
            .await;
    }

    async fn read(&self, caller: &mut Caller, level: Option<Level>) {
        let client = caller.client(STRAYS_PERCENT);
        let ask = Ask {
            f: "read",
            key: None,
            value: Json::Null,
        };
        caller
            .call(ask, async {
                let elements = match level {
                    Some(level) => elements(&client, level).await?,
                    None => scan(&client).await?,
                };
                Ok(Told::Done(json!(elements), ()))
            })
            .await;
    }
}

async fn scan(client: &Client) -> Result<Vec<i64>, ClientError> {
    let scan = client.scan_all(ScanOptions {
        limit: PAGE_ROWS,
        ..ScanOptions::prefix(PREFIX)
    });
    let entries: Vec<_> = scan.try_collect().await?;
    Ok(entries.iter().map(|entry| number(&entry.value)).collect())
}

async fn elements(client: &Client, level: Level) -> Result<Vec<i64>, ClientError> {
    let options = ReadOptions {
        ladder: Some(for_reads(level)),
        ..ReadOptions::default()
    };
    let got = client.get_with(KEY, options).await?;
    Ok(match got.typed {
        Some(TypedValue::Set(elements)) => elements.iter().map(|one| number(one)).collect(),
        Some(TypedValue::Counter(_) | TypedValue::Map(_)) => vec![i64::MIN],
        None => Vec::new(),
    })
}

#[async_trait]
impl Workload for Set {
    async fn step(&self, caller: &mut Caller) {
        if caller.random.percent(85) {
            self.add(caller).await;
        } else {
            self.read(caller, self.eventual).await;
        }
    }

    async fn finish(&self, caller: &mut Caller) {
        let own = Level::eventual(Copies::One);
        self.read(caller, self.eventual.map(|_| own)).await;
    }

    fn model(&self) -> (Model, Options) {
        let options = Options {
            consistency: match self.eventual {
                Some(_) => None,
                None => Some("linearizable".to_owned()),
            },
            ..Options::default()
        };
        (Model::SetFull, options)
    }
}
