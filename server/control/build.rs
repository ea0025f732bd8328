//! Compiles `proto/control.proto` with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/control.proto");
    let descriptors = protox::compile(["proto/control.proto"], ["proto"])?;
    // Passwords must not reach a log: `src/lib.rs` writes Debug for these two.
    let secret = ["AcceptedPassword", "ReplicationCredential"]
        .map(|message| format!(".redfleet.control.v1.{message}"));
    tonic_prost_build::configure()
        .skip_debug(secret)
        .compile_fds(descriptors)?;
    Ok(())
}
