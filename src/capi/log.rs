//! The log, as a callback.

use std::ffi::{c_char, c_void};
use std::sync::{Once, PoisonError, RwLock};

/// No log at all: the state in which the library starts.
pub const DF11_LOG_OFF: i32 = 0;
/// Something went wrong that no call returns.
pub const DF11_LOG_ERROR: i32 = 1;
/// A call succeeded, and a person should know something about it.
pub const DF11_LOG_WARN: i32 = 2;
/// What was done.
pub const DF11_LOG_INFO: i32 = 3;
/// What may help to find a mistake. The errors that calls return are logged here, not above.
pub const DF11_LOG_DEBUG: i32 = 4;
/// Everything.
pub const DF11_LOG_TRACE: i32 = 5;

/// Receives the log: `user` as given to df11_log_set(), a level (DF11_LOG_ERROR to DF11_LOG_TRACE),
/// and one line of UTF-8 that ends in a zero byte; `length` counts its bytes without that zero. The
/// text is valid during the call only. The callback runs on whatever thread has something to say,
/// on several at once. It must neither call this library nor unwind.
pub type df11_log_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char, length: usize)>;

type Callback = unsafe extern "C" fn(*mut c_void, i32, *const c_char, usize);

/// The callback of df11_log_set().
#[derive(Clone, Copy)]
struct Receiver {
    callback: Callback,
    user: *mut c_void,
}

// SAFETY: C caller: the callback and its `user` may be used from any thread ("Requires:" of df11_log_set).
unsafe impl Send for Receiver {}
// SAFETY: C caller: several threads may call the callback at once ("Requires:" of df11_log_set).
unsafe impl Sync for Receiver {}

static RECEIVER: RwLock<Option<Receiver>> = RwLock::new(None);

struct Forward;

impl log::Log for Forward {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record) {
        // The lock is held while the callback runs, so that after df11_log_set() the old one is in no thread.
        if let Some(receiver) = *RECEIVER.read().unwrap_or_else(PoisonError::into_inner) {
            // Paths and names may have anything in them, and this must be one line.
            let mut text = record.args().to_string().replace(char::is_control, " ");
            let length = text.len();
            text.push('\0');
            // SAFETY: the text lives for the call. C caller: the callback is valid until it is replaced, and the lock,
            // which df11_log_set() takes, is held.
            unsafe { (receiver.callback)(receiver.user, record.level() as i32, text.as_ptr().cast(), length) };
        }
    }

    fn flush(&self) {}
}

/// Sends the log of the whole process to a callback. The library starts silent; NULL or
/// DF11_LOG_OFF makes it silent again. `max_level` is clamped to DF11_LOG_OFF … DF11_LOG_TRACE.
/// When this returns, the previous callback is no longer running and will not be called; its `user`
/// may be freed. Do not call this from a callback of the log.
///
/// # Safety
///
/// `callback` and `user` can be used from any thread until they are replaced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_log_set(callback: df11_log_fn, max_level: i32, user: *mut c_void) {
    static ONCE: Once = Once::new();
    // In a Rust program that has a logger of its own, that one stays.
    ONCE.call_once(|| drop(log::set_logger(&Forward)));
    let level = match max_level {
        ..=DF11_LOG_OFF => log::LevelFilter::Off,
        DF11_LOG_ERROR => log::LevelFilter::Error,
        DF11_LOG_WARN => log::LevelFilter::Warn,
        DF11_LOG_INFO => log::LevelFilter::Info,
        DF11_LOG_DEBUG => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    let receiver = callback.filter(|_| level != log::LevelFilter::Off).map(|callback| Receiver { callback, user });
    // Both under one lock, so that of two calls at once one sets both.
    let mut current = RECEIVER.write().unwrap_or_else(PoisonError::into_inner);
    log::set_max_level(if receiver.is_some() { level } else { log::LevelFilter::Off });
    *current = receiver;
}
