//! The `quorate` binary: hands the command line to the library and turns its verdict into an
//! exit code. Nothing else lives here.

use std::process::ExitCode;

/// Allocation is on the path of every request; mimalloc keeps it short and flat.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quorate::cli::main()
}
