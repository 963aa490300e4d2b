//! Gives the shared library its name in ELF, and tells the library whether it is optimised. Nothing here reads the network or needs a CUDA toolkit.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    // Code that is not optimised has frames of another size: src/host/threads.rs.
    println!("cargo:rustc-check-cfg=cfg(df11_unoptimised)");
    if var("OPT_LEVEL") == "0" {
        println!("cargo:rustc-cfg=df11_unoptimised");
    }
    // cargo-c names it: by the same rule, which bindings/packages/cinstall.sh compares.
    if !var("CARGO_FEATURE_CAPI").is_empty() {
        return;
    }
    // The soname carries the number that changes when the ABI breaks: the major version, and before 1.0 the
    // minor one too, as Cargo's own compatibility rule has it.
    let major = var("CARGO_PKG_VERSION_MAJOR");
    let abi = if major == "0" { format!("0.{}", var("CARGO_PKG_VERSION_MINOR")) } else { major };
    match var("CARGO_CFG_TARGET_OS").as_str() {
        "linux" | "freebsd" | "netbsd" | "openbsd" => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libdf11.so.{abi}");
        }
        // Applications there carry libraries without numbers.
        "android" => println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libdf11.so"),
        _ => {}
    }
}
