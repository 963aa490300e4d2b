//! Notes which compiler builds the benchmarks: results name it.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok().and_then(|o| String::from_utf8(o.stdout).ok());
    println!("cargo:rustc-env=BENCH_RUSTC={}", version.as_deref().map_or("unknown", str::trim));
    println!("cargo:rustc-env=BENCH_TARGET={}", std::env::var("TARGET").unwrap_or_default());
}
