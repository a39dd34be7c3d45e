//! Background workers of the disk seam: what they are, how they are woken.
//!
//! A worker is a state machine with one `step`; it never sleeps or waits by
//! itself, so the same code runs on a thread and, in simulation, as a task.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

/// What a worker wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another step at once.
    Again,
    /// Another step when the bell rings.
    Wait,
    /// Another step when the bell rings, or after this time.
    WaitAtMost(Duration),
    /// No further step.
    Stop,
}

/// A background activity in steps. Dropped when it has stopped.
pub trait Worker: Send {
    /// Does one piece of work. May block on the disk, on nothing else.
    fn step(&mut self) -> Next;
}

/// Wakes a waiting worker. A ring is never lost: one that falls into a step
/// leads to another step. Cloning gives another handle of the same bell.
#[derive(Clone, Debug, Default)]
pub struct Doorbell {
    inner: Arc<Bell>,
}

#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    lock: Mutex<()>,
    for_thread: Condvar,
    for_task: Notify,
}

impl Doorbell {
    /// A bell that nobody has rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for another step. Cheap when already rung.
    pub fn ring(&self) {
        if self.inner.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        // Under the lock, so that it cannot fall between a thread's look at
        // the flag and its going to sleep.
        drop(self.inner.lock.lock());
        self.inner.for_thread.notify_one();
        self.inner.for_task.notify_one();
    }

    /// Takes note of all rings so far; the step that follows serves them.
    fn answer(&self) {
        self.inner.rung.swap(false, Ordering::AcqRel);
    }

    fn wait_thread(&self, at_most: Option<Duration>) {
        let mut guard = self.inner.lock.lock();
        while !self.inner.rung.load(Ordering::Acquire) {
            match at_most {
                None => self.inner.for_thread.wait(&mut guard),
                Some(time) => {
                    self.inner.for_thread.wait_for(&mut guard, time);
                    return;
                }
            }
        }
    }

    async fn wait_task(&self, at_most: Option<Duration>) {
        let rung = async {
            while !self.inner.rung.load(Ordering::Acquire) {
                self.inner.for_task.notified().await;
            }
        };
        match at_most {
            None => rung.await,
            // Both outcomes mean the same: another step.
            Some(time) => drop(tokio::time::timeout(time, rung).await),
        }
    }
}

/// Lets its owner wait for a worker's end.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    ended: watch::Receiver<bool>,
}

impl WorkerHandle {
    /// Waits until the worker has stopped and was dropped (or panicked).
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the sender is gone, and the worker with it.
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// Whether the worker has stopped.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow() || self.ended.has_changed().is_err()
    }
}

/// Runs a worker on a thread of its own.
pub(super) fn spawn_thread(
    name: &str,
    bell: Doorbell,
    mut worker: Box<dyn Worker>,
) -> io::Result<WorkerHandle> {
    let (sender, ended) = watch::channel(false);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            loop {
                bell.answer();
                match worker.step() {
                    Next::Again => {}
                    Next::Wait => bell.wait_thread(None),
                    Next::WaitAtMost(time) => bell.wait_thread(Some(time)),
                    Next::Stop => break,
                }
            }
            drop(worker);
            sender.send_replace(true);
        })?;
    Ok(WorkerHandle { ended })
}

/// Runs a worker as a task of `runtime`. After each step the task sleeps for
/// what `latency` says the step's disk work took.
pub(super) fn spawn_task(
    runtime: &tokio::runtime::Handle,
    bell: Doorbell,
    mut worker: Box<dyn Worker>,
    latency: fn() -> Duration,
) -> WorkerHandle {
    let (sender, ended) = watch::channel(false);
    runtime.spawn(async move {
        loop {
            bell.answer();
            // Others' work on this thread is none of this worker's time.
            let _ = latency();
            let next = worker.step();
            let spent = latency();
            if !spent.is_zero() {
                tokio::time::sleep(spent).await;
            }
            match next {
                Next::Again => tokio::task::yield_now().await,
                Next::Wait => bell.wait_task(None).await,
                Next::WaitAtMost(time) => bell.wait_task(Some(time)).await,
                Next::Stop => break,
            }
        }
        drop(worker);
        sender.send_replace(true);
    });
    WorkerHandle { ended }
}
