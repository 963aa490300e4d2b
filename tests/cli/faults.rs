//! Disks that fail: each kind of call on a file goes wrong once, at every place where the tool makes it (in `make test` at
//! some of them), by a library that is loaded in front of the C library (tests/c/faulty.c). Whatever fails, the tool says what
//! and where in one line and with exit code 2, never that a model is bad; what it leaves is no model or all of it, and the same
//! command goes on to the bytes of a run without a fault. Short and interrupted transfers are no faults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{check, golden, programs};
use super::{Ran, df11, list, models, run_on};

const EINTR: i32 = libc::EINTR;
/// Instead of a number of an error: half of the bytes are moved.
const SHORT: i32 = 0;

/// The library that makes calls fail, and where it notes what it did.
pub(super) struct Faulty {
    folder: tempfile::TempDir,
}

impl Faulty {
    pub fn new() -> Faulty {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/faulty.c");
        let mut compiler = programs::compiler(false);
        compiler.args(["-std=c11", "-O1", "-shared", "-fPIC"]).args(programs::WARNINGS);
        programs::run(compiler.arg(source).arg("-o").arg(folder.path().join("faulty.so")).arg("-ldl"));
        Faulty { folder }
    }

    /// To be put in front of the C library.
    pub fn library(&self) -> PathBuf {
        self.folder.path().join("faulty.so")
    }

    /// Runs the tool with what goes wrong with its calls on files under a folder (`FAULTY` or `FAULTY_DISK`, and its plan; see
    /// the library); says how often it made each call, how many bytes of the disk it took, and how often something went wrong.
    pub fn run(
        &self,
        command: &mut Command,
        under: &Path,
        fault: Option<(&str, String)>,
    ) -> (Ran, BTreeMap<String, u64>) {
        let log = self.folder.path().join("log");
        command.env("LD_PRELOAD", self.library());
        command.env("FAULTY_UNDER", under).env("FAULTY_LOG", &log);
        command.envs(fault);
        let ran = Ran::of(command.output().unwrap());
        let line = |line: &str| {
            let (name, count) = line.split_once(' ').unwrap();
            (name.to_owned(), count.parse().unwrap())
        };
        let counts = std::fs::read_to_string(&log).unwrap().lines().map(line).collect();
        std::fs::remove_file(&log).unwrap();
        (ran, counts)
    }

    /// Runs a command with every fault that it may meet under a folder. `after` looks at what came of each, which has not
    /// been good if there is an error's text. What is `quiet` may fail unnoticed.
    fn everywhere(
        &self,
        under: &Path,
        least: u32,
        quiet: &[&str],
        command: impl Fn() -> Command,
        mut after: impl FnMut(&str, Option<&Ran>),
    ) -> u32 {
        let (ran, counts) = self.run(&mut command(), under, None);
        ran.good();
        after("without a fault", None);
        let mut tried = 0;
        for (call, count) in counts {
            let codes: &[i32] = match &call[..] {
                "fired" | "bytes" => continue,
                "read" | "pread" => &[libc::EIO, SHORT, EINTR],
                "write" | "pwrite" => &[libc::ENOSPC, libc::EIO, SHORT, EINTR],
                "truncate" | "reserve" | "mkdir" => &[libc::ENOSPC],
                // Some file systems find out that late that they have no room.
                "sync" | "close" => &[libc::EIO, libc::ENOSPC],
                _ => &[libc::EIO],
            };
            for &code in codes {
                for nth in places(count) {
                    let at = format!("{call} {nth} of {count} under {} gives {code}", under.display());
                    let (ran, counts) =
                        self.run(&mut command(), under, Some(("FAULTY", format!("{call}@{nth}={code}"))));
                    assert_eq!(counts["fired"], 1, "{at}: it did not come to that");
                    tried += 1;
                    if ran.code == 0 {
                        // A folder that cannot be brought to the disk is worth a warning (its opening fails, or its
                        // sync; a file's may not), and so are notes that cannot be removed when all is done. An
                        // unfinished file that cannot be read at its beginning is begun anew, and what is closed is on
                        // the disk already.
                        let may = code == SHORT || code == EINTR;
                        let may = may || ["open", "syncdir", "close", "remove"].contains(&&call[..]);
                        let may = may || call == "pread" && nth == 1 || quiet.contains(&&call[..]);
                        assert!(may, "{at}, and nobody noticed");
                        after(&at, None);
                        continue;
                    }
                    assert!(code != SHORT && code != EINTR, "{at}: {}", ran.err);
                    let says = std::io::Error::from_raw_os_error(code).to_string();
                    assert_eq!(ran.code, 2, "{at}: {}", ran.err);
                    // The packages that make a temporary file's name keep the text of an error's kind alone.
                    let kind = std::io::Error::from_raw_os_error(code).kind().to_string();
                    assert!(
                        ran.err.contains(&says) || ran.err.contains(&kind) || says.contains(&ran.err),
                        "{at}: {}",
                        ran.err
                    );
                    ran.bad(2, &[]);
                    after(&at, Some(&ran));
                }
            }
        }
        assert!(tried >= least, "{tried} faults under {}", under.display());
        tried
    }
}

/// Which of `count` calls fail: all with DF11_ROUNDS, else the first, the last and some between.
fn places(count: u64) -> Vec<u64> {
    let most = check::rounds(4);
    let all = 1..=count;
    if count <= most { all.collect() } else { (0..most).map(|i| 1 + i * (count - 1) / (most - 1)).collect() }
}

/// A small model to be compressed, with a file that is carried over.
fn source(folder: &Path) -> PathBuf {
    let source = folder.join("source");
    models::write_source(&source, &models::qwen3(1, 1024), 1);
    std::fs::write(source.join("tokenizer.json"), "{}").unwrap();
    std::fs::create_dir(source.join("more")).unwrap();
    std::fs::write(source.join("more/merges.txt"), "a b").unwrap();
    source
}

pub(super) fn remove(path: &Path) {
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

/// Compresses on one thread, so that the same happens each time.
pub(super) fn compress(source: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = df11();
    command.arg("compress").arg(source).arg("-o").arg(out).args(["--threads", "1", "-q"]).args(more);
    command
}

/// What a run left that has failed is no model.
pub(super) fn is_no_model(out: &Path, at: &str) {
    assert_ne!(run_on("inspect", out, &[]).code, 0, "{at}: a model is left");
}

/// Whether a run that has failed left a finished group to go on with. If not, it left nothing, not even a folder.
#[track_caller]
pub(super) fn left_something(below: &Path, at: &str) -> bool {
    let finished = |(name, bytes): (&PathBuf, &Vec<u8>)| {
        let name = name.file_name().unwrap().to_str().unwrap();
        let lines = || bytes.iter().filter(|&&b| b == b'\n').count();
        name.ends_with(".safetensors") || name.ends_with(".safetensors.df11-job") && lines() > 1
    };
    let something = models::tree(below).iter().any(finished);
    assert!(something || list(below).is_empty(), "{at}: {:?} and {:?}", list(below), models::tree(below).keys());
    something
}

#[test]
fn compressing_survives_every_fault() {
    let (faulty, dir) = (Faulty::new(), tempfile::tempdir().unwrap());
    let source = source(dir.path());
    for (name, layout) in [("model", &[][..]), ("model.safetensors", &[]), ("single", &["--single-file"])] {
        let below = dir.path().join(format!("in-{name}"));
        std::fs::create_dir(&below).unwrap();
        let out = below.join("new").join(name);
        let compress = |more: &[&str]| compress(&source, &out, &[layout, more].concat());
        Ran::of(compress(&[]).output().unwrap()).good();
        // A single file has its config beside it.
        let whole = models::tree(&below);
        for under in [&source, &below] {
            let begin = || {
                for name in list(&below) {
                    remove(&below.join(name));
                }
                compress(&[])
            };
            let tried = faulty.everywhere(under, if *under == source { 10 } else { 40 }, &[], begin, |at, failed| {
                if let Some(ran) = failed {
                    assert!(ran.err.contains(dir.path().to_str().unwrap()), "{at}: {}", ran.err);
                    is_no_model(&out, at);
                    left_something(&below, at);
                    let again = Ran::of(compress(&["--resume"]).output().unwrap());
                    assert_eq!(again.code, 0, "{at}, left {:?}, and then: {}", list(&below), again.err);
                } else if at.starts_with("remove") {
                    // The notes of a complete model are removed by whoever finds them.
                    Ran::of(compress(&["--resume"]).output().unwrap()).good();
                }
                models::same(&models::tree(&below), &whole);
            });
            println!("{name}: {tried} faults under {}", under.display());
        }
    }
}

/// A model that is complete is never touched by whoever goes on with it, whatever cannot be read just then; and what is
/// missing beside the tensors is there or is not.
#[test]
fn going_on_with_a_complete_model_survives_every_fault() {
    let (faulty, dir) = (Faulty::new(), tempfile::tempdir().unwrap());
    let source = source(dir.path());
    for (name, gone) in [("model", "model/tokenizer.json"), ("model.safetensors", "config.json")] {
        let below = dir.path().join(format!("in-{name}"));
        std::fs::create_dir(&below).unwrap();
        let out = below.join(name);
        Ran::of(compress(&source, &out, &[]).output().unwrap()).good();
        let whole = models::tree(&below);
        let mut tensors = whole.clone();
        tensors.remove(Path::new(gone)).unwrap();
        for under in [&source, &below] {
            let begin = || {
                remove(&below.join(gone));
                compress(&source, &out, &["--resume"])
            };
            faulty.everywhere(under, 8, &[], begin, |at, failed| {
                let mut now = models::tree(&below);
                if at.starts_with("remove") {
                    now.retain(|name, _| !name.to_str().unwrap().ends_with(".df11-part-end.lock"));
                }
                let Some(ran) = failed else { return models::same(&now, &whole) };
                assert!(!ran.err.contains("--force") && !ran.err.contains("not empty"), "{at}: {}", ran.err);
                models::same(&now, if now.len() == whole.len() { &whole } else { &tensors });
            });
        }
    }
}

/// A file that is to be replaced, by one with other groups, stays what it is with every fault, and keeps the config by which
/// it is read.
#[test]
fn what_is_to_be_replaced_survives_every_fault() {
    let (faulty, dir) = (Faulty::new(), tempfile::tempdir().unwrap());
    let source = source(dir.path());
    let below = dir.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let out = below.join("model.safetensors");
    Ran::of(compress(&source, &out, &[]).output().unwrap()).good();
    let before = models::tree(&below);
    let patterns = dir.path().join("patterns.json");
    std::fs::write(&patterns, r#"{ "lm_head": [] }"#).unwrap();
    let other = |more: &[&str]| compress(&source, &out, &[&["--pattern", patterns.to_str().unwrap()], more].concat());
    let begin = || {
        list(&below).iter().for_each(|name| remove(&below.join(name)));
        before.iter().for_each(|(name, bytes)| std::fs::write(below.join(name), bytes).unwrap());
        other(&["--force"])
    };
    Ran::of(begin().output().unwrap()).good();
    let after = models::tree(&below);
    let bytes = |tree: &BTreeMap<PathBuf, Vec<u8>>| tree[Path::new("model.safetensors")].clone();
    assert!(before.len() < after.len() && bytes(&before) != bytes(&after));
    // A config.json that cannot be read is something else's, and stays.
    faulty.everywhere(&below, 40, &["read"], begin, |at, failed| {
        if failed.is_some() {
            let mut now = models::tree(&below);
            now.retain(|name, _| !name.to_str().unwrap().starts_with('.'));
            models::same(&now, &before);
        }
        if failed.is_some() || at.starts_with("remove") {
            Ran::of(other(&["--force", "--resume"]).output().unwrap()).good();
        }
        models::same(&models::tree(&below), &after);
    });
}

#[test]
fn decompressing_and_verifying_survive_every_fault() {
    let (faulty, dir) = (Faulty::new(), tempfile::tempdir().unwrap());
    let (model, original) = (dir.path().join("model"), dir.path().join("original.safetensors"));
    std::fs::create_dir(&model).unwrap();
    super::support::files::copy(&golden::model("sharded"), &model);
    std::fs::copy(golden::path("sharded/original.safetensors"), &original).unwrap();
    let below = dir.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let out = below.join("out.safetensors");
    let decompress = || {
        remove(&out);
        let mut command = df11();
        command.arg("decompress").arg(&model).arg("-o").arg(&out).args(["--threads", "1", "-q"]);
        command
    };
    Ran::of(decompress().output().unwrap()).good();
    let whole = std::fs::read(&out).unwrap();
    for under in [&model, &below] {
        faulty.everywhere(under, 10, &[], decompress, |at, failed| match failed {
            None => assert!(std::fs::read(&out).unwrap() == whole, "{at}: other bytes"),
            Some(_) => assert!(list(&below).is_empty(), "{at}: left {:?}", list(&below)),
        });
    }
    // A folder in several files, with a file that goes with the model; and the model in other files.
    let single = dir.path().join("single.safetensors");
    Ran::of(df11().arg("repack").arg(&model).arg("-o").arg(&single).arg("-q").output().unwrap()).good();
    for (verb, from, to, more) in [
        ("decompress", &model, "folder", &["--flat", "--shard-bytes", "600KB"][..]),
        ("repack", &single, "repacked", &[]),
        ("repack", &model, "one.safetensors", &[]),
        ("image", &model, "images", &[]),
    ] {
        let to = below.join(to);
        let command = || {
            list(&below).iter().for_each(|name| remove(&below.join(name)));
            let mut command = df11();
            command.arg(verb).arg(from).arg("-o").arg(&to).args(["--threads", "1", "-q"]).args(more);
            command
        };
        Ran::of(command().output().unwrap()).good();
        let whole = models::tree(&below);
        for under in [from, &below] {
            faulty.everywhere(under, 10, &[], command, |at, failed| match failed {
                // The notes of a complete folder are removed by nobody else, and disturb nobody.
                None => {
                    let mut now = models::tree(&below);
                    now.retain(|name, _| !name.to_str().unwrap().contains(".df11-part-"));
                    models::same(&now, &whole);
                }
                Some(_) => assert!(list(&below).is_empty(), "{verb}, {at}: left {:?}", models::tree(&below).keys()),
            });
        }
        command();
    }
    let verify = || {
        let mut command = df11();
        command.arg("verify").arg(&model).arg("--against").arg(&original).args(["--threads", "1", "-q"]);
        command
    };
    for under in [&model, &original] {
        faulty.everywhere(under, 5, &[], verify, |_, _| {});
    }
}
