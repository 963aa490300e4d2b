//! Links the shared library so that it takes its own entry points for its own, whatever else in the process has such names
//! (and so that a copy which lacks a name still loads).

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    println!("cargo::rerun-if-changed=build.rs");
}
