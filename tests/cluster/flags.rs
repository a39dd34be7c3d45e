//! Feature flags: set by a user, evaluated by a program's own copy, also while nobody answers.

use std::time::Duration;

use quorate_client::flags::{EvaluationContext, FlagErrorCode, FlagsOptions};

use crate::harness::{Cluster, wait_until};

/// What a change takes to reach a program, on a busy machine.
const SEEN_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_are_set_and_told_on_the_command_line() {
    let cluster = Cluster::start(1).await;
    cluster.expect(3, &["flag", "get", "new"]).await;
    let default = ["flag", "get", "new", "--default", "false"];
    assert_eq!(cluster.expect(0, &default).await.text(), "false");
    cluster.expect(0, &["flag", "set", "new", "false"]).await;
    cluster
        .expect(0, &["flag", "set", "new", "--percent", "25"])
        .await;
    let mut on = 0;
    for user in 0..40 {
        let user = format!("user-{user}");
        let get = ["flag", "get", "new", "--for", &user, "--output", "json"];
        let first = cluster.expect(0, &get).await.json();
        assert_eq!(first["reason"], "SPLIT");
        on += u32::from(first["value"] == true);
    }
    assert!((3..20).contains(&on), "{on} of 40");
    let missing = cluster.expect(1, &["flag", "get", "new"]).await;
    assert!(
        missing.stderr.contains("TARGETING_KEY_MISSING"),
        "{missing:?}"
    );
    let wrong = ["flag", "get", "new", "--for", "me", "--type", "string"];
    assert!(
        cluster
            .expect(1, &wrong)
            .await
            .stderr
            .contains("TYPE_MISMATCH")
    );
    cluster
        .expect(0, &["flag", "set", "new", "--disable"])
        .await;
    let get = ["flag", "get", "new", "--for", "me", "--output", "json"];
    assert_eq!(cluster.expect(0, &get).await.json()["reason"], "DISABLED");

    let definition = r#"{"type":"string","variants":{"dark":"D","light":"L"},"default":"light",
        "rules":[{"name":"staff","if":[{"attribute":"team","values":["core"]}],"serve":"dark"}]}"#;
    let set = ["flag", "set", "theme", "-f", "-"];
    let ran = cluster.run_with(&set, definition.as_bytes()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let get = ["flag", "get", "theme", "--with", "team=core"];
    assert_eq!(cluster.expect(0, &get).await.text(), "D");
    let explained = cluster
        .expect(0, &["flag", "explain", "theme", "--with", "team=x"])
        .await;
    assert!(
        explained.text().contains("rule 0 (staff): team is \"x\""),
        "{explained:?}"
    );
    assert!(explained.text().contains("reason DEFAULT"), "{explained:?}");
    let broken = cluster
        .run_with(&set, br#"{"type":"string","variants":{},"default":"x"}"#)
        .await;
    assert_eq!(broken.code, 2, "{broken:?}");
    assert!(broken.stderr.contains("default: no variant"), "{broken:?}");
    let list = ["flag", "list", "--output", "json"];
    let names: Vec<_> = cluster.expect(0, &list).await.lines();
    let names: Vec<_> = names
        .iter()
        .map(|line| line["flag"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["new", "theme"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_evaluates_without_asking_anybody() {
    let mut cluster = Cluster::start(3).await;
    cluster.expect(0, &["flag", "set", "new", "true"]).await;
    cluster.expect(0, &["put", "flags/broken", "{"]).await;
    let client = cluster.client();
    let options = FlagsOptions {
        folder: Some(cluster.dir().join("flags")),
        ..FlagsOptions::default()
    };
    let flags = client.flags(options.clone()).await.unwrap();
    let nobody = EvaluationContext::default();
    assert!(flags.boolean("new", false, &nobody));
    let code = |flags: &quorate_client::flags::Flags, name: &str| {
        flags
            .evaluate(name, &nobody, None)
            .error
            .map(|(code, _)| code)
    };
    assert_eq!(code(&flags, "broken"), Some(FlagErrorCode::ParseError));
    assert_eq!(code(&flags, "none"), Some(FlagErrorCode::FlagNotFound));
    assert!(flags.boolean("none", true, &nobody));
    cluster.expect(0, &["flag", "set", "new", "false"]).await;
    wait_until("the change to be seen", SEEN_MAX, async || {
        !flags.boolean("new", true, &nobody)
    })
    .await;

    for id in cluster.ids() {
        cluster.node(id).kill();
    }
    assert!(!flags.boolean("new", true, &nobody));
    drop(flags);
    // A program that starts now has the copy; one without has no flags, and says so.
    let hurried = || {
        cluster.client_with(quorate_client::ClientOptions {
            timeout: Duration::from_millis(500),
            ..quorate_client::ClientOptions::default()
        })
    };
    let flags = hurried().flags(options).await.unwrap();
    assert!(!flags.boolean("new", true, &nobody));
    assert!(flags.age().unwrap() < Duration::from_secs(120));
    let without = hurried().flags(FlagsOptions::default()).await.unwrap();
    assert_eq!(code(&without, "new"), Some(FlagErrorCode::ProviderNotReady));
}
