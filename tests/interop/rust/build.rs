//! Generates code from what `pydotcompute proto export` has written. It needs no protoc: the files are compiled already.

use prost::Message;
use prost_types::FileDescriptorSet;

const DESCRIPTORS: &str = "protos/descriptors.binpb";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={DESCRIPTORS}");
    let files = FileDescriptorSet::decode(&std::fs::read(DESCRIPTORS)?[..])?;
    let mut config = tonic_prost_build::Config::new();
    // So that a message can be put into an `Any`, and be recognized in one.
    config
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com");
    config.include_file("protos.rs");
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds_with_config(files, config)?;
    Ok(())
}
