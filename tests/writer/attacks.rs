//! What others may have put where a run writes, what limits a process may have, and sources that change between two runs.
//!
//! The names that a run uses can be told beforehand. Whatever is there under them, no file of others is changed, and no file is
//! adopted that others can change afterwards.
#![cfg(target_os = "linux")]

use crate::support;

use df11::writer::{self, CompressOptions, Layout, Part, Patterns, Report};
use df11::{Dtype, Error, Progress, Status};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use support::files::{self, Stored};
use support::weights;

fn bf16(name: &str, weights: &[u16]) -> Stored {
    Stored::new(name, Dtype::BF16, &[weights.len() / 64, 64], bytemuck::cast_slice(weights).to_vec())
}

/// A model of two layers with a norm each, and an embedding that is in no group.
fn write_source(folder: &Path, seed: u64) {
    std::fs::create_dir_all(folder.join("more")).unwrap();
    let mut all = vec![bf16("embed.weight", &weights::trained_like(640_000, seed))];
    for layer in 0..2 {
        all.push(bf16(&format!("layers.{layer}.a.weight"), &weights::gaussian(256_000, 0.02, seed + 2 * layer)));
        all.push(bf16(&format!("layers.{layer}.norm.weight"), &weights::gaussian(64_000, 1.0, seed + 2 * layer + 1)));
    }
    std::fs::write(folder.join("model.safetensors"), files::file(&all)).unwrap();
    std::fs::write(folder.join("more/card.md"), "card").unwrap();
}

fn options(layout: Layout) -> CompressOptions {
    let patterns = Patterns::parse(r#"{"layers\\.\\d+": ["a"]}"#).unwrap();
    CompressOptions::new().patterns(patterns).layout(layout).threads(2)
}

fn compress(source: &Path, to: &Path, options: &CompressOptions) -> df11::Result<Report> {
    writer::compress(source, to, options, &Progress::new())
}

/// All files below a folder, without those that are hidden.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            all.extend(tree(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else if !name.to_str().unwrap().starts_with('.') {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}

/// What the child does, and with which folder.
const TASK: &str = "DF11_TEST_ATTACK";
const FOLDER: &str = "DF11_TEST_ATTACKED";

/// Runs a task in a process of its own, which must not end by a signal. Returns what it printed.
fn in_a_process(task: &str, folder: &Path) -> String {
    let mut command = support::alone::this_program();
    command.args(["--exact", "attacks::child", "--nocapture", "--test-threads", "1"]);
    let output = command.env(TASK, task).env(FOLDER, folder).output().unwrap();
    assert!(output.status.success(), "{task}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Does what the tests below ask for; nothing in a run of all tests.
#[test]
fn child() {
    let (Ok(task), Ok(folder)) = (std::env::var(TASK), std::env::var(FOLDER)) else { return };
    let folder = Path::new(&folder);
    match &task[..] {
        "limited" => limited(folder),
        "without threads" => without_threads(folder),
        task => plain_groups(folder, task.parse().unwrap()),
    }
}

/// Something that is not this user's alone under a name that a run will use.
#[derive(Debug, Clone, Copy)]
enum Planted {
    /// A second name of a file elsewhere.
    HardLink,
    /// A file that everybody may write to.
    Open,
    /// A file of another user. Only root can make one.
    Foreign,
}

impl Planted {
    fn all() -> &'static [Planted] {
        // SAFETY: it cannot fail and touches no memory.
        let root = unsafe { libc::geteuid() } == 0;
        if root { &[Planted::HardLink, Planted::Open, Planted::Foreign] } else { &[Planted::HardLink, Planted::Open] }
    }

    fn plant(self, at: &Path, victim: &Path) {
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        match self {
            Planted::HardLink => std::fs::hard_link(victim, at).unwrap(),
            Planted::Open => {
                std::fs::write(at, "precious").unwrap();
                std::fs::set_permissions(at, Permissions::from_mode(0o666)).unwrap();
            }
            Planted::Foreign => {
                std::fs::write(at, "precious").unwrap();
                chown(at, Some(65534), Some(65534)).unwrap();
            }
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Planted::HardLink => "a hard link",
            Planted::Open => "other users may write to it",
            Planted::Foreign => "belongs to another user",
        }
    }
}

/// A file under a predictable name is neither written to nor locked nor given the model's name, unless it is this user's alone.
#[test]
fn what_others_have_put_there_is_not_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let (source, victim) = (folder.path().join("source"), folder.path().join("victim"));
    write_source(&source, 1);
    std::fs::write(&victim, "precious").unwrap();
    let part = Part { number: 2, count: 2 };
    let cases = [
        (Layout::ByName, "x.safetensors", Part::WHOLE, ".x.safetensors.df11-tmp"),
        (Layout::ByName, "x.safetensors", Part::WHOLE, ".x.safetensors.df11-job"),
        (Layout::ByName, "x.safetensors", Part::WHOLE, ".config.json.df11-tmp"),
        (Layout::SingleFile, "out", Part::WHOLE, "out/.model.safetensors.df11-tmp"),
        (Layout::SingleFile, "out", Part::WHOLE, "out/.model.safetensors.df11-job"),
        (Layout::Folder, "out", Part::WHOLE, "out/.layers_0.safetensors.df11-tmp"),
        (Layout::Folder, "out", Part::WHOLE, "out/.model.safetensors.df11-tmp"),
        (Layout::Folder, "out", Part::WHOLE, "out/.config.json.df11-tmp"),
        (Layout::Folder, "out", Part::WHOLE, "out/.df11-part-1-of-1.df11-job"),
        (Layout::Folder, "out", Part::WHOLE, "out/.df11-part-end.lock"),
        (Layout::Folder, "out", part, "out/.df11-part-2-of-2.df11-job"),
    ];
    for (i, (layout, to, part, name)) in cases.into_iter().enumerate() {
        for (planted, resume) in Planted::all().iter().flat_map(|&planted| [(planted, false), (planted, true)]) {
            let at = folder.path().join(format!("{i}-{planted:?}-{resume}"));
            let (to, name) = (at.join(to), at.join(name));
            planted.plant(&name, &victim);
            let before = name.metadata().unwrap();
            let options = options(layout).part(part).resume(resume);
            let error = compress(&source, &to, &options).unwrap_err();
            assert_eq!(error.status(), Status::Io, "{name:?}: {error}");
            let said = error.to_string();
            assert!(
                said.contains(planted.reason()) && said.contains(name.file_name().unwrap().to_str().unwrap()),
                "{said}"
            );
            let after = name.metadata().unwrap();
            assert_eq!(
                (before.ino(), before.len(), before.mode()),
                (after.ino(), after.len(), after.mode()),
                "{name:?}"
            );
            assert_eq!(std::fs::read_to_string(&name).unwrap(), "precious", "{name:?}");
            assert!(!to.is_file(), "{name:?}: it has the model's name");
            // Without it, the same command succeeds.
            std::fs::remove_file(&name).unwrap();
            compress(&source, &to, &options.resume(true)).unwrap();
        }
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
}

/// The attack: a descriptor that was opened before the run writes to the finished model.
#[test]
fn an_open_descriptor_does_not_reach_the_model() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write_source(&source, 1);
    for resume in [false, true] {
        let place = folder.path().join(resume.to_string());
        std::fs::create_dir(&place).unwrap();
        let (to, temporary) = (place.join("out.safetensors"), place.join(".out.safetensors.df11-tmp"));
        let attacker = std::fs::File::options().create_new(true).read(true).write(true).open(&temporary).unwrap();
        // By its permissions it is this user's alone, as what a killed run has left.
        std::fs::set_permissions(&temporary, Permissions::from_mode(0o600)).unwrap();
        compress(&source, &to, &options(Layout::ByName).resume(resume)).unwrap();
        let before = std::fs::read(&to).unwrap();
        attacker.write_all_at(&[0xff; 64], before.len() as u64 / 2).unwrap();
        assert!(
            std::fs::read(&to).unwrap() == before && to.metadata().unwrap().ino() != attacker.metadata().unwrap().ino()
        );
    }
}

/// A file that comes to be there at the last moment stays, unless it may be replaced.
#[test]
fn what_appears_at_the_last_moment_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = 0;
    for i in 0..1000 {
        let to = folder.path().join(i.to_string());
        let new = writer::NewFile::create(&to, 4).unwrap();
        new.write_at(0, b"ours").unwrap();
        let (committed, theirs) = std::thread::scope(|scope| {
            let ours = scope.spawn(|| new.commit(false));
            // At different moments of the other's work.
            (0..i * 20).for_each(|n| _ = std::hint::black_box(n));
            let theirs = std::fs::File::create_new(&to).and_then(|mut file| file.write_all(b"them"));
            (ours.join().unwrap(), theirs)
        });
        match (committed, theirs) {
            (Ok(()), Err(_)) => assert_eq!(std::fs::read(&to).unwrap(), b"ours"),
            (Err(Error::Exists(_)), Ok(())) => {
                assert_eq!(std::fs::read(&to).unwrap(), b"them");
                kept += 1;
            }
            both => panic!("round {i}: {both:?}"),
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), i + 1);
    }
    assert!(kept > 0, "nothing appeared in time");
}

/// A run that finds its file being written, by what is not a run and has no ledger, leaves that alone.
#[test]
fn a_file_that_another_writes_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write_source(&source, 1);
    for (layout, to) in [(Layout::ByName, "x.safetensors"), (Layout::SingleFile, "out/model.safetensors")] {
        let file = folder.path().join(to);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let other = writer::NewFile::create(&file, 5).unwrap();
        other.write_at(0, b"other").unwrap();
        let to = if layout == Layout::ByName { &file } else { file.parent().unwrap() };
        for resume in [false, true] {
            let error = compress(&source, to, &options(layout).resume(resume)).unwrap_err();
            assert_eq!(error.status(), Status::Busy, "{error}");
        }
        other.commit(false).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"other");
        assert_eq!(
            std::fs::read_dir(file.parent().unwrap())
                .unwrap()
                .filter(|e| { e.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.') })
                .count(),
            0,
            "{to:?}"
        );
    }
}

/// What is replaced decides who may write to the new file only if it is this user's own, and never as whom that runs.
#[test]
fn what_another_user_has_put_there_does_not_open_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write_source(&source, 1);
    let usual = folder.path().join("usual");
    std::fs::write(&usual, "").unwrap();
    let usual = usual.metadata().unwrap().mode();
    // SAFETY: it cannot fail and touches no memory.
    let root = unsafe { libc::geteuid() } == 0;
    for (i, (foreign, before, after)) in [
        (false, 0o100666, 0o100666),
        (false, 0o106755, 0o100755),
        (true, 0o100666, usual),
        (true, 0o104777, usual),
        (true, 0o100400, 0o100400),
    ]
    .into_iter()
    .enumerate()
    .filter(|(_, (foreign, ..))| root || !foreign)
    {
        let at = folder.path().join(i.to_string());
        let (to, config) = (at.join("x.safetensors"), at.join("x.config.json"));
        std::fs::create_dir(&at).unwrap();
        for there in [&to, &config] {
            std::fs::write(there, "{}").unwrap();
            if foreign {
                chown(there, Some(65534), Some(65534)).unwrap();
            }
            std::fs::set_permissions(there, Permissions::from_mode(before)).unwrap();
        }
        compress(&source, &to, &options(Layout::ByName)).unwrap();
        for there in [&to, &config] {
            let meta = there.metadata().unwrap();
            assert_eq!((meta.mode(), meta.len() > 2), (after, true), "{there:?}, {before:o}, foreign: {foreign}");
        }
    }
}

/// A complete file of a group that others may write to is written again and not taken over.
#[test]
fn a_finished_group_that_others_may_write_to_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let (source, to, victim) = (folder.path().join("source"), folder.path().join("out"), folder.path().join("victim"));
    write_source(&source, 1);
    let part = |number, resume| options(Layout::Folder).part(Part { number, count: 2 }).resume(resume);
    compress(&source, &to, &part(1, false)).unwrap();
    let group = to.join("layers_0.safetensors");
    let whole = std::fs::read(&group).unwrap();
    assert_eq!(compress(&source, &to, &part(1, true)).unwrap().resumed, 1);
    for &planted in Planted::all() {
        std::fs::write(&victim, &whole).unwrap();
        std::fs::remove_file(&group).unwrap();
        planted.plant(&group, &victim);
        if !matches!(planted, Planted::HardLink) {
            std::fs::write(&group, &whole).unwrap();
        }
        let before = group.metadata().unwrap().ino();
        let report = compress(&source, &to, &part(1, true)).unwrap();
        assert_eq!(report.resumed, 0, "{planted:?}");
        assert!(group.metadata().unwrap().ino() != before && std::fs::read(&group).unwrap() == whole, "{planted:?}");
        assert!(std::fs::read(&victim).unwrap() == whole);
        std::fs::remove_file(&group).unwrap();
        compress(&source, &to, &part(1, true)).unwrap();
    }
}

/// Where in a source file a run does not look before it resumes: names, sizes, headers and 64 samples are compared.
fn unseen(file: &Path, tensor: &str) -> usize {
    let bytes = std::fs::read(file).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let offsets = &header[tensor]["data_offsets"];
    let [from, to] = [0, 1].map(|i| start + offsets[i].as_u64().unwrap() as usize);
    let sampled = |at: usize| {
        (0..64).any(|i| {
            let sample = start + (bytes.len() - start) * i / 64;
            at + 512 > sample && at < sample + 4096
        })
    };
    (from..to - 512).step_by(512).find(|&at| !sampled(at)).unwrap()
}

/// The source changes between two runs, where the second does not look for it before the work: in weights of a group that is
/// done, in a plain tensor beside them, in one that is in no group. What comes of it is the model of what the source is now.
#[test]
fn a_resumed_model_is_that_of_one_source() {
    for layout in [Layout::Folder, Layout::SingleFile, Layout::ByName] {
        for tensor in ["layers.0.a.weight", "layers.0.norm.weight", "embed.weight"] {
            for verify in [true, false] {
                let folder = tempfile::tempdir().unwrap();
                let (source, fresh) = (folder.path().join("source"), folder.path().join("fresh"));
                let to = |folder: &Path| match layout {
                    Layout::ByName => folder.join("x.safetensors"),
                    _ => folder.to_owned(),
                };
                let out = folder.path().join("out");
                write_source(&source, 1);
                let all = options(layout).verify(verify);
                // All groups are done when nothing can be written under the config's name.
                std::fs::create_dir_all(out.join(".config.json.df11-tmp")).unwrap();
                let error = compress(&source, &to(&out), &all).unwrap_err();
                assert!(error.to_string().contains(".config.json.df11-tmp"), "{error}");
                std::fs::remove_dir(out.join(".config.json.df11-tmp")).unwrap();

                let file = source.join("model.safetensors");
                let (mut bytes, at) = (std::fs::read(&file).unwrap(), unseen(&file, tensor));
                bytes[at..at + 512].iter_mut().step_by(2).for_each(|byte| *byte ^= 0x15);
                std::fs::write(&file, bytes).unwrap();
                let progress = Progress::new();
                let resume = all.clone().resume(true);
                let report = writer::compress(&source, &to(&out), &resume, &progress).unwrap();
                assert!(report.complete && progress.done() == progress.total(), "{progress:?}");
                compress(&source, &to(&fresh), &all).unwrap();
                assert!(tree(&out) == tree(&fresh), "{layout:?}, {tensor}: two sources are mixed");
                // The other group is taken over, and the one that has not changed.
                let changed = match (layout, tensor) {
                    (_, "layers.0.a.weight") | (Layout::Folder, "layers.0.norm.weight") => 1,
                    _ => 0,
                };
                assert_eq!(report.resumed, 2 - changed, "{layout:?}, {tensor}");
            }
        }
    }
}

/// A group stays plain at first, and can be compressed when the run is resumed, because its source was repaired. Its tensor is
/// then in the group's file alone.
#[test]
fn a_tensor_is_not_left_in_the_file_of_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    let layers: Vec<Stored> = (0..2)
        .map(|layer| bf16(&format!("layers.{layer}.a.weight"), &weights::gaussian(640_000, 0.02, layer)))
        .collect();
    std::fs::create_dir(&source).unwrap();
    let file = source.join("model.safetensors");
    std::fs::write(&file, files::file(&layers)).unwrap();
    let good = std::fs::read(&file).unwrap();
    let (mut bad, at) = (good.clone(), unseen(&file, "layers.0.a.weight"));
    bad[at..at + 2].copy_from_slice(&0x7f80u16.to_le_bytes());
    std::fs::write(&file, bad).unwrap();
    // Everything but the config is done.
    std::fs::create_dir_all(out.join(".config.json.df11-tmp")).unwrap();
    compress(&source, &out, &options(Layout::Folder)).unwrap_err();
    std::fs::remove_dir(out.join(".config.json.df11-tmp")).unwrap();
    assert!(out.join("model.safetensors").is_file() && !out.join("layers_0.safetensors").exists());

    std::fs::write(&file, good).unwrap();
    assert!(compress(&source, &out, &options(Layout::Folder).resume(true)).unwrap().complete);
    let model = df11::Model::open(&out, &df11::OpenOptions::default()).unwrap();
    assert_eq!((model.groups().count(), model.tensors().count()), (2, 2));
    assert!(!out.join("model.safetensors").exists());
}

/// Two files with different configs come to one folder at the same time. Each is read with its own.
#[test]
fn two_files_of_one_folder_keep_their_configs() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.safetensors");
    std::fs::write(&source, files::file(&[bf16("layers.0.a.weight", &weights::gaussian(6400, 0.02, 1))])).unwrap();
    for round in 0..60 {
        let to = folder.path().join(round.to_string());
        std::fs::create_dir(&to).unwrap();
        let together = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for (name, patterns) in [("x", r#"{"layers\\.\\d+": ["a"]}"#), ("y", r#"{"layers\\.0\\.a": []}"#)] {
                let (source, to, together) = (&source, &to, &together);
                scope.spawn(move || {
                    let options = CompressOptions::new().patterns(Patterns::parse(patterns).unwrap()).threads(1);
                    together.wait();
                    compress(source, &to.join(name).with_extension("safetensors"), &options).unwrap();
                });
            }
        });
        for name in ["x.safetensors", "y.safetensors"] {
            let model = df11::Model::open(to.join(name), &df11::OpenOptions::default()).unwrap();
            let found = model.find_tensor("layers.0.a.weight").and_then(|tensor| tensor.group());
            assert!(found.is_some(), "round {round}: {name} is read with the config of the other");
        }
    }
}

/// A group of an earlier run that is damaged is written again, whatever byte it is.
#[test]
fn a_damaged_group_is_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let (source, to) = (folder.path().join("source"), folder.path().join("out"));
    write_source(&source, 1);
    let part = |resume| options(Layout::Folder).part(Part { number: 1, count: 2 }).resume(resume);
    compress(&source, &to, &part(false)).unwrap();
    let group = to.join("layers_0.safetensors");
    let whole = std::fs::read(&group).unwrap();
    let start = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for at in [0, 8, start - 1, start, start + 1000, start + (whole.len() - start) / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        std::fs::write(&group, &damaged).unwrap();
        let report = compress(&source, &to, &part(true)).unwrap();
        assert!(std::fs::read(&group).unwrap() == whole, "byte {at}: {report:?}");
        assert_eq!(report.resumed, 0, "byte {at}");
    }
    std::fs::write(&group, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(compress(&source, &to, &part(true)).unwrap().resumed, 0);
    assert_eq!(compress(&source, &to, &part(true)).unwrap().resumed, 1);
}

/// A limit on the size of files is an error, whatever the program does about the signal that the system sends.
#[test]
fn a_limit_on_files_does_not_end_the_process() {
    let folder = tempfile::tempdir().unwrap();
    write_source(&folder.path().join("source"), 1);
    assert!(in_a_process("limited", folder.path()).contains("all refused"));
}

fn limited(folder: &Path) {
    // SAFETY: this process is alone here.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
    for most in [0, 100, 5000, 200_000, 600_000] {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the struct lives as long as the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
        for (layout, to) in [(Layout::Folder, "out"), (Layout::SingleFile, "single"), (Layout::ByName, "x.safetensors")]
        {
            let error = compress(&folder.join("source"), &folder.join(to), &options(layout)).unwrap_err();
            assert_eq!((error.status(), error.native_code()), (Status::Io, libc::EFBIG), "{most}: {error}");
            let left = std::fs::read_dir(folder).unwrap().count();
            if left > 1 {
                // Something was done, so that it can be resumed.
                let error = compress(&folder.join("source"), &folder.join(to), &options(layout)).unwrap_err();
                assert!(matches!(error, Error::Unfinished(_)), "{most}: {error}");
                let _ = std::fs::remove_dir_all(folder.join(to));
            }
        }
    }
    println!("all refused");
}

/// Where no thread can be started, the calling one does all.
#[test]
fn a_run_without_threads() {
    let folder = tempfile::tempdir().unwrap();
    write_source(&folder.path().join("source"), 1);
    for name in ["", "source", "source/more"] {
        std::fs::set_permissions(folder.path().join(name), Permissions::from_mode(0o777)).unwrap();
    }
    let said = in_a_process("without threads", folder.path());
    if said.contains("threads can be started") {
        println!("this system does not limit the number of threads");
        return;
    }
    assert!(said.contains("complete"), "{said}");
    let fresh = folder.path().join("fresh");
    compress(&folder.path().join("source"), &fresh, &options(Layout::Folder)).unwrap();
    assert!(tree(&folder.path().join("out")) == tree(&fresh));
}

fn without_threads(folder: &Path) {
    // SAFETY: this process is alone here; root is not limited.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setgid(65534) | libc::setuid(65534), 0);
        }
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &limit), 0);
    }
    if std::thread::Builder::new().spawn(|| ()).is_ok() {
        println!("threads can be started");
        return;
    }
    let options = options(Layout::Folder).threads(4);
    assert!(compress(&folder.join("source"), &folder.join("out"), &options).unwrap().complete);
    println!("complete");
}

/// Groups that all stay plain take time in proportion to their number.
#[test]
fn time_is_linear_where_all_groups_stay_plain() {
    let time = |groups: usize| {
        let folder = tempfile::tempdir().unwrap();
        let tensor = |i: usize| bf16(&format!("l.{i}.a.weight"), &[0x7f80; 64]);
        std::fs::write(
            folder.path().join("source.safetensors"),
            files::file(&(0..groups).map(tensor).collect::<Vec<_>>()),
        )
        .unwrap();
        let said = in_a_process(&groups.to_string(), folder.path());
        let time = said.split("microseconds ").nth(1).unwrap().split_whitespace().next().unwrap();
        time.parse::<f64>().unwrap()
    };
    let (few, many) = (time(5_000), time(40_000));
    println!("{few} and {many} microseconds");
    assert!(many < 20.0 * few, "8 times as many groups take {few} and {many} microseconds");
}

fn plain_groups(folder: &Path, groups: usize) {
    let patterns = Patterns::parse(r#"{"l\\.\\d+": ["a"]}"#).unwrap();
    for to in ["out", "out.safetensors"] {
        let options = CompressOptions::new().patterns(patterns.clone()).allow_plain(true);
        let report = compress(&folder.join("source.safetensors"), &folder.join(to), &options).unwrap();
        assert_eq!((report.left.len(), report.groups), (groups, 0));
    }
    // SAFETY: all zeros are a value of this plain struct, and it lives as long as the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    println!("microseconds {} ", usage.ru_utime.tv_sec * 1_000_000 + usage.ru_utime.tv_usec);
}

/// A destination that another process writes to, one with unfinished work, and a file that is there: each has its status.
#[test]
fn each_obstacle_has_its_status() {
    use std::sync::{Arc, Mutex};
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write_source(&source, 1);
    for (layout, name) in [(Layout::Folder, "out"), (Layout::SingleFile, "single"), (Layout::ByName, "x.safetensors")] {
        let to = folder.path().join(name);
        let seen = Arc::new(Mutex::new(None));
        let (from, there, sink) = (source.clone(), to.clone(), seen.clone());
        let progress = Progress::with_callback(move |progress| {
            let mut seen = sink.lock().unwrap();
            if progress.total() > 0 && seen.is_none() {
                let resume = options(layout).resume(true);
                *seen = Some(compress(&from, &there, &resume).map(|_| ()).unwrap_err().status());
            }
            true
        });
        writer::compress(&source, &to, &options(layout), &progress).unwrap();
        assert_eq!(*seen.lock().unwrap(), Some(Status::Busy), "{name}");
        if layout != Layout::Folder {
            let keep = options(layout).keep_existing(true);
            assert_eq!(compress(&source, &to, &keep).unwrap_err().status(), Status::Exists, "{name}");
        }
    }
    let parts = folder.path().join("parts");
    let part = options(Layout::Folder).part(Part { number: 1, count: 2 });
    compress(&source, &parts, &part).unwrap();
    assert_eq!(compress(&source, &parts, &part).unwrap_err().status(), Status::Unfinished);
}
