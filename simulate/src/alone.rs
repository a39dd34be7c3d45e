//! A thread on which one simulated run goes on: its runtime follows from a seed, and what panics in
//! its tasks is heard.

use std::cell::RefCell;
use std::sync::Once;

use tokio::runtime::{Builder, Runtime};

thread_local! {
    /// Panics of tasks: nobody else would hear of them.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

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
