//! The library's version, and its log as a callback.

use std::ffi::{c_char, c_void};
use std::sync::{Once, PoisonError, RwLock};

/// The version of the library that is running, as major * 10000 + minor * 100 + patch. DF11_VERSION_NUMBER is that of the
/// header that the program was compiled with; before 1.0 they must agree in major and minor.
#[unsafe(no_mangle)]
pub extern "C" fn df11_version_number() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) * 10000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
        + part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// The version of the library that is running, such as "0.1.0". The text is static.
#[unsafe(no_mangle)]
pub extern "C" fn df11_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// No log at all: the state in which the library starts.
pub const DF11_LOG_OFF: i32 = 0;
/// Something that went wrong and that no call returns. (Errors that calls return are logged at DF11_LOG_DEBUG.)
pub const DF11_LOG_ERROR: i32 = 1;
/// What a person should know though the call succeeded.
pub const DF11_LOG_WARN: i32 = 2;
/// What was done.
pub const DF11_LOG_INFO: i32 = 3;
/// What may help to find a mistake, such as the error that a call returns.
pub const DF11_LOG_DEBUG: i32 = 4;
/// Everything.
pub const DF11_LOG_TRACE: i32 = 5;

/// Receives the log: `user` as given to df11_log_set(), a level (DF11_LOG_ERROR to DF11_LOG_TRACE), and one line of UTF-8
/// with a zero byte behind it; `length` counts bytes without that zero. The text is valid during the call only. It is
/// called from whatever thread has something to say, several at once, and must neither call this library nor unwind.
pub type df11_log_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char, length: usize)>;

type Callback = unsafe extern "C" fn(*mut c_void, i32, *const c_char, usize);

#[derive(Clone, Copy)]
struct Sink {
    callback: Callback,
    user: *mut c_void,
}

// SAFETY: the callback may be called from any thread, by its contract, and `user` is only handed to it.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

static SINK: RwLock<Option<Sink>> = RwLock::new(None);

struct Forward;

impl log::Log for Forward {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record) {
        // The lock is held while the callback runs, so that after df11_log_set() the old one is in no thread.
        if let Some(sink) = *SINK.read().unwrap_or_else(PoisonError::into_inner) {
            // Paths and names may have anything in them, and this is to be one line.
            let mut text = record.args().to_string().replace(char::is_control, " ");
            let length = text.len();
            text.push('\0');
            // SAFETY: the text lives for the call; the rest is the caller's contract.
            unsafe { (sink.callback)(sink.user, record.level() as i32, text.as_ptr().cast(), length) };
        }
    }

    fn flush(&self) {}
}

/// Sends the log to a callback, for the whole process; NULL or DF11_LOG_OFF ends it, and the library starts silent. When
/// this returns, the callback of before is running in no thread and will not be called again, so its `user` may go. Do not
/// call it from a callback. Levels above DF11_LOG_TRACE are as that, below DF11_LOG_OFF as that.
///
/// # Safety
///
/// `callback` and `user` must work from any thread until they are replaced.
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
    let sink = callback.filter(|_| level != log::LevelFilter::Off).map(|callback| Sink { callback, user });
    log::set_max_level(if sink.is_some() { level } else { log::LevelFilter::Off });
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = sink;
}
