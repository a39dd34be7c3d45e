//! Writers whose every write is remembered with what its client was told, and the check of a
//! cluster's content against that memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use quorate_client::{Client, ScanOptions};
use quorate_types::Effect;
use tokio::task::JoinHandle;

/// Every writer overwrites so many keys in turn, beside those that it writes once.
const KEYS_REWRITTEN: u64 = 10;
/// Pause after a write that was refused: what is down needs no more load.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// What a client was told of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Acknowledged,
    Unknown,
    Refused,
}

/// One write to a key, in the order of its only writer.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub value: String,
    pub told: Told,
}

/// All writes, by key.
pub type Ledger = HashMap<String, Vec<Attempt>>;

/// Some clients that write until they are told to end.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Ledger>>,
}

impl Load {
    /// Starts one writer for each client; all their keys begin with `prefix`.
    pub fn start(clients: Vec<Client>, prefix: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = clients.into_iter().enumerate().map(|(number, client)| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(write(
                client,
                format!("{prefix}{number}/"),
                stop,
                acknowledged,
            ))
        });
        Load {
            writers: writers.collect(),
            stop,
            acknowledged,
        }
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Ends the writers, and returns all that they wrote.
    pub async fn end(self) -> Ledger {
        self.stop.store(true, Ordering::Release);
        let mut all = Ledger::new();
        for writer in self.writers {
            all.extend(writer.await.unwrap());
        }
        all
    }
}

async fn write(
    client: Client,
    prefix: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Ledger {
    let mut ledger = Ledger::new();
    for number in 0_u64.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let key = match number % 2 {
            0 => format!("{prefix}once-{number}"),
            _ => format!("{prefix}again-{}", number / 2 % KEYS_REWRITTEN),
        };
        let value = format!("{prefix}value-{number}");
        let told = match client.put(key.clone(), value.clone()).await {
            Ok(_) => {
                acknowledged.fetch_add(1, Ordering::AcqRel);
                Told::Acknowledged
            }
            Err(error) => {
                tokio::time::sleep(REFUSED_PAUSE).await;
                match error.effect() {
                    Effect::None => Told::Refused,
                    Effect::Unknown | Effect::Applied => Told::Unknown,
                }
            }
        };
        ledger.entry(key).or_default().push(Attempt { value, told });
    }
    ledger
}

/// Reads all keys of the prefix linearizably, and compares them with what was told. Returns
/// the number of acknowledged writes.
pub async fn check(client: &Client, prefix: &str, ledger: &Ledger) -> usize {
    let wrong = differences(client, prefix, ledger).await;
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), wrong);
    let acknowledged = ledger.values().flatten();
    acknowledged
        .filter(|attempt| attempt.told == Told::Acknowledged)
        .count()
}

/// Keys whose linearizably read value is not explained by what was told, in words.
pub async fn differences(client: &Client, prefix: &str, ledger: &Ledger) -> Vec<String> {
    let mut there = scan(client, prefix).await;
    let mut wrong = Vec::new();
    for (key, attempts) in ledger {
        let found = there.remove(key);
        if !is_explained(found.as_deref(), attempts) {
            let tail = &attempts[attempts.len().saturating_sub(4)..];
            wrong.push(format!("{key}: found {found:?} after {tail:?}"));
        }
    }
    wrong.extend(
        there
            .iter()
            .map(|(k, v)| format!("{k}={v:?} never written")),
    );
    wrong
}

/// The last acknowledged write, or one of unknown outcome: that one may have come later.
fn is_explained(found: Option<&str>, attempts: &[Attempt]) -> bool {
    let last = attempts
        .iter()
        .rfind(|attempt| attempt.told == Told::Acknowledged);
    let Some(found) = found else {
        return last.is_none();
    };
    let unknown = attempts
        .iter()
        .filter(|attempt| attempt.told == Told::Unknown);
    last.into_iter()
        .chain(unknown)
        .any(|attempt| attempt.value == found)
}

async fn scan(client: &Client, prefix: &str) -> HashMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    client
        .scan_all(ScanOptions::prefix(prefix.to_owned()))
        .map_ok(|entry| (text(&entry.key), text(&entry.value)))
        .try_collect()
        .await
        .unwrap()
}
