//! `quorate config` as a user types it: bundles of thousands of files in one step, changes made
//! meanwhile, the way back, and kills at any moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use quorate_client::config::Config;
use quorate_client::{Client, ScanOptions};
use tempfile::TempDir;

use crate::harness::{Cluster, Ran, rounds};

/// Files of the acceptance.
const FILES: usize = 2000;
/// Files of a bundle that is killed often.
const FILES_KILLED: usize = 300;

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn name(number: usize) -> String {
    format!("service-{}/config-{number}.yaml", number % 40)
}

fn yaml_tree(files: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..files {
        let text = format!("replicas: {number}\nimage: \"app:{number}\"\nlimits:\n  cpu: 2\n");
        write(folder.path(), &name(number), &text);
    }
    folder
}

fn tree_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(folder).into_iter();
    let files = files
        .map(Result::unwrap)
        .filter(|it| it.file_type().is_file());
    files
        .map(|file| {
            let name = file.path().strip_prefix(folder).unwrap();
            let bytes = std::fs::read(file.path()).unwrap();
            (name.to_str().unwrap().to_owned(), bytes)
        })
        .collect()
}

fn counts(ran: &Ran) -> (u64, u64, u64) {
    let object = ran.json();
    let count = |name: &str| object[name].as_u64().unwrap();
    (count("added"), count("changed"), count("removed"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_files_are_one_step_and_come_back_byte_for_byte() {
    let cluster = Cluster::start(3).await;
    let tree = yaml_tree(FILES);
    let dir = tree.path().to_str().unwrap();
    let before = tree_of(tree.path());
    let first = cluster
        .expect(
            0,
            &[
                "config", "apply", "app", dir, "--output", "json", "-m", "first",
            ],
        )
        .await;
    assert_eq!(counts(&first), (FILES as u64, 0, 0));
    let revision = first.json()["revision"].as_u64().unwrap();
    let mut all = Box::pin(cluster.client().scan_all(ScanOptions::prefix("app/")));
    let mut found = 0;
    while let Some(entry) = all.try_next().await.unwrap() {
        assert_eq!(entry.revision.0, revision, "one step, one revision");
        found += 1;
    }
    assert_eq!(found, FILES);

    for number in 0..10 {
        write(tree.path(), &name(number * 7), "replicas: 0\n");
    }
    let diff = cluster
        .expect(
            4,
            &[
                "config",
                "diff",
                "app/",
                dir,
                "--exit-code",
                "--output",
                "json",
            ],
        )
        .await;
    assert_eq!(diff.lines().len(), 10);
    let second = ["config", "apply", "app/", dir, "--output", "json"];
    assert_eq!(counts(&cluster.expect(0, &second).await), (0, 10, 0));
    // Nothing differs, and no step is made of it.
    let again = cluster.expect(0, &second).await.json();
    assert!(again["step"].is_null(), "{again}");

    let back = ["config", "rollback", "app", "1", "--output", "json"];
    assert_eq!(counts(&cluster.expect(0, &back).await), (0, 10, 0));
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("out");
    let export = ["config", "export", "app", out.to_str().unwrap()];
    cluster.expect(0, &export).await;
    assert_eq!(tree_of(&out), before);
    let history = ["config", "history", "app", "--output", "json"];
    let history = cluster.expect(0, &history).await.lines();
    let kinds: Vec<_> = history
        .iter()
        .map(|step| step["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["rollback", "apply", "apply"]);
    assert_eq!(history[2]["message"], "first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_not_in_the_bundle_stay_until_they_are_pruned() {
    let cluster = Cluster::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", "1");
    write(folder.path(), "b/c", "\u{0}\u{1}");
    let dir = folder.path().to_str().unwrap();
    cluster.expect(0, &["put", "app/by-hand", "mine"]).await;
    cluster.expect(0, &["put", "apple", "another"]).await;
    cluster.expect(0, &["config", "apply", "app", dir]).await;
    assert_eq!(
        cluster.expect(0, &["get", "app/by-hand"]).await.text(),
        "mine"
    );

    std::fs::remove_file(folder.path().join("a")).unwrap();
    let kept = ["config", "apply", "app", dir, "--output", "json"];
    assert!(cluster.expect(0, &kept).await.json()["step"].is_null());
    let pruned = ["config", "apply", "app", dir, "--prune", "--output", "json"];
    assert_eq!(counts(&cluster.expect(0, &pruned).await), (0, 0, 2));
    cluster.expect(3, &["get", "app/by-hand"]).await;
    assert_eq!(cluster.expect(0, &["get", "apple"]).await.text(), "another");

    // What came by hand is as safe as what came with a bundle.
    cluster.expect(0, &["config", "rollback", "app"]).await;
    assert_eq!(
        cluster.expect(0, &["get", "app/by-hand"]).await.text(),
        "mine"
    );
    assert_eq!(cluster.expect(0, &["get", "app/a"]).await.text(), "1");
    let shown = cluster
        .expect(0, &["config", "show", "app", "--step", "2"])
        .await;
    assert_eq!(shown.text(), "b/c = \u{0}\u{1}");
    cluster.expect(3, &["config", "rollback", "app", "9"]).await;
    cluster.expect(3, &["config", "rollback", "none"]).await;
    cluster.expect(3, &["config", "history", "none"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_since_the_preview_is_not_overwritten() {
    let cluster = Cluster::start(1).await;
    let bundle = |value: &'static str| {
        let keys = ["a", "b"].map(|key| (key.into(), value.into()));
        BTreeMap::from(keys)
    };
    let client = cluster.client();
    let config = client.config("app").unwrap();
    let plan = config.plan(bundle("1"), false).await.unwrap();
    client.put("app/a", "0").await.unwrap();
    let moved = config.apply(&plan, "me", "").await.unwrap_err();
    assert!(moved.to_string().contains("app/a"), "{moved}");
    assert!(client.get("app/b").await.unwrap().entry.is_none());

    // Two plans of one state: the second is refused, also where it names other keys.
    let one = config.plan(bundle("1"), false).await.unwrap();
    let other = BTreeMap::from([("z".into(), "1".into())]);
    let two = config.plan(other, false).await.unwrap();
    config.apply(&one, "me", "").await.unwrap();
    let moved = config.apply(&two, "me", "").await.unwrap_err();
    assert!(moved.to_string().contains("step 1 by me"), "{moved}");

    // An unchanged key of the bundle that changes meanwhile would make the bundle untrue.
    let keys = BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
    let plan = config.plan(keys, false).await.unwrap();
    client.put("app/a", "other").await.unwrap();
    config.apply(&plan, "me", "").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_keys_and_bad_bundles_change_nothing() {
    let cluster = Cluster::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "app.yaml",
        "db:\n  host: h\n  port: 5432\ntags: [a, b]\n",
    );
    let yaml = folder.path().join("app.yaml");
    cluster
        .expect(0, &["config", "apply", "app", yaml.to_str().unwrap()])
        .await;
    assert_eq!(
        cluster.expect(0, &["get", "app/db/port"]).await.text(),
        "5432"
    );
    let json = folder.path().join("out.json");
    let export = ["config", "export", "app", json.to_str().unwrap()];
    cluster.expect(0, &export).await;
    let document: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let expected = serde_json::json!({"db": {"host": "h", "port": 5432}, "tags": ["a", "b"]});
    assert_eq!(document, expected);

    for (name, text, code, words) in [
        ("bad.yaml", "a: 1\nb: [1\n", 2, "line "),
        ("twice.json", "{\"a/b\": 1, \"a\": {\"b\": 2}}", 2, "a/b"),
        ("empty.toml", "", 2, "empty"),
        ("own.json", "{\".quorate\": {\"x\": 1}}", 2, ".quorate/"),
    ] {
        write(folder.path(), name, text);
        let path = folder.path().join(name);
        let ran = cluster
            .expect(code, &["config", "apply", "", path.to_str().unwrap()])
            .await;
        assert!(ran.stderr.contains(words), "{name}: {ran:?}");
    }
    let one = tempfile::tempdir().unwrap();
    write(one.path(), "fits", "x");
    write(one.path(), "large", &"x".repeat((1 << 20) + 1));
    let one = one.path().to_str().unwrap();
    let ran = cluster.expect(2, &["config", "apply", "app", one]).await;
    assert!(ran.stderr.contains("app/large: "), "{ran:?}");
    let spread = [
        "keyspace",
        "create",
        "spread",
        "--partitioning",
        "hash(4)",
        "--replication",
        "1",
    ];
    cluster.expect(0, &spread).await;
    let ran = cluster
        .expect(
            2,
            &[
                "config",
                "apply",
                "app",
                yaml.to_str().unwrap(),
                "--keyspace",
                "spread",
            ],
        )
        .await;
    assert!(ran.stderr.contains("hash(4)"), "{ran:?}");
    let scan = ["scan", "--keyspace", "spread", "--keys-only"];
    assert_eq!(
        cluster.expect(0, &scan).await.text(),
        "",
        "something was stored"
    );
    let large = tempfile::tempdir().unwrap();
    for number in 0..24 {
        write(large.path(), &number.to_string(), &"x".repeat(1 << 20));
    }
    let ran = cluster
        .expect(
            2,
            &["config", "apply", "app", large.path().to_str().unwrap()],
        )
        .await;
    assert!(ran.stderr.contains("limit"), "{ran:?}");
    let steps = ["config", "history", "app", "--output", "json"];
    assert_eq!(cluster.expect(0, &steps).await.lines().len(), 1);
}

/// Values of all keys under `app/`, and how many have which.
async fn generations(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut all = Box::pin(cluster.client().scan_all(ScanOptions::prefix("app/")));
    let mut found = BTreeMap::new();
    while let Some(entry) = all.try_next().await.unwrap() {
        let value = String::from_utf8(entry.value.to_vec()).unwrap();
        *found.entry(value).or_default() += 1;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_killed_is_there_as_a_whole_or_not_at_all() {
    let mut cluster = Cluster::start(3).await;
    let folder = tempfile::tempdir().unwrap();
    let fill = |generation: usize| {
        for number in 0..FILES_KILLED {
            write(folder.path(), &number.to_string(), &generation.to_string());
        }
    };
    let dir = folder.path().to_str().unwrap();
    fill(0);
    let started = std::time::Instant::now();
    cluster.expect(0, &["config", "apply", "app", dir]).await;
    let usual = started.elapsed();
    let kills = rounds("QUORATE_CONFIG_KILLS", 25);
    let (mut made, mut not_made) = (0, 0);
    for round in 1..=kills {
        fill(round);
        let mut command = cluster.command();
        command.args(["config", "apply", "app", dir]);
        command.stdout(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        // Spread over all of its time, the moment before its end included.
        let share = u32::try_from(round * 7 % 20).unwrap();
        tokio::time::sleep(usual * share / 16).await;
        if round % 8 == 0 {
            let leader = cluster.leader().await;
            cluster.node(leader).kill();
            child.wait().await.unwrap();
            cluster.node(leader).start();
            cluster.ready().await;
        } else {
            child.kill().await.unwrap();
        }
        let found = generations(&cluster).await;
        assert_eq!(found.len(), 1, "round {round}: half a step: {found:?}");
        assert_eq!(found.values().sum::<usize>(), FILES_KILLED);
        match found.contains_key(&round.to_string()) {
            true => made += 1,
            false => not_made += 1,
        }
    }
    assert!(
        made > 0 && not_made > 0,
        "{made} made, {not_made} not: no kill struck"
    );
    // Whatever the kills have left, the next step is made of it.
    fill(kills + 1);
    tokio::time::timeout(
        Duration::from_secs(60),
        cluster.expect(0, &["config", "apply", "app", dir]),
    )
    .await
    .unwrap();
    assert_eq!(generations(&cluster).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_are_read_as_one_and_say_where_values_come_from() {
    let cluster = Cluster::start(1).await;
    for (key, value) in [
        ("app/base/db", "local"),
        ("app/base/log", "info"),
        ("app/env/prod/db", "prod"),
        ("app/host/web-1/log", "debug"),
    ] {
        cluster.expect(0, &["put", key, value]).await;
    }
    let show = [
        "config",
        "show",
        "app",
        "--layers",
        "base,env/prod,host/web-1",
    ];
    let plain = cluster.expect(0, &show).await;
    assert_eq!(plain.text(), "db = prod\nlog = debug");
    let explain = [&show[..], &["--explain", "--output", "json"]].concat();
    let lines = cluster.expect(0, &explain).await.lines();
    assert_eq!(lines[0]["layer"], "env/prod");
    assert_eq!(lines[0]["hidden"][0]["value"], "local");
    assert_eq!(lines[1]["layer"], "host/web-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn siblings_are_merged_by_what_each_has_changed_in_the_form_of_their_key() {
    let cluster = Cluster::start(1).await;
    let json = [
        r#"{"host":"h","port":1,"tags":["a"]}"#,
        r#"{"host":"new","port":1,"tags":["a"]}"#,
        r#"{"host":"h","port":2,"tags":["a"]}"#,
        r#"{"host":"new","port":2,"tags":["a"]}"#,
    ];
    assert_eq!(merged(&cluster, "app.json", json).await, json[3]);
    let yaml = [
        "host: h\nport: 1\n",
        "host: new\nport: 1\n",
        "host: h # ours\nport: 2\n",
        "host: new\nport: 2",
    ];
    assert_eq!(merged(&cluster, "app.yaml", yaml).await, yaml[3]);
    let toml = [
        "port = 1\nhost = 'h'\n",
        "port = 1\nhost = 'new'\n",
        "port = 2\nhost = 'h'\n",
        "host = \"new\"\nport = 2",
    ];
    assert_eq!(merged(&cluster, "app.toml", toml).await, toml[3]);
}

/// What two writers who have read the first value, and not each other, come to.
async fn merged(cluster: &Cluster, key: &str, values: [&str; 4]) -> String {
    let eventual = ["--level", "eventual:one"];
    let first = cluster.expect(0, &["put", key, values[0]]).await.text();
    let seen = cluster.dir().join(format!("{key}.seen"));
    let other = cluster.dir().join(format!("{key}.other"));
    let context = ["--context", seen.to_str().unwrap()];
    let get = [&["get", key][..], &eventual, &context].concat();
    cluster.expect(0, &get).await;
    std::fs::copy(&seen, &other).unwrap();
    for (value, context) in [(values[1], &seen), (values[2], &other)] {
        let context = ["--context", context.to_str().unwrap()];
        let put = [&["put", key, value][..], &eventual, &context].concat();
        cluster.expect(0, &put).await;
    }
    let merge = ["resolve", key, "--merge", "--base", &first];
    cluster.expect(0, &[&merge[..], &eventual].concat()).await;
    let get = [&["get", key][..], &eventual].concat();
    cluster.expect(0, &get).await.text()
}

/// Contents that are kept of a prefix, by the step that stored them.
async fn contents(client: &Client, prefix: &str) -> Vec<u64> {
    let folder = format!(".quorate/config/prefix/{prefix}/content/");
    let entries = client.scan_all(ScanOptions::prefix(folder.clone()));
    let entries: Vec<_> = entries.try_collect().await.unwrap();
    let step = |key: &[u8]| {
        let rest = std::str::from_utf8(key).unwrap().strip_prefix(&folder)?;
        rest.split('/').next()?.parse().ok()
    };
    entries.iter().filter_map(|one| step(&one.key)).collect()
}

async fn values(config: &Config) -> BTreeMap<Bytes, Bytes> {
    let state = config.read().await.unwrap();
    let values = state.values();
    values
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_ends_where_it_is_said_to_and_takes_its_values_along() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let config = client.config("app").unwrap().keep_history(3);
    let bundle = |changing: &str, back: &str| {
        let keys = [("same", "s"), ("changing", changing), ("back", back)];
        let keys = keys.map(|(key, value)| (key.into(), value.to_owned().into()));
        BTreeMap::from(keys)
    };
    let step = async |config: &Config, bundle| {
        let plan = config.plan(bundle, false).await.unwrap();
        config.apply(&plan, "me", "").await.unwrap().step.number
    };
    let numbers = async |config: &Config| -> Vec<u64> {
        let steps = config.steps(0).await.unwrap();
        steps.iter().map(|step| step.number).collect()
    };
    // What is back in step 4 left the state in step 2: it is stored anew.
    for (changing, back) in [("1", "x"), ("2", "y"), ("3", "y"), ("4", "x"), ("5", "x")] {
        step(&config, bundle(changing, back)).await;
    }
    assert_eq!(numbers(&config).await, [5, 4, 3]);
    let then = config.at_step(3).await.unwrap();
    assert_eq!(then, bundle("3", "y"));
    let gone = config.at_step(2).await.unwrap_err();
    assert!(gone.to_string().contains("it is not kept"), "{gone}");
    // By step 1 `same`; by step 2 `changing` and `back`, which step 3 has replaced; and by each of
    // 3 to 5 its new values, its list of keys and its list of changes.
    let mut kept = contents(&client, "app").await;
    kept.retain(|step| *step < 3);
    assert_eq!(kept, [1, 2, 2]);
    let plan = config.plan_back(Some(3), false).await.unwrap();
    config.roll_back(&plan, Some(3), "me", "").await.unwrap();
    assert_eq!(numbers(&config).await, [6, 5, 4]);
    assert_eq!(values(&config).await, bundle("3", "y"));

    // The command keeps a thousand, if nobody says how many; whoever says fewer later drops many.
    let folder = tempfile::tempdir().unwrap();
    for number in 0..4 {
        write(folder.path(), "changing", &format!("now {number}"));
        let path = folder.path().to_str().unwrap();
        cluster.expect(0, &["config", "apply", "app", path]).await;
    }
    assert_eq!(numbers(&config).await.len(), 7);
    write(folder.path(), "changing", "at last");
    let path = folder.path().to_str().unwrap();
    let few = ["config", "apply", "app", path, "--keep-history", "2"];
    cluster.expect(0, &few).await;
    assert_eq!(numbers(&config).await, [11, 10]);
    let one = ["config", "apply", "app", path, "--keep-history", "1"];
    cluster.expect(2, &one).await;
    let back = cluster.expect(0, &["config", "rollback", "app"]).await;
    assert!(back.text().contains("step 12"), "{back:?}");
    let expected = bundle("now 3", "y");
    assert_eq!(values(&config).await, expected);
}
