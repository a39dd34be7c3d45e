//! `quorate jepsen`: a cluster through faults, and histories held against models.

mod check;
mod matrix;
mod run;

use clap::Subcommand;

use super::error::CliError;
use super::output::Output;

#[derive(Debug, Subcommand)]
pub(super) enum JepsenCommand {
    /// Say whether a recorded history fits a model
    Check(check::CheckArgs),
    /// Start a cluster, make faults, record what clients see, and check it
    Run(run::RunArgs),
}

pub(super) async fn run(command: JepsenCommand, output: Output) -> Result<(), CliError> {
    match command {
        JepsenCommand::Check(args) => check::run(&args, output),
        JepsenCommand::Run(args) => run::run(args, output).await,
    }
}
