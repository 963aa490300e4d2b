//! What no kept file can show: paths of things that are no files, and files that change while they are used.

use std::path::Path;

use df11::{DecodeOptions, Model, OpenOptions, Status};
use half::bf16;

use super::support::weights::{self, Random};
use super::support::{encoder, files};
use super::{base, file, offset_of};

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_without_waiting() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pipe = |path: &Path| {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a text that ends in a zero byte.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    };
    // Each in a folder of its own, as the model itself and as one of its files.
    for (name, member) in [("pipe", "x.safetensors"), ("folder", "x.safetensors"), ("link", "x.safetensors")] {
        std::fs::create_dir(at(name)).unwrap();
        let path = at(name).join(member);
        match name {
            "pipe" => pipe(&path),
            "folder" => std::fs::create_dir(&path).unwrap(),
            _ => symlink("/dev/zero", &path).unwrap(),
        }
        for model in [at(name), path.clone()] {
            if name == "folder" && model == path {
                continue;
            }
            let error = Model::open(model, &OpenOptions::default()).unwrap_err();
            assert_eq!(error.status(), Status::Io, "{name}: {error}");
            assert!(error.to_string().contains("x.safetensors"), "{error}");
        }
    }
    let good = file(&base());
    for name in ["config is a pipe", "config is a folder"] {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::write(at(name).join("model.safetensors"), &good).unwrap();
        match name {
            "config is a pipe" => pipe(&at(name).join("config.json")),
            _ => std::fs::create_dir(at(name).join("config.json")).unwrap(),
        }
        let error = Model::open(at(name), &OpenOptions::default()).unwrap_err();
        assert_eq!(error.status(), Status::Io, "{name}: {error}");
        assert!(error.to_string().contains("config.json"), "{error}");
    }
    symlink("nowhere", at("dangling")).unwrap();
    symlink("circle", at("circle")).unwrap();
    for name in ["no such model", "dangling", "circle"] {
        let error = Model::open(at(name), &OpenOptions::default()).unwrap_err();
        assert_eq!(error.status(), Status::Io, "{error}");
        assert!(error.native_code() != 0 && error.to_string().contains(name), "{error}");
    }
}

/// Overwrites bytes of a file in place.
#[cfg(unix)]
fn poke(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[cfg(target_os = "linux")]
/// Safe code gets no shared slice of a file that others may change: neither bytes that change under it nor a bus error.
/// (That it cannot map one at all is a `compile_fail` example of `Model::open_mapped`.)
#[forbid(unsafe_code)]
#[test]
fn safe_code_sees_no_byte_of_a_file_change() {
    use std::io::{Seek, SeekFrom, Write};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound.safetensors");
    let tensor = files::Stored::new("t", df11::Dtype::U8, &[8192], vec![b'a'; 8192]);
    std::fs::write(&path, files::file(&[tensor])).unwrap();
    let mut file = std::fs::File::options().write(true).open(&path).unwrap();

    let model = Model::open(&path, &OpenOptions::new()).unwrap();
    let tensor = model.find_tensor("t").unwrap();
    assert_eq!(tensor.data(), None);
    assert!(model.groups().flat_map(|g| g.parts()).all(|part| part.data.is_none()));
    let mut bytes = [0; 8192];
    tensor.read(0, &mut bytes, &DecodeOptions::new()).unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();

    let at = tensor.location().unwrap().offset;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[0xff; 100]).unwrap();
    file.set_len(at + 100).unwrap();
    assert!(text.chars().all(|c| c == 'a'));
    let mut one = [0];
    tensor.read(99, &mut one, &DecodeOptions::new()).unwrap();
    assert_eq!(one, [0xff], "what is in the file now");
    let error = tensor.read(100, &mut one, &DecodeOptions::new()).unwrap_err();
    assert_eq!(error.status(), Status::Corrupt, "{error}");
}

/// Mapped, which is beyond what `Model::open_mapped` promises, and read.
#[test]
fn a_file_that_changes_after_it_was_opened_does_no_harm() {
    let weights = weights::gaussian(200_000, 0.02, 1);
    let bytes = file(&encoder::encode(&weights, &[]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut random = Random::new(2);
    let (mut refused, mut changed) = (0, 0);
    for round in 0..200 {
        std::fs::write(&path, &bytes).unwrap();
        let model = crate::support::files::open(&path, round % 4 == 0).unwrap();
        let member = ["output_positions", "gaps", "encoded_exponent", "luts", "split_positions", ""][round % 6];
        if member.is_empty() {
            // The header itself.
            poke(&path, 0, &[0xff; 64]);
        } else {
            let at = offset_of(&bytes, &format!("layer.{member}"));
            let noise: Vec<u8> = (0..1 + random.below(64)).map(|_| random.bits() as u8).collect();
            let noise = if random.below(3) == 0 { vec![0xff; noise.len()] } else { noise };
            poke(&path, at + random.below(60), &noise);
        }
        let mut found = vec![bf16::ZERO; weights.len()];
        let options = DecodeOptions::new().threads(1 + round % 2);
        if let Err(error) = model.group(0).unwrap().decompress(0, &mut found, &options) {
            assert_eq!(error.status(), Status::Corrupt, "round {round}, {member}: {error}");
            changed += error.to_string().contains("have changed since the model was opened") as usize;
            refused += 1;
        }
        let _ = model.group(0).unwrap().verify(2);
        // A part in the middle, too.
        let _ = model.group(0).unwrap().decompress(77_777, &mut found[..50_000], &options);
    }
    assert!(refused > 20 && changed > 0, "{refused} refused, {changed} of them for their positions");
}

#[cfg(unix)]
#[test]
fn a_file_cut_short_after_it_was_opened_for_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, file(&base())).unwrap();
    let model = Model::open(&path, &OpenOptions::new()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(20).unwrap();
    let mut weights = [bf16::ZERO; 40];
    for error in [
        model.group(0).unwrap().decompress(0, &mut weights, &DecodeOptions::default()).unwrap_err(),
        model.group(0).unwrap().verify(1).unwrap_err(),
    ] {
        assert_eq!(error.status(), Status::Corrupt);
        assert!(error.to_string().contains("has become shorter since it was opened"), "{error}");
    }
}
