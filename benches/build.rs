//! Builds the harness's BPF programs, which `src/object.rs` embeds.
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    bulkhead_ebpf_build::build("bulkhead-bench-programs", &programs, &[])?;
    Ok(())
}
