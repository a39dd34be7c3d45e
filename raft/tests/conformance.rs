//! openraft's own conformance suite, on the node log and the engine.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use quorate_raft::testing::{Consensus, LogStore, RangeMachine};
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::engine::{Engine, EngineOptions};
use quorate_storage::log::{LogIdentity, LogOptions, NodeLog};

struct Builder;

/// Kept alive for as long as a store is tested.
struct Node {
    _log: NodeLog,
    _engine: Engine,
}

impl StoreBuilder<Consensus, LogStore, RangeMachine, Node> for Builder {
    async fn build(&self) -> Result<(Node, LogStore, RangeMachine), StorageError<Consensus>> {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let identity = LogIdentity {
            cluster: [7; 16],
            node: 1,
        };
        let options = LogOptions {
            segment_bytes: 1 << 20,
            large_segment_bytes: 1 << 20,
            first_segment_bytes: 1 << 20,
            ..LogOptions::default()
        };
        let log = NodeLog::open(disk.clone(), Path::new("/n/log"), identity, options).unwrap();
        let engine = Engine::open(disk, Path::new("/n/engine"), EngineOptions::default()).unwrap();
        let table = engine
            .open_range(1, (vec![].into(), vec![].into()))
            .unwrap();
        let machine = RangeMachine::open(table, None).unwrap();
        let store = LogStore::new(log.group(1));
        Ok((
            Node {
                _log: log,
                _engine: engine,
            },
            store,
            machine,
        ))
    }
}

#[test]
fn the_log_and_the_state_machine_are_what_openraft_expects() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}
