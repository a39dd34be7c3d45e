//! The eventual plane as a user types it: dots, contexts, siblings and how they are resolved,
//! counters, sets, maps, and what is served when most nodes are gone.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Ran, finish, wait_until};

/// Detection of failures and the spreading of writes, on a busy machine.
const SETTLE_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn siblings_are_shown_and_resolved() {
    let cluster = Cluster::start(3).await;
    make(&cluster, "docs", "siblings").await;
    contexts(&cluster).await;
    resolutions(&cluster).await;
    editors(&cluster).await;
    transfers(&cluster).await;
    loads(&cluster).await;
}

async fn make(cluster: &Cluster, name: &str, conflict: &str) {
    let create = ["keyspace", "create", name, "--mode", "eventual"];
    cluster
        .expect(0, &[&create[..], &["--conflict", conflict]].concat())
        .await;
}

/// Runs a command in a keyspace, and expects an exit code.
async fn within(cluster: &Cluster, keyspace: &str, code: i32, arguments: &[&str]) -> Ran {
    cluster
        .expect(code, &[arguments, &["--keyspace", keyspace]].concat())
        .await
}

async fn docs(cluster: &Cluster, arguments: &[&str]) -> Ran {
    within(cluster, "docs", 0, arguments).await
}

/// Two puts, of which the second has seen nothing.
async fn conflict(cluster: &Cluster, key: &str, values: [&str; 2]) -> [String; 2] {
    let empty = cluster.dir().join("empty");
    std::fs::write(&empty, b"").unwrap();
    let first = docs(cluster, &["put", key, values[0]]).await.text();
    let empty = empty.to_str().unwrap();
    let second = docs(cluster, &["put", key, values[1], "--context", empty]).await;
    let seen = std::fs::read(cluster.dir().join("empty")).unwrap();
    assert!(!seen.is_empty(), "the new context is written back");
    [first, second.text()]
}

async fn contexts(cluster: &Cluster) {
    let put = docs(cluster, &["put", "title", "A", "-o", "json"]).await;
    let put = put.json();
    assert_eq!(put["key"], "title");
    assert!(put["dot"].is_string() && put["revision"].is_null(), "{put}");

    let seen = cluster.dir().join("seen");
    let seen = seen.to_str().unwrap();
    docs(cluster, &["get", "title", "--context", seen]).await;
    docs(cluster, &["put", "title", "B"]).await;
    // It has seen A, which is gone, and not B.
    docs(cluster, &["put", "title", "C", "--context", seen]).await;
    let got = docs(cluster, &["get", "title", "-o", "json"]).await.json();
    assert_eq!(values(&got), ["B", "C"], "{got}");
    assert!(got["context"].is_string(), "{got}");

    // What that put has written back covers C alone; a get covers both.
    docs(cluster, &["get", "title", "--context", seen]).await;
    docs(cluster, &["put", "title", "D", "--context", seen]).await;
    assert_eq!(docs(cluster, &["get", "title"]).await.stdout, b"D\n");

    let other = within(
        cluster,
        "docs",
        2,
        &["put", "other", "v", "--context", seen],
    )
    .await;
    assert!(other.stderr.contains("context"), "{other:?}");
    within(cluster, "docs", 3, &["get", "other"]).await;
}

/// All values of a key, in order.
fn values(got: &Value) -> Vec<String> {
    let siblings = got["siblings"].as_array().unwrap();
    let all = std::iter::once(got).chain(siblings);
    let mut values: Vec<_> = all
        .map(|one| one["value"].as_str().unwrap().to_owned())
        .collect();
    values.sort();
    values
}

async fn resolutions(cluster: &Cluster) {
    let dots = conflict(cluster, "k", ["one", "two"]).await;
    let shown = docs(cluster, &["get", "k"]).await.text();
    for dot in &dots {
        assert!(shown.contains(&format!(", dot {dot}\n")), "{shown}");
    }
    let listed = docs(cluster, &["resolve", "k"]).await;
    assert_eq!(listed.text(), shown);
    assert!(listed.stderr.contains("--pick"), "{listed:?}");
    within(cluster, "docs", 2, &["resolve", "k", "--pick", "3"]).await;

    docs(cluster, &["resolve", "k", "--pick", &dots[1]]).await;
    assert_eq!(docs(cluster, &["get", "k"]).await.text(), "two");
    let again = docs(cluster, &["resolve", "k", "--pick", "1"]).await;
    assert!(again.text().contains("nothing to resolve"), "{again:?}");

    conflict(cluster, "k", ["one", "two"]).await;
    docs(cluster, &["resolve", "k", "--value", "both"]).await;
    assert_eq!(docs(cluster, &["get", "k"]).await.text(), "both");

    conflict(cluster, "k", ["one", "two"]).await;
    let gone = docs(cluster, &["resolve", "k", "--delete", "-o", "json"]).await;
    assert_eq!(gone.json()["resolved"], true, "{gone:?}");
    within(cluster, "docs", 3, &["get", "k"]).await;
    within(cluster, "docs", 3, &["resolve", "k"]).await;

    docs(cluster, &["put", "k", "v"]).await;
    let deleted = docs(cluster, &["delete", "k", "-o", "json"]).await.json();
    assert_eq!(deleted["deleted"], 1, "{deleted}");
    assert!(deleted["dot"].is_string(), "{deleted}");
}

async fn editors(cluster: &Cluster) {
    conflict(cluster, "k", ["one", "two"]).await;
    let edit = async |editor: &str| {
        let mut command = cluster.command();
        command
            .args(["resolve", "k", "--edit", "--keyspace", "docs"])
            .env("VISUAL", editor)
            .env("TMPDIR", cluster.dir());
        finish(command, b"").await
    };
    for editor in ["true", "false"] {
        let refused = edit(editor).await;
        assert_eq!(refused.code, 1, "{editor}: {refused:?}");
        assert!(
            refused.stderr.contains("nothing was written"),
            "{refused:?}"
        );
    }
    let merged = edit("sed -i '/^[<=>]/d'").await;
    assert_eq!(merged.code, 0, "{merged:?}");
    assert_eq!(docs(cluster, &["get", "k"]).await.text(), "one\ntwo");
    let left = std::fs::read_dir(cluster.dir()).unwrap();
    let left = left.filter(|it| {
        let name = it.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("quorate-resolve")
    });
    assert_eq!(left.count(), 0, "no draft is left behind");
}

async fn transfers(cluster: &Cluster) {
    let tree = cluster.dir().join("tree");
    std::fs::create_dir(&tree).unwrap();
    for number in 0..50 {
        std::fs::write(tree.join(format!("f{number}")), number.to_string()).unwrap();
    }
    let path = tree.to_str().unwrap();
    let import = ["import", path, "--prefix", "t/", "-o", "json"];
    let first = docs(cluster, &import).await.json();
    assert_eq!(
        (&first["written"], &first["failed"]),
        (&json!(50), &json!(0))
    );
    let second = docs(cluster, &import).await.json();
    assert_eq!(
        (&second["written"], &second["unchanged"]),
        (&json!(0), &json!(50))
    );
    let out = cluster.dir().join("out");
    docs(cluster, &["export", "t/", "--to", out.to_str().unwrap()]).await;
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 50);
    assert_eq!(std::fs::read(out.join("f7")).unwrap(), b"7");
}

/// The load generator at eventual levels, by calls and by streams.
async fn loads(cluster: &Cluster) {
    let sizes = [
        "bench",
        "--keys",
        "20",
        "--duration",
        "200ms",
        "--warmup",
        "0s",
    ];
    for workload in ["put", "get", "mixed:0.5"] {
        for (level, depth) in [("eventual:one", "1"), ("eventual:quorum", "8")] {
            let load = ["--workload", workload, "--level", level, "--depth", depth];
            let arguments = [&sizes[..], &load, &["-o", "json"]].concat();
            let report = docs(cluster, &arguments).await.json();
            assert!(report["ops"].as_u64().unwrap() > 0, "{report}");
            assert_eq!(
                (&report["errors"], &report["level"]),
                (&json!(0), &json!(level))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_sets_and_maps_have_their_commands() {
    let cluster = Cluster::start(3).await;
    for policy in ["counter", "set", "map"] {
        make(&cluster, policy, policy).await;
    }
    counters(&cluster).await;
    sets(&cluster).await;
    maps(&cluster).await;
    for policy in ["counter", "set", "map"] {
        let refused = within(&cluster, policy, 2, &["put", "k", "v"]).await;
        assert!(refused.stderr.contains(policy), "{refused:?}");
        assert!(refused.stderr.contains("quorate incr"), "{refused:?}");
        let to = cluster.dir().join("typed.jsonl");
        let export = ["export", "--to", to.to_str().unwrap()];
        let refused = within(&cluster, policy, 2, &export).await;
        assert!(refused.stderr.contains(policy), "{refused:?}");
        assert!(!to.exists());
    }
    let refused = cluster
        .expect(2, &["incr", "k", "--level", "eventual:one"])
        .await;
    assert!(refused.stderr.contains("siblings"), "{refused:?}");
}

async fn counters(cluster: &Cluster) {
    let run = async |arguments: &[&str]| within(cluster, "counter", 0, arguments).await;
    assert_eq!(run(&["incr", "n"]).await.text(), "1");
    assert_eq!(run(&["incr", "n", "41"]).await.text(), "42");
    let down = run(&["incr", "n", "-50", "-o", "json"]).await.json();
    assert_eq!((&down["key"], &down["counter"]), (&json!("n"), &json!(-8)));
    assert!(down["dot"].is_string(), "{down}");
    assert_eq!(run(&["get", "n"]).await.stdout, b"-8\n");
    assert_eq!(run(&["get", "n", "--raw"]).await.stdout, b"-8");
    let got = run(&["get", "n", "-o", "json"]).await.json();
    assert_eq!(got["counter"], -8, "{got}");
    let most = i64::MAX.to_string();
    run(&["incr", "n", &most]).await;
    within(cluster, "counter", 1, &["incr", "n", "9"]).await;
    run(&["delete", "n"]).await;
    within(cluster, "counter", 3, &["get", "n"]).await;
}

async fn sets(cluster: &Cluster) {
    let run = async |arguments: &[&str]| within(cluster, "set", 0, arguments).await;
    run(&["set-add", "s", "red", "green", "blue"]).await;
    assert_eq!(run(&["get", "s"]).await.text(), "blue\ngreen\nred");
    let removed = run(&["set-remove", "s", "red", "absent", "-o", "json"]).await;
    assert_eq!(removed.json()["set"], json!(["blue", "green"]));
    // A removal that has seen nothing removes nothing.
    let empty = cluster.dir().join("nothing-seen");
    std::fs::write(&empty, b"").unwrap();
    let context = empty.to_str().unwrap();
    run(&["set-remove", "s", "blue", "--context", context]).await;
    let got = run(&["get", "s", "-o", "json"]).await.json();
    assert_eq!(got["set"], json!(["blue", "green"]), "{got}");
}

async fn maps(cluster: &Cluster) {
    let run = async |arguments: &[&str]| within(cluster, "map", 0, arguments).await;
    run(&["map-put", "ada", "name", "Ada"]).await;
    run(&["map-put", "ada", "email", "ada@example.org"]).await;
    let text = run(&["get", "ada"]).await.text();
    assert_eq!(text, "email: ada@example.org\nname: Ada");
    run(&["map-remove", "ada", "email"]).await;
    let got = run(&["get", "ada", "-o", "json"]).await.json();
    assert_eq!(got["map"], json!({"name": {"value": "Ada"}}), "{got}");
    let resolved = run(&["resolve", "ada"]).await.text();
    assert!(resolved.contains("merge by themselves"), "{resolved}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_of_three_serves_eventual_levels() {
    let mut cluster = Cluster::start(3).await;
    cluster.expect(0, &["put", "k", "committed"]).await;
    cluster.node(2).kill();
    cluster.node(3).signal("STOP");
    let level = ["--level", "eventual:one"];
    wait_until("an eventual put", SETTLE_MAX, async || {
        let put = cluster
            .run(&[&["put", "k", "v"][..], &level].concat())
            .await;
        put.code == 0
    })
    .await;
    for number in 0..20 {
        let key = format!("n/{number}");
        cluster
            .expect(0, &[&["put", &key, &key][..], &level].concat())
            .await;
        let got = cluster
            .expect(0, &[&["get", &key][..], &level].concat())
            .await;
        assert_eq!(got.text(), key);
    }
    let refused = cluster.run(&["get", "k", "--timeout", "1500ms"]).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    let first = cluster.node(1).listen.to_string();
    let more = ["get", "k", "--level", "eventual:all", "--endpoints", &first];
    let refused = cluster.expect(5, &more).await;
    assert!(refused.stderr.contains("--level eventual:1"), "{refused:?}");
    cluster.node(3).signal("CONT");
    cluster.node(2).start();
    cluster.ready().await;
    wait_until("the puts at the other nodes", SETTLE_MAX, async || {
        let all = ["get", "n/7", "--level", "eventual:all"];
        cluster.run(&all).await.text() == "n/7"
    })
    .await;
}
