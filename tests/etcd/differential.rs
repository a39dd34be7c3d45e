//! The same random sequences to etcd and to Quorate, and all answers compared (200
//! sequences; `QUORATE_SEQUENCES` says how many, `QUORATE_SEED` from which seed on).
//!
//! Both stores live through all sequences; each has keys of its own, and both stores' revisions
//! must stay in step. Masked, so not compared:
//! - `cluster_id`, `member_id`, `raft_term` of headers;
//! - the id of a lease that the server picks (no lease is so short that it ends by itself);
//! - the time that a lease has left (`TTL` of TimeToLive), but for whether it has any;
//! - the order of leases in LeaseLeases, and of keys in TimeToLive;
//! - how a watch's events are spread over responses, and the order of those of one revision.
//!
//! Before a watch and a serializable range, the same node serves a linearizable read: they show what
//! their node knows. A watch of all keys of a sequence lives from its begin to its end; it has heard
//! everything before something is compacted, since etcd would send it on and we might be late.

use std::time::Instant;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::PutRequest;

use crate::follow::Follower;
use crate::generate::{Dice, LEASES, Operation, Place};
use crate::send::{Store, Told};
use crate::servers::{find, start_etcd, start_quorate};

const SEQUENCES_DEFAULT: u64 = 200;
const OPERATIONS: usize = 50;
/// Where revisions have come apart, the one behind gets this many puts at most.
const STEPS_MAX: i64 = 10_000;

/// Both stores.
struct Pair {
    etcd: Store,
    quorate: Store,
    /// Sequences so far; each has its prefix.
    sent: i64,
    /// The negative control: Quorate's answer to this operation is changed.
    tampered: Option<usize>,
}

/// The watches that live as long as a sequence.
struct Live {
    etcd: Follower,
    quorate: Follower,
}

/// Where two answers differ.
struct Difference {
    at: usize,
    sent: Operation,
    etcd: Told,
    quorate: Told,
}

fn from_environment(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(usual, |set| set.parse().unwrap())
}

impl Pair {
    async fn both(&self, operation: &Operation) -> (Told, Told) {
        tokio::join!(
            self.etcd.send(operation.clone()),
            self.quorate.send(operation.clone())
        )
    }

    /// Something is compacted in both: that 0 can be, as long as nothing was, only etcd has.
    async fn begin(&self) {
        let revision = self.level().await;
        let physical = false;
        let compact = Operation::Compact { revision, physical };
        let (etcd, quorate) = self.both(&compact).await;
        assert_eq!(etcd, quorate);
    }

    /// Runs a sequence in a new place.
    async fn run(&mut self, sequence: &[Operation]) -> Option<Difference> {
        self.sent += 1;
        let mut place = Place {
            prefix: format!("s{:08}/", self.sent),
            leases: self.sent * 100,
            revision: self.level().await,
        };
        let mut live = Live {
            etcd: self.etcd.follow(&place.prefix).await,
            quorate: self.quorate.follow(&place.prefix).await,
        };
        let mut found = None;
        for (at, operation) in sequence.iter().enumerate() {
            if matches!(operation, Operation::Compact { .. }) {
                found = self.hear(&mut live, &mut place, at).await;
            }
            let sent = place.of(operation);
            let (etcd, mut quorate) = self.both(&sent).await;
            if self.tampered == Some(at) {
                quorate.revision += 1;
            }
            place.revision = place.revision.max(etcd.revision);
            if etcd != quorate {
                found = Some(Difference {
                    at,
                    sent,
                    etcd,
                    quorate,
                });
            }
            if found.is_some() {
                break;
            }
        }
        if found.is_none() {
            let last = sequence.len().saturating_sub(1);
            found = self.hear(&mut live, &mut place, last).await;
        }
        for lease in 1..=LEASES {
            let lease = place.lease(lease);
            self.both(&Operation::Revoke { lease }).await;
        }
        found
    }

    /// Compares what the live watches have heard so far; a last put tells that it is all.
    async fn hear(&self, live: &mut Live, place: &mut Place, at: usize) -> Option<Difference> {
        let key = Bytes::from(format!("{}~", place.prefix));
        let sent = Operation::Put(PutRequest {
            key: key.clone(),
            ..PutRequest::default()
        });
        let (etcd, quorate) = self.both(&sent).await;
        place.revision = place.revision.max(etcd.revision);
        let (etcd, quorate) = tokio::join!(
            live.etcd.until(&key, etcd.revision),
            live.quorate.until(&key, quorate.revision)
        );
        (etcd != quorate).then_some(Difference {
            at,
            sent,
            etcd,
            quorate,
        })
    }

    /// Has both stores at one revision, even after a difference, and says which.
    async fn level(&self) -> i64 {
        for _ in 0..STEPS_MAX {
            let put = Operation::Put(PutRequest {
                key: Bytes::from_static(b"level"),
                ..PutRequest::default()
            });
            let (etcd, quorate) = self.both(&put).await;
            match etcd.revision.cmp(&quorate.revision) {
                std::cmp::Ordering::Equal => return etcd.revision,
                std::cmp::Ordering::Less => drop(self.etcd.send(put).await),
                std::cmp::Ordering::Greater => drop(self.quorate.send(put).await),
            }
        }
        panic!("the stores' revisions cannot be brought together");
    }

    /// Drops operations as long as what is left still shows a difference.
    async fn shrink(
        &mut self,
        mut sequence: Vec<Operation>,
    ) -> (Vec<Operation>, Option<Difference>) {
        let mut shown = None;
        let mut at = sequence.len();
        while at > 0 {
            at -= 1;
            let mut fewer = sequence.clone();
            fewer.remove(at);
            if let Some(difference) = self.run(&fewer).await {
                fewer.truncate(difference.at + 1);
                at = at.min(fewer.len());
                sequence = fewer;
                shown = Some(difference);
            }
        }
        if shown.is_none() {
            shown = self.run(&sequence).await;
        }
        (sequence, shown)
    }
}

fn sequence_of(seed: u64) -> Vec<Operation> {
    let mut dice = Dice(seed);
    (0..OPERATIONS).map(|_| dice.operation()).collect()
}

fn show(seed: u64, sequence: &[Operation], difference: &Difference) -> String {
    let lines: Vec<String> = sequence.iter().map(|one| format!("  {one:?}")).collect();
    format!(
        "seed {seed}, {} operations:\n{}\nas sent: {:?}\netcd:    {}\nQuorate: {}\n",
        sequence.len(),
        lines.join("\n"),
        difference.sent,
        difference.etcd.text,
        difference.quorate.text
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differential() {
    let Some(program) = find("etcd", "QUORATE_ETCD") else {
        return;
    };
    let (etcd, quorate) = (start_etcd(&program), start_quorate());
    let mut pair = Pair {
        etcd: Store::connect(&etcd.endpoints[0]).await,
        quorate: Store::connect(&quorate.endpoints[0]).await,
        sent: 0,
        tampered: None,
    };
    pair.begin().await;
    let sequences = from_environment("QUORATE_SEQUENCES", SEQUENCES_DEFAULT);
    let first = from_environment("QUORATE_SEED", 1);
    let most = from_environment("QUORATE_DIFFERENCES", 1);
    let begun = Instant::now();
    let mut differences = 0;
    for seed in first..first + sequences {
        let mut sequence = sequence_of(seed);
        let Some(found) = pair.run(&sequence).await else {
            continue;
        };
        eprintln!("DIFFERENT, before shrinking: {}", show(seed, &[], &found));
        sequence.truncate(found.at + 1);
        let (fewer, shown) = pair.shrink(sequence).await;
        match shown {
            Some(shown) => eprintln!("DIFFERENT: {}", show(seed, &fewer, &shown)),
            None => eprintln!("DIFFERENT, but only the first time: seed {seed}\n"),
        }
        differences += 1;
        if differences >= most {
            break;
        }
    }
    assert_eq!(differences, 0, "answers differ, see above");
    pair.tampered = Some(OPERATIONS / 2);
    let noticed = pair.run(&sequence_of(first)).await;
    assert_eq!(noticed.map(|found| found.at), Some(OPERATIONS / 2));
    eprintln!(
        "{sequences} sequences of {OPERATIONS} operations, all answers equal, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}
