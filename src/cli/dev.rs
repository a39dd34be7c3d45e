//! `quorate dev`: arguments, and what is said on the terminal.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio::sync::Mutex;

use super::error::CliError;
use super::signal::StopSignals;
use crate::dev::{self, Console, DevOptions, Topology};

/// The endpoint that commands use when none is given.
const ENDPOINT_DEFAULT: &str = "127.0.0.1:7450";

/// Where etcd's clients look for it.
const ETCD_PORT_DEFAULT: u16 = 2379;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate dev
  quorate dev --nodes 5 --dir /tmp/cluster --port 0 --ready-file ready.json

Node N takes the ports PORT+2(N-1) for gRPC and the next one for HTTP. Ctrl-C stops all nodes;
the data in DIR stays, and the same command starts them again.")]
pub(super) struct DevArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value = "3")]
    nodes: u16,
    /// Folder of all data
    #[arg(long, value_name = "DIR", default_value = "quorate-dev")]
    dir: PathBuf,
    /// The first port; 0: any that are free
    #[arg(long, value_name = "PORT", default_value = "7450")]
    port: u16,
    /// The first port for etcd's clients, node N's is PORT+2(N-1); 0: any that are free
    /// [default: 2379; 0 where --port is 0]
    #[arg(long, value_name = "PORT")]
    etcd_port: Option<u16>,
    /// Written when a linearizable put has succeeded: endpoints and nodes as JSON
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub(super) async fn run(args: DevArgs) -> Result<(), CliError> {
    // Shared by the wait for the first signal and for the second.
    let signals = Arc::new(Mutex::new(StopSignals::listen()?));
    let options = DevOptions {
        nodes: args.nodes,
        dir: args.dir,
        port: args.port,
        etcd_port: args.etcd_port.unwrap_or(match args.port {
            0 => 0,
            _ => ETCD_PORT_DEFAULT,
        }),
        ready_file: args.ready_file,
    };
    let told_to_stop = || {
        let signals = Arc::clone(&signals);
        async move { signals.lock().await.next().await }
    };
    dev::run(options, Arc::new(Terminal), told_to_stop).await?;
    Ok(())
}

struct Terminal;

impl Console for Terminal {
    fn ready(&self, topology: &Topology, pids: &[u32]) {
        let program = std::env::args().next().unwrap_or_default();
        let text = welcome(topology, pids, &program);
        // A closed terminal does not stop the cluster.
        let _ = io::stdout().lock().write_all(text.as_bytes());
    }

    fn warn(&self, text: &str) {
        // As above.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

fn welcome(topology: &Topology, pids: &[u32], program: &str) -> String {
    let rows = topology.nodes.iter().zip(pids).map(|(node, pid)| {
        [
            node.id.to_string(),
            node.listen.to_string(),
            node.http.to_string(),
            node.etcd.map_or("-".to_owned(), |etcd| etcd.to_string()),
            pid.to_string(),
            node.dir.display().to_string(),
        ]
    });
    let table = super::table::table(&["node", "grpc", "http", "etcd", "pid", "dir"], rows);
    let endpoints = topology.endpoints().join(",");
    let flag = match topology.endpoints().first() {
        Some(first) if first == ENDPOINT_DEFAULT => String::new(),
        _ => format!(" --endpoints {endpoints}"),
    };
    let etcd = match topology.etcd_endpoints().first() {
        Some(first) => format!("  etcdctl --endpoints {first} put greeting hello\n"),
        None => String::new(),
    };
    format!(
        "Quorate is ready: {} node(s)\n\n{table}\n\n\
         Try, in another terminal:\n  \
         {program} put greeting hello{flag}\n  \
         {program} get greeting{flag}\n  \
         {program} status{flag}\n{etcd}\
         To keep on when a node is lost: export QUORATE_ENDPOINTS={endpoints}\n\n\
         Ctrl-C stops all nodes; the data stays.\n",
        topology.nodes.len(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::path::Path;

    #[test]
    fn examples_name_endpoints_that_are_not_the_default() {
        let topology = Topology::plan(1, 0, 0, &[], Path::new("d")).unwrap();
        let endpoint = topology.endpoints()[0].clone();
        let text = welcome(&topology, &[7], "quorate");
        let expected = format!("quorate get greeting --endpoints {endpoint}");
        assert!(text.contains(&expected), "{text}");
    }
}
