//! What a terminal shows: colours, and a progress bar that fits. The tool runs in a pseudo terminal.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

use super::support::files;
use super::{df11, models};

/// Runs a command on a terminal of so many columns. Returns its exit code, and all that the terminal got.
fn in_terminal(mut command: Command, columns: u16) -> (i32, String) {
    let size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: the two numbers and the size live as long as the call; the name and the settings may be null.
    let failed = unsafe { libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both descriptors were just opened, and nobody else has them.
    let (mut ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        if !command.get_envs().any(|(name, _)| name == variable) {
            command.env_remove(variable);
        }
    }
    if !command.get_envs().any(|(name, _)| name == "TERM") {
        command.env("TERM", "xterm");
    }
    let mut child = command.spawn().unwrap();
    // The terminal ends when the last descriptor of its other side is closed.
    drop(command);
    let mut shown = Vec::new();
    let mut part = [0; 4096];
    while let Ok(n @ 1..) = ours.read(&mut part) {
        shown.extend(&part[..n]);
    }
    (child.wait().unwrap().code().expect("an exit code"), String::from_utf8(shown).unwrap())
}

const RED: &str = "\u{1b}[1m\u{1b}[31m";
const YELLOW: &str = "\u{1b}[1m\u{1b}[33m";

/// `df11 inspect` of something that is not there.
fn failing() -> Command {
    let mut command = df11();
    command.args(["inspect", "no/such/model"]);
    // Set where continuous integration runs: its logs show colours, whatever TERM says.
    command.env_remove("CI");
    command
}

#[test]
fn errors_are_red_and_warnings_yellow_on_a_terminal() {
    let (code, shown) = in_terminal(failing(), 80);
    assert_eq!(code, 2);
    assert!(shown.starts_with(&format!("df11: {RED}error:\u{1b}[0m cannot open")), "{shown:?}");
    // A wrong command line, whose message is clap's.
    let mut wrong = df11();
    wrong.args(["inspect", "--plod", "x"]);
    let (code, shown) = in_terminal(wrong, 80);
    assert!(code == 2 && shown.starts_with(&format!("df11: {RED}error:")), "{shown:?}");
    // A single file whose groups have no names.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alone.safetensors");
    std::fs::write(&file, files::file(&files::stored("block"))).unwrap();
    let mut warned = df11();
    warned.arg("inspect").arg(&file);
    let (code, shown) = in_terminal(warned, 80);
    assert!(code == 0 && shown.starts_with(&format!("df11: {YELLOW}warning:\u{1b}[0m ")), "{shown:?}");
    let results = shown.lines().filter(|line| !line.starts_with("df11: "));
    assert!(results.clone().count() > 10 && !results.clone().any(|line| line.contains('\u{1b}')), "{shown:?}");
}

#[test]
fn the_environment_turns_colours_off_and_on() {
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")] {
        let mut command = failing();
        command.env(name, value);
        let (_, shown) = in_terminal(command, 80);
        assert!(shown.starts_with("df11: error: ") && !shown.contains('\u{1b}'), "{name}: {shown:?}");
    }
    // No terminal: none, unless they are forced.
    for (name, value, colours) in [("TERM", "xterm", false), ("CLICOLOR_FORCE", "1", true)] {
        let mut command = failing();
        command.env_remove("NO_COLOR").env_remove("CLICOLOR").env(name, value);
        let output = command.stdout(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.contains(RED), colours, "{name}: {said:?}");
    }
}

/// What the terminal shows in the one line of the bar, a text for each time that it was drawn.
fn frames(shown: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = shown.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // To the letter that ends the sequence.
            rest.by_ref().skip(1).find(|c| c.is_ascii_alphabetic());
        } else {
            plain.push(c);
        }
    }
    plain.split('\r').filter(|frame| frame.contains('%')).map(str::to_owned).collect()
}

#[test]
fn the_bar_fits_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("m.safetensors"), dir.path().join("out.safetensors"));
    models::write_hollow(&model, 256 << 20);
    for (columns, holds) in
        [(120, "decompressing "), (80, " of 268.44 MB"), (40, "B/s "), (30, "left"), (20, "%"), (10, "%")]
    {
        let mut command = df11();
        command.args(["decompress", "--force"]).arg(&model).arg("-o").arg(&out);
        let (code, shown) = in_terminal(command, columns);
        assert_eq!(code, 0, "{shown:?}");
        let frames = frames(&shown);
        assert!(!frames.is_empty(), "{columns}: {shown:?}");
        for frame in &frames {
            let width = frame.trim_end().chars().count();
            assert!(width <= columns.into() && frame.contains(holds), "{columns}: {width}: {frame:?}");
        }
        // One line: nothing was wrapped, and nothing is left of it.
        assert_eq!(shown.matches('\n').count(), shown.lines().filter(|l| l.contains("tensor")).count(), "{shown:?}");
    }
}
