//! For C and C++ programs that tests build against the library: the compiler (`CC`, `CXX`, else `cc` and `c++`) and the folder of
//! the library.

use std::path::PathBuf;
use std::process::{Command, Output};

/// Flags with which our own programs must compile.
pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

pub fn compiler(cpp: bool) -> Command {
    let (var, default) = if cpp { ("CXX", "c++") } else { ("CC", "cc") };
    Command::new(std::env::var_os(var).unwrap_or_else(|| default.into()))
}

/// Runs a command and asserts that it succeeds.
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

/// Waits for the end of a process, which must be a child that nobody has waited for, and returns the most bytes of memory that it
/// had. The system's count of the highest so far is gone with the process; what wait4 tells has the parent's in it.
pub fn peak_of(pid: u32) -> u64 {
    let mut most = 0;
    loop {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ended = text.is_empty() || text.lines().any(|line| line.starts_with("State:") && line.contains('Z'));
        let kib =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) << 10);
        if ended {
            return most;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Returns the folder in which cargo has put the library that these tests were built with: target/<profile>/deps. (The library one
/// level up is what `cargo build` made last, which may be older.)
pub fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// Makes a folder with the shared library under the names that the linker and the loader look for.
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
