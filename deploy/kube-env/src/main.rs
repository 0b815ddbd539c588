//! `cargo xtask kube-env --run`: an environment for a person, in the foreground.
//!
//! Prints the path of a kubeconfig and stays until it is interrupted; then both servers end, and their directory goes.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use bulkhead_kube_env::{KubeEnv, Options};
use clap::Parser;

#[derive(Parser)]
#[command(
    name = "bulkhead-kube-env",
    about = "A Kubernetes API server and etcd, in the foreground"
)]
struct Cli {
    /// Where the API server listens
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
            .context("cannot wait for signals")?;
    let env = KubeEnv::with(Options {
        address: cli.address,
        ..Options::default()
    })?;
    println!("API server:  {}", env.url());
    println!("kubeconfig:  {}", env.kubeconfig_file("admin")?.display());
    println!("kubectl:     {}", env.parts().kubectl.display());
    println!("helm:        {}", env.parts().helm.display());
    println!("Ctrl-C ends it and removes all that is in it.");
    signals.forever().next();
    Ok(())
}
