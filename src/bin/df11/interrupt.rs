//! Ctrl-C, and its relatives SIGTERM and SIGHUP.
//!
//! While a file is being written, the signal only sets a flag. Loops check it and return, and the unfinished file is removed on the
//! way. At all other times there is nothing to clean up, and the process ends at once.

use crate::{Failure, terminal};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// True while there is a file to remove.
static HELD: AtomicBool = AtomicBool::new(false);

const TEXT: &str = "interrupted";

/// Installs the handler of the signals.
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

/// As long as this lives, a signal does not end the process: [`check`] reports it.
pub struct Hold(());

/// Keeps signals from ending the process. The caller must call [`check`]. Only one may exist at a time.
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

/// Signals that were ignored before, which the package for Ctrl-C does not respect.
#[cfg(unix)]
mod signals {
    use libc::c_int;

    /// Returns those of its signals that are ignored: `nohup` ignores SIGHUP, a shell the SIGINT of its background jobs.
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

    /// Ignores them again, because whoever started this process wanted that. Ignores SIGXFSZ, too, so that standard output that
    /// exceeds the limit on the size of files (`ulimit -f`) is an error like any other and does not end the process.
    pub fn ignore(signals: &[c_int]) {
        for &signal in signals.iter().chain(&[libc::SIGXFSZ]) {
            // SAFETY: an ignored signal runs no code of this process.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}
