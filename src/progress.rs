//! How far a long call is, for others to see, and the switch by which they end it.

use crate::error::{Error, Result};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

/// Called now and then with the progress; `false` cancels.
type Callback = Box<dyn Fn(&Progress) -> bool + Send + Sync>;

/// The progress of one long call. Any thread may ask for it while the call runs, and any thread may cancel it.
///
/// A call resets it when it begins, but not the switch: what was cancelled before it began ends at once.
#[derive(Default)]
pub struct Progress {
    /// Bytes of work in all; 0 until the call knows.
    total: AtomicU64,
    done: AtomicU64,
    cancelled: AtomicBool,
    callback: Option<Callback>,
    /// When the callback ran last. Held while it runs, so that it never runs twice at a time.
    last: Mutex<Option<Instant>>,
}

/// The callback runs no more often than this.
const EVERY: Duration = Duration::from_millis(50);

impl Progress {
    /// Nothing done, of nothing.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// The same with a callback, which cancels by returning `false`. It runs on whatever thread of the call has just done
    /// something, at most twenty times a second, never twice at a time.
    pub fn with_callback(callback: impl Fn(&Progress) -> bool + Send + Sync + 'static) -> Progress {
        Progress { callback: Some(Box::new(callback)), ..Progress::default() }
    }

    /// Bytes of work in all; 0 until that is known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes of work done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the call as soon as it looks: it returns `Cancelled`. There is no way back.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether somebody cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// A call of that many bytes of work begins.
    pub(crate) fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.tell(true);
    }

    /// So many bytes more are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.tell(false);
    }

    /// All is done: the callback hears of it.
    pub(crate) fn finish(&self) {
        self.tell(true);
    }

    /// Fails if somebody cancelled.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn tell(&self, now: bool) {
        let Some(callback) = &self.callback else { return };
        let mut last = match self.last.try_lock() {
            Ok(last) => last,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another thread is telling it right now.
            Err(TryLockError::WouldBlock) => return,
        };
        if now || last.is_none_or(|at| at.elapsed() >= EVERY) {
            if !callback(self) {
                self.cancel();
            }
            *last = Some(Instant::now());
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress({} of {} bytes, cancelled: {})", self.done(), self.total(), self.is_cancelled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn counts_tells_and_cancels() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let progress = Progress::with_callback(move |p| {
            sink.lock().unwrap().push((p.done(), p.total()));
            p.done() < 7
        });
        progress.begin(10);
        progress.advance(3); // too soon to tell
        assert!(progress.check().is_ok());
        progress.advance(4);
        progress.finish();
        assert_eq!(*told.lock().unwrap(), [(0, 10), (7, 10)]);
        assert!(matches!(progress.check(), Err(Error::Cancelled)));
        progress.begin(5);
        assert!(progress.is_cancelled(), "there is no way back");
    }
}
