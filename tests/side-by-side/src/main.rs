//! Quorate and another store side by side: the same machine, the same load generator, one run.
//!
//! Started by the script `run`, which builds both stores. Not here: the load itself, which is
//! the one of `quorate bench`.

mod against_cassandra;
mod against_etcd;
mod against_etcd_api;
mod cassandra;
mod cell;
mod cluster;
mod counted;
mod empty;
mod error;
mod etcd;
mod etcd_api;
mod measure;
mod process;
mod range_memory;
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
    /// Measure only this store; the table then has no ratios
    #[arg(long, value_name = "STORE", global = true, value_parser = ["etcd", "quorate"])]
    only: Option<String>,
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
    /// The same client of etcd's API against both
    EtcdApi {
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
    fn measures(&self, store: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == store)
    }

    fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn extent(&self) -> Extent {
        let seconds = self.seconds.unwrap_or(if self.quick { 3 } else { 10 });
        let reads_all = matches!(self.other, Other::EtcdApi { .. });
        let keys = match self.quick || reads_all {
            true => 100_000,
            false => 1_000_000,
        };
        Extent {
            duration: Duration::from_secs(seconds),
            heating: match self.other {
                Other::Etcd { .. } | Other::EtcdApi { .. } => Duration::ZERO,
                Other::Cassandra { .. } => HEATING,
            },
            memory_keys: self.keys.unwrap_or(keys),
            reads_all,
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
        Other::EtcdApi { etcd } => compare_by_etcd_api(&args, etcd).await,
        Other::Cassandra { jars, heap_mib } => compare_with_cassandra(&args, jars, *heap_mib).await,
    }
}

async fn compare_with_etcd(args: &Args, program: &Path) -> Result<String, CompareError> {
    let cells = [against_etcd::etcd_cells(), against_etcd::quorate_cells()];
    let (etcd, quorate) = run_beside_etcd(args, program, Plane::Strong, &cells).await?;
    let keys = args.extent().memory_keys;
    Ok(against_etcd::render(&etcd, &quorate, keys))
}

async fn compare_by_etcd_api(args: &Args, program: &Path) -> Result<String, CompareError> {
    let cells = [against_etcd_api::cells(), against_etcd_api::cells()];
    let (etcd, quorate) = run_beside_etcd(args, program, Plane::Etcd, &cells).await?;
    let keys = args.extent().memory_keys;
    Ok(against_etcd_api::render(&etcd, &quorate, keys))
}

/// All runs of etcd and of Quorate, in turn.
async fn run_beside_etcd(
    args: &Args,
    program: &Path,
    plane: Plane,
    [etcd_cells, quorate_cells]: &[Vec<Cell>; 2],
) -> Result<(Vec<Run>, Vec<Run>), CompareError> {
    let start_etcd = async |folder: PathBuf| Etcd::start(program, &folder).await;
    let start_quorate = async |folder: PathBuf| Quorate::start(&args.quorate, plane, &folder).await;
    let (mut etcd, mut quorate) = (Vec::new(), Vec::new());
    for number in 0..args.runs() {
        let name = format!("{}-{number}", Etcd::NAME);
        if args.measures("etcd") {
            etcd.push(run(args, &name, etcd_cells, start_etcd).await?);
        }
        let name = format!("{}-{number}", Quorate::NAME);
        if args.measures("quorate") {
            quorate.push(run(args, &name, quorate_cells, start_quorate).await?);
        }
    }
    Ok((etcd, quorate))
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
    let mut both = Run {
        samples,
        ..Run::default()
    };
    if extent.memory_keys > 0 {
        let folder = fresh_folder(&args.dir, &format!("{name}-memory"))?;
        both.add(measure_memory(start(folder).await?, extent).await?);
    }
    Ok(both)
}
