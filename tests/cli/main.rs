//! The tool `df11`, run as its users run it: what it prints, what it writes, what it leaves, and its exit codes.
#![cfg(feature = "cli")]

mod automatic;
mod compress;
mod decompress;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod full;
mod image;
mod inspect;
#[cfg(unix)]
mod interrupted;
#[cfg(target_os = "linux")]
mod looks;
mod manual;
mod messages;
mod models;
mod parts;
mod plan;
mod presets;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod schedulers;
#[path = "../support/mod.rs"]
mod support;
mod told;
mod verify;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Held by a test that may fill the shared memory of a container, and by those whose programs need some.
static SHARED_MEMORY: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// The tool, which finds nothing on its standard input, no settings in its environment, and no signal ignored: it leaves
/// ignored ones alone, and a shell that runs these tests in the background has SIGINT ignored.
fn df11() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_df11"));
    command.stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let defaults = || {
            for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                // SAFETY: sets a signal's default; safe between fork and exec.
                unsafe { libc::signal(number, libc::SIG_DFL) };
            }
            Ok(())
        };
        // SAFETY: it calls signal() alone, which may be called there.
        unsafe { command.pre_exec(defaults) };
    }
    command
}

/// What came of a run.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// Takes the output of a process, which must have ended by itself and without a panic.
    fn of(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("the tool writes UTF-8");
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert!(!err.contains("panicked"), "{err}");
        let code = output.status.code().unwrap_or_else(|| panic!("ended by a signal: {:?}\n{err}", output.status));
        Ran { code, out, err }
    }

    /// All went well, and there was nothing to warn of.
    #[track_caller]
    fn good(self) -> String {
        assert_eq!((self.code, &self.err[..]), (0, ""), "{}", self.out);
        self.out
    }

    /// It ended with this exit code and one line about an error, which says all of these.
    #[track_caller]
    fn bad(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        let errors: Vec<&str> = self.err.lines().filter(|l| !l.starts_with("df11: warning: ")).collect();
        assert!(matches!(errors[..], [line] if line.starts_with("df11: error: ")), "{}", self.err);
        for part in parts {
            assert!(errors[0].contains(part), "no '{part}' in: {}", self.err);
        }
    }
}

/// Runs the tool with these arguments.
fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Ran {
    Ran::of(df11().args(args).output().unwrap())
}

/// `df11 COMMAND PATH` and more arguments.
fn run_on(command: &str, path: impl AsRef<Path>, more: &[&str]) -> Ran {
    Ran::of(df11().arg(command).arg(path.as_ref()).args(more).output().unwrap())
}

/// The names of all that is in a folder, sorted.
fn list(folder: &Path) -> Vec<String> {
    let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn help_and_version_are_good() {
    assert_eq!(run(["--version"]).good(), format!("df11 {}\n", env!("CARGO_PKG_VERSION")));
    for (command, argument) in [
        ("inspect", "<MODEL>"),
        ("decompress", "<MODEL>"),
        ("verify", "<MODEL>"),
        ("compress", "<SOURCE>"),
        ("merge", "<SOURCE>"),
        ("image", "<MODEL>"),
    ] {
        assert!(run(["--help"]).good().contains(command));
        assert!(run([command, "--help"]).good().contains(argument), "{command}");
    }
    assert!(run(["--help"]).good().contains("presets"));
    assert!(run(["presets", "--help"]).good().contains("[NAME]"));
}

#[test]
fn wrong_usage_is_2() {
    let wrong: [&[&str]; 14] = [
        // Options of which the command would make no use.
        &["compress", "model", "-o", "out", "--any-version"],
        &["compress", "model", "-o", "out", "--config", "config.json"],
        &["merge", "model", "-o", "out", "--any-version"],
        &["presets", "--config", "config.json"],
        &["inspect", "model", "--threads", "2"],
        &[],
        &["explode"],
        &["inspect"],
        &["decompress", "model"],
        &["inspect", "model", "--plod", "x"],
        &["inspect", "model", "--group", "x"],
        &["verify", "model", "--threads", "0"],
        &["verify", "model", "--threads", "many"],
        &["verify", "model", "-q", "-v"],
    ];
    for args in wrong {
        let ran = run(args);
        assert_eq!((ran.code, &ran.out[..]), (2, ""), "{args:?}");
        let explained = ran.err.starts_with("df11: error: ") || args.is_empty() && ran.err.contains("Usage");
        assert!(explained, "{args:?}: {}", ran.err);
    }
}

#[test]
fn what_is_no_model_is_2_and_a_bad_one_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let (out, file) = (dir.path().join("out.safetensors"), dir.path().join("x.safetensors"));
    let out_args: &[&str] = &["-o", out.to_str().unwrap()];
    for (command, more) in [("inspect", &[][..]), ("decompress", out_args), ("verify", &[])] {
        run_on(command, "no/such/model", more).bad(2, &["'no/such/model'", "No such file"]);
        std::fs::write(&file, b"eight bytes and some").unwrap();
        run_on(command, &file, more).bad(2, &["x.safetensors", "not a safetensors file"]);
        std::fs::write(&file, b"\x40\0\0\0\0\0\0\0{\"a\":").unwrap();
        run_on(command, &file, more).bad(1, &["x.safetensors", "not a whole safetensors file"]);
        run_on(command, &file, &[more, &["--config", "no/such/config"]].concat()).bad(2, &["no/such/config"]);
        assert_eq!(list(dir.path()), ["x.safetensors"], "{command}");
    }
    run_on("inspect", tempfile::tempdir().unwrap(), &[]).bad(2, &["no *.safetensors"]);
}

/// An unknown version is refused, and accepted on request; a config given by hand takes the place of the model's.
#[test]
fn the_config_can_be_overruled() {
    let dir = tempfile::tempdir().unwrap();
    support::files::copy(&support::golden::model("tiny"), dir.path());
    let config = dir.path().join("config.json");
    std::fs::write(&config, support::files::config("9.0.0", r#"{"linear": []}"#)).unwrap();
    for command in ["inspect", "verify"] {
        run_on(command, dir.path(), &[]).bad(1, &["9.0.0"]);
        run_on(command, dir.path(), &["--any-version"]).good();
        let own = support::golden::model("tiny").join("config.json");
        run_on(command, dir.path(), &["--config", own.to_str().unwrap()]).good();
    }
    // A single file without a config: the names inside its groups come from the one given.
    let blocks = support::files::stored("block");
    let file = dir.path().join("alone.safetensors");
    std::fs::write(&file, support::files::file(&blocks)).unwrap();
    std::fs::remove_file(&config).unwrap();
    let ran = run_on("inspect", &file, &["--all"]);
    assert!(ran.out.contains("model.layers.0.part_3") && ran.err.starts_with("df11: warning: "), "{}", ran.err);
    assert_eq!(run_on("inspect", &file, &["-q"]).good(), run_on("inspect", &file, &[]).out);
    let config = support::golden::model("block").join("config.json");
    let out = run_on("inspect", &file, &["--all", "--config", config.to_str().unwrap()]).good();
    assert!(out.contains("model.layers.0.self_attn.o_proj.weight"), "{out}");
}
