//! Keys that are written on both planes, on whole gateways in one process, by seed: eventual and
//! strong writes of the same keys through cuts, kills and lost power. What the log decided is one
//! history; nothing acknowledged is lost, nothing replaced comes back, and no overlay is left.
//!
//! `QUORATE_SEEDS` says how many seeds each test tries, `QUORATE_SEED` with which it begins. The
//! negative controls break the code on purpose, and fail if no seed notices.
//!
//! A seed decides the whole course only where tokio is built with `--cfg tokio_unstable`: else
//! tokio wakes those who wait for the same value in an order of its own chance.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod asking;
mod clients;
mod closing;
mod fences;
mod judge;
mod ladders;
mod leases;
mod ledger;
mod mistakes;
mod regressions;
mod run;
mod scans;
mod scenarios;
mod sessions;
mod storm;
mod twice;
mod typed;
mod watching;
mod world;
