//! `quorate completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::error::CliError;
use super::output::Output;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate completions bash > ~/.local/share/bash-completion/completions/quorate")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, mut output: Output) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quorate", &mut script);
    output.bytes(&script)?;
    output.flush()
}
