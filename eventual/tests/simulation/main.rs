//! Whole eventual paths in one process, on simulated network and disks, by seed: what the project
//! promises about lost and returning writes, convergence, deletes and counters.
//!
//! `QUORATE_SEEDS` says how many seeds each test tries, `QUORATE_SEED` with which it begins. The
//! negative controls break the code on purpose, and fail if no seed notices.
//!
//! A seed decides the whole course only where tokio is built with `--cfg tokio_unstable`: else
//! tokio wakes those who wait for the same value in an order of its own chance.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod clients;
mod closing;
mod converge;
mod counters;
mod deletes;
mod expiry;
mod flapping;
mod merkle;
mod mistakes;
mod network;
mod oracle;
mod regressions;
mod run;
mod storm;
mod world;
