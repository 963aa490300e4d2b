//! C and C++ programs that tests build against the library: the compiler (`CC`, `CXX`, else `cc` and `c++`) and where the
//! library lies.

use std::path::PathBuf;
use std::process::{Command, Output};

/// What our own programs must be free of.
pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

pub fn compiler(cpp: bool) -> Command {
    let (var, default) = if cpp { ("CXX", "c++") } else { ("CC", "cc") };
    Command::new(std::env::var_os(var).unwrap_or_else(|| default.into()))
}

/// Says that a test cannot run here, for want of what; the tests' own output would be shown for those that fail alone. With
/// `DF11_NO_SKIP=1`, as in `make test`, it fails.
pub fn skip(test: &str, what: &str) {
    let strict = std::env::var_os("DF11_NO_SKIP").is_some_and(|value| value == "1");
    assert!(!strict, "missing: {what}; DF11_NO_SKIP=0 skips this test");
    let line = format!("{test}: skipped, missing: {what}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("missing: {:?} ({e})", command.get_program()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// The folder into which cargo put the library that these tests were built with: target/<profile>/deps. (One level up
/// lies what `cargo build` made last, which may be older.)
pub fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// A folder with the shared library under the names that the linker and the loader look for.
pub fn library() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let library = built().join("libdf11.so");
    assert!(library.exists(), "{} is missing: cargo builds it with the tests", library.display());
    let soname = format!("libdf11.so.{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    for name in ["libdf11.so", &soname] {
        std::os::unix::fs::symlink(&library, folder.path().join(name)).unwrap();
    }
    folder
}
