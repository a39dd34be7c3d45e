//! A client that knows nothing of ours: Python's grpcio, which learns the services by reflection.

use crate::harness::{Cluster, finish};

/// The interpreter; one with `grpcio`, `grpcio-reflection` and `grpcio-status` may be named.
const INTERPRETER_VARIABLE: &str = "QUORATE_PYTHON";
const SCRIPT: &str = include_str!("reflection.py");
const MODULES: &str = "import grpc, grpc_reflection.v1alpha.proto_reflection_descriptor_database";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_needs_nothing_but_reflection() {
    let python = std::env::var(INTERPRETER_VARIABLE).unwrap_or_else(|_| "python3".to_owned());
    let mut check = tokio::process::Command::new(&python);
    let has_modules = check.args(["-c", MODULES]).output().await;
    if !has_modules.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: {python} with grpcio and grpcio-reflection is not here; \
             {INTERPRETER_VARIABLE} names another interpreter"
        );
        return;
    }
    let cluster = Cluster::start(3).await;
    let mut command = tokio::process::Command::new(&python);
    command.args(["-c", SCRIPT, &cluster.endpoints()[0]]);
    let ran = finish(command, b"").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        cluster.expect(0, &["get", "from-python"]).await.text(),
        "hello"
    );
}
