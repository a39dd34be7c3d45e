//! A thread on which one simulated run goes on: its runtime follows from a seed, and what panics in
//! its tasks is heard.

use std::cell::RefCell;
use std::sync::Once;
use std::sync::mpsc::{self, Sender};

use tokio::runtime::{Builder, Runtime};

thread_local! {
    /// Panics of tasks: nobody else would hear of them.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// Hears that the process is about to be aborted for what this thread does.
    static DOOM: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    /// The thread that does what this one has done apart.
    static APART: RefCell<Option<Sender<Job>>> = const { RefCell::new(None) };
}

/// What the language says of a panic while another one unwinds. It aborts the process after that.
const DOOMED: &str = "panic in a destructor during cleanup";

/// A runtime of this thread alone, whose clock is paused and whose draws follow from the seed.
///
/// # Panics
///
/// Where the system refuses one.
pub fn seeded_runtime(seed: u64) -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // Without it tokio wakes those who wait for one value in an order that no seed decides.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
    #[cfg(not(tokio_unstable))]
    let _ = seed;
    let runtime = builder.build();
    runtime.expect("a runtime without sockets needs nothing of the system")
}

/// Hears of panics from now on, on every thread; forgets those of this one.
pub fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.to_string().contains(DOOMED)
                && let Some(tell) = DOOM.take()
            {
                tell();
                // Whoever goes on from here aborts the process, with all other runs in it.
                loop {
                    std::thread::park();
                }
            }
            let place = info.location().map_or(String::new(), ToString::to_string);
            // A core of openraft panics when its disk has gone: its process is dead by then. redb
            // does where a file is damaged, and the engine catches that and tells of damage.
            if !["openraft", "redb-"].iter().any(|of| place.contains(of)) {
                PANICS.with_borrow_mut(|panics| panics.push(format!("a panic at {place}")));
                print(info);
            }
        }));
    });
    PANICS.take();
}

/// The panics of this thread since then.
pub fn heard_panics() -> Vec<String> {
    PANICS.take()
}

/// What goes on apart.
type Job = Box<dyn FnOnce() + Send>;

/// Does something on another thread. None: the process would have been aborted for it; that thread
/// stays where it is, and the next time there is a new one.
///
/// redb panics once more while it unwinds, where its pages are not what it wrote.
///
/// # Panics
///
/// Where what is done panics, or the system has no thread left.
pub fn apart<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let job = move || {
        // Those of the job before are not this one's.
        hear_panics();
        let doom = sender.clone();
        DOOM.set(Some(Box::new(move || {
            // Whoever began this waits for it.
            let _ = doom.send(None);
        })));
        let done = what();
        DOOM.take();
        let _ = sender.send(Some(done));
    };
    // One after the other on one thread: a new one would have all its memory from the system again.
    let thread = APART.take().unwrap_or_else(start_thread);
    thread
        .send(Box::new(job))
        .expect("it ends after its sender");
    // A thread that panics ends, and says nothing.
    let done = receiver.recv().expect("what is done apart has panicked");
    if done.is_some() {
        APART.set(Some(thread));
    }
    done
}

/// A thread that does one job after the other, until its sender is gone.
fn start_thread() -> Sender<Job> {
    let (sender, jobs) = mpsc::channel::<Job>();
    std::thread::spawn(move || jobs.into_iter().for_each(|job| job()));
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panicked_before_is_not_heard_again() {
        let panicking = || std::panic::catch_unwind(|| panic!("of the first")).is_err();
        assert_eq!(apart(panicking), Some(true));
        assert_eq!(apart(heard_panics), Some(Vec::new()));
    }

    // Of two panics: tests/doomed.rs.
    #[test]
    fn one_panic_is_its_callers() {
        let panics = || apart::<i32>(|| panic!("once"));
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}
