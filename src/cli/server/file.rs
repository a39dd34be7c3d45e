//! The options of a node as a TOML file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ZONE_DEFAULT;
use crate::cli::error::CliError;
use crate::cli::input;
use crate::server::PeerOptions;

/// Largest configuration file that is read, bytes.
const CONFIG_MAX_BYTES: u64 = 1 << 20;

/// The options of a node as a file has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ServerFile {
    pub(super) id: Option<u64>,
    pub(super) dir: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) http_listen: Option<SocketAddr>,
    pub(super) etcd_listen: Option<SocketAddr>,
    pub(super) etcd_keyspace: Option<String>,
    #[serde(default)]
    pub(super) peers: Vec<PeerEntry>,
    pub(super) zone: Option<String>,
    pub(super) weight: Option<u32>,
    pub(super) cluster: Option<String>,
    #[serde(default)]
    pub(super) join: bool,
    #[serde(default)]
    pub(super) insecure: bool,
    pub(super) election_ms: Option<u64>,
    pub(super) phi_max: Option<f64>,
    pub(super) engine_memory_max_bytes: Option<u64>,
    pub(super) in_flight_max_bytes: Option<u64>,
}

/// Another node, as the file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PeerEntry {
    id: u64,
    address: SocketAddr,
    zone: Option<String>,
    weight: Option<u32>,
}

impl From<PeerEntry> for PeerOptions {
    fn from(entry: PeerEntry) -> Self {
        Self {
            id: entry.id,
            address: entry.address,
            zone: entry.zone.unwrap_or_else(|| ZONE_DEFAULT.to_owned()),
            weight: entry.weight.unwrap_or(1),
        }
    }
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<ServerFile, CliError> {
    let text = input::read_file(path, CONFIG_MAX_BYTES)?;
    let text = String::from_utf8(text).map_err(|_| {
        CliError::usage(
            format!("{}: not UTF-8", path.display()),
            "a configuration file is TOML",
        )
    })?;
    toml::from_str(&text).map_err(|error| {
        CliError::usage(
            format!("{}: {}", path.display(), error.to_string().trim_end()),
            "names are those of the flags without dashes in front, as in `http-listen`",
        )
    })
}
