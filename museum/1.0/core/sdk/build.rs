//! Which compiler builds the plugin, and for what: its manifest says so.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler).arg("--version").output().ok().filter(|output| output.status.success());
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    // `rustc 1.95.0 (59807616e 2026-04-14)`
    println!("cargo::rustc-env=STANDPIPE_RUSTC={}", version.split_whitespace().nth(1).unwrap_or("unknown"));
    println!("cargo::rustc-env=STANDPIPE_TARGET={}", env::var("TARGET").unwrap_or_default());
}
