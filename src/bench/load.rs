//! The load itself: clients, each with so many requests in flight, for so long.
//!
//! Without a rate the loop is closed: an answer makes room for the next request. With one it
//! is open: requests are due at fixed times, and latency counts from then.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::BenchError;
use super::report::{Recorder, Report};
use super::target::{Connection, Operation, Target};
use super::workload::{Draw, Random, Workload, key};

/// Requests in flight while keys are written for a load that reads.
const PRELOAD_DEPTH: usize = 256;
/// Pause of one slot after an error, so that failing fast does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// How much load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What is asked.
    pub workload: Workload,
    /// Clients, each with a connection of its own.
    pub clients: usize,
    /// Requests that each has in flight.
    pub depth: usize,
    /// Size of values.
    pub value_bytes: usize,
    /// Different keys, drawn evenly.
    pub keys: u64,
    /// Rows of each scan.
    pub scan_rows: u32,
    /// How long is measured.
    pub duration: Duration,
    /// How long the load runs before it counts.
    pub warmup: Duration,
    /// Requests a second over all clients; none: as fast as answers come.
    pub rate: Option<f64>,
    /// The same seed draws the same keys and values.
    pub seed: u64,
}

/// Times that all slots share.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    counted_from: Instant,
    until: Instant,
    /// Open loop: between two requests of one slot.
    interval: Option<Duration>,
}

/// Writes all keys, so that reads find them. `progress` hears of each hundred or so.
///
/// # Errors
///
/// [`BenchError`] at the first put that fails.
pub async fn preload<T: Target>(
    target: &T,
    options: &LoadOptions,
    progress: impl Fn(u64),
) -> Result<(), BenchError> {
    let draw = Draw::new(Workload::Put, options.keys, options.value_bytes, 0);
    let connection = target.connect(0, PRELOAD_DEPTH).await?;
    let (connection, draw, progress) = (&connection, &draw, &progress);
    let slots = (0..PRELOAD_DEPTH as u64).map(|slot| async move {
        let mut random = Random::new(options.seed ^ slot);
        let mut number = slot;
        while number < options.keys {
            let operation = Operation::Put {
                key: key(number),
                value: draw.value(&mut random),
            };
            connection.perform(operation).await?;
            progress(1);
            number += PRELOAD_DEPTH as u64;
        }
        Ok(())
    });
    futures::future::try_join_all(slots)
        .await
        .map(|_| ())
        .map_err(|problem| BenchError::Load { problem })
}

/// Runs the load and measures it.
///
/// # Errors
///
/// [`BenchError`] if a client cannot connect, or nothing at all was served.
pub async fn run<T: Target>(target: &T, options: &LoadOptions) -> Result<Report, BenchError> {
    let mut connections = Vec::with_capacity(options.clients);
    for client in 0..options.clients {
        connections.push(target.connect(client, options.depth).await?);
    }
    let draw = Arc::new(Draw::new(
        options.workload,
        options.keys,
        options.value_bytes,
        options.scan_rows,
    ));
    let slots = options.clients * options.depth;
    let from = Instant::now();
    let window = Window {
        from,
        counted_from: from + options.warmup,
        until: from + options.warmup + options.duration,
        interval: options
            .rate
            .map(|rate| Duration::from_secs_f64(slots as f64 / rate)),
    };
    let mut clients = JoinSet::new();
    for (client, connection) in connections.into_iter().enumerate() {
        let (draw, depth, seed) = (Arc::clone(&draw), options.depth, options.seed);
        clients.spawn(async move {
            run_client(
                &connection,
                &draw,
                window,
                client * depth,
                depth,
                slots,
                seed,
            )
            .await
        });
    }
    let mut all = Recorder::default();
    while let Some(recorder) = clients.join_next().await {
        all.merge(recorder.expect("a client of the load does not panic, and nobody aborts it"));
    }
    let report = all.report(window.counted_from.elapsed());
    if report.ops == 0 {
        let problem = report.messages.first().map(|(message, _)| message.clone());
        return Err(BenchError::NothingServed {
            errors: report.errors,
            problem: problem.unwrap_or_else(|| "the time was too short for one".to_owned()),
        });
    }
    Ok(report)
}

async fn run_client<C: Connection>(
    connection: &C,
    draw: &Draw,
    window: Window,
    first_slot: usize,
    depth: usize,
    slots: usize,
    seed: u64,
) -> Recorder {
    let recorder = Mutex::new(Recorder::default());
    let running = (first_slot..first_slot + depth).map(|slot| {
        // Slots are due one after the other, not all at once.
        let due = window
            .interval
            .map(|interval| window.from + interval.mul_f64(slot as f64 / slots as f64));
        // Neighbouring seeds draw unrelated numbers after one step of the mixer.
        let random = Random::new(Random::new(seed.wrapping_add(slot as u64)).next());
        run_slot(connection, draw, window, due, random, &recorder)
    });
    join_all(running).await;
    recorder.into_inner()
}

async fn run_slot<C: Connection>(
    connection: &C,
    draw: &Draw,
    window: Window,
    mut due: Option<Instant>,
    mut random: Random,
    recorder: &Mutex<Recorder>,
) {
    loop {
        let begin = match due {
            Some(due) => {
                sleep_until(due).await;
                due
            }
            None => Instant::now(),
        };
        if begin >= window.until {
            return;
        }
        let result = connection.perform(draw.operation(&mut random)).await;
        let failed = result.is_err();
        if begin >= window.counted_from {
            let mut recorder = recorder.lock();
            match result {
                Ok(()) => recorder.succeeded(begin.elapsed()),
                Err(message) => recorder.failed(message),
            }
        }
        due = due.zip(window.interval).map(|(due, step)| due + step);
        if failed {
            sleep(ERROR_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers after a fixed time, and counts what is in flight.
    struct Slow {
        latency: Duration,
        in_flight: Arc<AtomicUsize>,
        in_flight_max: Arc<AtomicUsize>,
        fails: bool,
    }

    struct SlowConnection(Arc<Slow>);

    struct SlowTarget(Arc<Slow>);

    impl Target for SlowTarget {
        type Connection = SlowConnection;

        async fn connect(
            &self,
            _client: usize,
            _depth: usize,
        ) -> Result<SlowConnection, BenchError> {
            Ok(SlowConnection(Arc::clone(&self.0)))
        }
    }

    impl Connection for SlowConnection {
        async fn perform(&self, _operation: Operation) -> Result<(), String> {
            let now = self.0.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.in_flight_max.fetch_max(now, Ordering::SeqCst);
            sleep(self.0.latency).await;
            self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
            if self.0.fails {
                return Err("refused".to_owned());
            }
            Ok(())
        }
    }

    fn target(latency_ms: u64, fails: bool) -> SlowTarget {
        SlowTarget(Arc::new(Slow {
            latency: Duration::from_millis(latency_ms),
            in_flight: Arc::default(),
            in_flight_max: Arc::default(),
            fails,
        }))
    }

    fn options(clients: usize, depth: usize, rate: Option<f64>) -> LoadOptions {
        LoadOptions {
            workload: Workload::Put,
            clients,
            depth,
            value_bytes: 8,
            keys: 10,
            scan_rows: 0,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(1),
            rate,
            seed: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_keeps_every_slot_busy() {
        let slow = target(10, false);
        let report = run(&slow, &options(4, 8, None)).await.unwrap();
        assert_eq!(slow.0.in_flight_max.load(Ordering::SeqCst), 32);
        // 32 in flight, 10 ms each (a timer may be a millisecond late), 10 s.
        assert!((27_000..=32_032).contains(&report.ops), "{report:?}");
        assert!((10_000..=12_000).contains(&report.p50_us), "{report:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_sends_at_its_rate() {
        let report = run(&target(1, false), &options(2, 2, Some(100.0)))
            .await
            .unwrap();
        assert!((990..=1010).contains(&report.ops), "{report:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_behind_slow_answers_counts_as_latency() {
        // One slot, due every 10 ms, answered after 100 ms: the wait grows through the run.
        let report = run(&target(100, false), &options(1, 1, Some(100.0)))
            .await
            .unwrap();
        assert!(report.max_us > 5_000_000, "{report:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_refuses_everything_is_an_error() {
        let error = run(&target(1, true), &options(1, 1, None))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_keys_are_loaded_once() {
        let loaded = AtomicUsize::new(0);
        let mut options = options(1, 1, None);
        options.keys = 1000;
        let count = |keys| {
            loaded.fetch_add(keys as usize, Ordering::SeqCst);
        };
        preload(&target(1, false), &options, count).await.unwrap();
        assert_eq!(loaded.load(Ordering::SeqCst), 1000);
    }
}
