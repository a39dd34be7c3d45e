//! Quorate and another store side by side: the same machine, the same load generator, one run.
//!
//! Started by the script `run`, which builds both stores. Not here: the load itself, which is
//! the one of `quorate bench`.

mod against_cassandra;
mod against_etcd;
mod cassandra;
mod cell;
mod cluster;
mod counted;
mod empty;
mod error;
mod etcd;
mod measure;
mod process;
mod store;
mod table;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::cassandra::{Cassandra, CassandraOptions};
use crate::cell::{Ack, Cell};
use crate::cluster::{Plane, Quorate};
use crate::error::CompareError;
use crate::etcd::Etcd;
use crate::measure::{Extent, Run, fresh_folder, measure_cells, measure_memory};
use crate::store::Store;

/// Java compiles what runs often; both stores get this time of every load before it is measured.
const HEATING: Duration = Duration::from_secs(4);

/// As in the store itself, so that the generator is not what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Quorate and another store in turn and prints a table of ratios.
#[derive(Parser, Debug)]
struct Args {
    #[command(subcommand)]
    other: Other,
    /// The quorate binary
    #[arg(long, value_name = "FILE", global = true, default_value = "quorate")]
    quorate: PathBuf,
    /// An empty folder on the disk that is to be measured
    #[arg(long, value_name = "DIR", global = true, default_value = ".")]
    dir: PathBuf,
    /// Runs of each store; the table has the medians [default: 3; quick: 1]
    #[arg(long, value_name = "N", global = true)]
    runs: Option<usize>,
    /// Measured seconds of each cell [default: 10; quick: 3]
    #[arg(long, value_name = "S", global = true)]
    seconds: Option<u64>,
    /// Keys in the store when its memory is read; 0: leave that out [default: 1000000; quick: 100000]
    #[arg(long, value_name = "N", global = true)]
    keys: Option<u64>,
    /// One short run
    #[arg(long, global = true)]
    quick: bool,
}

/// Whom Quorate is compared with.
#[derive(Subcommand, Debug)]
enum Other {
    /// The strong path against etcd
    Etcd {
        /// The etcd binary
        #[arg(long, value_name = "FILE")]
        etcd: PathBuf,
    },
    /// The eventual path against Cassandra
    Cassandra {
        /// The folder with Cassandra's jars
        #[arg(long, value_name = "DIR")]
        jars: PathBuf,
        /// The heap of each of its nodes, MiB
        #[arg(long, value_name = "MIB", default_value_t = 2048)]
        heap_mib: u32,
    },
}

impl Args {
    fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn extent(&self) -> Extent {
        let seconds = self.seconds.unwrap_or(if self.quick { 3 } else { 10 });
        let keys = if self.quick { 100_000 } else { 1_000_000 };
        Extent {
            duration: Duration::from_secs(seconds),
            heating: match self.other {
                Other::Etcd { .. } => Duration::ZERO,
                Other::Cassandra { .. } => HEATING,
            },
            memory_keys: self.keys.unwrap_or(keys),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = tokio::select! {
        result = compare(Args::parse()) => result,
        stopped = told_to_stop() => stopped,
    };
    match result {
        Ok(text) => {
            // Who closed the terminal does not want the table.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            // As above.
            let _ = writeln!(std::io::stderr().lock(), "side-by-side: {text}");
            ExitCode::FAILURE
        }
    }
}

/// On a signal the comparison is dropped, and with it all that it started.
async fn told_to_stop() -> Result<String, CompareError> {
    let listen = |kind| signal(kind).map_err(CompareError::io("listen for signals"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => (),
        _ = terminate.recv() => (),
    }
    Err(CompareError::Stopped)
}

async fn compare(args: Args) -> Result<String, CompareError> {
    match &args.other {
        Other::Etcd { etcd } => compare_with_etcd(&args, etcd).await,
        Other::Cassandra { jars, heap_mib } => compare_with_cassandra(&args, jars, *heap_mib).await,
    }
}

async fn compare_with_etcd(args: &Args, program: &Path) -> Result<String, CompareError> {
    let start_etcd = async |folder: PathBuf| Etcd::start(program, &folder).await;
    let start_quorate =
        async |folder: PathBuf| Quorate::start(&args.quorate, Plane::Strong, &folder).await;
    let (etcd_cells, quorate_cells) = (against_etcd::etcd_cells(), against_etcd::quorate_cells());
    let (mut etcd, mut quorate) = (Vec::new(), Vec::new());
    for number in 0..args.runs() {
        let name = format!("{}-{number}", Etcd::NAME);
        etcd.push(run(args, &name, &etcd_cells, start_etcd).await?);
        let name = format!("{}-{number}", Quorate::NAME);
        quorate.push(run(args, &name, &quorate_cells, start_quorate).await?);
    }
    let keys = args.extent().memory_keys;
    Ok(against_etcd::render(&etcd, &quorate, keys))
}

async fn compare_with_cassandra(
    args: &Args,
    jars: &Path,
    heap_mib: u32,
) -> Result<String, CompareError> {
    let start_quorate =
        async |folder: PathBuf| Quorate::start(&args.quorate, Plane::Eventual, &folder).await;
    let (mut cassandra, mut quorate) = (Vec::new(), Vec::new());
    for number in 0..args.runs() {
        let mut both = Run::default();
        for ack in [Ack::Disk, Ack::Memory] {
            let options = CassandraOptions {
                jars: jars.to_owned(),
                heap_mib,
                ack,
            };
            let start = async |folder: PathBuf| Cassandra::start(&options, &folder).await;
            let name = format!("{}-{number}-{ack}", Cassandra::NAME);
            both.add(run(args, &name, &against_cassandra::cells(ack), start).await?);
        }
        cassandra.push(both);
        let name = format!("{}-{number}", Quorate::NAME);
        quorate.push(run(args, &name, &against_cassandra::all_cells(), start_quorate).await?);
    }
    let keys = args.extent().memory_keys;
    Ok(format!(
        "Heap of each node of Cassandra: {heap_mib} MiB\n\n{}",
        against_cassandra::render(&cassandra, &quorate, keys)
    ))
}

/// Both measurements of one store, each on a fresh cluster.
async fn run<S: Store>(
    args: &Args,
    name: &str,
    cells: &[Cell],
    start: impl AsyncFn(PathBuf) -> Result<S, CompareError>,
) -> Result<Run, CompareError> {
    let extent = args.extent();
    let folder = fresh_folder(&args.dir, &format!("{name}-load"))?;
    let samples = measure_cells(start(folder).await?, cells, extent).await?;
    let resident_bytes = match extent.memory_keys {
        0 => None,
        _ => {
            let folder = fresh_folder(&args.dir, &format!("{name}-memory"))?;
            Some(measure_memory(start(folder).await?, extent).await?)
        }
    };
    Ok(Run {
        samples,
        resident_bytes,
    })
}
