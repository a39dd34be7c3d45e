//! Gateways of four nodes in one process, on real groups with simulated network and disks. Four
//! nodes and three replicas: some ranges have no replica where they are asked for.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod converge;
mod counted;
mod explain;
mod failures;
mod keys;
mod leases;
mod levels;
mod pipelines;
mod planes;
mod replays;
mod scans;
mod sessions;
mod tentative;
mod triples;
mod typed_keys;
mod watches;
mod wire;
mod world;
