//! Whole clusters in one process, on simulated clocks, network and disks, by seed: what the
//! project promises about lost power, damage, stale reads, retries and reads in time.
//!
//! `QUORATE_SEEDS` says how many seeds each test tries, `QUORATE_SEED` with which it begins. The
//! negative controls break the code or the disk on purpose, and fail if no seed notices.
#![allow(clippy::unwrap_used)]

mod clients;
mod damage;
mod partition;
mod power;
mod stale;
mod times;
mod twice;
mod world;
