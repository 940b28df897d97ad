//! Compiles the .proto files without protoc.

const FILES: [&str; 6] = [
    "mvccpb/kv.proto",
    "authpb/auth.proto",
    "etcdserverpb/rpc.proto",
    "v3lockpb/v3lock.proto",
    "v3electionpb/v3election.proto",
    "grpc/health/v1/health.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let files = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".")
        // Records and events come from the store in wire form already: see `encoded.rs`.
        .extern_path(".mvccpb.KeyValue", "crate::encoded::KeyValue")
        .extern_path(".mvccpb.Event", "crate::encoded::Event")
        .compile_fds(files)?;
    Ok(())
}
