//! Whole clusters of real processes: what a user types, what a crash leaves, what a client sees.
//!
//! The page cache survives a killed process, so these tests prove recovery, not sync; power
//! cuts are for the simulated disk. One cluster runs at a time (see `harness`).
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod harness;
mod load;
mod proxy;

mod commands;
mod compare;
mod configuration;
mod crashes;
mod cuts;
mod documented;
mod eventual;
mod eventual_commands;
mod fail_over;
mod flags;
mod folders;
mod followers;
mod hostile;
mod keyspaces;
mod lab;
mod last_known;
mod leases;
mod locks;
mod many_watchers;
mod memory;
mod page;
mod python;
mod quotas;
mod replacement;
mod schemas;
mod tentative;
mod trees;
mod watches;
