//! The command line: what can be typed, and which part does it.
//!
//! One file a command. Each takes its parsed arguments, talks to the cluster through the client
//! library, writes results to [`output::Output`], and ends with `Ok` or a [`CliError`], which
//! `exit` turns into the process's exit code.

mod bench;
mod cached;
mod cas;
mod colour;
mod completions;
mod config;
mod consistency;
mod context;
mod converge;
mod delete;
mod dev;
mod edit;
mod error;
mod exec;
pub mod exit;
mod explain;
mod flag;
mod get;
mod global;
mod history;
mod input;
mod jepsen;
pub mod json;
mod keyspace;
mod lease;
mod lock;
mod metrics;
mod node;
mod outcome;
pub mod output;
mod put;
mod ranges;
mod render;
mod repair;
mod replace;
mod resolve;
mod ring;
mod scan;
pub mod server;
mod signal;
mod simulate;
mod status;
mod storage;
mod table;
mod transfer;
mod txn;
mod typed;
mod update;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

pub use error::CliError;
use exit::Exit;
use global::GlobalArgs;

/// A key-value store in which every request picks its own consistency
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:
  quorate dev                      # a cluster on this machine, in another terminal
  quorate put greeting hello
  quorate get greeting

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not there, 4 a condition did not hold,
5 cannot be served now, 6 outcome unknown, 7 data loss. Only 6 may have had an effect."
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start a local cluster, one process a node, and stay in front
    Dev(dev::DevArgs),
    /// Run one node in front
    #[command(after_help = server::EXAMPLE)]
    Server(Box<server::ServerArgs>),
    /// Write a key
    Put(put::PutArgs),
    /// Read a key
    Get(get::GetArgs),
    /// Remove keys, or all keys of a prefix
    Delete(delete::DeleteArgs),
    /// List keys and values of a prefix, in order
    Scan(scan::ScanArgs),
    /// List the committed versions of a key, newest first
    History(history::HistoryArgs),
    /// Show each put and delete of a prefix as it is decided
    Watch(watch::WatchArgs),
    /// Write a key if it is as expected
    Cas(cas::CasArgs),
    /// Compare, then write, atomically
    Txn(txn::TxnArgs),
    /// Add to a counter
    Incr(update::IncrArgs),
    /// Add elements to a set
    SetAdd(update::SetAddArgs),
    /// Remove elements from a set
    SetRemove(update::SetRemoveArgs),
    /// Put a value into a field of a map
    MapPut(update::MapPutArgs),
    /// Remove fields of a map
    MapRemove(update::MapRemoveArgs),
    /// Show the concurrent values of a key, and put one in their place
    Resolve(resolve::ResolveArgs),
    /// Ask what became of a write whose answer was lost
    Outcome(outcome::OutcomeArgs),
    /// Create, change, list, show and drop keyspaces
    #[command(subcommand)]
    Keyspace(keyspace::KeyspaceCommand),
    /// Make, keep, end and show leases: keys that go when nobody keeps them
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Run a command while a lock is held
    Lock(lock::LockArgs),
    /// Be elected, and lead until stopped
    Elect(lock::ElectArgs),
    /// Keep configuration: bundles of keys that change in one step, and the way back
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Run a command with configuration as its environment
    Exec(exec::ExecArgs),
    /// Fill a template with configuration, once or whenever that changes
    Render(render::RenderArgs),
    /// Feature flags: set them, and say which value they have for somebody
    #[command(subcommand)]
    Flag(flag::FlagCommand),
    /// Store a folder's files, or lines of JSON, as keys
    Import(transfer::ImportArgs),
    /// Write keys as a folder's files, or as lines of JSON
    Export(transfer::ExportArgs),
    /// Show the nodes
    Status(status::StatusArgs),
    /// Show ranges and their replicas
    Ranges(ranges::RangesArgs),
    /// Show each node's share of the ring
    Ring(ring::RingArgs),
    /// Say which levels could be met now, at what cost, and what would have to fail
    Explain(explain::ExplainArgs),
    /// Print a node's metrics
    Metrics(metrics::MetricsArgs),
    /// Replace a node that is lost
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Compare replicas of the eventual plane now, and mend what differs
    Repair(repair::RepairArgs),
    /// Wait until all primaries hold what a session or a reader has seen
    Await(converge::AwaitArgs),
    /// Put load on a cluster and measure it
    Bench(bench::BenchArgs),
    /// Look into a stopped node's folder
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    /// Put a cluster through faults and check what it did; check recorded histories
    #[command(subcommand)]
    Jepsen(jepsen::JepsenCommand),
    /// Play whole clusters through faults in one thread, by seed, and replay what fails
    Simulate(simulate::SimulateArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Wrong usage ends here: clap says what is wrong, and exits with 2.
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            error.report();
            error.exit().into()
        }
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    let runtime = runtime(&cli.command)?;
    let result = runtime.block_on(dispatch(cli));
    // A thread may still wait for standard input or a disk; nobody waits for it.
    runtime.shutdown_background();
    result
}

/// One thread is enough, and starts faster, where one request is sent.
fn runtime(command: &Command) -> Result<Runtime, CliError> {
    let mut builder = match command {
        Command::Server(_)
        | Command::Bench(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::Jepsen(_)
        | Command::Simulate(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build().map_err(|error| {
        CliError::refused(
            Exit::Failed,
            format!("cannot start the runtime: {error}"),
            "",
        )
    })
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    let global = cli.global;
    match cli.command {
        Command::Dev(args) => dev::run(args).await,
        Command::Server(args) => server::run(*args).await,
        Command::Storage(command) => storage::run(command, global.output()),
        Command::Jepsen(command) => jepsen::run(command, global.output()).await,
        Command::Simulate(args) => simulate::run(&args, global.output()).await,
        Command::Completions(args) => completions::run(&args, global.output()),
        Command::Put(args) => put::run(args, global.session()?).await,
        Command::Get(args) => get::run(args, global.session()?).await,
        Command::Delete(args) => delete::run(args, global.session()?).await,
        Command::Scan(args) => scan::run(args, global.session()?).await,
        Command::History(args) => history::run(args, global.session()?).await,
        Command::Watch(args) => watch::run(args, global.session()?).await,
        Command::Cas(args) => cas::run(args, global.session()?).await,
        Command::Txn(args) => txn::run(args, global.session()?).await,
        Command::Incr(args) => update::incr(args, global.session()?).await,
        Command::SetAdd(args) => update::set_add(args, global.session()?).await,
        Command::SetRemove(args) => update::set_remove(args, global.session()?).await,
        Command::MapPut(args) => update::map_put(args, global.session()?).await,
        Command::MapRemove(args) => update::map_remove(args, global.session()?).await,
        Command::Resolve(args) => resolve::run(args, global.session()?).await,
        Command::Outcome(args) => outcome::run(args, global.session()?).await,
        Command::Keyspace(command) => keyspace::run(command, global.session()?).await,
        Command::Lease(command) => lease::run(command, global.session()?).await,
        Command::Lock(args) => lock::lock(args, global.session()?).await,
        Command::Elect(args) => lock::elect(args, global.session()?).await,
        Command::Config(command) => config::run(command, global.session()?).await,
        Command::Exec(args) => exec::run(args, global.session()?).await,
        Command::Render(args) => render::run(args, global.session()?).await,
        Command::Flag(command) => flag::run(command, global.session()?).await,
        Command::Import(args) => transfer::import(args, global.session()?).await,
        Command::Export(args) => transfer::export(args, global.session()?).await,
        Command::Status(_) => status::run(global.session()?).await,
        Command::Ranges(args) => ranges::run(args, global.session()?).await,
        Command::Ring(args) => ring::run(args, global.session()?).await,
        Command::Explain(args) => explain::run(args, global.session()?).await,
        Command::Metrics(args) => metrics::run(args, global.session()?).await,
        Command::Node(command) => node::run(command, global.session()?).await,
        Command::Repair(args) => repair::run(args, global.session()?).await,
        Command::Await(args) => converge::run(args, global.session()?).await,
        Command::Bench(args) => {
            let client = global.client_options()?;
            bench::run(args, client, global.output()).await
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                if sub.has_subcommands() {
                    check(sub, &path);
                    continue;
                }
                let help = sub.get_after_help().map(ToString::to_string);
                assert!(
                    help.is_some_and(|text| text.contains("Example") && text.contains(&path)),
                    "`{path} --help` shows no example"
                );
            }
        }
        check(&Cli::command(), "quorate");
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn lines_that_scripts_use_parse() {
        for line in [
            "quorate dev --nodes 3 --dir d --port 0 --ready-file f",
            "quorate server --id 1 --dir d --listen 127.0.0.1:7450 --peer 2=127.0.0.1:7452",
            "quorate server --config f.toml",
            "quorate put k v",
            "quorate put k -5",
            "quorate put k v --lease c7",
            "quorate cas k v --absent --lease 00000000000000c7",
            "quorate put k v --lock job=7",
            "quorate delete k --lock job=7",
            "quorate lock job --ttl 5s --wait 0s -- true -x",
            "quorate elect job me",
            "quorate lease grant --ttl 30s --id c7",
            "quorate lease grant 60 --id c7",
            "quorate config quota set app --max-keys 7 --max-bytes 9",
            "quorate config quota show",
            "quorate lease keep-alive c7",
            "quorate lease keep-alive c7 --once",
            "quorate lease revoke c7",
            "quorate lease show c7 --keys",
            "quorate put k -",
            "quorate put k -f file",
            "quorate put k -f -",
            "quorate --endpoints a:1,b:2 put k v --keyspace ks --timeout 5s --output json --receipt",
            "quorate get k --raw --at 7 --level linearizable",
            "quorate get k --level bounded:5s --token f",
            "quorate delete a b c",
            "quorate delete --prefix p",
            "quorate delete k --revision 7",
            "quorate scan",
            "quorate scan p --limit 5 --keys-only --at 7",
            "quorate history k",
            "quorate watch",
            "quorate watch p --from 7 --previous --no-deletes --progress 1s --limit 5",
            "quorate watch --key k --output json",
            "quorate watch --start a --end b --no-puts",
            "quorate watch p --tentative",
            "quorate cas k v --revision 7",
            "quorate cas k v --absent",
            "quorate txn f.json",
            "quorate put k v --level eventual:one --context f",
            "quorate get k --level eventual:quorum --context f",
            "quorate delete k --level eventual:all --context f",
            "quorate incr k",
            "quorate incr k -5 --context f",
            "quorate set-add k a b",
            "quorate set-remove k a --context f",
            "quorate map-put k field v",
            "quorate map-put k field -f file",
            "quorate map-remove k field other",
            "quorate resolve k",
            "quorate resolve k --pick 2",
            "quorate resolve k --value v --level eventual:all",
            "quorate resolve k -f -",
            "quorate resolve k --edit",
            "quorate resolve k --delete",
            "quorate put k v --level eventual:one --await committed",
            "quorate await --token f --timeout 5s",
            "quorate await k --context f",
            "quorate get k --level session --token f --best-available",
            "quorate ring --ranges",
            "quorate ring --ranges --of ks",
            "quorate outcome r7-00c0ffee00000001-42",
            "quorate keyspace create n --mode strong --partitioning hash(16) --replication 3 --history 5m",
            "quorate keyspace alter n --history 1h",
            "quorate keyspace list",
            "quorate keyspace show n",
            "quorate keyspace drop n",
            "quorate config diff p d --prune --exit-code",
            "quorate config apply p f.yaml --author me -m why --yes",
            "quorate config apply p d --dry-run --no-check --output json",
            "quorate config schema set p f.json",
            "quorate config schema show",
            "quorate config schema drop p",
            "quorate config history p --limit 3",
            "quorate config rollback p",
            "quorate config rollback p 3 --prune -y",
            "quorate config show p --step 3",
            "quorate config show p --layers base,env/prod --explain",
            "quorate resolve k --merge --base 7",
            "quorate config export p d --step 3",
            "quorate exec --prefix p -- env",
            "quorate exec --prefix p --restart --pristine --no-upcase -- sh -c x",
            "quorate exec --prefix p --cache d --level linearizable@1s>cached:1h -- env",
            "quorate render t.j2 out --prefix p",
            "quorate render t.j2 out --on-change x --cache d",
            "quorate flag set f true",
            "quorate flag set f --percent 25 --enable",
            "quorate flag set f -f d.json",
            "quorate flag get f --for me --with a=1 --default false --type boolean",
            "quorate flag explain f --for me",
            "quorate flag list --prefix p/",
            "quorate import d --prefix p",
            "quorate export p --to d",
            "quorate export --to f.jsonl",
            "quorate status",
            "quorate ranges --output json",
            "quorate ring",
            "quorate metrics",
            "quorate node replace 3",
            "quorate bench --workload mixed:0.9 --clients 4 --depth 8 --value-bytes 256 --keys 100 --duration 10s --level stale --output json",
            "quorate storage inspect d",
            "quorate jepsen check --model cas-register h.edn",
            "quorate jepsen check --model list-append --independent --consistency serializable --output json h.edn",
            "quorate jepsen check --model bank --negative-balances h.edn",
            "quorate jepsen check --model long-fork --group-size 3 h.edn",
            "quorate completions bash",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "quorate put k",
            "quorate put k v -f file",
            "quorate put k --lvel",
            "quorate cas k v",
            "quorate cas k v --absent --revision 7",
            "quorate delete",
            "quorate delete k --prefix p",
            "quorate get k --level strongest",
            "quorate get k --timeout -5s",
            "quorate get k --timeout 2d",
            "quorate get k --timeout 0",
            "quorate get k --at -1",
            "quorate keyspace create n --mode weak",
            "quorate bench --workload nap",
            "quorate bench --workload put --clients 0",
            "quorate incr k much",
            "quorate incr k 9223372036854775808",
            "quorate set-add k",
            "quorate map-put k field",
            "quorate resolve k --pick 1 --delete",
            "quorate resolve k --pick 1 --merge",
            "quorate config show p --explain",
            "quorate ring --of ks",
            "quorate exec --prefix p",
            "quorate exec --prefix p --level cached -- env",
            "quorate flag set f --percent 101",
            "quorate flag set f true --percent 5",
            "quorate flag get f --with a",
            "quorate await",
            "quorate await k",
            "quorate await k --token f",
            "quorate get k --best-available",
            "quorate jepsen check h.edn",
            "quorate jepsen check --model clock h.edn",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_level_that_is_unknown_says_what_is_allowed() {
        let error = parse("quorate get k --level strongest").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("linearizable"), "{text}");
    }
}
