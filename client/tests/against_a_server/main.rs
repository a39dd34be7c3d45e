//! The client against servers that fail as a script says. The servers are real gRPC servers
//! in this process, the data is a map, and a write's name is remembered as a range does.
#![allow(clippy::unwrap_used)]

mod admin;
mod cluster;
mod leases;
mod operations;
mod pipelines;
mod retries;
mod updates;
mod watches;
