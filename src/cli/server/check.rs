//! What can be said about a node's options before anything is opened.

use quorate_raft::PHI_MAX_BOUNDS;
use quorate_types::limits::NODE_WEIGHT_MAX;

use crate::cli::error::CliError;
use crate::server::ServerOptions;

/// Refuses what cannot work, or what the user should know first.
pub(super) fn check(options: &ServerOptions) -> Result<(), CliError> {
    check_identity(options)?;
    for (flag, address) in [
        ("--listen", options.listen),
        ("--http-listen", options.http_listen),
    ] {
        if !address.ip().is_loopback() && !options.insecure {
            return Err(CliError::usage(
                format!("{flag} {address} lies outside loopback, and there is no TLS yet"),
                "whoever reaches the port can read and write everything; \
                 if the network is trusted, say so with --insecure",
            ));
        }
    }
    if !PHI_MAX_BOUNDS.contains(&options.phi_max) {
        let (low, high) = (PHI_MAX_BOUNDS.start(), PHI_MAX_BOUNDS.end());
        return Err(CliError::usage(
            format!("--phi-max {} is no threshold", options.phi_max),
            format!("it goes from {low} to {high}"),
        ));
    }
    if options.listen == options.http_listen && options.listen.port() != 0 {
        return Err(CliError::usage(
            format!("--listen and --http-listen are both {}", options.listen),
            "leave --http-listen away, and it is the next port",
        ));
    }
    Ok(())
}

fn check_identity(options: &ServerOptions) -> Result<(), CliError> {
    let ids = || std::iter::once(options.id).chain(options.peers.iter().map(|peer| peer.id));
    if ids().any(|id| id == 0) {
        return Err(CliError::usage("0 is no node id", "ids begin at 1"));
    }
    let mut seen: Vec<u64> = ids().collect();
    seen.sort_unstable();
    if let Some(pair) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CliError::usage(
            format!("node id {} is given twice", pair[0]),
            "--peer names the other nodes, each with an id of its own",
        ));
    }
    let weights =
        std::iter::once(options.weight).chain(options.peers.iter().map(|peer| peer.weight));
    for weight in weights {
        if weight == 0 || weight > NODE_WEIGHT_MAX {
            return Err(CliError::usage(
                format!("{weight} is no weight"),
                format!("weights go from 1 to {NODE_WEIGHT_MAX}"),
            ));
        }
    }
    if options.join && options.peers.is_empty() {
        return Err(CliError::usage(
            "--join needs at least one --peer of the cluster",
            "try `--join --peer 1=127.0.0.1:7450`",
        ));
    }
    Ok(())
}
