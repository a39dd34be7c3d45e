//! Keyspaces: made, changed, refused, dropped; many ranges behind one scan; expiry.

use std::time::Duration;

use crate::harness::{Cluster, wait_until};

const KEYS: usize = 500;
const EXPIRY_MAX: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyspaces_are_made_changed_and_dropped() {
    let cluster = Cluster::start(3).await;
    cluster
        .expect(0, &["keyspace", "create", "s", "--mode", "strong"])
        .await;
    cluster.expect(4, &["keyspace", "create", "s"]).await;
    cluster
        .expect(0, &["keyspace", "create", "e", "--mode", "eventual"])
        .await;
    cluster
        .expect(0, &["put", "k", "v", "--keyspace", "s"])
        .await;
    for level in [
        "eventual:one",
        "eventual:quorum",
        "linearizable > eventual:one",
    ] {
        cluster
            .expect(2, &["put", "k", "v", "--keyspace", "s", "--level", level])
            .await;
        cluster
            .expect(2, &["get", "k", "--keyspace", "s", "--level", level])
            .await;
    }
    cluster
        .expect(
            2,
            &["get", "k", "--keyspace", "e", "--level", "linearizable"],
        )
        .await;
    cluster
        .expect(2, &["cas", "k", "v", "--absent", "--keyspace", "e"])
        .await;

    let altered = [
        "keyspace",
        "alter",
        "s",
        "--history",
        "1h",
        "--value-max-bytes",
        "10",
    ];
    cluster.expect(0, &altered).await;
    let shown = cluster
        .expect(0, &["keyspace", "show", "s", "-o", "json"])
        .await
        .json();
    assert_eq!(shown["history_ms"], 3_600_000, "{shown}");
    let long = cluster
        .expect(2, &["put", "k", "12345678901", "--keyspace", "s"])
        .await;
    assert!(long.stderr.contains("10"), "{long:?}");
    cluster
        .expect(2, &["keyspace", "alter", "s", "--mode", "mixed"])
        .await;
    cluster.expect(2, &["keyspace", "alter", "s"]).await;
    cluster
        .expect(3, &["keyspace", "alter", "absent", "--ttl", "1s"])
        .await;

    cluster.expect(0, &["keyspace", "drop", "s"]).await;
    cluster.expect(3, &["get", "k", "--keyspace", "s"]).await;
    cluster.expect(3, &["keyspace", "drop", "s"]).await;
    // A new one of the same name has nothing of the old one.
    cluster
        .expect(0, &["keyspace", "create", "s", "--mode", "strong"])
        .await;
    cluster.expect(3, &["get", "k", "--keyspace", "s"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_go_over_sixteen_ranges_in_order() {
    let cluster = Cluster::start(3).await;
    let create = [
        "keyspace",
        "create",
        "many",
        "--partitioning",
        "hash(16)",
        "-o",
        "json",
    ];
    let made = cluster.expect(0, &create).await.json();
    assert_eq!(made["ranges"].as_array().unwrap().len(), 16, "{made}");
    let many = cluster.client().keyspace("many").unwrap();
    let pipeline = many.pipeline();
    let puts = (0..KEYS).map(|n| pipeline.put(format!("k{n:05}"), n.to_string()));
    let written = futures::future::try_join_all(puts).await.unwrap();
    let last = written.iter().map(|w| w.revision).max().unwrap();

    let expected: Vec<String> = (0..KEYS).map(|n| format!("k{n:05}")).collect();
    let mut options = quorate_client::ScanOptions::prefix("k");
    options.limit = 37;
    let mut found = Vec::new();
    let first = many.scan(options.clone()).await.unwrap();
    // Written between two pages: not of this snapshot.
    many.put("k00499x", "late").await.unwrap();
    assert!(first.at >= last, "{:?} is before {last:?}", first.at);
    let mut page = first;
    loop {
        found.extend(
            page.entries
                .iter()
                .map(|e| String::from_utf8(e.key.to_vec()).unwrap()),
        );
        if page.next_page_token.is_empty() {
            break;
        }
        options.page_token = page.next_page_token;
        page = many.scan(options.clone()).await.unwrap();
    }
    assert_eq!(found, expected);
    let reversed = [
        "scan",
        "k",
        "--keys-only",
        "--reverse",
        "--keyspace",
        "many",
    ];
    let reversed = cluster.expect(0, &reversed).await.text();
    let reversed: Vec<_> = reversed.lines().rev().map(str::to_owned).collect();
    assert_eq!(reversed.len(), KEYS + 1);
    assert!(reversed.is_sorted());

    // A token of another scan is no token of this one.
    options.page_token = bytes::Bytes::from_static(b"nonsense");
    let error = many.scan(options).await.unwrap_err();
    assert_eq!(
        error.reason(),
        Some(quorate_types::Reason::PageTokenMismatch),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_is_gone() {
    let cluster = Cluster::start(3).await;
    cluster.expect(0, &["put", "stays", "v"]).await;
    let put = cluster
        .expect(0, &["put", "goes", "v", "--ttl", "1s", "-o", "json"])
        .await;
    let got = cluster
        .expect(0, &["get", "goes", "-o", "json"])
        .await
        .json();
    let made = put.json()["revision"].as_u64().unwrap();
    let expires = got["expires_at"].as_u64().unwrap();
    assert!((1_000_000..2_000_000).contains(&(expires - made)), "{got}");
    let client = cluster.client();
    wait_until("the expiry", EXPIRY_MAX, async || {
        client.get("goes").await.unwrap().entry.is_none()
    })
    .await;
    assert!(client.get("stays").await.unwrap().entry.is_some());
    cluster
        .expect(0, &["keyspace", "create", "short", "--ttl", "500ms"])
        .await;
    let short = client.keyspace("short").unwrap();
    short.put("k", "v").await.unwrap();
    wait_until("the default expiry", EXPIRY_MAX, async || {
        short.get("k").await.unwrap().entry.is_none()
    })
    .await;
}
