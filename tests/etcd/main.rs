//! etcd's v3 API as Quorate serves it, beside a real etcd: the same sent to both, answers compared.
//!
//! Needs etcd 3.5 or newer: `$QUORATE_ETCD`, in PATH, or where `tests/side-by-side/run` leaves it.
//! Where there is none, these tests say so and pass. What differs by intent: docs/ETCD.md.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod clients;
mod commands;
mod differential;
mod follow;
mod generate;
mod json;
mod limits;
mod lines;
mod plain;
mod send;
mod servers;
mod streamed;
