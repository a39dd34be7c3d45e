//! Watches on real processes: over leaders that are killed, with readers that stand still, and on
//! the command line.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::{Client, ClientOptions, WatchEvent, WatchKind, WatchOptions};
use quorate_proto::v1;
use quorate_proto::v1::watch_client::WatchClient;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;

use crate::harness::{Cluster, READY_MAX, rounds, signal, wait_until};

/// No event is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// `QUORATE_FAIL_OVERS=20` for the long run.
const KILLS_USUAL: usize = 2;
const PUTS_BETWEEN: usize = 100;
const KEYS: u64 = 20;

/// Puts and deletes in a loop, and remembers what was acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    count: Arc<std::sync::atomic::AtomicUsize>,
    task: JoinHandle<BTreeMap<u64, (String, Option<String>)>>,
}

impl Writer {
    fn start(client: Client) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::default();
        let (ended, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let task = tokio::spawn(async move {
            let mut done = BTreeMap::new();
            for number in 0_u64.. {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                let key = format!("w/{:02}", number % KEYS);
                let value = (number % 7 != 3).then(|| number.to_string());
                let revision = match &value {
                    Some(value) => {
                        client
                            .put(key.clone(), value.clone())
                            .await
                            .unwrap()
                            .revision
                    }
                    None => {
                        let deleted = client.delete(key.clone()).await.unwrap();
                        if deleted.deleted == 0 {
                            continue;
                        }
                        deleted.revision
                    }
                };
                done.insert(revision.0, (key, value));
                let counted: &std::sync::atomic::AtomicUsize = &counted;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            done
        });
        Writer { stop, count, task }
    }

    async fn goes_on(&self) {
        let goal = self.count.load(Ordering::Relaxed) + PUTS_BETWEEN;
        wait_until("writes", READY_MAX, async || {
            self.count.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    async fn end(self) -> BTreeMap<u64, (String, Option<String>)> {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap()
    }
}

fn follow(
    client: &Client,
    options: WatchOptions,
    until: &'static str,
) -> JoinHandle<Vec<WatchEvent>> {
    let client = client.clone();
    tokio::spawn(async move {
        let mut watch = client.watch(options).await.unwrap();
        let mut told = Vec::new();
        loop {
            let event = watch.next().await.unwrap();
            let is_end = event.entry.key == until;
            told.push(event);
            if is_end {
                return told;
            }
        }
    })
}

fn told_of(events: &[WatchEvent]) -> Vec<(u64, (String, Option<String>))> {
    let one = |event: &WatchEvent| {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let value = (event.kind == WatchKind::Put).then(|| text(&event.entry.value));
        (event.entry.revision.0, (text(&event.entry.key), value))
    };
    events.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_comes_once_and_in_order_over_killed_leaders_and_gateways() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let first = client.put("w/first", "").await.unwrap().revision;
    // Some from the beginning, each at an endpoint of its own first; some from now on.
    let mut watching = Vec::new();
    for number in 0..6_u64 {
        let mut endpoints = cluster.endpoints();
        let turn = usize::try_from(number).unwrap() % endpoints.len();
        endpoints.rotate_left(turn);
        let options = ClientOptions {
            endpoints,
            ..ClientOptions::default()
        };
        let watcher = Client::connect(options).unwrap();
        let options = WatchOptions {
            from: number.is_multiple_of(2).then_some(first),
            ..WatchOptions::prefix("w/")
        };
        watching.push(follow(&watcher, options, "w/last"));
    }
    let writer = Writer::start(cluster.client());
    let kills = rounds("QUORATE_FAIL_OVERS", KILLS_USUAL);
    let mut ended = [0; 2];
    for round in 0..2 * kills {
        writer.goes_on().await;
        let leader = cluster.leader().await;
        let open = cluster.watches().await;
        // In turn the leader, and whoever serves most watches beside it.
        let gateways = open.iter().filter(|(node, _)| *node != leader);
        let gateway = gateways.max_by_key(|(_, open)| *open).unwrap().0;
        let killed = [leader, gateway][round % 2];
        ended[round % 2] += open.iter().find(|(node, _)| *node == killed).unwrap().1;
        cluster.node(killed).kill();
        writer.goes_on().await;
        cluster.node(killed).start();
        cluster.ready().await;
    }
    assert!(
        ended.iter().all(|ended| *ended > 0),
        "{ended:?}: nobody watched there"
    );
    let done = writer.end().await;
    let last = client.put("w/last", "").await.unwrap().revision;
    let mut all = done.clone();
    all.insert(first.0, ("w/first".to_owned(), Some(String::new())));
    all.insert(last.0, ("w/last".to_owned(), Some(String::new())));
    let all: Vec<_> = all.into_iter().collect();
    for watching in watching {
        let told = tokio::time::timeout(PATIENCE, watching)
            .await
            .unwrap()
            .unwrap();
        let told = told_of(&told);
        // All of them had begun before the first kill; those from now on lack what came before.
        assert!(
            all.ends_with(&told),
            "{} of {}: lost or twice",
            told.len(),
            all.len()
        );
        assert!(
            told.len() * 2 > all.len(),
            "{} of {}",
            told.len(),
            all.len()
        );
    }
    eprintln!(
        "{} events, each once at 6 watchers; {kills} leaders killed with {} watches, and {kills} \
         gateways beside them with {}",
        all.len(),
        ended[0],
        ended[1]
    );
}

/// Watches that nobody reads: the node's memory is bounded, and others are served as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_are_never_read_cost_bounded_memory() {
    const UNREAD: usize = 200;
    const VALUE_BYTES: usize = 64 << 10;
    const PUTS: usize = 600;
    /// Of each watch some windows of HTTP/2 and a message; all that is put is far more, and its
    /// log and tables are in memory as well.
    const GROWTH_MAX_KIB: u64 = 400 << 10;
    let mut cluster = Cluster::start(1).await;
    let address = format!("http://{}", cluster.node(1).listen);
    let client = cluster.client();
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        // The window of the client's side is what a reader that stands still takes.
        let channel = tonic::transport::Endpoint::from_shared(address.clone())
            .unwrap()
            .initial_stream_window_size(64 << 10)
            .connect()
            .await
            .unwrap();
        let request = v1::WatchRequest {
            keyspace: "default".to_owned(),
            prefix: "big/".into(),
            ..v1::WatchRequest::default()
        };
        unread.push(WatchClient::new(channel).watch(request).await.unwrap());
    }
    let before = cluster.node(1).resident_kib();
    let reader = follow(&client, WatchOptions::prefix("big/"), "big/last");
    // So that it has begun.
    let mut begun = client.watch(WatchOptions::prefix("big/")).await.unwrap();
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    for number in 0..PUTS {
        client
            .put(format!("big/{}", number % 10), value.clone())
            .await
            .unwrap();
    }
    client.put("big/last", "").await.unwrap();
    let told = tokio::time::timeout(PATIENCE, reader)
        .await
        .unwrap()
        .unwrap();
    assert!(told.len() > PUTS / 2);
    assert!(
        told.windows(2)
            .all(|pair| pair[0].entry.revision < pair[1].entry.revision)
    );
    // One that stood still meanwhile has all of it.
    let mut late = Vec::new();
    while late.len() <= PUTS {
        late.push(begun.next().await.unwrap().entry.revision);
    }
    assert!(late.is_sorted_by(|one, next| one < next));
    let after = cluster.node(1).resident_kib();
    let grown = after.saturating_sub(before);
    eprintln!("{UNREAD} unread watches of {PUTS} values of {VALUE_BYTES} bytes: {grown} KiB more");
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB");
}

/// What a script sees: one JSON object a line, as it comes; Ctrl-C ends well; misuse has its code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_prints_events_as_they_come() {
    let mut cluster = Cluster::start(3).await;
    let mut command = cluster.command();
    command.args(["watch", "c/", "--output", "json", "--previous"]);
    command.stdout(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let put = async |value: &str| {
        let ran = cluster
            .expect(0, &["put", "c/k", value, "--output", "json"])
            .await;
        ran.json()["revision"].as_u64().unwrap()
    };
    // Until the watch has begun, nothing is told.
    let begun = Instant::now();
    let (mut first, mut last) = (Value::Null, 0);
    while first.is_null() {
        assert!(begun.elapsed() < PATIENCE, "no event");
        last = put("one").await;
        let line = tokio::time::timeout(Duration::from_millis(300), lines.next_line()).await;
        if let Ok(line) = line {
            first = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
        }
    }
    assert_eq!(first["type"], "put");
    assert_eq!(first["key"], "c/k");
    assert_eq!(first["value"], "one");
    assert_eq!(first["state"], "committed");
    assert!(first["dot"].is_null());
    let leader = cluster.leader().await;
    cluster.node(leader).kill();
    let second = put_after_kill(&cluster).await;
    assert!(second > last);
    let line = loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .unwrap();
        let line: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
        if line["value"] == "two" {
            break line;
        }
    };
    assert_eq!(line["revision"].as_u64(), Some(second));
    assert_eq!(line["previous"]["value"], "one");
    signal(child.id().unwrap(), "INT");
    let status = tokio::time::timeout(PATIENCE, child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    // From a revision, so many; in text.
    let from = last.to_string();
    let ran = cluster
        .expect(0, &["watch", "c/", "--from", &from, "--limit", "2"])
        .await;
    assert_eq!(
        ran.text(),
        format!("{last}\tput\tc/k\tone\n{second}\tput\tc/k\ttwo")
    );
    for (code, arguments) in [
        (2, &["watch", "p", "--key", "k"][..]),
        (2, &["watch", "--from", "0"]),
        (1, &["watch", "--from", "9000000000000000"]),
        (3, &["watch", "--keyspace", "nowhere"]),
    ] {
        cluster.expect(code, arguments).await;
    }
}

async fn put_after_kill(cluster: &Cluster) -> u64 {
    let ran = cluster
        .expect(0, &["put", "c/k", "two", "--output", "json"])
        .await;
    ran.json()["revision"].as_u64().unwrap()
}
