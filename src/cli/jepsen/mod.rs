//! `quorate jepsen`: a cluster through faults, its levels through one cut, and histories held against
//! models.

mod check;
mod compare;
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
    /// Put the same clients on both sides of one cut, at every level, and show who is served what
    Compare(compare::CompareArgs),
}

pub(super) async fn run(command: JepsenCommand, output: Output) -> Result<(), CliError> {
    match command {
        JepsenCommand::Check(args) => check::run(&args, output),
        JepsenCommand::Run(args) => run::run(args, output).await,
        JepsenCommand::Compare(args) => compare::run(args, output).await,
    }
}
