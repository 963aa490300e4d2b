//! The tool as a process among others: signals, limits, pipes that close, disks that are full.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::support::{files, golden};
use super::{Ran, df11, list, models};

/// Long enough for a slow machine; reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: the child has not been waited for, so its number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}

/// Begins to decompress half a gigabyte into an empty folder, and stops the process while its file is unfinished.
fn half_done(model: &Path, folder: &Path, mut command: Command) -> Child {
    let (out, unfinished) = (folder.join("out.safetensors"), folder.join(".out.safetensors.df11-tmp"));
    command.arg("decompress").arg(model).arg("-o").arg(&out).stdout(Stdio::piped()).stderr(Stdio::piped());
    for _ in 0..10 {
        let child = command.spawn().unwrap();
        let start = Instant::now();
        // It has locked its file before that has its size.
        while !out.exists() && !unfinished.metadata().is_ok_and(|meta| meta.len() > 0) {
            if start.elapsed() > PATIENCE {
                signal(&child, libc::SIGKILL);
                panic!("it never began: {:?}", child.wait_with_output());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        signal(&child, libc::SIGSTOP);
        if !out.exists() {
            return child;
        }
        // It was faster than this test: once more.
        signal(&child, libc::SIGCONT);
        assert!(child.wait_with_output().unwrap().status.success());
        std::fs::remove_file(&out).unwrap();
    }
    panic!("it was always done before it could be stopped");
}

/// Ctrl-C and its relatives while a file is half-written: exit code 2, and the folder is as it was.
#[test]
fn an_interrupted_decompress_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (model, folder) = (dir.path().join("m.safetensors"), dir.path().join("out"));
    models::write_hollow(&model, 512 << 20);
    std::fs::create_dir(&folder).unwrap();
    'signals: for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        for _ in 0..10 {
            let child = half_done(&model, &folder, df11());
            let unfinished = list(&folder);
            assert_eq!(unfinished, [".out.safetensors.df11-tmp"]);
            signal(&child, number);
            signal(&child, libc::SIGCONT);
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                // It was stopped at its very end, when the file was complete and only its name was missing.
                assert_eq!(list(&folder), ["out.safetensors"]);
                std::fs::remove_file(folder.join("out.safetensors")).unwrap();
                continue;
            }
            Ran::of(output).bad(2, &["interrupted"]);
            assert!(list(&folder).is_empty(), "{:?}", list(&folder));
            continue 'signals;
        }
        panic!("ten times it was done before signal {number} reached it");
    }
}

/// A process that was killed leaves its unfinished file, under a name that the next one for the same destination knows: that one
/// removes it. Of a process that still runs it is left alone.
#[test]
fn a_killed_decompress_leaves_nothing_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let (model, folder) = (dir.path().join("m.safetensors"), dir.path().join("out"));
    models::write_hollow(&model, 512 << 20);
    std::fs::create_dir(&folder).unwrap();
    let out = folder.join("out.safetensors");
    let decompress = || Ran::of(df11().arg("decompress").arg(&model).arg("-o").arg(&out).output().unwrap());
    let child = half_done(&model, &folder, df11());
    decompress().bad(2, &["another process is writing", "out.safetensors"]);
    assert_eq!(list(&folder), [".out.safetensors.df11-tmp"]);
    signal(&child, libc::SIGKILL);
    assert!(!child.wait_with_output().unwrap().status.success());
    assert_eq!(list(&folder), [".out.safetensors.df11-tmp"]);
    decompress().good();
    assert_eq!(list(&folder), ["out.safetensors"]);
    // One that goes on after it was stopped is not disturbed by another that was refused.
    std::fs::remove_file(&out).unwrap();
    let child = half_done(&model, &folder, df11());
    decompress().bad(2, &["another process is writing"]);
    signal(&child, libc::SIGCONT);
    Ran::of(child.wait_with_output().unwrap()).good();
    assert_eq!(list(&folder), ["out.safetensors"]);
}

/// A model of so many tensors of 64 MiB that take no room on the disk.
fn write_hollows(file: &Path, count: u64) {
    const BYTES: u64 = 64 << 20;
    let tensor = |i: u64| {
        let (from, to) = (i * BYTES, (i + 1) * BYTES);
        format!(r#""t{i}":{{"dtype":"U8","shape":[{BYTES}],"data_offsets":[{from},{to}]}}"#)
    };
    let header = format!("{{{}}}", (0..count).map(tensor).collect::<Vec<_>>().join(","));
    std::fs::write(file, files::raw(&header, &[])).unwrap();
    let bytes = 8 + header.len() as u64 + count * BYTES;
    std::fs::File::options().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

/// Begins to decompress to a folder, and stops the process when some of its files have their names and others do not.
fn half_a_folder(model: &Path, out: &Path) -> Child {
    for _ in 0..10 {
        let mut command = df11();
        command.arg("decompress").arg(model).arg("-o").arg(out).args(["--shard-bytes", "64MiB", "--threads", "1"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        let named = || out.is_dir() && list(out).iter().any(|name| name.starts_with("model-"));
        while !named() {
            if start.elapsed() > PATIENCE {
                signal(&child, libc::SIGKILL);
                panic!("it never began: {:?}", child.wait_with_output());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        signal(&child, libc::SIGSTOP);
        if out.join(".df11-job.json").exists() {
            return child;
        }
        // It was faster than this test: once more.
        signal(&child, libc::SIGCONT);
        assert!(child.wait_with_output().unwrap().status.success());
        std::fs::remove_dir_all(out).unwrap();
    }
    panic!("it was always done before it could be stopped");
}

/// A folder that is half-written is no model, and nobody else writes there. Ctrl-C leaves nothing of it, and what a killed process
/// has left is gone when the next one has written there, whatever the sizes of its files.
#[test]
fn half_a_folder_is_nobodys_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("m.safetensors"), dir.path().join("new/out"));
    write_hollows(&model, 8);
    let decompress =
        |more: &[&str]| Ran::of(df11().arg("decompress").arg(&model).arg("-o").arg(&out).args(more).output().unwrap());
    let child = half_a_folder(&model, &out);
    decompress(&[]).bad(2, &["another process is writing", "out"]);
    assert_eq!(Ran::of(df11().arg("inspect").arg(&out).output().unwrap()).code, 1, "it is taken for a model");
    signal(&child, libc::SIGINT);
    signal(&child, libc::SIGCONT);
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        Ran::of(output).bad(2, &["interrupted"]);
        assert_eq!(list(dir.path()), ["m.safetensors"]);
    }
    let _ = std::fs::remove_dir_all(&out);

    let child = half_a_folder(&model, &out);
    signal(&child, libc::SIGKILL);
    child.wait_with_output().unwrap();
    let left = list(&out);
    assert!(
        left.iter().any(|name| name.starts_with("model-")) && left.contains(&".df11-job.json".to_owned()),
        "{left:?}"
    );
    // What is not the killed process's stays, and is in the way.
    std::fs::write(out.join("notes"), "mine").unwrap();
    decompress(&[]).bad(2, &["is not empty", "'notes'"]);
    assert_eq!(list(&out), ["notes"], "all else was the killed process's");
    std::fs::remove_file(out.join("notes")).unwrap();

    let child = half_a_folder(&model, &out);
    signal(&child, libc::SIGKILL);
    child.wait_with_output().unwrap();
    decompress(&["--shard-bytes", "256MiB"]).good();
    let names = [1, 2].map(|i| format!("model-{i:05}-of-00002.safetensors"));
    assert_eq!(list(&out), [&names[0][..], &names[1], "model.safetensors.index.json"]);
}

/// Whoever starts the tool may have signals ignored (`nohup` does): then they are.
#[test]
fn signals_that_are_ignored_stay_so() {
    let dir = tempfile::tempdir().unwrap();
    let (model, folder) = (dir.path().join("m.safetensors"), dir.path().join("out"));
    models::write_hollow(&model, 512 << 20);
    std::fs::create_dir(&folder).unwrap();
    let mut command = df11();
    // SAFETY: signal may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        })
    };
    let child = half_done(&model, &folder, command);
    signal(&child, libc::SIGHUP);
    signal(&child, libc::SIGCONT);
    Ran::of(child.wait_with_output().unwrap()).good();
    assert_eq!(list(&folder), ["out.safetensors"]);
}

/// With nothing to clean up the process ends at once.
#[test]
fn an_interrupted_verify_is_2() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.safetensors");
    models::write_hollow(&model, 64 << 30);
    let mut command = df11();
    command.arg("verify").arg(&model).arg("--against").arg(&model).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("0 groups good"), "{line}");
    let start = Instant::now();
    signal(&child, libc::SIGINT);
    Ran::of(child.wait_with_output().unwrap()).bad(2, &["interrupted"]);
    assert!(start.elapsed() < PATIENCE);
}

/// A file that may not grow so large, and a disk that is full: exit code 2 with the system's reason.
#[test]
fn no_room_for_the_file() {
    let dir = tempfile::tempdir().unwrap();
    // In units of 512 bytes or more: enough for an error to be written, too little for the file.
    let script = r#"ulimit -f 16 && exec "$0" "$@""#;
    for folder in [dir.path(), Path::new("/dev/shm")] {
        if !folder.is_dir() {
            continue;
        }
        let out = folder.join(format!("df11-test-{}.safetensors", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_df11"), "decompress"]).arg(golden::model("block"));
        Ran::of(command.arg("-o").arg(&out).output().unwrap()).bad(2, &["cannot write", "File too large"]);
        assert!(!out.exists());
    }
    assert!(list(dir.path()).is_empty());
    if Path::new("/dev/full").exists() {
        let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
        for command in ["inspect", "verify"] {
            let output = df11().arg(command).arg(golden::model("tiny")).stdout(full()).output().unwrap();
            Ran::of(output).bad(2, &["standard output", "No space left"]);
        }
        // Nobody can be told, and still nothing breaks.
        let output = df11().args(["inspect", "no/model", "-vv"]).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
    }
}

/// More than the disk has is known before the work begins.
#[cfg(target_os = "linux")]
#[test]
fn a_file_larger_than_any_disk() {
    const BYTES: u64 = 8 << 40;
    let dir = tempfile::tempdir().unwrap();
    // Some file systems cannot tell how much room there is, and this test must not fill them.
    let path = std::ffi::CString::new(dir.path().to_str().unwrap()).unwrap();
    // SAFETY: all zeros are a valid value of this plain struct.
    let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the text ends with a zero, and the struct lives as long as the call.
    let known = unsafe { libc::statvfs(path.as_ptr(), &mut disk) } == 0 && disk.f_blocks > 0;
    if !known || disk.f_bavail * disk.f_frsize >= BYTES {
        return;
    }
    let model = dir.path().join("m.safetensors");
    models::write_hollow(&model, BYTES);
    // The second one is of several files, of which the first would fit.
    write_hollows(&dir.path().join("many.safetensors"), BYTES >> 26);
    for (model, out, more) in
        [("m", "out.safetensors", &[][..]), ("m", "out", &[]), ("many", "out", &["--shard-bytes", "1GiB"])]
    {
        let (model, out) = (dir.path().join(model).with_extension("safetensors"), dir.path().join(out));
        let start = Instant::now();
        let ran = Ran::of(df11().arg("decompress").arg(&model).arg("-o").arg(&out).args(more).output().unwrap());
        ran.bad(2, &["cannot write", "No space left"]);
        assert!(start.elapsed() < PATIENCE && list(dir.path()) == ["m.safetensors", "many.safetensors"]);
    }
}

/// A reader that has seen enough ends nothing, and the exit code still tells what was found.
#[test]
fn a_closed_pipe_is_no_error() {
    let closed = |mut command: Command| {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(!err.contains("panicked"), "{err}");
        (child.wait().unwrap().code(), err)
    };
    for more in ["--all", "--json"] {
        let mut command = df11();
        command.arg("inspect").arg(golden::model("edge")).arg(more);
        assert_eq!(closed(command), (Some(0), String::new()));
    }
    let dir = tempfile::tempdir().unwrap();
    models::changed("sharded", dir.path(), |t| models::find(t, "lm_head.gaps").data[9] ^= 8);
    let mut command = df11();
    command.arg("verify").arg(dir.path());
    let (code, err) = closed(command);
    assert!(code == Some(1) && err.starts_with("df11: error: 1 of 4 groups"), "{code:?} {err}");
}
