//! `include/df11.h` is what cbindgen makes of `src/capi` today. With `DF11_BLESS=1` (`make header`) it is written instead.

use std::path::Path;

#[test]
fn the_committed_header_is_the_generated_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let [major, minor, patch] =
        [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")]
            .map(|part| part.parse::<u32>().unwrap());
    config.after_includes = Some(format!(
        "\n/** The version of this header; df11_version_number() is that of the library. */\n\
         #define DF11_VERSION_NUMBER {}\n#define DF11_VERSION_MAJOR {major}\n#define DF11_VERSION_MINOR {minor}\n\
         #define DF11_VERSION_PATCH {patch}\n\n{}\n",
        major * 10000 + minor * 100 + patch,
        config.after_includes.unwrap_or_default().trim()
    ));
    let builder = [
        "status",
        "log",
        "types",
        "model",
        "host",
        "image",
        "device",
        "resident",
        "decompress",
        "progress",
        "verify",
        "compress",
    ]
    .into_iter()
    .fold(cbindgen::Builder::new().with_config(config), |b, file| {
        b.with_src(root.join("src/capi").join(file).with_extension("rs"))
    });
    let mut generated = Vec::new();
    builder.generate().unwrap().write(&mut generated);
    let generated = tidy(&String::from_utf8(generated).unwrap());

    let path = root.join("include/df11.h");
    if std::env::var_os("DF11_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == generated, "include/df11.h is not what src/capi says: run `make header`");
}

/// Leaves out each doc comment's part from "# Safety" on, a Rust heading: what it says is said to C programmers in the
/// essay and in the text before it. Puts comments of one line on one line.
fn tidy(header: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut skipping = false;
    for line in header.lines() {
        match line.trim() {
            "* # Safety" => {
                skipping = true;
                while kept.last().is_some_and(|l| l.trim() == "*") {
                    kept.pop();
                }
            }
            "*/" => {
                skipping = false;
                if let [.., open, text] = &kept[..]
                    && open.trim() == "/**"
                    && let Some(text) = text.trim().strip_prefix("* ")
                {
                    let line = format!("{} {text} */", open.trim_end());
                    kept.truncate(kept.len() - 2);
                    kept.push(line);
                    continue;
                }
            }
            _ => {}
        }
        // Nor do two empty lines say more than one.
        let again = line.is_empty() && kept.last().is_some_and(String::is_empty);
        if !skipping && !again {
            kept.push(line.to_owned());
        }
    }
    kept.join("\n") + "\n"
}
