//! Where models are written: what lies there already, what may not be replaced, and who else writes there.

use crate::support;

use df11::internals::writer::plan::Patterns;
use df11::writer::{self, CompressOptions, Layout, Part, Report};
use df11::{Dtype, Error, Model, OpenOptions, Progress, Status};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::files::{self, Stored};
use support::weights;
use tempfile::TempDir;

fn bf16(name: &str, weights: &[u16]) -> Stored {
    Stored::new(name, Dtype::BF16, &[weights.len() / 64, 64], bytemuck::cast_slice(weights).to_vec())
}

/// A folder with a model of two layers and an embedding that is in no group.
fn source() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec![bf16("embed.weight", &weights::trained_like(6400, 1))];
    for layer in 0..2 {
        for (i, name) in ["a", "b"].into_iter().enumerate() {
            all.push(bf16(
                &format!("layers.{layer}.{name}.weight"),
                &weights::gaussian(12800, 0.02, 2 * layer + i as u64),
            ));
        }
    }
    std::fs::write(folder.path().join("model.safetensors"), files::file(&all)).unwrap();
    folder
}

fn patterned(json: Value) -> CompressOptions {
    CompressOptions::new().patterns(Patterns::parse(&json.to_string()).unwrap())
}

fn options() -> CompressOptions {
    patterned(json!({ r"layers\.\d+": ["a", "b"] }))
}

fn run(source: &Path, to: &Path, options: &CompressOptions) -> Result<Report, Error> {
    writer::compress(source, to, options, &Progress::new())
}

fn refused(result: Result<Report, Error>, status: Status, part: &str) {
    let error = result.map(drop).unwrap_err();
    assert!(error.status() == status && error.to_string().contains(part), "{error}");
}

/// The names of a model's first group's tensors, as any reader has them.
fn names(model: &Path) -> Vec<String> {
    let model = Model::open(model, &OpenOptions::default()).unwrap();
    model.group(0).unwrap().tensors().map(|t| t.name().to_owned()).collect()
}

/// Runs and calls `meanwhile` once, when it is known how much there is to do.
fn run_with(
    source: &Path,
    to: &Path,
    options: &CompressOptions,
    meanwhile: impl FnOnce() + Send + 'static,
) -> Result<Report, Error> {
    let once = Mutex::new(Some(meanwhile));
    let progress = Progress::with_callback(move |progress| {
        if progress.total() > 0
            && let Some(meanwhile) = once.lock().unwrap().take()
        {
            meanwhile();
        }
        true
    });
    writer::compress(source, to, options, &progress)
}

/// Readers look for NAME.config.json first: one of an earlier model is not left there, to be read with the new one.
#[test]
fn the_config_of_an_earlier_file_is_not_left_in_the_way() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let to = folder.path().join("x.safetensors");
    let other = patterned(json!({ r"layers\.\d+": ["b", "a"] }));
    let (a, b) = ("layers.0.a.weight", "layers.0.b.weight");
    for (options, names_are) in [(options(), [a, b]), (other, [b, a]), (options(), [a, b])] {
        run(from.path(), &to, &options).unwrap();
        assert_eq!(names(&to), names_are);
    }
    // Also where nothing but that is left of it; and nobody's is replaced unasked.
    let own = folder.path().join("x.config.json");
    for text in [r#"{"precious": 1}"#, "{"] {
        std::fs::remove_file(&to).unwrap();
        std::fs::write(&own, text).unwrap();
        let keep = options().keep_existing(true);
        refused(run(from.path(), &to, &keep), Status::Exists, "x.config.json' is there already");
        assert_eq!(std::fs::read_to_string(&own).unwrap(), text);
        run(from.path(), &to, &options()).unwrap();
        assert_eq!(names(&to), [a, b]);
    }
    // One that says the same is no reason.
    std::fs::remove_file(&to).unwrap();
    run(from.path(), &to, &options().keep_existing(true)).unwrap();
}

/// Shards may be links to files elsewhere, as downloads keep them: those are the source, too, and so is what has the name of
/// an unfinished file.
#[cfg(unix)]
#[test]
fn a_source_is_not_replaced_by_whatever_name() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let blob = folder.path().join("blob.safetensors");
    std::fs::rename(from.path().join("model.safetensors"), &blob).unwrap();
    std::os::unix::fs::symlink(&blob, from.path().join("model.safetensors")).unwrap();
    let before = std::fs::read(&blob).unwrap();
    refused(run(from.path(), &blob, &options()), Status::InvalidArgument, "it is the source");
    let unfinished = folder.path().join(".y.safetensors.df11-tmp");
    std::fs::copy(&blob, &unfinished).unwrap();
    refused(run(&unfinished, &folder.path().join("y.safetensors"), &options()), Status::InvalidArgument, "the source");
    assert!(std::fs::read(&blob).unwrap() == before && std::fs::read(&unfinished).unwrap() == before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// A run may take hours: what has got the name meanwhile is not replaced unasked, either.
#[test]
fn a_file_that_appears_meanwhile_stays() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let to = folder.path().join("x.safetensors");
    let there = to.clone();
    let keep = options().keep_existing(true);
    let result = run_with(from.path(), &to, &keep, move || std::fs::write(&there, "precious").unwrap());
    refused(result, Status::Exists, "is there already");
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "precious");
    assert!(!folder.path().join("config.json").exists());
}

/// The last step of all fails, here because there is a folder by now: a config that was there is there again.
#[test]
fn a_file_that_gets_no_name_leaves_no_config() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let (to, own) = (folder.path().join("x.safetensors"), folder.path().join("x.config.json"));
    for before in [None, Some("earlier")] {
        if let Some(text) = before {
            std::fs::write(&own, text).unwrap();
        }
        let there = to.clone();
        let result = run_with(from.path(), &to, &options(), move || std::fs::create_dir(there).unwrap());
        refused(result, Status::Io, "rename to");
        assert_eq!(std::fs::read_to_string(&own).ok().as_deref(), before);
        assert!(!folder.path().join("config.json").exists());
        std::fs::remove_dir(&to).unwrap();
        run(from.path(), &to, &options().resume(true)).unwrap();
        assert_eq!(names(&to).len(), 2);
        std::fs::remove_file(&to).unwrap();
        std::fs::remove_file(folder.path().join(if before.is_some() { "x.config.json" } else { "config.json" }))
            .unwrap();
    }
}

/// A folder is written as one file per group or as a single one, and files beside it are not put into it meanwhile: each way
/// has a file that the other has, too.
#[cfg(unix)]
#[test]
fn one_folder_is_written_in_one_way() {
    let from = source();
    for first in [Layout::Folder, Layout::SingleFile] {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("out");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (source, out, sink) = (from.path().to_owned(), to.clone(), said.clone());
        let others = move || {
            for resume in [false, true] {
                for (layout, to) in [
                    (Layout::Folder, out.clone()),
                    (Layout::SingleFile, out.clone()),
                    (Layout::ByName, out.join("model.safetensors")),
                ] {
                    let options = options().layout(layout).resume(resume);
                    sink.lock().unwrap().push((layout, resume, run(&source, &to, &options).map(drop)));
                }
            }
        };
        run_with(from.path(), &to, &options().layout(first), others).unwrap();
        let said = std::mem::take(&mut *said.lock().unwrap());
        assert_eq!(said.len(), 6);
        for (layout, resume, result) in said {
            let error = result.expect_err(&format!("{layout:?} in the midst of {first:?}, resume {resume}"));
            let may = [Status::InvalidArgument, Status::Busy, Status::Unfinished, Status::Exists];
            assert!(may.contains(&error.status()), "{error}");
        }
        assert_eq!(names(&to).len(), 2);
    }
}

/// One completes a folder of parts, and no other at the same time.
#[cfg(unix)]
#[test]
fn one_merges_at_a_time() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    for number in 1..=2 {
        let part = Part { number, count: 2 };
        run(from.path(), folder.path(), &options().part(part)).unwrap();
    }
    let said = Arc::new(Mutex::new(None));
    let (source, to, sink) = (from.path().to_owned(), folder.path().to_owned(), said.clone());
    let progress = Progress::with_callback(move |progress| {
        let mut said = sink.lock().unwrap();
        if progress.total() > 0 && said.is_none() {
            *said = Some(writer::merge(&source, &to, &options(), &Progress::new()));
        }
        true
    });
    let report = writer::merge(from.path(), folder.path(), &options(), &progress).unwrap();
    refused(said.lock().unwrap().take().unwrap(), Status::Busy, "another process is writing");
    assert!(report.complete && names(folder.path()).len() == 2);
    let hidden = |name: &str| name.starts_with('.');
    let left = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| hidden(name)).collect::<Vec<_>>(), [""; 0]);
}

/// What another run asked for is not what this one asks for: a model without hashes is none with them, and what was left plain
/// is an error for whoever wants all or nothing.
#[test]
fn going_on_does_not_forget_what_was_asked_for() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    for to in ["whole", "whole.safetensors"] {
        run(from.path(), &at(to), &options()).unwrap();
        let resume = options().resume(true).keep_existing(true);
        assert_eq!(run(from.path(), &at(to), &resume).unwrap().resumed, 2);
        for more in [resume.clone().hashes(true), resume.clone().shapes(true)] {
            let status = Status::Exists;
            assert_eq!(run(from.path(), &at(to), &more).unwrap_err().status(), status, "{to}");
        }
    }
    // An infinity, which DF11 cannot hold.
    let mut odd = weights::gaussian(6400, 0.02, 9);
    odd[77] = 0x7f80;
    let tensors = [bf16("layers.0.a.weight", &odd), bf16("layers.1.a.weight", &weights::gaussian(6400, 0.02, 1))];
    let odd = tempfile::tempdir().unwrap();
    std::fs::write(odd.path().join("model.safetensors"), files::file(&tensors)).unwrap();
    let all = patterned(json!({ r"layers\.\d+": ["a"] }));
    let part = |number, resume, strict| all.clone().part(Part { number, count: 2 }).resume(resume).strict(strict);
    let to = at("parts");
    run(odd.path(), &to, &part(1, false, false)).unwrap();
    run(odd.path(), &to, &part(2, false, false)).unwrap();
    let strict = all.clone().strict(true);
    refused(run(odd.path(), &to, &part(1, true, true)), Status::UnsupportedFormat, "layers.0.a.weight");
    refused(writer::merge(odd.path(), &to, &strict, &Progress::new()), Status::UnsupportedFormat, "layers.0.a.weight");
    assert_eq!(writer::merge(odd.path(), &to, &all, &Progress::new()).unwrap().left.len(), 1);
    let again = all.resume(true);
    assert!(run(odd.path(), &to, &again).unwrap().complete);
    refused(run(odd.path(), &to, &again.strict(true)), Status::UnsupportedFormat, "layers.0");
}

/// Begins a single file and fails when all of its groups are on the disk: nothing can be written under the names of its configs.
fn begin(source: &Path, to: &Path, options: &CompressOptions) {
    let obstacles = [".config.json.df11-tmp", ".x.config.json.df11-tmp"].map(|name| to.with_file_name(name));
    obstacles.iter().for_each(|name| std::fs::create_dir(name).unwrap());
    refused(run(source, to, options), Status::Io, "cannot create");
    obstacles.iter().for_each(|name| std::fs::remove_dir(name).unwrap());
    assert!(!to.exists() || std::fs::read(to).unwrap() == b"earlier");
}

/// What a run may replace was said when it began: a file that came since is nobody's to replace, and one that was there then
/// needs no second word.
#[test]
fn going_on_replaces_only_what_was_to_be_replaced() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let to = folder.path().join("x.safetensors");
    let keep = options().keep_existing(true);
    let resume = keep.clone().resume(true);
    begin(from.path(), &to, &keep);
    assert!(folder.path().join(".x.safetensors.df11-job").is_file());
    for there in [&to, &folder.path().join("x.config.json")] {
        std::fs::write(there, "precious").unwrap();
        for _ in 0..2 {
            let error = run(from.path(), &to, &resume).unwrap_err();
            assert!(matches!(&error, Error::Exists(path) if path == there), "{error}");
            assert_eq!(std::fs::read_to_string(there).unwrap(), "precious");
        }
        std::fs::remove_file(there).unwrap();
    }
    assert_eq!(run(from.path(), &to, &resume).unwrap().resumed, 2);
    let whole = std::fs::read(&to).unwrap();
    // Whoever says so now replaces it, whatever was said then.
    for (first, then) in [(options(), &resume), (keep, &options().resume(true))] {
        std::fs::remove_file(&to).unwrap();
        if !first.keep_existing {
            std::fs::write(&to, "earlier").unwrap();
        }
        begin(from.path(), &to, &first);
        std::fs::write(&to, "earlier").unwrap();
        assert_eq!(run(from.path(), &to, then).unwrap().resumed, 2);
        assert!(std::fs::read(&to).unwrap() == whole);
    }
}

/// A model is more than its tensors: going on with one that has them all writes the rest, and says what has changed since.
#[test]
fn going_on_looks_at_what_goes_with_the_tensors() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    std::fs::create_dir(from.path().join("more")).unwrap();
    for (name, text) in [("config.json", r#"{"a": 1}"#), ("tokenizer.json", "{}"), ("more/card.md", "card")] {
        std::fs::write(from.path().join(name), text).unwrap();
    }
    let at = |name: &str| folder.path().join(name);
    let kinds = [(Layout::Folder, "a"), (Layout::SingleFile, "b"), (Layout::ByName, "c/x.safetensors")];
    for (layout, name) in kinds {
        let to = at(name);
        let beside = if layout == Layout::ByName { to.parent().unwrap().to_owned() } else { to.clone() };
        let resume = options().layout(layout).resume(true).keep_existing(true);
        run(from.path(), &to, &resume).unwrap();
        let all: &[&str] = if layout == Layout::ByName { &[] } else { &["tokenizer.json", "more/card.md"] };
        let before = std::fs::read(beside.join("config.json")).unwrap();
        for gone in [&["config.json"], all].concat() {
            let (file, text) = (beside.join(gone), std::fs::read(beside.join(gone)).unwrap());
            std::fs::remove_file(&file).unwrap();
            let report = run(from.path(), &to, &resume).unwrap();
            assert_eq!((report.resumed, report.carried.len()), (2, all.len()));
            assert!(std::fs::read(&file).unwrap() == text, "{gone} is there again");
            // Beside a single file it is somebody else's: the file's own then has a name of its own.
            if layout != Layout::ByName {
                std::fs::write(&file, "changed").unwrap();
                refused(run(from.path(), &to, &resume), Status::InvalidArgument, &format!("{gone}' is not what"));
                assert_eq!(std::fs::read(&file).unwrap(), b"changed");
                std::fs::write(&file, &text).unwrap();
            }
        }
        assert!(std::fs::read(beside.join("config.json")).unwrap() == before);
    }
    // The source's config is another one since.
    std::fs::write(from.path().join("config.json"), r#"{"a": 2}"#).unwrap();
    for (layout, name) in kinds {
        let resume = options().layout(layout).resume(true);
        let result = run(from.path(), &at(name), &resume);
        if layout != Layout::ByName {
            refused(result, Status::InvalidArgument, "config.json' is not what this run would write");
            continue;
        }
        result.unwrap();
        let own = at("c/x.config.json");
        assert!(std::fs::read_to_string(&own).unwrap().contains(r#""a": 2"#));
        std::fs::write(&own, "{}").unwrap();
        refused(run(from.path(), &at(name), &resume), Status::InvalidArgument, "x.config.json' is not what");
    }
}

/// A first word of "replace" is of what is there then, and none of what comes later.
#[test]
fn what_came_since_is_not_what_was_to_be_replaced() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let to = folder.path().join("x.safetensors");
    begin(from.path(), &to, &options());
    std::fs::write(&to, "precious").unwrap();
    let resume = options().resume(true).keep_existing(true);
    assert!(matches!(run(from.path(), &to, &resume), Err(Error::Exists(_))));
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "precious");
    std::fs::remove_file(&to).unwrap();
    assert_eq!(run(from.path(), &to, &resume).unwrap().resumed, 2);
}

/// A file alone in a folder of others' and the same file in a folder of its own have one name, and are two jobs. What is begun
/// as the one is not gone on with as the other, which would write more beside it.
#[test]
fn a_file_in_somebodys_folder_does_not_become_the_folders_model() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    for (name, text) in [("config.json", r#"{"a": 1}"#), ("card.md", "the source's")] {
        std::fs::write(from.path().join(name), text).unwrap();
    }
    let (to, card) = (folder.path().join("model.safetensors"), folder.path().join("card.md"));
    let ledger = folder.path().join(".model.safetensors.df11-job");
    std::fs::write(&card, "mine").unwrap();
    begin(from.path(), &to, &options());
    // And what a run that was killed before its first group leaves.
    let text = std::fs::read_to_string(&ledger).unwrap();
    let head = text.lines().next().unwrap().to_owned() + "\n";
    for text in [&text, &head] {
        std::fs::write(&ledger, text).unwrap();
        for resume in [false, true] {
            let single = options().layout(Layout::SingleFile).resume(resume);
            let error = run(from.path(), folder.path(), &single).unwrap_err();
            let said = error.to_string();
            assert!(matches!(error, Error::InvalidArgument(_)) && !said.contains("the folder"), "{said}");
            assert_eq!(std::fs::read_to_string(&card).unwrap(), "mine");
            assert_eq!(&std::fs::read_to_string(&ledger).unwrap(), text);
        }
    }
    run(from.path(), &to, &options().resume(true)).unwrap();
    assert_eq!(std::fs::read_to_string(&card).unwrap(), "mine");
}

/// A run that fails removes what it has written, and nothing that it found: not what an earlier one that was killed has left,
/// and not what somebody has put there since.
#[test]
fn a_failure_removes_what_the_run_has_written() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    std::fs::create_dir(from.path().join("more")).unwrap();
    for (name, text) in [("a.md", "a"), ("b.md", "b"), ("more/c.md", "c")] {
        std::fs::write(from.path().join(name), text).unwrap();
    }
    let to = folder.path().join("out");
    let single = options().layout(Layout::SingleFile).keep_existing(true);
    let resume = single.clone().resume(true);
    let ledger = to.join(".model.safetensors.df11-job");
    run_with(from.path(), &to, &single, {
        let (ledger, kept) = (ledger.clone(), folder.path().join("ledger"));
        move || assert!(std::fs::copy(&ledger, &kept).unwrap() > 0)
    })
    .unwrap();
    // As after a kill before the first group, with something of somebody's own.
    for name in ["model.safetensors", "config.json", "a.md"] {
        std::fs::remove_file(to.join(name)).unwrap();
    }
    std::fs::copy(folder.path().join("ledger"), &ledger).unwrap();
    let error = run(from.path(), &to, &single).unwrap_err();
    assert!(matches!(error, Error::Unfinished(_)), "{error}");
    std::fs::write(to.join("model.safetensors"), "mine").unwrap();
    assert!(matches!(run(from.path(), &to, &resume), Err(Error::Exists(_))));
    std::fs::remove_file(to.join("model.safetensors")).unwrap();
    std::fs::write(to.join("b.md"), "mine").unwrap();
    refused(run(from.path(), &to, &resume), Status::InvalidArgument, "b.md' is not what");
    let stopped = Progress::with_callback(|progress| progress.total() == 0);
    writer::compress(from.path(), &to, &resume, &stopped).unwrap_err();
    let read = |name: &str| std::fs::read_to_string(to.join(name)).unwrap();
    assert_eq!((read("b.md").as_str(), read("more/c.md").as_str()), ("mine", "c"));
    std::fs::write(to.join("b.md"), "b").unwrap();
    assert!(run(from.path(), &to, &resume).unwrap().complete);
    assert_eq!(read("a.md"), "a");
    // In an unfinished folder that is found before the work.
    let (parts, part) = (folder.path().join("parts"), |number| Part { number, count: 2 });
    run(from.path(), &parts, &options().part(part(1))).unwrap();
    std::fs::write(parts.join("a.md"), "mine").unwrap();
    let second = options().part(part(2));
    let worked = run_with(from.path(), &parts, &second, || panic!("it began to work"));
    refused(worked, Status::InvalidArgument, "a.md' is not what");
    std::fs::remove_file(parts.join("a.md")).unwrap();
    run(from.path(), &parts, &second.resume(true)).unwrap();
    assert!(writer::merge(from.path(), &parts, &options(), &Progress::new()).unwrap().complete);
}

/// A link below the destination leads nowhere, wherever it points: not to a folder elsewhere, not to another one of the
/// destination, and not to a file. Nothing is read or written through it.
#[cfg(unix)]
#[test]
fn links_below_the_destination_are_not_followed() {
    use std::os::unix::fs::symlink;
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    for name in ["a", "b"] {
        std::fs::create_dir(from.path().join(name)).unwrap();
        std::fs::write(from.path().join(name).join("card.md"), name).unwrap();
    }
    let (to, victim) = (folder.path().join("to"), folder.path().join("victim"));
    std::fs::create_dir(&victim).unwrap();
    for number in 1..=2 {
        run(from.path(), &to, &options().part(Part { number, count: 2 })).unwrap();
    }
    let merge = || writer::merge(from.path(), &to, &options(), &Progress::new());
    for target in [&victim, Path::new("a")] {
        symlink(target, to.join("b")).unwrap();
        let error = merge().unwrap_err();
        assert_eq!((error.status(), error.native_code()), (Status::Io, libc::ELOOP), "{error}");
        assert!(error.to_string().contains("/b'"), "{error}");
        assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
        std::fs::remove_file(to.join("b")).unwrap();
    }
    // One that is equal is still a link.
    std::fs::write(victim.join("card.md"), "b").unwrap();
    std::fs::create_dir(to.join("b")).unwrap();
    symlink(victim.join("card.md"), to.join("b/card.md")).unwrap();
    assert_eq!(merge().unwrap_err().native_code(), libc::ELOOP);
    std::fs::remove_file(to.join("b/card.md")).unwrap();
    assert!(merge().unwrap().complete);
    for name in ["a", "b"] {
        assert_eq!(std::fs::read_to_string(to.join(name).join("card.md")).unwrap(), name);
    }
    // A link that leads to the destination itself is the caller's, who names it.
    symlink("elsewhere", folder.path().join("link")).unwrap();
    std::fs::create_dir(folder.path().join("elsewhere")).unwrap();
    assert!(run(from.path(), &folder.path().join("link"), &options()).unwrap().complete);
    assert!(folder.path().join("elsewhere/b/card.md").is_file());
}

/// Going on is offered only where it would be accepted.
#[test]
fn going_on_is_offered_to_the_same_job_alone() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let other = patterned(json!({ r"layers\.\d+": ["b", "a"] }));
    let (to, parts) = (folder.path().join("x.safetensors"), folder.path().join("parts"));
    begin(from.path(), &to, &options());
    run(from.path(), &parts, &options().part(Part { number: 1, count: 2 })).unwrap();
    let two = |options: CompressOptions| options.part(Part { number: 1, count: 2 });
    for (to, same) in [(&to, options()), (&parts, two(options()))] {
        let again = run(from.path(), to, &same).unwrap_err();
        assert!(matches!(again, Error::Unfinished(_)), "{again}");
    }
    for (to, different) in [(&to, other.clone()), (&parts, two(other)), (&parts, options())] {
        let error = run(from.path(), to, &different).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)) && error.to_string().contains("was begun"), "{error}");
    }
    // A folder that is written one way is not gone on with in the other.
    let inside = parts.join("x.safetensors");
    let error = run(from.path(), &inside, &options().resume(true)).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
}

/// What a run that was killed at its very end has left beside its model says nothing about another one.
#[test]
fn notes_of_another_job_are_none() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let note = folder.path().join(".df11-part-1-of-1.df11-job");
    run_with(from.path(), &folder.path().join("x"), &options(), {
        let (from, to) = (folder.path().join("x/.df11-part-1-of-1.df11-job"), note.clone());
        move || assert!(std::fs::copy(from, to).unwrap() > 0)
    })
    .unwrap();
    let own = std::fs::read_to_string(&note).unwrap();
    std::fs::remove_dir_all(folder.path().join("x")).unwrap();
    // That of the same job is no obstacle, either; nor is what is none.
    let other =
        "{\"job\":{\"source\":\"another\"},\"manner\":\"a file per group\",\"replaces\":false}\n{\"finished\":true}\n";
    for text in [other.to_owned(), own] {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join(".df11-part-1-of-1.df11-job");
        std::fs::write(&note, text).unwrap();
        assert_eq!(run(from.path(), folder.path(), &options()).unwrap().groups, 2);
        assert!(!note.exists());
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".df11-part-1-of-1.df11-job"), "{\n").unwrap();
    refused(run(from.path(), folder.path(), &options()), Status::InvalidFormat, "not what an unfinished run leaves");
    // It may be somebody's, so it stays, and nothing else does.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A folder that cannot be begun is as it was, or not there.
#[test]
fn what_cannot_be_begun_leaves_nothing() {
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let to = folder.path().join("new/er/out");
    for (layout, name) in [(Layout::Folder, "out"), (Layout::SingleFile, "out"), (Layout::ByName, "out/x.safetensors")]
    {
        let to = to.with_file_name(name);
        let stopped = Progress::with_callback(|progress| progress.total() == 0);
        let result = writer::compress(from.path(), &to, &options().layout(layout), &stopped);
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
    }
    // The ledger cannot be written, because something has its name.
    let obstacle = to.join(".df11-part-1-of-1.df11-job");
    std::fs::create_dir_all(&obstacle).unwrap();
    refused(run(from.path(), &to, &options()), Status::Io, "cannot open");
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1);
    std::fs::remove_dir(&obstacle).unwrap();
    assert!(run(from.path(), &to, &options()).unwrap().complete);
}

/// Two names that are no UTF-8 are two files.
#[cfg(target_os = "linux")]
#[test]
fn names_of_any_bytes_are_different_files() {
    use std::os::unix::ffi::OsStrExt;
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    let at = |name: &[u8]| folder.path().join(std::ffi::OsStr::from_bytes(name));
    let (one, two) = (at(b"\xff.safetensors"), at(b"\xfe.safetensors"));
    let (source, other) = (from.path().to_owned(), two.clone());
    run_with(from.path(), &one, &options(), move || drop(run(&source, &other, &options()).unwrap())).unwrap();
    assert!(names(&one) == names(&two));
}

/// A run that fails removes what it had begun before it lets go of the lock: whoever has that next is alone.
#[cfg(unix)]
#[test]
fn who_fails_removes_nothing_of_the_next_one() {
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    let (from, folder) = (source(), tempfile::tempdir().unwrap());
    for (name, lock) in [("x.safetensors", ".x.safetensors.df11-job"), ("x", "x/.df11-part-1-of-1.df11-job")] {
        let (to, lock, ended) = (folder.path().join(name), folder.path().join(lock), AtomicBool::new(false));
        // What this test itself removes is not meant.
        let clears = Mutex::new(());
        let is_named = |file: &std::fs::File| file.metadata().unwrap().nlink() > 0;
        std::thread::scope(|scope| {
            let next = scope.spawn(|| {
                let mut stolen = 0;
                while !ended.load(Ordering::Relaxed) {
                    let Ok(file) = std::fs::File::open(&lock) else { continue };
                    let had = file.try_lock().is_ok();
                    let rest = clears.lock().unwrap();
                    if had && is_named(&file) {
                        std::thread::sleep(std::time::Duration::from_millis(2));
                        stolen += !is_named(&file) as usize;
                    }
                    drop((file, rest));
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                stolen
            });
            let (mut cancelled, start) = (0, std::time::Instant::now());
            while cancelled < 100 && start.elapsed().as_secs() < 60 {
                let progress = Progress::with_callback(|progress| progress.total() == 0);
                match writer::compress(from.path(), &to, &options(), &progress) {
                    Err(Error::Cancelled) => cancelled += 1,
                    // The other one was faster.
                    Err(Error::InvalidArgument(_) | Error::Busy(_) | Error::Unfinished(_)) if to.is_dir() => {
                        let _alone = clears.lock().unwrap();
                        std::fs::remove_dir_all(&to).unwrap();
                    }
                    result => assert!(matches!(result, Err(Error::Busy(_))), "{name}: {result:?}"),
                }
            }
            ended.store(true, Ordering::Relaxed);
            assert_eq!(next.join().unwrap(), 0, "{name}: removed after the lock was let go of");
            assert!(cancelled > 0, "{name}: it never got as far as that");
        });
    }
}
