//! Makes Rust types and service traits from `protos/`, without protoc.

use std::path::PathBuf;

const ROOT: &str = "protos";

/// Every service of the API; what they import is found through them.
const SERVICES: [&str; 9] = [
    "etcdserverpb/auth.proto",
    "etcdserverpb/cluster.proto",
    "etcdserverpb/kv.proto",
    "etcdserverpb/lease.proto",
    "etcdserverpb/maintenance.proto",
    "etcdserverpb/watch.proto",
    "grpc/health/v1/health.proto",
    "v3electionpb/election.proto",
    "v3lockpb/lock.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let files = protox::compile(SERVICES, [ROOT])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".")
        .codec_path("crate::codec::WireCodec")
        .extern_path(".mvccpb.KeyValue", "crate::mvccpb::KeyValue")
        .extern_path(".mvccpb.Event", "crate::mvccpb::Event")
        .compile_fds(files)?;

    // What nodes and their witness say to each other.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(protox::compile(
            ["kine2/peer.proto", "kine2/witness.proto"],
            [ROOT],
        )?)?;

    // The same two messages of etcd taken apart, for those who read them.
    let decoded = PathBuf::from(std::env::var("OUT_DIR")?).join("decoded");
    std::fs::create_dir_all(&decoded)?;
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(decoded)
        .compile_fds(protox::compile(["mvccpb/kv.proto"], [ROOT])?)?;
    Ok(())
}
