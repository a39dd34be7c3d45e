//! Compiles the .proto files with `protox`, so that no `protoc` is needed.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    let files = [
        "quorate/v1/kv.proto",
        "quorate/v1/admin.proto",
        "quorate/v1/watch.proto",
        "quorate/v1/lease.proto",
        "etcd/rpc.proto",
        "etcd/lock.proto",
        "etcd/election.proto",
        "quorate/internal/v1/eventual.proto",
        "quorate/internal/v1/log.proto",
        "quorate/internal/v1/peer.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, [root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // Reflection shows clients the public surface only.
    let public = protox::compile(&files[..4], [root])?;
    std::fs::write(
        out.join("quorate_v1.bin"),
        prost::Message::encode_to_vec(&public),
    )?;
    let etcd = protox::compile(&files[4..7], [root])?;
    std::fs::write(
        out.join("etcd_v3.bin"),
        prost::Message::encode_to_vec(&etcd),
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        // In their order, so that a message has one encoding: runs are replayed and compared.
        .btree_map(".")
        .boxed(".quorate.internal.v1.Envelope.body.forward")
        .boxed(".quorate.internal.v1.Envelope.body.forward_response")
        .boxed(".quorate.internal.v1.Envelope.body.status_response")
        .boxed(".quorate.internal.v1.Envelope.body.snapshot")
        .boxed(".quorate.internal.v1.Envelope.body.eventual")
        .boxed(".quorate.internal.v1.Envelope.body.eventual_response")
        .boxed(".quorate.internal.v1.Envelope.body.events")
        .boxed(".quorate.internal.v1.Envelope.body.events_response")
        .boxed(".quorate.internal.v1.Envelope.body.etcd")
        .boxed(".quorate.internal.v1.Envelope.body.etcd_answer")
        .compile_fds(descriptors)?;
    Ok(())
}
