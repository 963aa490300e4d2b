//! Disks that are full. Two kinds of tests: a library in front of the C library (tests/c/faulty.c) plays a disk that has room for
//! so many bytes, which needs no rights and lets the end come at any byte; and on a small file system of its own the tool meets
//! the real thing. Whichever: it says so in one line that names the file, leaves no model, and goes on to the same bytes when
//! there is room.

use std::path::Path;
use std::process::Command;

use super::faults::{Faulty, compress, is_no_model, left_something, remove};
use super::support::{check, files, golden, weights::Random};
use super::{Ran, df11, list, models};

/// What kinds of disks there are: see `struct disk` of the library.
const KINDS: [&str; 3] = ["thin", "thick", "late"];

/// A disk of this kind with room for so many bytes.
fn disk(kind: &str, bytes: u64) -> Option<(&'static str, String)> {
    Some(("FAULTY_DISK", format!("{kind}:{bytes}")))
}

/// It had no room, and says so.
#[track_caller]
fn had_no_room(ran: &Ran, at: &str, under: &Path) {
    let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
    // The package that makes a temporary file's name keeps the text of an error's kind alone.
    let says = [full.to_string(), full.kind().to_string()];
    assert!(ran.code == 2 && says.iter().any(|text| ran.err.contains(text)), "{at}: {} {}", ran.code, ran.err);
    ran.bad(2, &[under.to_str().unwrap()]);
}

/// How large the disks are on which a run is tried that takes `total` bytes: none at all, one byte, one too few, and some more.
fn sizes(total: u64, random: &mut Random) -> Vec<u64> {
    assert!(total > 1000, "{total} bytes are nothing to write");
    let some = (0..check::rounds(6)).map(|_| random.below(total));
    [0, 1, total - 1].into_iter().chain(some).collect()
}

/// It ends at any byte, again and again: what is left is no model, and the run that has room makes the same bytes.
fn compressing_goes_on_when_there_is_room(out: &str, layout: &[&str]) {
    let (faulty, dir) = (Faulty::new(), tempfile::tempdir().unwrap());
    let source = dir.path().join("source");
    models::write_source(&source, &models::qwen3(3, 2048), 2);
    std::fs::write(source.join("tokenizer.json"), "{}").unwrap();
    let below = dir.path().join("below");
    std::fs::create_dir(&below).unwrap();
    // The folders above are made, too.
    let out = below.join("new/er").join(out);
    let clear = || list(&below).iter().for_each(|name| remove(&below.join(name)));
    Ran::of(compress(&source, &out, layout).output().unwrap()).good();
    let whole = models::tree(&below);
    let mut random = Random::new(7);
    let mut went_on = 0;
    for kind in KINDS {
        clear();
        let (ran, counts) = faulty.run(&mut compress(&source, &out, layout), &below, disk(kind, 1 << 40));
        ran.good();
        let total = counts["bytes"];
        // Just enough is enough.
        clear();
        faulty.run(&mut compress(&source, &out, layout), &below, disk(kind, total)).0.good();
        models::same(&models::tree(&below), &whole);
        for bytes in sizes(total, &mut random) {
            clear();
            let mut room = bytes;
            for round in 0..4 {
                let at = format!("{}: {kind}, round {round}, room for {room} of {total} bytes", out.display());
                let mut command = compress(&source, &out, layout);
                command.args((round > 0).then_some("--resume"));
                let (ran, counts) = faulty.run(&mut command, &below, disk(kind, room));
                if ran.code == 0 {
                    assert!(round > 0, "{at}: it had too little, and nobody noticed");
                    break;
                }
                assert!(counts["fired"] > 0, "{at}: {}", ran.err);
                had_no_room(&ran, &at, &below);
                is_no_model(&out, &at);
                let goes_on = left_something(&below, &at);
                assert_eq!(ran.err.contains("--resume resumes it"), goes_on, "{at}: {}", ran.err);
                went_on += u32::from(goes_on);
                // A folder's files that are not complete take no room from those that will be.
                let left = models::tree(&below);
                let temporary = left.keys().find(|name| name.to_string_lossy().ends_with(".df11-tmp"));
                let one_file = out.extension().is_some() || !layout.is_empty();
                assert!(temporary.is_none() || one_file, "{at}: {temporary:?} is left");
                room = random.below(total);
            }
            let again = Ran::of(compress(&source, &out, layout).arg("--resume").output().unwrap());
            assert_eq!(again.code, 0, "{kind}, {bytes} of {total} bytes, then {:?}: {}", list(&below), again.err);
            models::same(&models::tree(&below), &whole);
        }
    }
    assert!(went_on >= 5, "there was next to nothing to go on with: {went_on} times");
}

#[test]
fn a_folder_that_has_no_room() {
    compressing_goes_on_when_there_is_room("model", &[]);
}

#[test]
fn a_file_that_has_no_room() {
    compressing_goes_on_when_there_is_room("model.safetensors", &[]);
}

#[test]
fn a_file_in_its_folder_that_has_no_room() {
    compressing_goes_on_when_there_is_room("model", &["--single-file"]);
}

/// A run that may replace a file stops on its way: the file stays, and going on needs to be asked for alone.
#[test]
fn a_file_that_is_to_be_replaced() {
    let (faulty, dir) = (Faulty::new(), tempfile::tempdir().unwrap());
    let (source, below) = (dir.path().join("source"), dir.path().join("below"));
    models::write_source(&source, &models::qwen3(8, 2048), 2);
    std::fs::create_dir(&below).unwrap();
    let out = below.join("model.safetensors");
    let (ran, counts) = faulty.run(&mut compress(&source, &out, &[]), &below, disk("thin", 1 << 40));
    ran.good();
    let whole = std::fs::read(&out).unwrap();
    std::fs::write(&out, "older").unwrap();
    let room = disk("thin", counts["bytes"] * 9 / 10);
    let (ran, _) = faulty.run(&mut compress(&source, &out, &["--force"]), &below, room);
    had_no_room(&ran, "nine tenths of the room", &below);
    assert!(ran.err.contains("--resume resumes it"), "{}", ran.err);
    assert_eq!(std::fs::read(&out).unwrap(), b"older");
    Ran::of(compress(&source, &out, &["--resume"]).output().unwrap()).good();
    assert!(std::fs::read(&out).unwrap() == whole);
}

/// What was there stays as it is, and nothing lies beside it.
#[test]
fn decompressing_without_room_leaves_what_was_there() {
    let (faulty, dir) = (Faulty::new(), tempfile::tempdir().unwrap());
    let (model, below) = (dir.path().join("model"), dir.path().join("below"));
    std::fs::create_dir(&model).unwrap();
    std::fs::create_dir(&below).unwrap();
    files::copy(&golden::model("sharded"), &model);
    let out = below.join("out.safetensors");
    let decompress = || {
        let mut command = df11();
        command.arg("decompress").arg(&model).arg("-fo").arg(&out).args(["--threads", "1", "-q"]);
        command
    };
    Ran::of(decompress().output().unwrap()).good();
    let whole = std::fs::read(&out).unwrap();
    let mut random = Random::new(8);
    for kind in KINDS {
        let (ran, counts) = faulty.run(&mut decompress(), &below, disk(kind, 1 << 40));
        ran.good();
        let total = counts["bytes"];
        for bytes in sizes(total, &mut random) {
            std::fs::write(&out, b"what was there").unwrap();
            let at = format!("{kind}, room for {bytes} of {total} bytes");
            let (ran, counts) = faulty.run(&mut decompress(), &below, disk(kind, bytes));
            assert!(counts["fired"] > 0, "{at}: {}", ran.err);
            had_no_room(&ran, &at, &below);
            assert_eq!(list(&below), ["out.safetensors"], "{at}");
            assert_eq!(std::fs::read(&out).unwrap(), b"what was there", "{at}");
        }
        faulty.run(&mut decompress(), &below, disk(kind, total)).0.good();
        assert!(std::fs::read(&out).unwrap() == whole, "{kind}: other bytes");
    }
}

/// How a test comes to a small file system of its own: a command that runs another with the right to mount one, or none where
/// one is there; and which folder it is.
enum Small {
    Mounted(&'static [&'static str]),
    /// Of a container that has a small one for shared memory, and may not mount.
    SharedMemory,
    /// None is to be had: one is played for each call of the tool.
    Played,
}

impl Small {
    const SHARED_MEMORY: &str = "/dev/shm";
    /// What it has at most: this much of the machine's memory is filled for a moment.
    const MOST: u64 = 256 << 20;

    /// The first way that works here.
    fn find() -> Small {
        // As the one user of a namespace of users, and as root.
        for enter in [&["unshare", "-rm"][..], &["unshare", "-m"]] {
            let folder = tempfile::tempdir().unwrap();
            let mut command = Command::new(enter[0]);
            command.args(&enter[1..]).args(["mount", "-t", "tmpfs", "none"]).arg(folder.path());
            if command.output().is_ok_and(|output| output.status.success()) {
                return Small::Mounted(enter);
            }
        }
        let size = Command::new("stat").args(["-f", "-c", "%T %b %S", Small::SHARED_MEMORY]).output();
        let size = size.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        match size.split_whitespace().collect::<Vec<_>>()[..] {
            ["tmpfs", blocks, block] => {
                let bytes = blocks.parse().unwrap_or(0u64).saturating_mul(block.parse().unwrap_or(0));
                if (32 << 20..=Small::MOST).contains(&bytes) { Small::SharedMemory } else { Small::Played }
            }
            _ => Small::Played,
        }
    }
}

/// On a file system of 64 MB of which all but 3 are taken. Where there is no such one to be had, it is played, as in the tests
/// above.
#[test]
fn a_disk_that_is_full() {
    const SCRIPT: &str = r#"
        set -eu
        [ -z "${MOUNT:-}" ] || mount -t tmpfs -o size=64m none "$MOUNT"
        trap 'rm -rf "$DISK"' EXIT
        mkdir "$DISK"
        if [ -n "${PLAYED:-}" ]; then
            : > "$DISK/others"
            full() { LD_PRELOAD=$PLAYED FAULTY_UNDER=$DISK FAULTY_DISK=thick:3145728 "$DF11" "$@"; }
        else
            fallocate -l $(($(stat -f -c '%a * %S' "$DISK") - (3 << 20))) "$DISK/others"
            full() { "$DF11" "$@"; }
        fi
        full compress "$SOURCE" -o "$DISK/one.safetensors" 2> "$KEPT/one" && exit 9
        ls -A "$DISK" > "$KEPT/one.list"
        full compress "$SOURCE" -o "$DISK/out" --threads 1 2> "$KEPT/folder" && exit 9
        ls -A "$DISK/out" > "$KEPT/folder.list"
        full inspect "$DISK/out" 2> "$KEPT/inspect" && exit 9
        full decompress "$DECODED" -o "$DISK/decoded.safetensors" 2> "$KEPT/decoded" && exit 9
        ls -A "$DISK" > "$KEPT/decoded.list"
        full decompress "$DECODED" -o "$DISK/back" --flat --shard-bytes 1MB 2> "$KEPT/back" && exit 9
        full repack "$DECODED" -o "$DISK/back" 2> "$KEPT/repacked" && exit 9
        ls -A "$DISK" > "$KEPT/back.list"
        rm "$DISK/others"
        "$DF11" compress "$SOURCE" -o "$DISK/out" --resume
        cp -r "$DISK/out" "$KEPT/out"
    "#;
    let (small, faulty) = (Small::find(), Faulty::new());
    let dir = tempfile::tempdir().unwrap();
    let [source, disk, kept, whole] = ["source", "disk", "kept", "whole"].map(|name| dir.path().join(name));
    models::write_source(&source, &models::qwen3(20, 28_032), 2);
    Ran::of(compress(&source, &whole, &[]).output().unwrap()).good();
    std::fs::create_dir(&disk).unwrap();
    std::fs::create_dir(&kept).unwrap();
    let _alone = super::SHARED_MEMORY.lock();
    let own = format!("df11-full-{}", std::process::id());
    let mut command = match small {
        Small::Mounted(enter) => {
            let mut command = Command::new(enter[0]);
            command.args(&enter[1..]).arg("sh").env("MOUNT", &disk).env("DISK", disk.join(own));
            command
        }
        Small::SharedMemory => {
            let mut command = Command::new("sh");
            command.env("DISK", Path::new(Small::SHARED_MEMORY).join(own));
            command
        }
        Small::Played => {
            let mut command = Command::new("sh");
            command.env("PLAYED", faulty.library()).env("DISK", disk.join(own));
            command
        }
    };
    command.args(["-c", SCRIPT]).env("DF11", env!("CARGO_BIN_EXE_df11")).env("DECODED", &whole);
    let out = Ran::of(command.env("SOURCE", &source).env("KEPT", &kept).output().unwrap()).good();
    assert!(out.contains("resumed "), "{out}");
    let read = |name: &str| std::fs::read_to_string(kept.join(name)).unwrap();
    for (name, file) in [
        ("one", "one.safetensors"),
        ("folder", "out/model_layers_"),
        ("decoded", "decoded.safetensors"),
        ("back", "back/model-00001-of-"),
        ("repacked", "back/"),
    ] {
        let err = read(name);
        let one_line = err.lines().count() == 1 && err.starts_with("df11: error: cannot write");
        assert!(one_line && err.contains(file) && err.contains("No space left"), "{err}");
        assert_eq!(err.contains("--resume resumes it"), name == "folder", "{err}");
    }
    assert_eq!(read("one.list"), "others\n");
    assert_eq!(read("decoded.list"), "others\nout\n");
    assert_eq!(read("back.list"), "others\nout\n");
    let left = read("folder.list");
    assert!(left.contains("lm_head.safetensors\n") && !left.contains("tmp") && !left.contains("config"), "{left}");
    models::same(&models::tree(&kept.join("out")), &models::tree(&whole));
}
