//! Quorate and etcd side by side: the same machine, the same load generator, one run.
//!
//! Started by the script `run`, which builds both stores. Not here: the load itself, which is
//! the one of `quorate bench`.

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
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::cell::{Cell, etcd_cells, quorate_cells};
use crate::cluster::Quorate;
use crate::error::CompareError;
use crate::etcd::Etcd;
use crate::measure::{Extent, Run, fresh_folder, measure_cells, measure_memory};
use crate::store::Store;

/// As in the store itself, so that the generator is not what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Quorate and etcd in turn and prints a table of ratios.
#[derive(Parser, Debug)]
struct Args {
    /// The etcd binary
    #[arg(long, value_name = "FILE")]
    etcd: PathBuf,
    /// The quorate binary
    #[arg(long, value_name = "FILE")]
    quorate: PathBuf,
    /// An empty folder on the disk that is to be measured
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Runs of each store; the table has the medians [default: 3; quick: 1]
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Measured seconds of each cell [default: 10; quick: 3]
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Keys in the store when its memory is read; 0: leave that out [default: 1000000; quick: 100000]
    #[arg(long, value_name = "N")]
    keys: Option<u64>,
    /// One short run
    #[arg(long)]
    quick: bool,
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
    let start_etcd = async |folder: PathBuf| Etcd::start(&args.etcd, &folder).await;
    let start_quorate = async |folder: PathBuf| Quorate::start(&args.quorate, &folder).await;
    let (mut etcd, mut quorate) = (Vec::new(), Vec::new());
    for number in 0..args.runs() {
        etcd.push(run(&args, number, &etcd_cells(), start_etcd).await?);
        quorate.push(run(&args, number, &quorate_cells(), start_quorate).await?);
    }
    Ok(table::render(&etcd, &quorate, args.extent().memory_keys))
}

/// Both measurements of one store, each on a fresh cluster.
async fn run<S: Store>(
    args: &Args,
    number: usize,
    cells: &[Cell],
    start: impl AsyncFn(PathBuf) -> Result<S, CompareError>,
) -> Result<Run, CompareError> {
    let extent = args.extent();
    let folder = fresh_folder(&args.dir, &format!("{}-{number}-load", S::NAME))?;
    let samples = measure_cells(start(folder).await?, cells, extent).await?;
    let resident_bytes = match extent.memory_keys {
        0 => None,
        _ => {
            let folder = fresh_folder(&args.dir, &format!("{}-{number}-memory", S::NAME))?;
            Some(measure_memory(start(folder).await?, extent).await?)
        }
    };
    Ok(Run {
        samples,
        resident_bytes,
    })
}
