//! The documents say what is so: links and anchors lead somewhere, paths and names exist, README's figures are those of the kept
//! results, every option of the tool is described, and every example compiles. The examples of README are also run.
#![cfg(target_os = "linux")]

use crate::support::abi::{functions_of_the_header, headers};
use crate::support::check::sha256;
use crate::support::programs::{compiler, library, run};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Documents for users: names in them are held against the header, and their width is bounded.
const FOR_USERS: [&str; 5] = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs"];

/// A Markdown file.
struct Document {
    /// From the root of the repository.
    path: PathBuf,
    text: String,
}

/// A fenced piece of a document.
struct Snippet {
    language: String,
    /// The document and the line at which it begins.
    place: String,
    text: String,
}

impl Document {
    fn read(path: &Path) -> Document {
        let text = std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
        Document { path: path.to_owned(), text }
    }

    /// Numbered lines that are not inside a fence.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(i, line)| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            (!fenced && !fence).then_some((i + 1, line))
        })
    }

    fn snippets(&self) -> Vec<Snippet> {
        let (mut found, mut open) = (Vec::new(), None::<Snippet>);
        for (i, line) in self.text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => found.extend(open.take()),
                (Some(language), None) => {
                    let place = format!("{}:{}", self.path.display(), i + 1);
                    open = Some(Snippet { language: language.to_owned(), place, text: String::new() });
                }
                (None, Some(snippet)) => snippet.text += &format!("{line}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a fence is not closed", self.path.display());
        found
    }

    /// What links point to, with their lines. An address is never broken over two lines.
    fn links(&self) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        for (line, text) in self.prose() {
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            found.extend(targets.map(|target| (line, target)));
        }
        found
    }

    /// The anchors of the headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let mut seen = BTreeMap::<String, usize>::new();
        let headings = self.prose().filter_map(|(_, line)| line.strip_prefix('#'));
        headings
            .map(|line| {
                let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
                let anchor: String = line.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect();
                let anchor = anchor.replace(' ', "-");
                let times = seen.entry(anchor.clone()).or_default();
                *times += 1;
                if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
            })
            .collect()
    }
}

/// The Markdown files of a folder and below it; or a file.
fn documents(path: &str, found: &mut Vec<Document>) {
    let whole = Path::new(ROOT).join(path);
    if whole.is_file() {
        found.push(Document::read(Path::new(path)));
        return;
    }
    let mut entries: Vec<_> = std::fs::read_dir(&whole).unwrap().map(|e| e.unwrap()).collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let folder = entry.file_type().unwrap().is_dir();
        if folder && !name.starts_with('.') && name != "target" || !folder && name.ends_with(".md") {
            documents(&below, found);
        }
    }
}

fn all() -> Vec<Document> {
    let mut found = Vec::new();
    documents("", &mut found);
    assert!(found.len() > 15, "{}", found.len());
    found
}

fn for_users() -> Vec<Document> {
    let mut found = Vec::new();
    FOR_USERS.iter().for_each(|path| documents(path, &mut found));
    found
}

/// Why a link of a document leads nowhere.
fn broken(document: &Document, target: &str) -> Option<String> {
    if target.starts_with("http://") || target.starts_with("https://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let folder = document.path.parent().unwrap();
    let file = if path.is_empty() { document.path.clone() } else { folder.join(path) };
    if !Path::new(ROOT).join(&file).exists() {
        return Some("there is no such file".into());
    }
    let anchor = anchor?;
    (!Document::read(&file).anchors().contains(anchor)).then(|| format!("{} has no such heading", file.display()))
}

#[test]
fn links_lead_somewhere() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for document in all() {
        for (line, target) in document.links() {
            count += 1;
            wrong.extend(
                broken(&document, target).map(|why| format!("{}:{line}: {target}: {why}", document.path.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 60, "{count} links");
    // The checks see what they are to see.
    let readme = Document { path: "docs/made-up.md".into(), text: "# One `two`: three\n## Four\n## Four\n".into() };
    assert!(readme.anchors().iter().eq(["four", "four-1", "one-two-three"]));
    assert_eq!(broken(&readme, "../README.md#what-works"), None);
    assert_eq!(broken(&readme, "https://example.com/nothing"), None);
    assert!(broken(&readme, "../README.md#what-does-not").is_some() && broken(&readme, "README").is_some());
}

/// Text between backticks, of prose alone.
fn quoted(document: &Document) -> impl Iterator<Item = (usize, &str)> {
    document.prose().flat_map(|(line, text)| text.split('`').skip(1).step_by(2).map(move |quoted| (line, quoted)))
}

/// Every document can be found from the first.
#[test]
fn documents_are_listed() {
    let index = Document::read(Path::new("docs/README.md"));
    let linked: BTreeSet<&str> = index.links().into_iter().map(|(_, target)| target).collect();
    let mut pages = Vec::new();
    documents("docs", &mut pages);
    for page in pages.iter().filter(|page| page.path != index.path) {
        let name = page.path.file_name().unwrap().to_str().unwrap();
        assert!(linked.contains(name), "docs/README.md does not list {name}");
    }
    assert!(Document::read(Path::new("README.md")).links().iter().any(|(_, target)| *target == "docs/README.md"));
}

#[test]
fn paths_that_are_named_exist() {
    let folders = ["src/", "tests/", "docs/", "examples/", "kernels/", "bindings/", "include/"];
    let (mut wrong, mut count) = (Vec::new(), 0);
    for document in for_users() {
        for (line, path) in quoted(&document) {
            let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if plain && folders.iter().any(|folder| path.starts_with(folder)) {
                count += 1;
                if !Path::new(ROOT).join(path).exists() {
                    wrong.push(format!("{}:{line}: there is no {path}", document.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 20, "{count} paths");
}

/// Words of the C interface are the header's. Variables of the environment, which begin as its constants do, are the tests'.
#[test]
fn names_of_the_interface_exist() {
    let header = headers();
    let words: BTreeSet<&str> = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let functions: BTreeSet<String> = functions_of_the_header().into_iter().map(|f| f.name).collect();
    assert!(functions.len() > 40);
    let (mut wrong, mut count) = (Vec::new(), 0);
    // What was renamed is in the list of changes under both names.
    let documents = for_users().into_iter().filter(|d| d.path != Path::new("CHANGELOG.md"));
    for document in documents.chain([Document::read(Path::new("docs/images/path.svg"))]) {
        let known = |word: &str| match word.strip_suffix("()") {
            Some(function) => functions.contains(function),
            // Ends of names, as in `df11_*`, name nothing.
            None => words.contains(word) || word.ends_with('_'),
        };
        for (line, text) in document.text.lines().enumerate() {
            for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !"_()".contains(c)) {
                let word = word.trim_matches(|c| c == '(' || c == ')' && !word.ends_with("()"));
                let word =
                    word.split_once('(').filter(|(_, rest)| !rest.starts_with(')')).map_or(word, |(name, _)| name);
                if !word.starts_with("df11_") && !word.starts_with("DF11_") {
                    continue;
                }
                count += 1;
                let elsewhere = [
                    "df11_static",
                    "DF11_MODEL",
                    "DF11_BLESS",
                    "DF11_LIBRARY",
                    "DF11_PREFIX",
                    "DF11_ROUNDS",
                    "df11_DIR",
                ];
                if !known(word) && !elsewhere.contains(&word) {
                    wrong.push(format!("{}:{}: {word}", document.path.display(), line + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the header has no\n{}", wrong.join("\n"));
    assert!(count > 60, "{count} names");
}

/// A merge that was committed with its conflicts compiles where only documents are concerned.
#[test]
fn no_conflict_is_left() {
    for document in all() {
        for (i, line) in document.text.lines().enumerate() {
            let is_mark = ["<<<<<<< ", ">>>>>>> "].iter().any(|mark| line.starts_with(mark));
            assert!(!is_mark, "{}:{}: {line}", document.path.display(), i + 1);
        }
    }
}

#[test]
fn readme_is_short_and_narrow() {
    let readme = Document::read(Path::new("README.md"));
    assert!(readme.text.lines().count() <= 150, "README.md has {} lines", readme.text.lines().count());
    for document in for_users() {
        for (i, line) in document.text.lines().enumerate() {
            let columns = line.chars().count();
            assert!(columns <= 120, "{}:{} has {columns} columns", document.path.display(), i + 1);
        }
    }
    for snippet in readme.snippets() {
        assert!(snippet.text.lines().count() <= 6, "{} is longer than six lines", snippet.place);
    }
}

#[test]
fn figures_are_those_of_the_results() {
    let script = |readme: &Path| {
        Command::new("python3")
            .current_dir(ROOT)
            .args(["tests/bench/figures.py", "--check", "--readme"])
            .arg(readme)
            .output()
            .expect("missing: python3")
    };
    let said = script(Path::new("README.md"));
    assert!(
        said.status.success(),
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    // One digit that is wrong is found.
    let text = Document::read(Path::new("README.md")).text;
    let at = text.find("| **libdf11** | **").unwrap() + "| **libdf11** | **".len();
    let digit = if text[at..].starts_with('9') { "8" } else { "9" };
    let changed = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("README.md");
    std::fs::write(&copy, changed).unwrap();
    let said = script(&copy);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains("+| **libdf11** | **"), "{said:?}");
}

/// What an example takes for granted: how it is declared, for those that do not declare it themselves.
const GRANTED: [(&str, &str); 9] = [
    ("error", "df11_error error;"),
    ("model", "df11_model *model = NULL;"),
    ("info", "df11_group_info info = DF11_GROUP_INFO_INIT;"),
    ("layer", "uint64_t layer = 0;"),
    ("stream", "df11_stream stream = NULL;"),
    ("device", "df11_device *device = NULL;"),
    ("d_image", "df11_devptr d_image = 0;"),
    ("d_weights", "df11_devptr d_weights = 0;"),
    ("d_status", "df11_devptr d_status = 0;"),
];
const GRANTED_CPP: [(&str, &str); 7] = [
    ("model", "df11::Model model;"),
    ("stream", "df11_stream stream = nullptr;"),
    ("image_bytes", "std::size_t image_bytes = 0;"),
    ("bytes", "std::size_t bytes = 0;"),
    ("d_image", "df11_devptr d_image = 0;"),
    ("d_weights", "df11_devptr d_weights = 0;"),
    ("d_status", "df11_devptr d_status = 0;"),
];

/// The declarations of names that a text uses and does not declare.
fn granted(text: &str, all: &[(&str, &str)]) -> String {
    let words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let declared = |name: &str| {
        // A type, at the beginning of a line or after a semicolon, and then the name.
        text.split(['\n', ';']).any(|statement| {
            let mut words = statement.trim().split([' ', '*', '=']).filter(|w| !w.is_empty());
            let first = words.next().unwrap_or_default();
            (first.starts_with("df11") || first.starts_with("uint")) && words.next() == Some(name)
        })
    };
    let needed = all.iter().filter(|(name, _)| words.contains(name) && !declared(name));
    needed.map(|(_, declaration)| format!("{declaration}\n")).collect()
}

/// A program or a part of one around an example. What it includes comes first.
fn wrapped(snippet: &Snippet, before: &str, behind: &str) -> String {
    let cpp = snippet.language == "cpp";
    let granted = if cpp { granted(&snippet.text, &GRANTED_CPP) } else { granted(&snippet.text, &GRANTED) };
    let (includes, text): (Vec<&str>, Vec<&str>) = snippet.text.lines().partition(|line| line.starts_with("#include"));
    let standard = if cpp {
        "#include <df11.hpp>\n#include <vector>\n"
    } else {
        "#include <df11.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
    };
    format!("{standard}{}\n{before}\n{granted}{}\n{behind}\n", includes.join("\n"), text.join("\n"))
}

/// Compiles every example in C and C++, each as a function of its own.
#[test]
fn examples_in_c_and_cpp_compile() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = BTreeMap::<String, usize>::new();
    for snippet in all().iter().flat_map(Document::snippets).filter(|s| s.language == "c" || s.language == "cpp") {
        let cpp = snippet.language == "cpp";
        let source = folder.path().join(if cpp { "example.cc" } else { "example.c" });
        std::fs::write(&source, wrapped(&snippet, "int example(void);\nint example(void) {", "return 0; }")).unwrap();
        let mut command = compiler(cpp);
        command.current_dir(folder.path()).args(["-c", "-Wall", "-Wextra", "-Werror"]);
        command.arg(if cpp { "-std=c++17" } else { "-std=c11" });
        // Examples leave out what is done with the answer.
        command.args(["-Wno-unused-variable", "-Wno-unused-but-set-variable"]);
        command.args([format!("-I{ROOT}/include"), format!("-I{ROOT}/bindings/cpp")]);
        let said = command.arg(&source).output().unwrap();
        assert!(said.status.success(), "{}: {}", snippet.place, String::from_utf8_lossy(&said.stderr));
        *count.entry(snippet.language).or_default() += 1;
    }
    assert!(count["c"] >= 4 && count["cpp"] >= 2, "{count:?}");
}

#[test]
fn examples_in_json_are_json() {
    let snippets: Vec<Snippet> =
        for_users().iter().flat_map(Document::snippets).filter(|s| s.language == "json").collect();
    assert!(!snippets.is_empty());
    for snippet in snippets {
        serde_json::from_str::<serde_json::Value>(&snippet.text).unwrap_or_else(|e| panic!("{}: {e}", snippet.place));
    }
}

/// README's example in a language.
fn of_readme(language: &str) -> Snippet {
    let snippets = Document::read(Path::new("README.md")).snippets();
    snippets.into_iter().find(|s| s.language == language).unwrap_or_else(|| panic!("README.md has no {language}"))
}

/// A folder in which README's examples find their model under the name that they give.
fn with_model() -> (tempfile::TempDir, String) {
    let (folder, golden) = (tempfile::tempdir().unwrap(), Path::new(ROOT).join("tests/data/golden/block"));
    std::os::unix::fs::symlink(golden.join("model"), folder.path().join("Qwen3-8B-DF11")).unwrap();
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden.join("expected.json")).unwrap()).unwrap();
    let hash = expected["tensors"]["model.layers.0.mlp.up_proj.weight"]["sha256"].as_str().unwrap();
    (folder, hash.to_owned())
}

#[test]
fn the_example_in_c_reads_a_tensor() {
    let (libraries, (folder, expected)) = (library(), with_model());
    let snippet = of_readme("c");
    let before = "int main(void) {";
    let behind = "fwrite(weights, 1, info.data_bytes, stdout); return error.status; }";
    std::fs::write(folder.path().join("example.c"), wrapped(&snippet, before, behind)).unwrap();
    run(compiler(false)
        .current_dir(folder.path())
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "example.c", "-o", "example", "-ldf11"])
        .args([format!("-I{ROOT}/include"), format!("-L{0}", libraries.path().display())])
        .arg(format!("-Wl,-rpath,{}", libraries.path().display())));
    let said = run(Command::new(folder.path().join("example")).current_dir(folder.path()));
    assert_eq!(sha256(&said.stdout), expected);
}

/// The same from Go: the package finds the library by pkg-config.
#[test]
fn the_example_in_go_reads_a_tensor() {
    let (libraries, (folder, expected)) = (library(), with_model());
    let (lib, module) = (libraries.path(), "github.com/libdf11/libdf11/bindings/go");
    let package = format!(
        "Name: df11\nDescription: the library under test\nVersion: {}\nCflags: -I{ROOT}/include\nLibs: -L{} -ldf11\n",
        env!("CARGO_PKG_VERSION"),
        lib.display()
    );
    std::fs::create_dir(lib.join("pkgconfig")).unwrap();
    std::fs::write(lib.join("pkgconfig/df11.pc"), package).unwrap();
    let go_mod = format!("module example\ngo 1.24\nrequire {module} v0.0.0\nreplace {module} => {ROOT}/bindings/go\n");
    std::fs::write(folder.path().join("go.mod"), go_mod).unwrap();
    let program = format!(
        "package main\nimport (\n\"context\"\n\"encoding/binary\"\n\"os\"\ndf11 \"{module}\"\n)\nfunc main() {{\nctx := context.Background()\n{}\n\
         if err != nil {{ panic(err) }}\nbinary.Write(os.Stdout, binary.LittleEndian, weights)\n}}\n",
        of_readme("go").text
    );
    std::fs::write(folder.path().join("main.go"), program).unwrap();

    let found = run(Command::new("bindings/go/toolchain.sh").current_dir(ROOT)).stdout;
    let go = Path::new(std::str::from_utf8(&found).unwrap().trim()).join("go");
    let flags = run(Command::new("bindings/go/flags.sh").current_dir(ROOT).arg(ROOT).arg(lib)).stdout;
    run(Command::new(go)
        .current_dir(folder.path())
        .args([
            "build",
            "-mod=mod",
            "-o",
            "example",
            &format!("-ldflags=-extldflags=-Wl,-rpath,{}", lib.display()),
            ".",
        ])
        .env("GOFLAGS", std::str::from_utf8(&flags).unwrap().trim())
        .env("PKG_CONFIG_PATH", lib.join("pkgconfig")));
    let said = run(Command::new(folder.path().join("example")).current_dir(folder.path()));
    assert_eq!(sha256(&said.stdout), expected);
}

/// The same from Python, without numpy or with it.
#[test]
fn the_example_in_python_reads_a_tensor() {
    let (libraries, (folder, expected)) = (library(), with_model());
    let program = format!(
        "{}\nimport sys\nsys.stdout.buffer.write(getattr(weights, \"tobytes\", lambda: weights)())\n",
        of_readme("python").text
    );
    let said = run(Command::new("python3")
        .current_dir(folder.path())
        .args(["-c", &program])
        .env("DF11_LIBRARY", libraries.path().join("libdf11.so"))
        .env("PYTHONPATH", format!("{ROOT}/bindings/python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1"));
    assert_eq!(sha256(&said.stdout), expected);
}

/// What Python calls by ctypes is what the header declares.
#[test]
fn the_module_for_ctypes_is_that_of_the_header() {
    run(Command::new("python3").current_dir(ROOT).args(["bindings/python/generate.py", "--check"]));
}

/// README's commands, on a small model that they find under the name that they give.
#[cfg(feature = "cli")]
#[test]
fn the_commands_of_readme_work() {
    let readme = Document::read(Path::new("README.md"));
    let commands = readme.snippets().into_iter().find(|s| s.text.starts_with("df11 compress")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("Qwen3-8B");
    std::fs::create_dir(&source).unwrap();
    std::fs::copy(
        Path::new(ROOT).join("tests/data/golden/block/original.safetensors"),
        source.join("model.safetensors"),
    )
    .unwrap();
    std::fs::write(source.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    let tool = Path::new(env!("CARGO_BIN_EXE_df11")).parent().unwrap();
    let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
    let said = run(Command::new("sh").args(["-ec", &commands.text]).current_dir(folder.path()).env("PATH", path));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("21 tensors equal"), "{said}");
    // The shapes came back, too: the headers agree but for the metadata.
    let header = |path: PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes[8..end]).unwrap();
        header.remove("__metadata__");
        header
    };
    let written = header(folder.path().join("Qwen3-8B-again/model.safetensors"));
    assert!(written.len() == 21 && written == header(source.join("model.safetensors")), "{written:?}");
}

/// docs/tool.md names every option of the tool, and no other.
#[cfg(feature = "cli")]
#[test]
fn every_option_of_the_tool_is_described() {
    let options = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        words.filter(|w| w.starts_with("--") && !w.starts_with("---") && w.len() > 2).map(str::to_owned).collect()
    };
    let mut there = BTreeSet::new();
    for command in ["plan", "compress", "merge", "inspect", "decompress", "repack", "verify", "presets"] {
        let help = run(Command::new(env!("CARGO_BIN_EXE_df11")).args([command, "--help"])).stdout;
        there.extend(options(std::str::from_utf8(&help).unwrap()));
    }
    there.retain(|option| !["--help", "--version"].contains(&&option[..]));
    assert!(there.len() > 20, "{there:?}");
    let page = Document::read(Path::new("docs/tool.md"));
    // Another program's options are not meant.
    let ours: Vec<&str> = page.text.lines().filter(|line| !line.contains("`hf ")).collect();
    let mut described = options(&ours.join("\n"));
    described.retain(|option| option != "--help");
    assert_eq!(described, there);
}

/// The documents give the number of presets that there are.
#[cfg(feature = "cli")]
#[test]
fn the_number_of_presets_is_right() {
    let said = run(Command::new(env!("CARGO_BIN_EXE_df11")).args(["presets", "--json"])).stdout;
    let presets: serde_json::Value = serde_json::from_slice(&said).unwrap();
    let there = presets["presets"].as_array().unwrap().len();
    let mut count = 0;
    for document in for_users() {
        let words: Vec<&str> = document.text.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| pair[1] == "families") {
            if let Ok(said) = pair[0].parse::<usize>() {
                assert_eq!(said, there, "{}: {said} families", document.path.display());
                count += 1;
            }
        }
    }
    assert!(count > 0);
}
