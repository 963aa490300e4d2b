//! Files and folders that hold no safetensors, and files that hold no JSON: what they hold in place of that, and how a person gets to
//! a model.
//!
//! Nothing here decides whether something is a model. It is asked for the words after that has failed.

use crate::error::shorten;
use std::ffi::OsStr;
use std::fmt::Display;
use std::path::Path;

/// Bytes of the beginning of a file that [`kind`] looks at. They are enough for a pointer of Git LFS.
pub(super) const HEAD_BYTES: usize = 512;

/// The remedy for weights that PyTorch has saved.
const SAVE: &str = "load it in Python, and save it with safetensors.torch.save_file()";

/// Formats with a fixed beginning: the first byte, the bytes there, and the kind of the file with its remedy.
const SIGNATURES: [(usize, &[u8], &str, &str); 14] = [
    (0, b"GGUF", "a GGUF file", "DF11 is made from the original model's bf16 *.safetensors"),
    (0, b"PK\x03\x04", "a zip archive, as PyTorch writes (.pt, .pth, .bin)", SAVE),
    (0, b"\x80\x02", "a pickle, as PyTorch writes (.pt, .pth, .bin)", SAVE),
    (0, b"\x80\x03", "a pickle, as PyTorch writes (.pt, .pth, .bin)", SAVE),
    (0, b"\x80\x04", "a pickle, as PyTorch writes (.pt, .pth, .bin)", SAVE),
    (0, b"\x80\x05", "a pickle, as PyTorch writes (.pt, .pth, .bin)", SAVE),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", "save it with safetensors.numpy.save_file()"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes (.h5)", "take the model's *.safetensors"),
    (4, b"TFL3", "a TensorFlow Lite file", "take the model's *.safetensors"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"\x1f\x8b", "an archive compressed by gzip", "unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "a file compressed by zstd", "unpack it"),
    (0, b"\xfd7zXZ\x00", "a file compressed by xz", "unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
];

/// Says in a sentence what a file is that does not begin as a safetensors file does, and what helps. Returns `None` if that is not
/// known.
pub(super) fn kind(head: &[u8]) -> Option<String> {
    for (at, signature, what, remedy) in SIGNATURES {
        if head.get(at..).is_some_and(|rest| rest.starts_with(signature)) {
            return Some(format!("not a safetensors file but {what}: {remedy}"));
        }
    }
    if head.iter().all(|&b| b == 0) {
        return Some(ZEROS.into());
    }
    let text = text(head)?;
    if let Some((what, remedy)) = answer(text) {
        return Some(format!("not a safetensors file but {what}: {remedy}"));
    }
    if text.starts_with(['{', '[']) {
        return Some("not a safetensors file but JSON: give the folder that it is in, or a *.safetensors".into());
    }
    // It is not quoted: a link may lead to a file that whoever reads the message may not read.
    let reason =
        "not a safetensors file but a text, such as a server's message: look at it, and download the file again";
    Some(reason.into())
}

/// Says why a text is no JSON: what it is in place of that, with what helps, if that is known, or else the parser's `error`. `what` is
/// the beginning of the sentence, such as "the config".
pub(crate) fn not_json(what: &str, text: &[u8], error: impl Display) -> String {
    let head = &text[..text.len().min(HEAD_BYTES)];
    if text.trim_ascii().is_empty() {
        return format!(
            "{what} is not valid JSON but empty: its download has not begun, or the disk was full, so download it again"
        );
    }
    if head.iter().all(|&b| b == 0) {
        return format!("{what} is not valid JSON: {ZEROS}");
    }
    match self::text(head).and_then(answer) {
        Some((what_else, remedy)) => format!("{what} is not valid JSON but {what_else}: {remedy}"),
        None => format!("{what} is not valid JSON: {error}"),
    }
}

/// What is said of a file of which no byte has come.
const ZEROS: &str = "the file begins with zeros: its download has not ended, so download it again";

/// Returns the beginning of a file if it is a text, without a byte order mark and white space. Its last character may be cut off.
fn text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
        Err(_) => return None,
    };
    let readable = text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    let text = text.trim_start_matches('\u{feff}').trim();
    (readable && !text.is_empty()).then_some(text)
}

/// Tells what a server, or Git, gives in place of a file, and what helps.
fn answer(text: &str) -> Option<(&'static str, &'static str)> {
    let begins = |with: &str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if begins("version https://git-lfs.") || begins("version http://git-media.") || text.contains("\noid sha256:") {
        return Some(("a Git LFS pointer to one", "`git lfs pull` in its folder fetches the file"));
    }
    if begins("<!doctype html") || begins("<html") || text.contains("<head>") {
        return Some(("a web page", "download the file itself, with `hf download` for example"));
    }
    begins("<?xml").then_some(("XML, a server's answer to a download that failed", "download it again"))
}

/// The kinds of weights, or of states of a training, that are no safetensors: the endings of their names, what they are, and the
/// remedy.
const OTHER_WEIGHTS: [(&[&str], &str, &str); 3] = [
    (
        &["bin", "pt", "pth", "ckpt", "pkl", "pickle", "ptl", "mar"],
        "PyTorch's weights",
        "convert them: transformers' or diffusers' save_pretrained() writes *.safetensors",
    ),
    (&["gguf"], "GGUF", "DF11 is made from the original model's bf16 *.safetensors"),
    (
        &[
            "onnx",
            "onnx_data",
            "h5",
            "keras",
            "pb",
            "tflite",
            "msgpack",
            "orbax",
            "ot",
            "npz",
            "nemo",
            "distcp",
            "pdparams",
            "pdopt",
            "pdmodel",
            "mlmodel",
            "mlpackage",
            "mlmodelc",
            "engine",
            "trt",
            "ggml",
            "llamafile",
            "task",
            "litertlm",
            "pte",
        ],
        "weights of another format",
        "take the model's *.safetensors",
    ),
];

/// Tells whether a file whose name has this ending, in small letters, holds weights in another format, or a state of a training.
/// Some that end in `bin` do not.
#[cfg(feature = "writer")]
pub(crate) fn is_other_weights(ending: &str) -> bool {
    OTHER_WEIGHTS.iter().any(|(endings, ..)| endings.contains(&ending))
}

/// The endings that programs give to the names of downloads that have not ended.
pub(crate) const DOWNLOADS: [&str; 6] = ["incomplete", "part", "partial", "aria2", "crdownload", "download"];

/// Says in a sentence what a folder has that has no `*.safetensors`, and what helps.
pub(super) fn instead_of_safetensors(folder: &Path) -> String {
    const NONE: &str = "the folder has no *.safetensors";
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    let shown = |name: &OsStr| shorten(&name.to_string_lossy(), 60);
    let ends = |name: &OsStr, endings: &[&str]| {
        let extension = Path::new(name).extension().map(OsStr::to_ascii_lowercase);
        extension.is_some_and(|extension| endings.iter().any(|&ending| extension == ending))
    };
    if let Some(index) = names.iter().find(|name| super::files::is_index(&name.to_string_lossy())) {
        return format!("{NONE}, only their index '{}': the download has not ended, so resume it", shown(index));
    }
    let downloads: (&[&str], _, _) = (&DOWNLOADS, "a download that has not ended", "resume the download");
    for (endings, what, remedy) in OTHER_WEIGHTS.into_iter().chain([downloads]) {
        if let Some(name) = names.iter().find(|name| ends(name, endings)) {
            return format!("{NONE}, but {what} ('{}'): {remedy}", shown(name));
        }
    }
    // A pipeline of diffusers, a folder of models, or a model in the cache of the Hugging Face Hub.
    let snapshots = Path::new("snapshots");
    let below = |parent: &Path| {
        let inside = std::fs::read_dir(folder.join(parent)).into_iter().flatten().flatten();
        let mut inside: Vec<_> = inside.map(|entry| parent.join(entry.file_name())).collect();
        inside.sort();
        inside.into_iter().find(|path| has_safetensors(&folder.join(path)))
    };
    match below(Path::new("")).or_else(|| below(snapshots)) {
        Some(path) => format!("{NONE}, but its folder '{}' has some: give that", shown(path.as_os_str())),
        None => NONE.into(),
    }
}

fn has_safetensors(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let weights = |path: &Path| path.extension().is_some_and(|e| e == "safetensors");
    entries.map(|entry| entry.path()).any(|path| weights(&path) && !hidden(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let mut tar = vec![b'x'; 257];
        tar.extend(b"ustar\0");
        for (head, expected) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"[..], "`git lfs pull`"),
            (b"\xef\xbb\xbf\n <!DOCTYPE HTML>", "a web page"),
            (b"<html lang=de>", "a web page"),
            (b"<?xml version='1.0'?><Error>", "XML"),
            (b"{\"error\": 404}", "JSON"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"PK\x03\x04\0\0", "a zip archive"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9", "a pickle"),
            (b"\x93NUMPY\x01\0", "safetensors.numpy"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"\x18\0\0\0TFL3", "TensorFlow Lite"),
            (&tar, "a tar archive"),
            (&[0; 512], "zeros"),
            (b"Access to model x/y is restricted.\nPlease", "but a text, such as a server's message"),
        ] {
            let said = kind(head).unwrap();
            assert!(said.contains(expected) && said.len() <= 220, "{said}");
        }
        for (text, expected) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"[..], "`git lfs pull`"),
            (b"\xef\xbb\xbf\n <!DOCTYPE HTML>", "but a web page: download"),
            (b"<?xml version='1.0'?><Error>", "but XML"),
            (b" \n", "not valid JSON but empty"),
            (b"", "not valid JSON but empty"),
            (&[0; 4096], "zeros"),
            (b"{\"a\": <html", "is not valid JSON: the error"),
            (b"nonsense", "is not valid JSON: the error"),
            (b"\xff", "is not valid JSON: the error"),
        ] {
            let said = not_json("the config", text, "the error");
            assert!(said.starts_with("the config is ") && said.contains(expected) && said.len() <= 220, "{said}");
        }
        // A character that the end of the head cuts off, and one that is none.
        for head in ["entr\u{e9}".as_bytes(), &"entr\u{e9}".as_bytes()[..5]] {
            assert!(kind(head).unwrap().contains("but a text"), "{head:?}");
        }
        for head in [&b"entr\xe9e"[..], b"a\x01b", b"\xff\xfe\xfd"] {
            assert_eq!(kind(head), None, "{head:?}");
        }
    }
}
