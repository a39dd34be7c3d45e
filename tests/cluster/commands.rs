//! First light: what a user types, and the exit codes, JSON and messages that come back.

use serde_json::json;

use crate::harness::{Cluster, READY_MAX, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_do_what_they_say() {
    let cluster = Cluster::start(3).await;
    keys(&cluster).await;
    bytes(&cluster).await;
    conditions(&cluster).await;
    transactions(&cluster).await;
    versions(&cluster).await;
    scans(&cluster).await;
    receipts(&cluster).await;
    operators(&cluster).await;
}

async fn keys(cluster: &Cluster) {
    let revision = cluster.expect(0, &["put", "greeting", "hello"]).await;
    assert!(revision.text().parse::<u64>().unwrap() > 0, "{revision:?}");
    let got = cluster.expect(0, &["get", "greeting"]).await;
    assert_eq!(got.stdout, b"hello\n");
    let raw = cluster.expect(0, &["get", "greeting", "--raw"]).await;
    assert_eq!(raw.stdout, b"hello");
    let got = cluster.expect(0, &["get", "greeting", "-o", "json"]).await;
    let object = got.json();
    assert_eq!(
        (&object["key"], &object["value"]),
        (&json!("greeting"), &json!("hello"))
    );
    assert_eq!(object["revision"].to_string(), revision.text());
    assert_eq!(object["siblings"], json!([]));
    let missing = cluster.expect(3, &["get", "nothing"]).await;
    assert!(
        missing.stdout.is_empty() && missing.stderr.contains("nothing"),
        "{missing:?}"
    );
    cluster.expect(0, &["delete", "greeting"]).await;
    cluster.expect(3, &["get", "greeting"]).await;
    cluster
        .expect(3, &["get", "k", "--keyspace", "absent"])
        .await;
    cluster
        .expect(3, &["put", "k", "v", "--keyspace", "absent"])
        .await;
}

/// Bytes that are no text are kept exactly.
async fn bytes(cluster: &Cluster) {
    let value: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let put = cluster.run_with(&["put", "binary", "-"], &value).await;
    assert_eq!(put.code, 0, "{put:?}");
    let got = cluster.expect(0, &["get", "binary", "--raw"]).await;
    assert!(got.stdout == value, "{} bytes came back", got.stdout.len());
    let object = cluster
        .expect(0, &["get", "binary", "-o", "json"])
        .await
        .json();
    assert!(object["value_base64"].is_string() && object["value"].is_null());
    cluster.expect(0, &["put", "empty", ""]).await;
    assert!(
        cluster
            .expect(0, &["get", "empty", "--raw"])
            .await
            .stdout
            .is_empty()
    );
}

async fn conditions(cluster: &Cluster) {
    let made = cluster
        .expect(0, &["cas", "lock", "a", "--absent"])
        .await
        .text();
    cluster.expect(4, &["cas", "lock", "b", "--absent"]).await;
    cluster
        .expect(0, &["cas", "lock", "b", "--revision", &made])
        .await;
    cluster
        .expect(4, &["cas", "lock", "c", "--revision", &made])
        .await;
    cluster
        .expect(4, &["delete", "lock", "--revision", &made])
        .await;
    assert_eq!(cluster.expect(0, &["get", "lock"]).await.text(), "b");
}

async fn transactions(cluster: &Cluster) {
    let file = cluster.dir().join("txn.json");
    let text = json!({
        "compare": [{"key": "lock", "value": "b"}],
        "then": [{"put": {"key": "t1", "value": "1"}}, {"get": {"key": "lock"}}],
        "else": [{"get": {"key": "lock"}}],
    });
    std::fs::write(&file, text.to_string()).unwrap();
    let path = file.to_str().unwrap();
    let done = cluster.expect(0, &["txn", path, "-o", "json"]).await.json();
    assert_eq!(done["succeeded"], true, "{done}");
    assert_eq!(done["results"][1]["value"], "b", "{done}");
    assert_eq!(cluster.expect(0, &["get", "t1"]).await.text(), "1");
    cluster.expect(0, &["put", "lock", "other"]).await;
    let refused = cluster.expect(4, &["txn", path, "-o", "json"]).await.json();
    assert_eq!(refused["succeeded"], false, "{refused}");
    std::fs::write(&file, "{\"then\": [{\"put\": {}}]}").unwrap();
    cluster.expect(2, &["txn", path]).await;
}

async fn versions(cluster: &Cluster) {
    let first = cluster.expect(0, &["put", "old", "one"]).await.text();
    let second = cluster.expect(0, &["put", "old", "two"]).await.text();
    cluster.expect(0, &["delete", "old"]).await;
    assert_eq!(
        cluster
            .expect(0, &["get", "old", "--at", &first])
            .await
            .text(),
        "one"
    );
    assert_eq!(
        cluster
            .expect(0, &["get", "old", "--at", &second])
            .await
            .text(),
        "two"
    );
    let versions = cluster
        .expect(0, &["history", "old", "-o", "json"])
        .await
        .lines();
    let values: Vec<_> = versions.iter().map(|v| v["value"].as_str()).collect();
    assert_eq!(values, [None, Some("two"), Some("one")], "{versions:?}");
    assert_eq!(versions[0]["deleted"], true);
    cluster
        .expect(1, &["get", "old", "--at", "9007199254740991"])
        .await;
}

async fn scans(cluster: &Cluster) {
    for key in ["s/b", "s/a", "s/c", "t/a"] {
        cluster.expect(0, &["put", key, "v"]).await;
    }
    let keys = async |arguments: &[&str]| {
        let scanned = cluster.expect(0, arguments).await;
        scanned
            .text()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&["scan", "s/", "--keys-only"]).await,
        ["s/a", "s/b", "s/c"]
    );
    assert_eq!(
        keys(&["scan", "s/", "--keys-only", "--reverse"]).await,
        ["s/c", "s/b", "s/a"]
    );
    assert_eq!(
        keys(&["scan", "s/", "--keys-only", "--limit", "2"]).await,
        ["s/a", "s/b"]
    );
    assert_eq!(keys(&["scan", "s/", "--limit", "1"]).await, ["s/a\tv"]);
    let lines = cluster
        .expect(0, &["scan", "s/", "-o", "json"])
        .await
        .lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["key"], "s/c");
    cluster.expect(0, &["delete", "--prefix", "s/"]).await;
    assert!(keys(&["scan", "s/", "--keys-only"]).await.is_empty());
    assert_eq!(keys(&["scan", "t/", "--keys-only"]).await, ["t/a"]);
}

async fn receipts(cluster: &Cluster) {
    let put = cluster
        .expect(0, &["put", "r", "v", "--receipt", "-o", "json"])
        .await
        .json();
    let receipt = &put["receipt"];
    assert_eq!(
        (&receipt["level"], &receipt["role"]),
        (&json!("linearizable"), &json!("leader"))
    );
    assert!(
        receipt["replicas"]
            .as_array()
            .unwrap()
            .contains(&receipt["node"]),
        "{receipt}"
    );
    assert!(
        receipt["micros"]["total"].as_u64().unwrap() > 0,
        "{receipt}"
    );
    for level in ["linearizable", "stale", "bounded:10s"] {
        let arguments = ["get", "r", "--level", level, "--receipt", "-o", "json"];
        let got = cluster.expect(0, &arguments).await.json();
        let told = got["receipt"]["level"].as_str().unwrap();
        assert_eq!(told, level, "{got}");
    }
}

async fn operators(cluster: &Cluster) {
    let status = cluster.expect(0, &["status", "-o", "json"]).await.json();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3, "{status}");
    for node in status["nodes"].as_array().unwrap() {
        let peers = node["peers"].as_array().unwrap();
        assert_eq!(peers.len(), 2, "{status}");
        for peer in peers {
            assert!(peer["phi"].as_f64().unwrap() < 8.0, "{status}");
            assert_eq!(peer["reachable"], true, "{status}");
        }
        assert!(node["repair_lag_ms"].is_u64(), "{status}");
    }
    cluster.expect(0, &["status"]).await;
    cluster.expect(0, &["ring", "-o", "json"]).await;
    assert!(
        cluster
            .expect(0, &["metrics"])
            .await
            .text()
            .contains("quorate_")
    );
    let ranges = cluster.expect(0, &["ranges", "-o", "json"]).await.json();
    for range in ranges["ranges"].as_array().unwrap() {
        let replicas = range["replicas"].as_array().unwrap();
        assert_eq!(replicas.len(), 3, "{range}");
        for replica in replicas {
            for other in replicas {
                let comparable = replica["hash_applied"] == other["hash_applied"];
                assert!(!comparable || replica["hash"] == other["hash"], "{range}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_by_name() {
    let cluster = Cluster::start(1).await;
    let long_key = "k".repeat(5 << 10);
    let large = vec![b'v'; 2 << 20];
    let large = cluster.run_with(&["put", "large", "-"], &large).await;
    assert_eq!(large.code, 2, "{large:?}");
    assert!(large.stderr.contains("1048576"), "{large:?}");
    for (arguments, wanted) in [
        (&["put", "", "v"][..], "key"),
        (&["get", ""], "key"),
        (&["put", &long_key, "v"], "4096"),
        (&["get", "k", "--level", "eventual:9"], "9"),
        (&["put", "k", "v", "--level", "eventual:9"], "9"),
        (&["get", "k", "--level", "strongest"], "linearizable"),
        (&["get", "k", "--timeout", "-1"], "timeout"),
        (&["get", "k", "--timeout", "1000h"], "timeout"),
        (&["get", "k", "--keyspace", "No Such"], "keyspace"),
        (&["get", "k", "--endpoints", "nowhere"], "HOST:PORT"),
        (
            &["keyspace", "create", "x", "--replication", "0"],
            "replication",
        ),
        (&["outcome", "nonsense"], "request handle"),
        (&["import", "--prefix", "p"], "PATH"),
        (&["nonsense"], "nonsense"),
    ] {
        let refused = cluster.expect(2, arguments).await;
        assert!(
            refused.stderr.contains(wanted),
            "{arguments:?}: {refused:?}"
        );
        assert!(refused.stdout.is_empty(), "{arguments:?}: {refused:?}");
    }
    cluster
        .expect(3, &["put", "k", "-f", "/no/such/file"])
        .await;
    cluster.expect(3, &["get", "k"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_promised() {
    let mut cluster = Cluster::start(3).await;
    cluster.expect(0, &["put", "k", "v"]).await;
    // A follower learns a moment later that the put was decided.
    let first = cluster.node(1).listen.to_string();
    let get_there = ["get", "k", "--level", "stale", "--endpoints", &first];
    wait_until("the put at node 1", READY_MAX, async || {
        cluster.run(&get_there).await.code == 0
    })
    .await;
    cluster.node(2).kill();
    cluster.node(3).kill();
    let read = cluster.run(&["get", "k", "--timeout", "1500ms"]).await;
    assert_eq!(read.code, 5, "{read:?}");
    let stale = cluster.run(&["get", "k", "--level", "stale"]).await;
    assert_eq!(stale.text(), "v", "{stale:?}");
    let write = cluster.run(&["put", "k", "w", "--timeout", "1500ms"]).await;
    assert!([5, 6].contains(&write.code), "{write:?}");
    cluster.node(1).kill();
    let refused = cluster.run(&["put", "k", "w", "--timeout", "500ms"]).await;
    assert_eq!(refused.code, 5, "{refused:?}");
}
