//! JSON Schemas of prefixes: every way to write is held to them.

use quorate_client::{Expect, Operation, Txn, WriteOptions};
use quorate_types::Reason;

use crate::harness::Cluster;

const SCHEMA: &str = r#"{"type":"object","required":["port"],
    "properties":{"port":{"type":"integer","maximum":65535}}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_write_is_held_to_the_schema() {
    let cluster = Cluster::start(3).await;
    let (good, bad) = (r#"{"port":80}"#, r#"{"port":"eighty"}"#);
    cluster.expect(0, &["put", "app/old", "whatever"]).await;
    let set = ["config", "schema", "set", "app", "-"];
    let ran = cluster.run_with(&set, SCHEMA.as_bytes()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    // Each node takes it up from the catalog.
    for endpoint in cluster.endpoints() {
        crate::harness::wait_until(
            "the schema at each node",
            crate::harness::READY_MAX,
            async || {
                let arguments = ["put", "app/a", bad, "--endpoints", &endpoint];
                cluster.run(&arguments).await.code == 2
            },
        )
        .await;
    }
    cluster.expect(0, &["put", "app/a", good]).await;
    let refused = cluster.expect(2, &["put", "app/a", bad]).await;
    assert!(
        refused.stderr.contains("/port: \"eighty\" is not of type"),
        "{refused:?}"
    );
    cluster
        .expect(2, &["put", "app/a", bad, "--level", "eventual:one"])
        .await;
    cluster.expect(0, &["put", "other", bad]).await;
    assert_eq!(
        cluster.expect(0, &["get", "app/old"]).await.text(),
        "whatever"
    );

    let client = cluster.client();
    let options = WriteOptions::default;
    let violated = |error: quorate_client::ClientError| {
        assert_eq!(error.reason(), Some(Reason::SchemaViolated), "{error}");
        error.to_string()
    };
    let cas = client.compare_and_set("app/b", Expect::Absent, bad, options());
    violated(cas.await.unwrap_err());
    let txn = Txn::default()
        .then(Operation::put("app/b", good))
        .then(Operation::put("app/c", bad));
    let told = violated(client.txn(txn, options()).await.unwrap_err());
    assert!(told.contains("then[1].put.value"), "{told}");
    let batch = vec![Operation::put("x", "1"), Operation::put("app/b", bad)];
    let told = violated(client.batch(batch).await.unwrap_err());
    assert!(told.contains("operations[1].put.value"), "{told}");
    violated(client.pipeline().put("app/b", bad).await.unwrap_err());
    // A bundle with one such value changes nothing.
    let config = client.config("app").unwrap();
    let bundle = [("b".into(), good.into()), ("c".into(), bad.into())];
    let plan = config.plan(bundle.into(), false).await.unwrap();
    let refused = config.apply(&plan, "me", "").await.unwrap_err();
    let refused = quorate_types::chain(&refused);
    assert!(refused.starts_with("app/c: "), "{refused}");
    assert!(refused.contains("schema of `app/`"), "{refused}");
    for key in ["app/b", "app/c", "x"] {
        assert!(client.get(key).await.unwrap().entry.is_none(), "{key}");
    }

    let none = cluster.run_with(&set, br#"{"type":"colour"}"#).await;
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("/type"), "{none:?}");
    let shown = cluster
        .expect(0, &["config", "schema", "show", "--output", "json"])
        .await;
    assert_eq!(shown.json()["schema"]["required"][0], "port");
    cluster
        .expect(0, &["config", "schema", "drop", "app/"])
        .await;
    cluster
        .expect(3, &["config", "schema", "drop", "app/"])
        .await;
    crate::harness::wait_until(
        "the schema to be gone",
        crate::harness::READY_MAX,
        async || client.put("app/a", bad).await.is_ok(),
    )
    .await;
}
