//! Watches that also tell of the eventual plane, on real processes and the command line.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::harness::Cluster;

/// No line is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the lines of one put are read, before there is another one.
const BETWEEN: Duration = Duration::from_millis(500);

/// A watch that runs, and what it has printed.
struct Watched {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    printed: Vec<String>,
}

impl Watched {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Watched {
        let mut command = cluster.command();
        command.args(arguments).kill_on_drop(true);
        command.stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watched {
            _child: child,
            lines,
            printed: Vec::new(),
        }
    }

    /// Puts and reads what comes, until what was printed is enough.
    async fn until<T>(
        &mut self,
        cluster: &Cluster,
        put: &[&str],
        is_it: impl Fn(&[String]) -> Option<T>,
    ) -> T {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "not in {:?}", self.printed);
            cluster.expect(0, put).await;
            while let Ok(line) = tokio::time::timeout(BETWEEN, self.lines.next_line()).await {
                self.printed.push(line.unwrap().expect("the watch goes on"));
                if let Some(it) = is_it(&self.printed) {
                    return it;
                }
            }
        }
    }
}

/// The first line that is so, and its place.
fn find<T>(lines: &[String], so: impl Fn(&str) -> Option<T>) -> Option<(usize, T)> {
    let mut all = lines.iter().enumerate();
    all.find_map(|(at, line)| Some((at, so(line)?)))
}

/// A name that one line tells as tentative, and a later one as decided.
fn told_twice(lines: &[String]) -> Option<String> {
    let tentative = |line: &str| {
        let rest = line.strip_prefix("tentative\tput\tt/k\tvalue\t")?;
        let dot = rest.to_owned();
        let decided = format!("\tput\tt/k\tvalue\tdecided {dot}");
        let (at, ()) = find(lines, |line| line.ends_with(&decided).then_some(()))?;
        Some((dot, at))
    };
    let (at, (dot, decided)) = find(lines, tentative)?;
    assert!(at < decided, "{lines:?}");
    Some(dot)
}

/// The same in JSON: both lines.
fn told_twice_in_json(lines: &[String]) -> Option<(Value, Value)> {
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.last()?;
    let is_first = |line: &&Value| line["state"] == "tentative" && line["dots"] == last["dots"];
    let first = lines.iter().find(is_first)?;
    (last["state"] == "committed").then(|| (first.clone(), last.clone()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_printed_when_it_is_visible_and_when_it_is_decided() {
    let cluster = Cluster::start(3).await;
    let put = ["put", "t/k", "value", "--level", "eventual:one"];
    let mut text = Watched::start(&cluster, &["watch", "t/", "--tentative"]);
    let mut json = Watched::start(
        &cluster,
        &["watch", "t/", "--tentative", "--output", "json"],
    );
    let dot = text.until(&cluster, &put, told_twice).await;
    assert!(dot.contains(':'), "{dot}");
    let (tentative, decided) = json.until(&cluster, &put, told_twice_in_json).await;
    for line in [&tentative, &decided] {
        assert_eq!(line["type"], "put");
        assert_eq!(line["key"], "t/k");
        assert_eq!(line["value"], "value");
    }
    assert!(tentative["revision"].is_null() && decided["revision"].is_u64());
    for (name, mode) in [("fixed", "strong"), ("loose", "eventual")] {
        cluster
            .expect(0, &["keyspace", "create", name, "--mode", mode])
            .await;
    }
    let mut loose = Watched::start(&cluster, &["watch", "--keyspace", "loose", "--tentative"]);
    let put = [
        "put",
        "k",
        "v",
        "--keyspace",
        "loose",
        "--level",
        "eventual:one",
    ];
    let line = loose
        .until(&cluster, &put, |lines| lines.first().cloned())
        .await;
    assert!(line.starts_with("tentative\tput\tk\tv\t"), "{line}");
    for refused in [
        &["watch", "--tentative", "--keyspace", "fixed"][..],
        &["watch", "--keyspace", "loose"],
        &["watch", "--tentative", "--from", "7", "--keyspace", "loose"],
    ] {
        cluster.expect(2, refused).await;
    }
}
