//! `exec`, `render` and the client's copies: while servers answer, while they change, and during a
//! cut of all of them.

use std::path::Path;
use std::time::Duration;

use quorate_client::cached::{CachedLadder, CachedOptions};
use serde_json::Value;

use crate::harness::{Cluster, finish, program, wait_until};

/// What a change takes to reach a follower, on a busy machine.
const SEEN_MAX: Duration = Duration::from_secs(20);

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_starts_from_the_copy_while_nobody_answers() {
    let mut cluster = Cluster::start(3).await;
    cluster.expect(0, &["put", "app/db/host", "h1"]).await;
    let cache = cluster.dir().join("cache");
    let cache = cache.to_str().unwrap().to_owned();
    let command = [
        "exec",
        "--prefix",
        "app/",
        "--cache",
        &cache,
        "--level",
        "linearizable@1s > cached:10m",
        "--receipt",
        "--output",
        "json",
        "--",
        "sh",
        "-c",
        "echo $DB_HOST",
    ];
    let served = cluster.expect(0, &command).await;
    assert_eq!(served.text(), "h1");
    let receipt: Value = serde_json::from_str(&served.stderr).unwrap();
    assert_eq!(receipt["level"], "linearizable");
    assert!(receipt.get("cached_age_ms").is_none(), "{receipt}");

    let template = cluster.dir().join("t.j2");
    std::fs::write(&template, "host={{ get('app/db/host') }}").unwrap();
    let out = cluster.dir().join("out");
    let render = [
        &["render", template.to_str().unwrap(), out.to_str().unwrap()][..],
        &command[1..7],
    ]
    .concat();

    // Cut off: connections are there, and nothing comes.
    for id in cluster.ids() {
        cluster.node(id).signal("STOP");
    }
    assert_eq!(cluster.expect(0, &command).await.text(), "h1");
    cluster.expect(0, &render).await;
    assert_eq!(text(&out), "host=h1");
    // Gone: connections are refused.
    for id in cluster.ids() {
        cluster.node(id).kill();
    }
    let copied = cluster.expect(0, &command).await;
    assert_eq!(copied.text(), "h1");
    let receipt: Value = serde_json::from_str(&copied.stderr).unwrap();
    assert_eq!(
        (&receipt["level"], &receipt["rung"]),
        (&"cached".into(), &1.into())
    );
    let age = receipt["cached_age_ms"].as_u64().unwrap();
    assert!((1..60_000).contains(&age), "{receipt}");
    assert!(!receipt["failed"][0].as_str().unwrap().is_empty());

    // Too old, of another prefix, or not as it was written: no copy.
    let mut older = command;
    older[6] = "linearizable@1s > cached:1ms";
    let refused = cluster.expect(5, &older).await;
    assert!(refused.stderr.contains("old"), "{refused:?}");
    let mut other = command;
    other[2] = "app";
    cluster.expect(5, &other).await;
    let file = std::fs::read_dir(&cache)
        .unwrap()
        .map(|it| it.unwrap().path());
    let file = file
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let refused = cluster.expect(5, &command).await;
    assert!(refused.stderr.contains("no copy"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_copy_is_young_while_servers_answer_and_says_its_age_when_not() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    client.put("app/a", "1").await.unwrap();
    let options = CachedOptions {
        prefix: "app/".into(),
        folder: None,
    };
    let mut copy = client.cached(options).await.unwrap();
    let only_copy: CachedLadder = "cached:1h".parse().unwrap();
    let none = copy.read(&only_copy).await.unwrap_err();
    assert!(none.to_string().contains("no copy"), "{none}");
    copy.follow();
    for value in ["1", "2", "3"] {
        client.put("app/a", value).await.unwrap();
        wait_until("the copy to follow", SEEN_MAX, async || {
            let got = copy.get(b"app/a", &only_copy).await;
            got.is_ok_and(|(entry, receipt)| {
                assert!(receipt.cached_age.is_some());
                entry.is_some_and(|entry| entry.value == value)
            })
        })
        .await;
    }
    client.delete("app/a").await.unwrap();
    wait_until("the delete to reach the copy", SEEN_MAX, async || {
        copy.get(b"app/a", &only_copy)
            .await
            .is_ok_and(|(entry, _)| entry.is_none())
    })
    .await;
    // Nothing is written any more, and the copy ages only until it is compared again.
    wait_until("the copy to be old", SEEN_MAX, async || {
        copy.age().unwrap() > Duration::from_secs(1)
    })
    .await;
    wait_until("the copy to be young again", SEEN_MAX, async || {
        copy.age().unwrap() < Duration::from_secs(1)
    })
    .await;
    for id in cluster.ids() {
        cluster.node(id).kill();
    }
    let ladder: CachedLadder = "linearizable@100ms > cached:1h".parse().unwrap();
    let started = tokio::time::Instant::now();
    let state = copy.read(&ladder).await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(state.receipt.rung, 1);
    assert_eq!(state.receipt.failed.len(), 1);
    wait_until("the age to grow", SEEN_MAX, async || {
        copy.age().unwrap() > Duration::from_secs(2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_are_filled_again_and_a_failed_one_leaves_the_file() {
    let cluster = Cluster::start(1).await;
    cluster.expect(0, &["put", "app/a", "1"]).await;
    let dir = cluster.dir().to_owned();
    let (template, out, log) = (dir.join("t.j2"), dir.join("out"), dir.join("log"));
    std::fs::write(&template, "a={{ get('app/a') }}\n").unwrap();
    let paths = [template.to_str().unwrap(), out.to_str().unwrap()];
    let once = [
        "render", paths[0], paths[1], "--prefix", "app/", "--output", "json",
    ];
    assert_eq!(cluster.expect(0, &once).await.json()["replaced"], true);
    assert_eq!(cluster.expect(0, &once).await.json()["replaced"], false);
    assert_eq!(text(&out), "a=1\n");

    let mut command = cluster.command();
    let on_change = format!("echo changed >> {}", log.display());
    command.args([
        "render",
        paths[0],
        paths[1],
        "--prefix",
        "app/",
        "--on-change",
        &on_change,
    ]);
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    for value in ["2", "3"] {
        cluster.expect(0, &["put", "app/a", value]).await;
        wait_until("the file to be replaced", SEEN_MAX, async || {
            text(&out) == format!("a={value}\n")
        })
        .await;
    }
    wait_until("the command to run", SEEN_MAX, async || {
        text(&log).contains("changed")
    })
    .await;
    // Half of the template succeeds, and the file stays as it was.
    let half = "a={{ get('app/a') }}\n{{ get('app/none') }}\n";
    std::fs::write(&template, half).unwrap();
    let failed = cluster.expect(1, &once).await;
    assert!(failed.stderr.contains("t.j2, line 2"), "{failed:?}");
    cluster.expect(0, &["put", "app/a", "4"]).await;
    cluster.expect(0, &["put", "app/none", "now"]).await;
    wait_until("the file after the failure", SEEN_MAX, async || {
        text(&out) == "a=4\nnow\n"
    })
    .await;
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_started_anew_when_its_variables_change() {
    let cluster = Cluster::start(1).await;
    cluster.expect(0, &["put", "app/level", "1"]).await;
    let out = cluster.dir().join("out");
    let script = format!("echo $LEVEL >> {}; exec sleep 600", out.display());
    let mut command = cluster.command();
    command.args([
        "exec",
        "--prefix",
        "app/",
        "--restart",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let mut child = command.spawn().unwrap();
    wait_until("the first start", SEEN_MAX, async || text(&out) == "1\n").await;
    cluster.expect(0, &["put", "app/level", "2"]).await;
    wait_until("the second start", SEEN_MAX, async || {
        text(&out) == "1\n2\n"
    })
    .await;
    crate::harness::signal(child.id().unwrap(), "TERM");
    assert!(child.wait().await.unwrap().success());

    let exits = [
        "exec",
        "--prefix",
        "app/",
        "--restart",
        "--",
        "sh",
        "-c",
        "exit 9",
    ];
    cluster.expect(9, &exits).await;
    let pristine = [
        "exec",
        "--prefix",
        "app/",
        "--pristine",
        "--no-upcase",
        "--",
        "/usr/bin/env",
    ];
    assert_eq!(cluster.expect(0, &pristine).await.text(), "level=2");
    cluster.expect(0, &["put", "app/LEVEL", "3"]).await;
    let twice = cluster
        .expect(1, &["exec", "--prefix", "app/", "--", "true"])
        .await;
    assert!(
        twice.stderr.contains("both the variable LEVEL"),
        "{twice:?}"
    );
    let mut nowhere = program();
    nowhere.args([
        "exec",
        "--prefix",
        "app/",
        "--endpoints",
        "127.0.0.1:1",
        "--timeout",
        "1s",
    ]);
    nowhere.args(["--", "true"]);
    assert_eq!(finish(nowhere, b"").await.code, 5);
}
