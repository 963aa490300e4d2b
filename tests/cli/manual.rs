//! `df11 completions` and `df11 man`: all commands are in them, and the shell that is everywhere reads its own.

use std::process::Command;

use super::{list, run};

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = run(["--help"]).good();
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names = listed.filter_map(|l| l.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn completions_of_every_shell() {
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(["completions", shell]).good();
        for word in commands.iter().map(String::as_str).chain(["single-file", "against"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let ran = run(["completions", "tcsh"]);
    assert!(ran.code == 2 && ran.err.contains("bash, elvish, fish"), "{}", ran.err);
    if Command::new("bash").arg("--version").output().is_ok() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("df11");
        std::fs::write(&file, run(["completions", "bash"]).good()).unwrap();
        let script = r#"source "$0"; COMP_WORDS=(df11 dec); COMP_CWORD=1; _df11 df11 dec df11; echo "${COMPREPLY[*]}""#;
        let output = Command::new("bash").args(["--norc", "-ec", script]).arg(&file).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "decompress\n", "{output:?}");
    }
}

#[test]
fn a_manual_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("share/man1");
    assert_eq!(run(["man".as_ref(), folder.as_os_str()]).good(), "");
    let mut pages: Vec<String> = commands().iter().map(|command| format!("df11-{command}.1")).collect();
    pages.push("df11.1".into());
    pages.sort();
    assert_eq!(list(&folder), pages);
    let page = std::fs::read_to_string(folder.join("df11-verify.1")).unwrap();
    assert!(page.contains(".SH SYNOPSIS") && page.contains(r"\-\-against"), "{page}");
    // A file is in the place of the folder.
    let file = folder.join("df11.1");
    run(["man".as_ref(), file.as_os_str()]).bad(2, &["cannot write to", "df11.1"]);
}
