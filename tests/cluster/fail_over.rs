//! How long writes stand still when the leader goes: by kill -9, and by a stop that hands over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_client::{Client, ClientOptions};
use tokio::task::JoinHandle;

use crate::harness::{Cluster, READY_MAX, rounds, wait_until};

const ROUNDS_USUAL: usize = 5;
/// Wanted: 2.5 s. Machines that run tests are slow at times.
const KILLED_GAP_MAX: Duration = Duration::from_secs(5);
/// Wanted: 150 ms.
const STOPPED_GAP_MAX: Duration = Duration::from_millis(1500);
/// Puts acknowledged before the leader goes, and again after.
const PUTS_BETWEEN: usize = 50;

/// A client that puts in a loop, and remembers when each was acknowledged.
struct Loop {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<Vec<String>>,
}

impl Loop {
    fn start(client: Client) -> Loop {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(vec![Instant::now()]));
        let (ended, noted) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            for number in 0_u64.. {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                match client.put("loop", number.to_string()).await {
                    Ok(_) => noted.lock().push(Instant::now()),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            failures
        });
        Loop {
            stop,
            acknowledged,
            task,
        }
    }

    async fn goes_on(&self) {
        let count = || self.acknowledged.lock().len();
        let goal = count() + PUTS_BETWEEN;
        wait_until("puts", READY_MAX, async || count() >= goal).await;
    }

    /// The longest time between two acknowledged puts, and what failed.
    async fn end(self) -> (Duration, Vec<String>) {
        self.stop.store(true, Ordering::Release);
        let failures = self.task.await.unwrap();
        let times = self.acknowledged.lock();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        (gaps.max().unwrap_or_default(), failures)
    }
}

fn report(what: &str, gaps: &mut [Duration]) -> Duration {
    gaps.sort_unstable();
    let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    eprintln!("{what}: median {median:.0?}, worst {worst:.0?} of {gaps:.0?}");
    worst
}

/// `QUORATE_FAIL_OVERS=30` for the long run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_go_on_when_the_leader_is_killed() {
    let mut cluster = Cluster::start(3).await;
    let mut gaps = Vec::new();
    for _ in 0..rounds("QUORATE_FAIL_OVERS", ROUNDS_USUAL) {
        let leader = cluster.leader().await;
        let puts = Loop::start(cluster.client());
        puts.goes_on().await;
        cluster.node(leader).kill();
        puts.goes_on().await;
        let (gap, failures) = puts.end().await;
        assert!(failures.is_empty(), "{failures:?}");
        gaps.push(gap);
        cluster.node(leader).start();
        cluster.ready().await;
    }
    let worst = report("kill -9 of the leader, longest gap", &mut gaps);
    assert!(worst <= KILLED_GAP_MAX, "{worst:?}");
}

async fn stop_leaders(options: ClientOptions, what: &str) {
    let mut cluster = Cluster::start(3).await;
    let mut gaps = Vec::new();
    for _ in 0..rounds("QUORATE_FAIL_OVERS", ROUNDS_USUAL) {
        let leader = cluster.leader().await;
        let puts = Loop::start(cluster.client_with(options.clone()));
        puts.goes_on().await;
        let begun = Instant::now();
        let status = cluster.node(leader).terminate().await;
        eprintln!("node {leader} stopped in {:.0?}", begun.elapsed());
        assert!(status.success(), "{status}");
        puts.goes_on().await;
        let (gap, failures) = puts.end().await;
        assert!(failures.is_empty(), "{failures:?}");
        gaps.push(gap);
        cluster.node(leader).start();
        cluster.ready().await;
    }
    let worst = report(what, &mut gaps);
    assert!(worst <= STOPPED_GAP_MAX, "{worst:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_hardly_notice_a_leader_that_is_stopped() {
    stop_leaders(
        ClientOptions::default(),
        "SIGTERM of the leader, longest gap",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patient_client_hardly_notices_a_leader_that_is_stopped() {
    let patient = ClientOptions {
        timeout: Duration::from_secs(5),
        attempt_timeout: Duration::from_secs(5),
        ..ClientOptions::default()
    };
    stop_leaders(
        patient,
        "SIGTERM of the leader, attempts of 5 s, longest gap",
    )
    .await;
}
