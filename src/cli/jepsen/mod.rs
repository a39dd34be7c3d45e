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
    /// Print the mistakes that servers can be told to make, a line each
    #[cfg(feature = "planted-faults")]
    #[command(hide = true)]
    Plants,
    /// Put the same clients on both sides of one cut, at every level, and show who is served what
    Compare(compare::CompareArgs),
}

pub(super) async fn run(command: JepsenCommand, output: Output) -> Result<(), CliError> {
    match command {
        JepsenCommand::Check(args) => check::run(&args, output),
        JepsenCommand::Run(args) => run::run(args, output).await,
        #[cfg(feature = "planted-faults")]
        JepsenCommand::Plants => plants(output),
        JepsenCommand::Compare(args) => compare::run(args, output).await,
    }
}

#[cfg(feature = "planted-faults")]
fn plants(mut output: Output) -> Result<(), CliError> {
    for plant in crate::planted::TABLE {
        output.line(format!("{}\t{}", plant.name, plant.what))?;
    }
    output.flush()
}
