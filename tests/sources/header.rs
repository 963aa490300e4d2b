//! `include/df11.h` is what its chapters in `src/capi` say today, and so is `include/df11_experimental.h`. With `DF11_BLESS=1`
//! (`make header`) they are written instead.
//!
//! cbindgen translates one file at a time, so that the types, the constants, the `_INIT` macros and the functions of one
//! concept stand together. What is done to its output here: banners go between the chapters, `# Safety` becomes
//! "Requires:", structs are named by their typedefs, and each struct that begins with its size gets its `_INIT` macro.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// No line of the header is longer.
const COLUMNS: usize = 100;

/// The chapters, each with the files that it is made of. What a file uses comes before it.
const CHAPTERS: [(&str, &[&str]); 15] = [
    ("VERSION", &["version"]),
    ("STATUSES AND ERRORS", &["status"]),
    ("LOG", &["log"]),
    ("PROGRESS: what long calls are given", &["progress"]),
    ("MODELS: open and look", &["model", "group", "tensor"]),
    ("CPU: decode", &["host"]),
    ("CPU: matrices to multiply with", &["matrix"]),
    ("CUDA: devices", &["device"]),
    ("CUDA: images in host memory", &["image"]),
    ("CUDA: shards, which are parts of groups for several devices", &["shard"]),
    ("CUDA: residents, which are images on a device", &["resident"]),
    ("CUDA: decode on a stream", &["decompress"]),
    ("CUDA: linear images, to multiply with", &["linear_image"]),
    ("WRITE: models, plans of models, presets, groups in memory", &["compress", "plan", "rewrite", "preset", "pack"]),
    ("VERIFY: whole models", &["verify"]),
];

/// The files of `include/df11_experimental.h`.
const EXPERIMENTAL: [&str; 1] = ["multiply"];

/// The beginning of that header.
const EXPERIMENTAL_TEXT: &str = "\
/*
 * df11_experimental.h: calls of libdf11 that are NOT part of its stable ABI.
 *
 * Generated from src/capi by cbindgen; do not edit. Licence: Apache-2.0 OR MIT.
 *
 * What is declared here works and is tested as the rest is, but may change or go with any version:
 * it has not been timed on a GPU yet. Compile with the header of the library that you run with.
 * Everything that df11.h says of streams, memory, threads, errors and structs holds here too.
 *
 * LINEAR IMAGES
 *   A product with one vector reads every weight once. df11_linear() reads them in compressed form,
 *   12.05 bits instead of 16, and decodes them in registers. It takes a *linear* image: one that a
 *   resident decodes from as well, so that one image serves long prompts (decode, then multiply
 *   with what you have) and single tokens.
 *
 *       df11_linear_matrix qkv[3] = { ... };
 *       df11_linear_options options = DF11_LINEAR_OPTIONS_INIT;
 *       options.d_x = x, options.vector_count = 1, options.y_dtype = DF11_DTYPE_F32;
 *       uint64_t workspace_bytes;
 *       df11_linear_get_workspace(qkv, 3, &options, &workspace_bytes, &error);    at the start
 *       options.d_workspace = ..., options.workspace_bytes = workspace_bytes;
 *       df11_linear(qkv, 3, &options, stream, &error);                            for each token
 */
";

/// What a `# Safety` section says where nothing is required but what the text before it says.
const AS_DESCRIBED: &str = "The pointers are as described.";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn source(file: &str) -> String {
    read(format!("src/capi/{file}.rs"))
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let generated = generate();
    let path = root().join("include/df11.h");
    if std::env::var_os("DF11_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    assert!(read(&path) == generated, "include/df11.h is not what src/capi says: run `make header`");
    let generated = generate_experimental();
    let path = root().join("include/df11_experimental.h");
    if std::env::var_os("DF11_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    assert!(read(&path) == generated, "include/df11_experimental.h is not what src/capi says: run `make header`");
}

/// Returns both headers, one after the other.
fn headers() -> String {
    read("include/df11.h") + &read("include/df11_experimental.h")
}

/// Returns the files of both headers.
fn files() -> impl Iterator<Item = &'static str> {
    CHAPTERS.iter().flat_map(|(_, files)| *files).copied().chain(EXPERIMENTAL)
}

/// Every file that declares something for C is in a chapter, once.
#[test]
fn every_file_has_a_chapter() {
    let mut declaring: Vec<String> = std::fs::read_dir(root().join("src/capi"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|file| source(file).contains("#[unsafe(no_mangle)]"))
        .collect();
    let mut listed: Vec<String> = files().map(str::to_owned).collect();
    declaring.sort();
    listed.sort();
    assert_eq!(declaring, listed);
}

/// Whatever Rust's documentation requires of a caller is said to a C programmer too.
#[test]
fn every_precondition_is_in_the_header() {
    let header = prose(&headers(), "*");
    let (mut functions, mut required) = (0, 0);
    for file in files() {
        let source = source(file);
        for (at, start) in source.match_indices("#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn ") {
            let before = &source[..at];
            let name = source[at + start.len()..].split('(').next().unwrap();
            let docs = before.rfind("\n\n").map_or(before, |start| &before[start..]);
            let (_, safety) = docs.split_once("/// # Safety").unwrap_or_else(|| panic!("{name} has no # Safety"));
            let safety = prose(safety, "///");
            functions += 1;
            if safety != AS_DESCRIBED {
                required += 1;
                let text = format!("Requires: {safety}");
                assert!(header.contains(&text), "the header does not say, of {name}: {text}");
            }
        }
    }
    assert!(functions > 35 && required > 20, "{required} of {functions}");
}

/// The words of a comment, each line of which begins with `mark`.
fn prose(text: &str, mark: &str) -> String {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("/**").trim_start_matches(mark));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn lines_are_short_and_sizes_say_what_they_measure() {
    let header = headers();
    for (number, line) in header.lines().enumerate() {
        let columns = line.chars().count();
        assert!(columns <= COLUMNS, "line {} has {columns} columns: {line}", number + 1);
        let code = !line.trim_start().starts_with(['*', '/', '#']);
        let plain =
            line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "bytes" || word == "size");
        assert!(!(code && plain), "line {}: bytes of what? {line}", number + 1);
    }
}

/// The struct of an _INIT macro has as many fields as the macro has values.
#[test]
fn initialisers_have_a_value_for_each_field() {
    let header = headers().replace("\\\n    ", "");
    let mut structs = 0;
    for (name, body) in structs_of(&header) {
        let macro_name = format!("#define {}_INIT {{", name.to_uppercase());
        let Some((_, rest)) = header.split_once(&macro_name) else {
            assert!(!body.contains("size_t struct_size;"), "{name} has no _INIT macro");
            continue;
        };
        structs += 1;
        assert_eq!(rest.split('}').next().unwrap().split(',').count(), body.matches(';').count(), "{name}");
    }
    assert_eq!(structs, header.matches("_INIT {").count(), "an _INIT macro without a struct");
}

/// The structs that a header defines: names, and their fields without comments.
fn structs_of(header: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in header.lines() {
        if let Some(name) = line.strip_prefix("typedef struct ").and_then(|rest| rest.strip_suffix(" {")) {
            found.push((name.to_owned(), String::new()));
            inside = true;
        } else if line.starts_with('}') {
            inside = false;
        } else if inside && !line.trim_start().starts_with(['/', '*']) {
            writeln!(found.last_mut().unwrap().1, "{line}").unwrap();
        }
    }
    found
}

fn generate() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let mut header = config.header.unwrap().trim_start().to_owned();
    header.push_str(
        "#ifndef DF11_H\n#define DF11_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n\
         #ifdef __cplusplus\nextern \"C\" {\n#endif\n",
    );
    for (number, (title, files)) in CHAPTERS.iter().enumerate() {
        let line = "=".repeat(COLUMNS - 6);
        write!(header, "\n/* {line} */\n/* {:<94} */\n/* {line} */\n\n", format!("{}. {title}", number + 1)).unwrap();
        if *title == "VERSION" {
            header.push_str(&version_macros());
        }
        let chapter: Vec<String> = files.iter().map(|file| translate(file)).collect();
        header.push_str(&chapter.join("\n"));
    }
    header.push_str("\n#ifdef __cplusplus\n}  // extern \"C\"\n#endif\n\n#endif  /* DF11_H */\n");
    header
}

fn generate_experimental() -> String {
    let mut header = EXPERIMENTAL_TEXT.to_owned();
    header.push_str(
        "#ifndef DF11_EXPERIMENTAL_H\n#define DF11_EXPERIMENTAL_H\n\n#include \"df11.h\"\n\n\
         #ifdef __cplusplus\nextern \"C\" {\n#endif\n\n",
    );
    header.push_str(&EXPERIMENTAL.map(translate).join("\n"));
    header.push_str("\n#ifdef __cplusplus\n}  // extern \"C\"\n#endif\n\n#endif  /* DF11_EXPERIMENTAL_H */\n");
    header
}

fn version_macros() -> String {
    let [major, minor, patch] =
        [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")]
            .map(|part| part.parse::<u32>().unwrap());
    format!(
        "/** The version of this header; df11_version_number() is that of the library. */\n\
         #define DF11_VERSION_NUMBER {}\n#define DF11_VERSION_MAJOR {major}\n#define DF11_VERSION_MINOR {minor}\n\
         #define DF11_VERSION_PATCH {patch}\n\n",
        major * 10000 + minor * 100 + patch
    )
}

/// A file of `src/capi` as C.
fn translate(file: &str) -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    config.header = None;
    config.line_length = COLUMNS;
    let mut builder = cbindgen::Builder::new().with_config(config);
    let scratch = tempfile::tempdir().unwrap();
    if file == "status" {
        let constants = scratch.path().join("constants.rs");
        std::fs::write(&constants, constants_of_statuses()).unwrap();
        builder = builder.with_src(constants);
    }
    let mut generated = Vec::new();
    builder.with_src(root().join(format!("src/capi/{file}.rs"))).generate().unwrap().write(&mut generated);
    tidy(&String::from_utf8(generated).unwrap())
}

/// The statuses as constants that cbindgen understands, from the list in `src/error.rs` that all else is made from.
fn constants_of_statuses() -> String {
    let errors = read("src/error.rs");
    let (_, list) = errors.split_once("$each! {\n").unwrap();
    let mut constants = String::new();
    for line in list.split("\n        }").next().unwrap().lines().map(str::trim) {
        match line.split_once(" = ").and_then(|(_, row)| row.trim_end_matches(';').split_once(", ")) {
            Some((code, name)) => writeln!(constants, "pub const {name}: df11_status = {code};").unwrap(),
            None => writeln!(constants, "{line}").unwrap(),
        }
    }
    assert!(constants.matches("pub const DF11_").count() > 20);
    constants
}

/// Turns `# Safety` into "Requires:", or drops it where it requires nothing; puts comments of one line on one line; names
/// structs by their typedefs; and writes the `_INIT` macros.
fn tidy(generated: &str) -> String {
    let generated = generated.replace("typedef struct df11_", "typedef tag df11_").replace("struct df11_", "df11_");
    let generated = generated.replace("typedef tag df11_", "typedef struct df11_");
    let mut kept: Vec<String> = Vec::new();
    let mut lines = generated.trim().lines();
    while let Some(line) = lines.next() {
        if line.trim() == "* # Safety" {
            let safety: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "*/").collect();
            let text = prose(&safety.join("\n"), "*");
            if text == AS_DESCRIBED {
                while kept.last().is_some_and(|line| line.trim() == "*") {
                    kept.pop();
                }
            } else {
                kept.extend(wrap(&format!("Requires: {text}"), " * "));
            }
            kept.push(" */".into());
            one_line(&mut kept);
            continue;
        }
        let mut line = line.trim_end().to_owned();
        // cbindgen breaks some prototypes that need no break.
        if line.starts_with("df11_status ") && line.ends_with(',') {
            let broken: Vec<&str> = lines
                .clone()
                .scan(true, |more, line| std::mem::replace(more, line.ends_with(',')).then_some(line))
                .collect();
            let whole =
                [&[line.as_str()], &broken[..]].concat().iter().map(|part| part.trim()).collect::<Vec<_>>().join(" ");
            if whole.len() <= COLUMNS {
                lines.by_ref().take(broken.len()).for_each(drop);
                line = whole;
            }
        }
        kept.push(line.clone());
        if line.trim() == "*/" {
            one_line(&mut kept);
        }
        if let Some(name) = line.strip_prefix("} ").and_then(|rest| rest.strip_suffix(';')) {
            kept.extend(initialiser(name, &kept.join("\n")));
        }
        // Nor do two empty lines say more than one.
        if let [.., a, b] = &kept[..]
            && a.is_empty()
            && b.is_empty()
        {
            kept.pop();
        }
    }
    kept.join("\n") + "\n"
}

/// Puts the comment that `kept` ends with on one line if it has one line and fits.
fn one_line(kept: &mut Vec<String>) {
    if let [.., open, text, _] = &kept[..]
        && open.trim() == "/**"
        && let Some(text) = text.trim().strip_prefix("* ")
    {
        let line = format!("{} {text} */", open.trim_end());
        if line.chars().count() <= COLUMNS {
            kept.truncate(kept.len() - 3);
            kept.push(line);
        }
    }
}

/// The _INIT macro of a struct that begins with its size: all zeros but that.
fn initialiser(name: &str, before: &str) -> Vec<String> {
    let (_, body) = structs_of(before).pop().unwrap();
    let Some(fields) = body.trim().strip_prefix("size_t struct_size;") else { return Vec::new() };
    let zero = |field: &str| if field.contains('*') || field.contains("_fn ") { "NULL" } else { "0" };
    let values: Vec<&str> = fields.split(';').filter(|field| !field.trim().is_empty()).map(zero).collect();
    let define = format!("#define {}_INIT", name.to_uppercase());
    let values = format!("{{ sizeof({name}), {} }}", values.join(", "));
    let comment = format!("/** Initialises a {name}: every field but struct_size is 0 or NULL. */");
    let mut lines = vec![String::new(), comment];
    if define.len() + 1 + values.len() <= COLUMNS {
        lines.push(format!("{define} {values}"));
    } else {
        lines.push(format!("{define} \\"));
        let mut line = String::from("   ");
        for value in values.split(' ') {
            if line.len() + 1 + value.len() + 2 > COLUMNS {
                lines.push(std::mem::replace(&mut line, "   ".into()) + " \\");
            }
            line += &format!(" {value}");
        }
        lines.push(line);
    }
    lines
}

/// The words of a text on lines that begin with `start`.
fn wrap(text: &str, start: &str) -> Vec<String> {
    let mut lines = vec![start.to_owned()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if line.len() > start.len() && line.chars().count() + 1 + word.chars().count() > COLUMNS - 1 {
            lines.push(format!("{start}{word}"));
        } else {
            if line.len() > start.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
