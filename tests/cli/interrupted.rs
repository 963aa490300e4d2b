//! `df11 compress` that does not come to its end: killed, interrupted, its files limited; and what `--resume` makes of it.
//! And how much memory it takes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::files::Stored;
use super::support::weights::{Random, gaussian};
use super::{Ran, compress::compress, df11, list, models, run_on};

/// Long enough for a slow machine; reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Begins to compress on one thread, which takes its time.
fn begin(source: &Path, out: &Path, more: &[&str]) -> Child {
    let mut command = df11();
    command.arg("compress").arg(source).arg("-o").arg(out).args(["--threads", "1"]).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: the child has not been waited for, so its number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}

/// Waits until something is so, or the child has ended.
fn wait_for(child: &mut Child, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "it never came so far");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// What says that a folder or file is unfinished.
fn marker(out: &Path) -> PathBuf {
    if out.extension().is_some_and(|e| e == "safetensors") {
        out.with_file_name(format!(".{}.df11-job", out.file_name().unwrap().to_str().unwrap()))
    } else {
        out.join(".df11-job.json")
    }
}

/// No reader takes it for a model.
fn is_refused(out: &Path) {
    assert!(out.is_dir() || !out.exists(), "a file has its name before it is finished");
    for (command, more) in [("inspect", &[][..]), ("verify", &[]), ("decompress", &["-o", "no-such-folder/x"])] {
        let ran = run_on(command, out, more);
        assert!(ran.code != 0 && ran.out.is_empty(), "{command}: {}{}", ran.out, ran.err);
        assert!(!ran.err.contains("no-such-folder"), "it was opened: {}", ran.err);
    }
}

/// Kills it again and again, and resumes each time: in the end there are the bytes of a run that nobody killed.
fn killed_again_and_again(out: &str) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    models::write_source(&source, &models::qwen3(38, 112_000), 3);
    let folder = |name: &str| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        (dir.path().join(name), dir.path().join(name).join(out))
    };
    let ((whole_in, whole), (killed_in, killed)) = (folder("whole"), folder("killed"));
    let start = Instant::now();
    Ran::of(begin(&source, &whole, &[]).wait_with_output().unwrap()).good();
    let took = start.elapsed();

    let mut random = Random::new(5);
    let mut kills = 0;
    for round in 0..8 {
        let mut child = begin(&source, &killed, if round == 0 { &[] } else { &["--resume"] });
        wait_for(&mut child, || marker(&killed).exists());
        // The first kills come before anything is finished, the others after more and more.
        std::thread::sleep(took.mul_f64(random.unit() * [0.02, 0.2, 0.4, 0.6][round.min(3)]));
        signal(&child, libc::SIGKILL);
        let output = child.wait_with_output().unwrap();
        if output.status.success() || (killed.is_file() && !killed.is_dir()) {
            // It was killed when all but the notes of its work was done, or not at all.
            break;
        }
        kills += 1;
        is_refused(&killed);
        if killed.is_dir() {
            compress(&source, &killed, &[]).bad(2, &["unfinished output of an earlier run", "--resume"]);
        }
    }
    assert!(kills >= 3, "it was too fast to be killed");
    let ended = !marker(&killed).exists();
    let json = compress(&source, &killed, if ended { &["--quiet"] } else { &["--resume", "--json"] });
    if !ended {
        let json: Value = serde_json::from_str(&json.good()).unwrap();
        assert_eq!((&json["complete"], &json["groups"]), (&true.into(), &40.into()));
    }
    models::same(&models::tree(&killed_in), &models::tree(&whole_in));
    run_on("verify", &killed, &["-q", "--against", source.to_str().unwrap()]).good();
}

#[test]
fn a_folder_that_was_killed_again_and_again() {
    killed_again_and_again("model");
}

#[test]
fn a_file_that_was_killed_again_and_again() {
    killed_again_and_again("model.safetensors");
}

/// Ctrl-C after some groups: what is finished stays, nothing half-written does in a folder, and it is said how to go
/// on. Before the first group is finished, no trace is left.
#[test]
fn ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    models::write_source(&source, &models::qwen3(20, 112_000), 2);
    let single = ["--single-file"];
    for (name, more, signals) in [
        ("out", &[][..], [libc::SIGINT, libc::SIGTERM]),
        ("one.safetensors", &[], [libc::SIGINT, libc::SIGHUP]),
        ("single", &single, [libc::SIGTERM, libc::SIGINT]),
    ] {
        let out = dir.path().join(name);
        let marker = marker(&if more.is_empty() { out.clone() } else { out.join("model.safetensors") });
        let finished = || match name {
            "out" => list(&out).iter().filter(|name| !name.starts_with('.')).count(),
            _ => std::fs::read_to_string(&marker).map_or(0, |text| text.lines().count().saturating_sub(1)),
        };
        for (groups, number) in [(0, signals[0]), (3, signals[1])] {
            let interrupted = (0..10).any(|_| {
                let mut child = begin(&source, &out, more);
                wait_for(&mut child, || marker.exists() && finished() >= groups);
                signal(&child, number);
                let ran = Ran::of(child.wait_with_output().unwrap());
                if ran.code == 2 && (groups > 0) == marker.exists() {
                    ran.bad(2, &["interrupted"]);
                    assert_eq!(
                        ran.err.contains("the same command with --resume resumes it"),
                        groups > 0,
                        "{}",
                        ran.err
                    );
                    return true;
                }
                // It was faster than this test: once more.
                clear(dir.path());
                false
            });
            assert!(interrupted, "it was never interrupted in time");
            if groups == 0 {
                assert_eq!(list(dir.path()), ["source"]);
                continue;
            }
            is_refused(&out);
            if name == "out" {
                let left: Vec<String> = list(&out).into_iter().filter(|name| name.starts_with('.')).collect();
                assert_eq!(left, [".df11-job.json", ".df11-part-1-of-1.df11-job"]);
            }
            if out.is_dir() {
                let ran = compress(&source, &out, more);
                ran.bad(
                    2,
                    &[
                        "unfinished",
                        "an earlier run: resume it, or remove ",
                        ". The same command with --resume resumes it",
                    ],
                );
            }
            let text = compress(&source, &out, &[more, &["--resume"]].concat()).good();
            let resumed = text.lines().find(|l| l.starts_with("resumed ")).unwrap_or_else(|| panic!("{text}"));
            assert!(resumed.ends_with(" groups of an earlier run"), "{text}");
            run_on("verify", &out, &["-q", "--against", source.to_str().unwrap()]).good();
        }
        clear(dir.path());
    }
}

/// Removes all but the source.
fn clear(folder: &Path) {
    for path in list(folder).iter().filter(|name| *name != "source").map(|name| folder.join(name)) {
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
}

/// Only the same source and the same options go on; and the refusal does not advise to do what was just refused.
#[test]
fn something_else_does_not_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (source, other) = (dir.path().join("source"), dir.path().join("other"));
    models::write_source(&source, &models::qwen3(2, 2048), 1);
    models::write_source(&other, &models::qwen3(3, 2048), 1);
    // An unfinished folder, without waiting for the right moment: one part of two.
    let out = dir.path().join("out");
    compress(&source, &out, &["--part", "1/2"]).good();
    let before = models::tree(&out);
    let cases: [(&Path, &[&str], &str); 5] = [
        (&other, &["--part", "1/2"], "begun from another source"),
        (&source, &["--part", "1/2", "--hashes"], "begun without hashes"),
        (&source, &["--part", "1/2", "--shapes"], "begun without shapes"),
        (&source, &["--part", "1/2", "--preset", "qwen3-tied"], "begun with other patterns"),
        (&source, &["--part", "1/3"], "begun in 2 parts"),
    ];
    for (source, more, what) in cases {
        let ran = compress(source, &out, &[more, &["--resume"]].concat());
        ran.bad(2, &[what]);
        assert!(!ran.err.contains("the same command with --resume"), "{}", ran.err);
        models::same(&models::tree(&out), &before);
    }
}

/// A power cut in the first line that a run writes: whatever is there of it, any run begins anew.
#[test]
fn a_first_note_that_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out.safetensors"));
    models::write_source(&source, &models::qwen3(2, 2048), 1);
    compress(&source, &out, &[]).good();
    let whole = std::fs::read(&out).unwrap();
    for more in [&[][..], &["--resume"]] {
        for text in ["", "{", r#"{"hashes":false,"par"#] {
            std::fs::remove_file(&out).unwrap();
            std::fs::write(marker(&out), text).unwrap();
            compress(&source, &out, more).good();
            assert!(std::fs::read(&out).unwrap() == whole && !marker(&out).exists(), "{more:?} {text}");
        }
    }
}

/// A limit on the size of files (`ulimit -f`): the error names the file that was too large, what was finished before it
/// stays, and with room it goes on.
#[test]
fn a_file_that_may_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out, whole) = (dir.path().join("source"), dir.path().join("out"), dir.path().join("whole"));
    let mut tensors = models::qwen3(4, 16_384);
    let large: Vec<u16> = gaussian(2 << 20, 0.02, 3);
    let name = "model.layers.3.mlp.down_proj.weight";
    *models::find(&mut tensors, name) = Stored { shape: vec![1 << 15, 64], ..models::plain(name, &large) };
    models::write_source(&source, &tensors, 2);
    compress(&source, &whole, &[]).good();
    let limited = |out: &Path, more: &[&str]| {
        let mut command = Command::new("sh");
        // In units of 512 bytes or of 1,024: enough for the small groups, too little for the large one.
        command.args(["-c", r#"ulimit -f 2000 && exec "$0" "$@""#, env!("CARGO_BIN_EXE_df11"), "compress"]);
        Ran::of(command.arg(&source).arg("-o").arg(out).args(["--threads", "1"]).args(more).output().unwrap())
    };
    for more in [&[][..], &["--resume"]] {
        limited(&out, more)
            .bad(2, &["cannot write", "model_layers_3.safetensors", "File too large", "--resume resumes it"]);
        let there = list(&out);
        assert!(there.contains(&"lm_head.safetensors".into()), "{there:?}");
        assert!(!there.iter().any(|name| name.ends_with(".df11-tmp") || name == "config.json"), "{there:?}");
        is_refused(&out);
    }
    let text = compress(&source, &out, &["--resume"]).good();
    assert!(text.contains("resumed "), "{text}");
    models::same(&models::tree(&out), &models::tree(&whole));
    // A single file has no room from the beginning, and leaves no trace.
    let before = list(dir.path());
    limited(&dir.path().join("one.safetensors"), &[]).bad(2, &["cannot write", "one.safetensors", "File too large"]);
    limited(&dir.path().join("single"), &["--single-file"]).bad(2, &["cannot write", "File too large"]);
    assert_eq!(list(dir.path()), before);
}

/// A merge has no room for the rest of the model: it says so, and the same command resumes it.
#[test]
fn a_merge_that_has_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out, whole) = (dir.path().join("source"), dir.path().join("out"), dir.path().join("whole"));
    let mut tensors = models::qwen3(2, 2048);
    tensors.push(Stored::new("visual.weight", df11::Dtype::U8, &[3 << 20], vec![7; 3 << 20]));
    models::write_source(&source, &tensors, 2);
    compress(&source, &whole, &[]).good();
    for part in ["1/2", "2/2"] {
        compress(&source, &out, &["--part", part]).good();
    }
    let before = models::tree(&out);
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -f 2000 && exec "$0" "$@""#, env!("CARGO_BIN_EXE_df11"), "merge"]);
    let ran = Ran::of(command.arg(&source).arg("-o").arg(&out).output().unwrap());
    ran.bad(2, &["cannot write", "model.safetensors", "File too large", "stays: the same command resumes it"]);
    models::same(&models::tree(&out), &before);
    is_refused(&out);
    run_on("merge", &source, &["-o", out.to_str().unwrap()]).good();
    models::same(&models::tree(&out), &models::tree(&whole));
}

/// Memory does not depend on the model: one of 200 MB takes what one of 60 MB does.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_model() {
    const MIB: u64 = 1 << 20;
    let peak = |matrix: usize, out: &str| {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        models::write_source(&source, &models::qwen3(38, matrix), 3);
        let mut command = df11();
        command.arg("compress").arg(&source).arg("-o").arg(dir.path().join(out)).args(["--threads", "2", "-q"]);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let most = super::support::programs::peak_of(child.id());
        Ran::of(child.wait_with_output().unwrap()).good();
        most
    };
    for out in ["out", "out.safetensors"] {
        let (small, large) = (peak(112_000, out), peak(374_976, out));
        println!("{out}: {small} and {large} bytes at most");
        assert!(small > MIB && small.abs_diff(large) < 8 * MIB && small.max(large) < 64 * MIB, "{small} {large}");
    }
}
