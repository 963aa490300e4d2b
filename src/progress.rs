//! The progress of a long call, which other threads can read, and the switch that cancels it.

use crate::error::{Error, Result};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

/// Called with the progress from time to time; `false` cancels.
type Callback = Box<dyn Fn(&Progress) -> bool + Send + Sync>;

/// The progress of one long call. Any thread may read it while the call runs, and any thread may cancel the call.
///
/// A call resets the counts when it begins, but not the switch: a call that was cancelled before it began ends at once.
#[derive(Default)]
pub struct Progress {
    counts: Arc<Counts>,
    callback: Option<Callback>,
    /// The time of the last callback. Locked while the callback runs, so that it never runs twice at a time.
    last: Mutex<Option<Instant>>,
}

/// The counts and the switch.
#[derive(Default)]
struct Counts {
    /// All bytes of work; 0 until the call knows.
    total: AtomicU64,
    done: AtomicU64,
    cancelled: AtomicBool,
}

/// The shortest time between two callbacks.
const EVERY: Duration = Duration::from_millis(50);

impl Progress {
    /// Returns a progress with no callback.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Returns a progress with a callback, which cancels the call by returning `false`. It runs on any thread of the call: when
    /// the amount of work is known, at the end, and in between at most twenty times a second; never twice at a time.
    pub fn with_callback(callback: impl Fn(&Progress) -> bool + Send + Sync + 'static) -> Progress {
        Progress { callback: Some(Box::new(callback)), ..Progress::default() }
    }

    /// Keeps this callback, but counts into `other` and is cancelled by it.
    pub fn shared_with(self, other: &Progress) -> Progress {
        Progress { counts: other.counts.clone(), ..self }
    }

    /// Returns all bytes of work; 0 until that is known.
    pub fn total(&self) -> u64 {
        self.counts.total.load(Ordering::Relaxed)
    }

    /// Returns the bytes of work done.
    pub fn done(&self) -> u64 {
        self.counts.done.load(Ordering::Relaxed)
    }

    /// Cancels the call, which returns `Cancelled` soon. This cannot be undone.
    pub fn cancel(&self) {
        self.counts.cancelled.store(true, Ordering::Relaxed);
    }

    /// Tells whether the call was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.counts.cancelled.load(Ordering::Relaxed)
    }

    /// Begins a call of that many bytes of work; 0 if that is not known yet.
    pub(crate) fn begin(&self, total: u64) {
        self.reset();
        self.counts.total.store(total, Ordering::Relaxed);
        self.tell(true);
    }

    /// Resets the counts, without a callback.
    pub(crate) fn reset(&self) {
        self.counts.done.store(0, Ordering::Relaxed);
        self.counts.total.store(0, Ordering::Relaxed);
    }

    /// Counts bytes as done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.counts.done.fetch_add(bytes, Ordering::Relaxed);
        self.tell(false);
    }

    /// Raises the bytes done to `done`, where a part of the work was left out and not counted.
    pub(crate) fn reach(&self, done: u64) {
        self.counts.done.fetch_max(done, Ordering::Relaxed);
        self.tell(false);
    }

    /// Takes back bytes that have to be done again.
    pub(crate) fn set_back(&self, bytes: u64) {
        self.counts.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Tells the callback that the call is at its end.
    pub(crate) fn finish(&self) {
        self.tell(true);
    }

    /// Fails if the call was cancelled.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn tell(&self, now: bool) {
        let Some(callback) = &self.callback else { return };
        let mut last = match self.last.try_lock() {
            Ok(last) => last,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another thread is in the callback.
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

    #[test]
    fn two_share_their_counts_and_their_switch() {
        let seen = Progress::new();
        let told = Arc::new(AtomicU64::new(0));
        let sink = told.clone();
        let given = Progress::with_callback(move |p| {
            sink.store(p.done(), Ordering::Relaxed);
            true
        });
        let given = given.shared_with(&seen);
        given.begin(10);
        given.advance(3);
        given.reach(7);
        given.reach(2);
        given.finish();
        assert_eq!((seen.done(), seen.total(), told.load(Ordering::Relaxed)), (7, 10, 7));
        seen.cancel();
        assert!(matches!(given.check(), Err(Error::Cancelled)));
    }

    #[test]
    fn nobody_is_told_twice_at_a_time() {
        let (inside, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_inside, count) = (inside.clone(), told.clone());
        let progress = Progress::with_callback(move |_| {
            let alone = !is_inside.swap(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            is_inside.store(false, Ordering::SeqCst);
            count.fetch_add(1, Ordering::Relaxed);
            alone
        });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20).for_each(|_| progress.finish()));
            }
        });
        assert!(progress.check().is_ok() && told.load(Ordering::Relaxed) > 0);
    }
}
