//! Whole clusters in one process, on simulated clocks, network and disks, by seed: what the
//! project promises about lost power, damage, stale reads, retries and reads in time.
//!
//! `QUORATE_SEEDS` says how many seeds each test tries, `QUORATE_SEED` with which it begins. The
//! negative controls break the code or the disk on purpose, and fail if no seed notices.
//!
//! A seed decides the whole course only where tokio is built with `--cfg tokio_unstable`: else
//! tokio wakes those who wait for the same value in an order of its own chance.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bank;
mod clients;
mod damage;
mod etcd;
mod history;
mod leases;
mod liveness;
mod partition;
mod power;
mod quiet;
mod sender;
mod snapshots;
mod stale;
mod times;
mod twice;
mod world;
