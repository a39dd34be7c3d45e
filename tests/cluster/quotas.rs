//! Quotas of prefixes: what every way to write is told at the limit, and that races do not pass it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_client::{ClientError, Expect, Operation, ScanOptions, Txn, WriteOptions};
use quorate_types::Reason;

use crate::harness::{Cluster, READY_MAX, wait_until};

const WRITERS: usize = 8;
const KEYS_EACH: usize = 12;
const KEYS_MAX: usize = 40;

fn full(error: &ClientError) -> String {
    assert_eq!(error.reason(), Some(Reason::QuotaExceeded), "{error}");
    error.to_string()
}

async fn count(cluster: &Cluster, prefix: &'static str) -> usize {
    let mut page = ScanOptions::prefix(prefix);
    page.limit = 1_000;
    cluster.client().scan(page).await.unwrap().entries.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_takes_what_its_quota_allows_and_no_more() {
    let mut cluster = Cluster::start(3).await;
    refused_by_name(&cluster).await;
    every_way_to_write(&cluster).await;
    races(&mut cluster).await;
}

async fn refused_by_name(cluster: &Cluster) {
    let quota = ["config", "quota"];
    let set = |rest: &[&'static str]| [&quota[..], &["set"], rest].concat();
    cluster.expect(2, &set(&["app"])).await;
    cluster.expect(2, &set(&["app", "--max-keys", "0"])).await;
    let all = cluster.expect(2, &set(&["", "--max-keys", "1"])).await;
    assert!(all.stderr.contains("quota_bytes"), "{all:?}");
    for (name, flags, words) in [
        ("wide", ["--partitioning", "hash(4)"], "hash(4)"),
        ("loose", ["--mode", "eventual"], "no log"),
    ] {
        let create = [&["keyspace", "create", name][..], &flags].concat();
        cluster.expect(0, &create).await;
        let set = set(&["app", "--max-keys", "1", "--keyspace", name]);
        let ran = cluster.expect(2, &set).await;
        assert!(ran.stderr.contains(words), "{ran:?}");
    }
    cluster
        .expect(3, &["config", "quota", "show", "none"])
        .await;
    cluster
        .expect(3, &["config", "quota", "drop", "none"])
        .await;
}

async fn every_way_to_write(cluster: &Cluster) {
    for key in ["app/a", "app/b", "other"] {
        cluster.expect(0, &["put", key, "12345"]).await;
    }
    let set = [
        "config",
        "quota",
        "set",
        "app",
        "--max-keys",
        "3",
        "--max-bytes",
        "40",
        "-o",
        "json",
    ];
    let shown = cluster.expect(0, &set).await.json();
    assert_eq!((&shown["keys"], &shown["bytes"]), (&2.into(), &20.into()));
    // It is in force from the answer on, at whichever node.
    let told = cluster
        .expect(1, &["put", "app/c", "1234567890123456"])
        .await;
    for words in ["`app/`", "20 of 40 bytes, 41 with this write", "quota set"] {
        assert!(told.stderr.contains(words), "{told:?}");
    }
    cluster
        .expect(0, &["put", "app/c", "123456789012345"])
        .await;
    let client = cluster.client();
    let options = WriteOptions::default;
    let told = full(&client.put("app/d", "").await.unwrap_err());
    assert!(told.contains("3 of 3 keys, 4 with this write"), "{told}");
    let cas = client.compare_and_set("app/d", Expect::Absent, "", options());
    full(&cas.await.unwrap_err());
    let txn = Txn::default()
        .then(Operation::put("other", "new"))
        .then(Operation::put("app/d", ""));
    full(&client.txn(txn, options()).await.unwrap_err());
    let moves = Txn::default()
        .then(Operation::delete("app/c"))
        .then(Operation::put("app/d", "1"));
    assert!(client.txn(moves, options()).await.unwrap().succeeded);
    full(&client.pipeline().put("app/e", "").await.unwrap_err());
    let config = client.config("app").unwrap();
    let bundle = [("x".into(), "1".into()), ("y".into(), "2".into())];
    let plan = config.plan(bundle.into(), false).await.unwrap();
    let refused = config.apply(&plan, "me", "").await.unwrap_err();
    let refused = quorate_types::chain(&refused);
    assert!(refused.contains("quota of `app/`"), "{refused}");
    assert!(client.get("app/x").await.unwrap().entry.is_none());
    assert_eq!(
        client.get("other").await.unwrap().entry.unwrap().value,
        "12345"
    );
    // What makes room passes, and so does what does not grow.
    client.put("app/a", "54321").await.unwrap();
    client.delete("app/a").await.unwrap();
    client.put("app/e", "").await.unwrap();
    let drop = ["config", "quota", "drop", "app"];
    cluster.expect(0, &drop).await;
    client
        .put("app/f", "as long as it likes to be")
        .await
        .unwrap();
}

/// Many writers at the limit, and a leader that goes meanwhile: not one key too many, and the next
/// leader counts as the one before.
async fn races(cluster: &mut Cluster) {
    let limit = KEYS_MAX.to_string();
    let set = ["config", "quota", "set", "race", "--max-keys", &limit];
    cluster.expect(0, &set).await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let refused = Arc::new(AtomicUsize::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = cluster.client();
        let (accepted, refused) = (Arc::clone(&accepted), Arc::clone(&refused));
        writers.spawn(async move {
            for key in 0..KEYS_EACH {
                match client.put(format!("race/{writer}-{key}"), "v").await {
                    Ok(_) => accepted.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        full(&error);
                        refused.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
        });
    }
    writers.join_all().await;
    assert_eq!(count(cluster, "race/").await, KEYS_MAX);
    assert_eq!(accepted.load(Ordering::Relaxed), KEYS_MAX);
    let all = accepted.load(Ordering::Relaxed) + refused.load(Ordering::Relaxed);
    assert_eq!(all, WRITERS * KEYS_EACH);

    let leader = cluster.leader().await;
    cluster.node(leader).kill();
    let client = cluster.client();
    wait_until("the next leader to count", READY_MAX, async || match client
        .put("race/more", "v")
        .await
    {
        Ok(_) => panic!("the next leader does not count"),
        Err(error) => error.reason() == Some(Reason::QuotaExceeded),
    })
    .await;
    client.delete("race/0-0").await.unwrap();
    cluster.node(leader).start();
    cluster.ready().await;
    let shown = ["config", "quota", "show", "race", "-o", "json"];
    let shown = cluster.expect(0, &shown).await.json();
    let there = count(cluster, "race/").await;
    assert_eq!(shown["keys"], there, "{shown}");
}
