//! Builds the BPF object that `src/bpf.rs` embeds.
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ebpf");
    let watch = ["abi", "packet", "pipeline"].map(|name| root.join(name).join("src"));
    let watch: Vec<&Path> = watch.iter().map(std::path::PathBuf::as_path).collect();
    bulkhead_ebpf_build::build("bulkhead-programs", &root.join("programs"), &watch)?;
    Ok(())
}
