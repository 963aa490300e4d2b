//! Scoped threads, which end before the call does. There is no pool.

use crate::error::{Error, Result};

/// The name of every thread that this library starts.
pub(crate) const NAME: &str = "df11";

/// Bytes of a thread's stack. Nothing here nests deeply, but code that is not optimised, as in the development builds of those
/// who depend on the crate, keeps every intermediate value there: 256 KiB have been too few for it.
const STACK_BYTES: usize = if cfg!(df11_unoptimised) { 4 << 20 } else { 256 << 10 };

/// Returns the builder of every thread that this library starts.
pub(crate) fn builder() -> std::thread::Builder {
    std::thread::Builder::new().name(NAME.into()).stack_size(STACK_BYTES)
}

/// Runs `work` on that many threads, the calling one among them, and returns the first error. A thread that cannot be
/// started is done without: `work` must take its tasks from a common supply.
pub(crate) fn run(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    if threads <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let mut others = Vec::with_capacity(threads - 1);
        for _ in 1..threads {
            match builder().spawn_scoped(scope, &work) {
                Ok(thread) => others.push(thread),
                Err(error) => {
                    log::warn!("a thread could not be started ({error}): {} do the work", others.len() + 1);
                    break;
                }
            }
        }
        let mut result = work();
        for thread in others {
            let other = thread.join().unwrap_or_else(|panic| Err(Error::Internal(panic_text(&*panic))));
            result = result.and(other);
        }
        result
    })
}

/// Returns the text of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_thread_works_and_one_error_is_returned() {
        let count = AtomicUsize::new(0);
        let add = || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        run(4, add).unwrap();
        assert_eq!(count.into_inner(), 4);
        let error = run(3, || Err(Error::InvalidArgument("x".into()))).unwrap_err();
        assert_eq!(error.to_string(), "x");
        let main = std::thread::current().id();
        let error =
            run(2, || if std::thread::current().id() == main { Ok(()) } else { panic!("boom {}", 7) }).unwrap_err();
        assert!(error.to_string().contains("boom 7"), "{error}");
    }

    /// Callbacks of callers run on them: `df11_progress_fn` says how large they are.
    #[cfg(target_os = "linux")]
    #[test]
    fn stacks_are_as_large_as_the_header_says() {
        let main = std::thread::current().id();
        let seen = AtomicUsize::new(0);
        run(3, || {
            if std::thread::current().id() != main {
                // SAFETY: all zeros are a value of this plain struct, and all of it lives for the calls.
                let bytes = unsafe {
                    let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
                    let (mut at, mut bytes) = (std::ptr::null_mut(), 0);
                    assert_eq!(libc::pthread_getattr_np(libc::pthread_self(), &mut attributes), 0);
                    assert_eq!(libc::pthread_attr_getstack(&attributes, &mut at, &mut bytes), 0);
                    libc::pthread_attr_destroy(&mut attributes);
                    bytes
                };
                assert!(bytes >= 256 << 10, "{bytes}");
                seen.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.into_inner(), 2);
    }
}
