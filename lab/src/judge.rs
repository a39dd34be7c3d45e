//! The recording, held against the workload's model.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use quorate_jepsen::history::operations;
use quorate_jepsen::{Budget, Model, Options, Report, check};
use quorate_types::chain;

use crate::error::LabError;

/// A check that takes longer ends as unknown.
const CHECK_MAX: Duration = Duration::from_secs(120);
const MEMORY_MAX_BYTES: usize = 2 << 30;

/// A verdict, and how long it took.
pub(crate) struct Judgement {
    pub(crate) model: Model,
    pub(crate) report: Report,
    pub(crate) took: Duration,
}

/// Checks a file, away from the threads that serve.
pub(crate) async fn judge(
    path: PathBuf,
    (model, options): (Model, Options),
) -> Result<Judgement, LabError> {
    let work = move || {
        let begin = Instant::now();
        let file = File::open(&path).map_err(|error| LabError::file(&path, error))?;
        let expired = || begin.elapsed() > CHECK_MAX;
        let mut budget = Budget::new(&expired, MEMORY_MAX_BYTES);
        let operations = operations(BufReader::new(file), &path);
        let report = check(operations, model, &options, &mut budget);
        let report = report.map_err(|error| LabError::Check(chain(&error)))?;
        Ok(Judgement {
            model,
            report,
            took: begin.elapsed(),
        })
    };
    let judged = tokio::task::spawn_blocking(work).await;
    judged.unwrap_or_else(|error| Err(LabError::Check(error.to_string())))
}
