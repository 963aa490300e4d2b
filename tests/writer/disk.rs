//! What may happen to files while they are used, and what may lie where files are to be written: a model that is cut short
//! while it is open, files and folders that this user may not use, links in the way, paths out of the folder.
//!
//! What has to happen in a process of its own does so in this program, started once more ([`child`]).
#![cfg(target_os = "linux")]

use crate::support;

use df11::internals::writer::plan::Patterns;
use df11::writer::{CompressOptions, Layout, Part};
use df11::{DecodeOptions, Error, Model, OpenOptions, Status};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;
use support::alone::this_program;
use support::files::{self, Stored};
use support::{golden, weights};

/// What the child does, and with which folder.
const TASK: &str = "DF11_TEST_TASK";
const FOLDER: &str = "DF11_TEST_FOLDER";

fn run(task: &str, folder: &Path) -> Output {
    let mut command = this_program();
    command.args(["--exact", "disk::child", "--nocapture", "--test-threads", "1"]);
    command.env(TASK, task).env(FOLDER, folder).output().unwrap()
}

/// Does what the tests below ask for; nothing in a run of all tests.
#[test]
fn child() {
    let (Ok(task), Ok(folder)) = (std::env::var(TASK), std::env::var(FOLDER)) else { return };
    let folder = Path::new(&folder);
    match &task[..] {
        "cut mapped" => cut(folder, false),
        "cut read" => cut(folder, true),
        "not allowed" => not_allowed(folder),
        _ => panic!("{task}"),
    }
}

/// Opens a model, cuts its largest file short, and decodes.
fn cut(folder: &Path, read: bool) {
    let model = crate::support::files::open(folder, read).unwrap();
    let file = folder.join("model_layers_0.safetensors");
    std::fs::File::options().write(true).open(&file).unwrap().set_len(8192).unwrap();
    let group = model.find_group("model.layers.0").unwrap();
    let mut room = vec![half::bf16::ZERO; group.element_count() as usize];
    println!("decoding");
    let short = |result: df11::Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.status(), Status::Corrupt, "{error}");
        let text = error.to_string();
        assert!(text.contains("shorter") && text.contains("model_layers_0.safetensors"), "{text}");
    };
    for threads in [1, 3] {
        short(group.decompress(0, &mut room, &DecodeOptions::new().threads(threads)));
        short(group.verify(threads));
    }
    let layout = group.image_layout().unwrap();
    short(group.write_image(&mut vec![0; layout.image_bytes as usize], 2));
    // The others are as they were.
    let other = model.find_group("model.layers.1").unwrap();
    let mut room = vec![half::bf16::ZERO; other.element_count() as usize];
    other.decompress(0, &mut room, &DecodeOptions::default()).unwrap();
    println!("refused");
}

/// A mapped file that is cut short ends the process by SIGBUS, as the header says: whoever cannot have that reads.
#[test]
fn a_file_that_is_cut_short_while_it_is_open() {
    for (task, signal) in [("cut mapped", Some(libc::SIGBUS)), ("cut read", None)] {
        let folder = tempfile::tempdir().unwrap();
        files::copy(&golden::model("sharded"), folder.path());
        let output = run(task, folder.path());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("decoding"), "{task}: {output:?}");
        assert_eq!(output.status.signal(), signal, "{task}: {output:?}");
        assert_eq!(output.status.success() && said.contains("refused"), signal.is_none(), "{task}: {output:?}");
    }
}

fn is_io(error: Error, errno: i32, path: &str) {
    assert_eq!((error.status(), error.native_code()), (Status::Io, errno), "{error}");
    assert!(error.to_string().contains(path), "{error}");
}

fn compress_options(layout: Layout) -> CompressOptions {
    let patterns = serde_json::json!({ "layers\\.\\d+": ["a", "b"] });
    CompressOptions::new().patterns(Patterns::parse(&patterns.to_string()).unwrap()).layout(layout)
}

/// As somebody who may do less than root.
fn not_allowed(folder: &Path) {
    // SAFETY: this process is alone here and touches nothing of its own by it.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setegid(65534) + libc::seteuid(65534) }, 0);
    }
    for read in [false, true] {
        let open = |name: &str| crate::support::files::open(folder.join(name), read).map(drop);
        is_io(open("file/model.safetensors").unwrap_err(), libc::EACCES, "file/model.safetensors");
        is_io(open("file").unwrap_err(), libc::EACCES, "file/model.safetensors");
        is_io(open("closed").unwrap_err(), libc::EACCES, "closed");
        is_io(open("closed/model.safetensors").unwrap_err(), libc::EACCES, "closed/model.safetensors");
        // A config that may not be read is not one that is missing: names of tensors would be.
        is_io(open("config").unwrap_err(), libc::EACCES, "config/config.json");
        open("read-only").unwrap();
    }
    for (layout, to) in [(Layout::Folder, "read-only/out"), (Layout::SingleFile, "read-only/out.safetensors")] {
        let before = std::fs::read_dir(folder.join("read-only")).unwrap().count();
        let result = df11::writer::compress(
            &folder.join("source"),
            &folder.join(to),
            &compress_options(layout),
            &df11::Progress::default(),
        );
        is_io(result.map(drop).unwrap_err(), libc::EACCES, "read-only");
        assert_eq!(std::fs::read_dir(folder.join("read-only")).unwrap().count(), before);
    }
    println!("refused");
}

/// A source whose group has the tensors `a` and `b`.
fn write_source(folder: &Path, group: &str) {
    write_sources(folder, &[group]);
}

/// The same with several groups.
fn write_sources(folder: &Path, groups: &[&str]) {
    std::fs::create_dir_all(folder).unwrap();
    let tensor = |name: String, seed| {
        let data = bytemuck::cast_slice(&weights::trained_like(4096, seed)).to_vec();
        Stored::new(&name, df11::Dtype::BF16, &[64, 64], data)
    };
    let of = |group: &&str| [tensor(format!("{group}.a.weight"), 1), tensor(format!("{group}.b.weight"), 2)];
    let tensors: Vec<Stored> = groups.iter().flat_map(of).collect();
    std::fs::write(folder.join("model.safetensors"), files::file(&tensors)).unwrap();
    std::fs::write(folder.join("config.json"), "{}").unwrap();
}

#[test]
fn what_this_user_may_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let mode =
        |name: &str, mode| std::fs::set_permissions(folder.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
    for name in ["file", "closed", "config", "read-only"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        files::copy(&golden::model("tiny"), &folder.path().join(name));
    }
    write_source(&folder.path().join("source"), "layers.0");
    mode("", 0o755);
    mode("file/model.safetensors", 0o000);
    mode("config/config.json", 0o000);
    mode("closed", 0o000);
    mode("read-only", 0o555);
    let output = run("not allowed", folder.path());
    mode("closed", 0o755);
    mode("read-only", 0o755);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("refused"), "{output:?}");
}

/// The names of unfinished files can be told beforehand. A link that somebody laid there leads nowhere: what it points to stays
/// as it is. A link under a file's own name is replaced, as any file is.
#[test]
fn links_are_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let (at, victim) = (|name: &str| folder.path().join(name), folder.path().join("victim"));
    write_source(&at("source"), "layers.0");
    std::fs::write(&victim, "precious").unwrap();
    std::fs::create_dir(at("to")).unwrap();
    let compress = |layout, resume| {
        let options = compress_options(layout).resume(resume);
        let to = if matches!(layout, Layout::Folder) { at("to/out") } else { at("to/out.safetensors") };
        df11::writer::compress(&at("source"), &to, &options, &df11::Progress::default()).map(drop)
    };
    let untouched = || assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    for name in [".out.safetensors.df11-tmp", ".out.safetensors.df11-job"] {
        let link = at("to").join(name);
        for (lead, resume) in [(&victim, false), (&victim, true), (&at("new"), false), (&at("new"), true)] {
            symlink(lead, &link).unwrap();
            is_io(compress(Layout::SingleFile, resume).unwrap_err(), libc::ELOOP, name);
            untouched();
            assert!(!at("new").exists(), "{name}: a file was made through a link");
            // An unfinished file is removed at the end, a link under its name, too.
            let _ = std::fs::remove_file(&link);
        }
    }
    symlink(&victim, at("to/out.safetensors")).unwrap();
    compress(Layout::SingleFile, false).unwrap();
    untouched();
    assert!(!at("to/out.safetensors").is_symlink());
    Model::open(at("to/out.safetensors"), &OpenOptions::default()).unwrap();

    // The same in a folder that somebody else has begun: part 1 has done layers.0, part 2 meets the link.
    let part = |number, resume| {
        let part = Part { number, count: 2 };
        let options = compress_options(Layout::Folder).part(part).resume(resume);
        df11::writer::compress(&at("two"), &at("to/out"), &options, &df11::Progress::default()).map(drop)
    };
    write_sources(&at("two"), &["layers.0", "layers.1"]);
    part(1, false).unwrap();
    let undone =
        ["layers_0", "layers_1"].into_iter().find(|name| !at(&format!("to/out/{name}.safetensors")).exists()).unwrap();
    for name in [format!(".{undone}.safetensors.df11-tmp"), ".df11-part-2-of-2.df11-job".into()] {
        let link = at("to/out").join(&name);
        let _ = std::fs::remove_file(&link);
        symlink(&victim, &link).unwrap();
        is_io(part(2, true).unwrap_err(), libc::ELOOP, &name);
        untouched();
        std::fs::remove_file(&link).unwrap();
    }
    part(2, true).unwrap();
    let merge = || {
        df11::writer::merge(&at("two"), &at("to/out"), &compress_options(Layout::Folder), &df11::Progress::default())
    };
    let link = at("to/out/.config.json.df11-tmp");
    symlink(&victim, &link).unwrap();
    is_io(merge().map(drop).unwrap_err(), libc::ELOOP, ".config.json.df11-tmp");
    untouched();
    std::fs::remove_file(&link).unwrap();
    merge().unwrap();
    assert_eq!(Model::open(at("to/out"), &OpenOptions::default()).unwrap().groups().len(), 2);
}

/// Names in a model lead to no file but the folder's own, in whatever way they are written.
#[test]
fn names_lead_out_of_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // An index that lists files elsewhere: the original of a verification, and a source.
    for (i, file) in
        ["../outside.safetensors", "/etc/passwd", "a/../../outside.safetensors", "./../x", "..", ""].iter().enumerate()
    {
        let source = at(&format!("index-{i}"));
        write_source(&source, "layers.0");
        std::fs::write(at("outside.safetensors"), files::file(&[])).unwrap();
        let index = serde_json::json!({ "weight_map": { "layers.0.a.weight": file } });
        std::fs::write(source.join("model.safetensors.index.json"), index.to_string()).unwrap();
        let open = Model::open_original(&source);
        assert_eq!(open.unwrap_err().status(), Status::InvalidFormat, "{file:?}");
        let options = compress_options(Layout::Folder);
        let to = at(&format!("to-{i}"));
        let error = df11::writer::compress(&source, &to, &options, &df11::Progress::default()).map(drop).unwrap_err();
        assert_eq!(error.status(), Status::InvalidFormat, "{file:?}: {error}");
        assert!(!to.exists(), "{file:?}");
    }
    // Groups called so that a path could be made of them.
    let deep = at("a/b/c");
    for (i, name) in ["../../layers", "/layers", "x/../../layers", "..", "a\\..\\layers"].iter().enumerate() {
        let source = deep.join(format!("source-{i}"));
        write_source(&source, &format!("{name}.0"));
        let pattern = serde_json::json!({ format!("{}\\.\\d+", regex_text(name)): ["a", "b"] });
        let patterns = Patterns::parse(&pattern.to_string()).unwrap();
        let options = CompressOptions::new().patterns(patterns).layout(Layout::Folder);
        let to = deep.join(format!("to-{i}"));
        let report = df11::writer::compress(&source, &to, &options, &df11::Progress::default()).unwrap();
        assert_eq!(report.groups, 1, "{name}");
        let model = Model::open(&to, &OpenOptions::default()).unwrap();
        assert_eq!(model.group(0).unwrap().name(), format!("{name}.0"));
        model.group(0).unwrap().verify(1).unwrap();
    }
    // Nothing lies where it should not.
    let names = |folder: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&at("a")), ["b"]);
    assert_eq!(names(&at("a/b")), ["c"]);
    assert_eq!(names(&deep).len(), 10);
}

/// A pattern that matches this text alone.
fn regex_text(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_ascii_alphanumeric() || c == '/' { vec![c] } else { vec!['\\', c] }).collect()
}
