//! Ctrl-C, and its relatives SIGTERM and SIGHUP.
//!
//! While a file is being written the signal only sets a flag: the loops look at it and go back the way they came, which
//! removes what was half-written. At all other times nothing has to be put right, and the process ends at once.

use crate::{Failure, terminal};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// There is a file to remove.
static HELD: AtomicBool = AtomicBool::new(false);

const TEXT: &str = "interrupted";

/// Listens to the signals from now on.
pub fn install() -> Result<(), Failure> {
    #[cfg(unix)]
    let ignored = signals::ignored();
    ctrlc::set_handler(|| {
        // In this order: with `hold`, which does it the other way round, at least one of the two sees the other.
        INTERRUPTED.store(true, Ordering::SeqCst);
        if !HELD.load(Ordering::SeqCst) {
            if std::io::stderr().is_terminal() {
                // Leave the line of the progress bar.
                let _ = writeln!(std::io::stderr());
            }
            terminal::complain(TEXT);
            std::process::exit(2);
        }
    })
    .map_err(|e| Failure::cannot(format!("cannot listen to Ctrl-C: {e}")))?;
    #[cfg(unix)]
    signals::ignore(&ignored);
    Ok(())
}

/// Fails if the process was interrupted.
pub fn check() -> Result<(), Failure> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(Failure::cannot(TEXT)) } else { Ok(()) }
}

/// While this lives a signal ends nothing by itself: [`check`] tells of it.
pub struct Hold(());

/// Takes over the duty to look at [`check`]. One at a time.
pub fn hold() -> Result<Hold, Failure> {
    HELD.store(true, Ordering::SeqCst);
    let hold = Hold(());
    check()?;
    Ok(hold)
}

impl Drop for Hold {
    fn drop(&mut self) {
        HELD.store(false, Ordering::SeqCst);
    }
}

/// What the package for Ctrl-C leaves to us.
#[cfg(unix)]
mod signals {
    use libc::c_int;

    /// Those of its signals that are ignored: `nohup` does so with SIGHUP, a shell with the SIGINT of its background jobs.
    pub fn ignored() -> Vec<c_int> {
        let is_ignored = |signal: c_int| {
            // SAFETY: all zeros are a valid value of this plain struct.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: only asks for the action of a valid signal, into a struct that lives as long as the call.
            let failed = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
            failed == 0 && action.sa_sigaction == libc::SIG_IGN
        };
        [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].into_iter().filter(|&s| is_ignored(s)).collect()
    }

    /// Ignores them again, for whoever started this process wanted that; and SIGXFSZ, so that a file that grows over the
    /// limit (`ulimit -f`) is an error of its write like any other and not the end of the process.
    pub fn ignore(signals: &[c_int]) {
        for &signal in signals.iter().chain(&[libc::SIGXFSZ]) {
            // SAFETY: ignoring a signal runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}
