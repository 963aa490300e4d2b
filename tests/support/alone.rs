//! A process of its own for a test that needs one: because it counts the memory, threads or descriptors of the process,
//! replaces its log, lets its allocations fail, or changes its limits.
//!
//! The other tests of a program run in threads beside each other, so all of these would disturb or be disturbed.

use std::process::Command;

/// Names the test that this process was started for.
const ALONE: &str = "DF11_TEST_ALONE";

/// The first statement of a test that must be alone in its process: starts this program again for that test, waits until it
/// has passed there, and returns from the test. In that other process it does nothing.
#[allow(unused_macros, reason = "not every program has such a test")]
macro_rules! alone {
    () => {
        fn here() {}
        if $crate::support::alone::passed_elsewhere(std::any::type_name_of_val(&here)) {
            return;
        }
    };
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use alone;

/// The command that starts this program again: `DF11_TEST_RUNNER` names one that starts programs of another architecture, as
/// cargo's `runner` is.
pub fn this_program() -> Command {
    let program = std::env::current_exe().unwrap();
    let runner = std::env::var("DF11_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    match words.next() {
        None => Command::new(program),
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(program);
            command
        }
    }
}

/// Runs the test that contains the function of this path in another process. Returns false if this process is the other one.
pub fn passed_elsewhere(here: &str) -> bool {
    let test = here.split_once("::").unwrap().1.strip_suffix("::here").unwrap();
    if std::env::var(ALONE).is_ok_and(|name| name == test) {
        return false;
    }
    let mut command = this_program();
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, test);
    let output = command.output().unwrap();
    // What a test prints is shown only if it fails, or if that is asked for.
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} fails in a process of its own: {}", output.status);
    assert!(said.contains("1 passed"), "no test is called {test}");
    true
}
