//! What every entry point does first and last: it is counted, may be told to fail, looks for what it needs, and never
//! lets a panic out. And the list of all entry points by name.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering};

use super::codes::*;
use super::state::{DONE, Handle, Order, STATE, State, Stream};

/// The state that an entry point needs before it can do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing at all.
    Nothing,
    /// `cuInit`.
    Init,
    /// A current context without a pending error.
    Context,
    /// As `Init`, but it releases something: an injected failure is returned after the release, as drivers report
    /// errors of earlier work there.
    Drop,
    /// As `Drop`, with a current context; its pending error, too, is returned after the release.
    Release,
}

/// The state of a thread: its stack of contexts, and the epoch in which that is valid.
struct Thread {
    epoch: u64,
    stack: Vec<usize>,
    /// The thread's mode for calls that a capture forbids (`cuThreadExchangeStreamCaptureMode`).
    mode: u32,
}

thread_local! {
    static THREAD: RefCell<Thread> = const { RefCell::new(Thread { epoch: 0, stack: Vec::new(), mode: 0 }) };
    static NUMBER: Cell<u64> = const { Cell::new(0) };
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

/// Returns the number of the calling thread, from 1; never used twice.
pub fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

/// Marks the calling thread as one that only runs a host function of a stream: the driver refuses its calls.
pub fn host_function_thread() {
    IN_HOST_FUNCTION.set(true);
}

/// One call of an entry point: the state, locked, and who calls.
pub struct Call {
    state: Option<MutexGuard<'static, State>>,
    /// True if it came by the name whose default stream is the thread's own.
    twin: bool,
}

impl Deref for Call {
    type Target = State;

    fn deref(&self) -> &State {
        self.state.as_ref().expect("the state is unlocked")
    }
}

impl DerefMut for Call {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("the state is unlocked")
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(|poison| poison.into_inner())
}

impl Call {
    /// Returns a call that is nobody's: for control, reports, and threads of the emulator.
    pub fn internal() -> Call {
        Call { state: Some(lock()), twin: false }
    }

    /// Runs `work` while other threads may call.
    pub fn unlocked<R>(&mut self, work: impl FnOnce() -> R) -> R {
        self.state = None;
        // A panic is carried over the locking, so that whoever catches it finds the state locked.
        let result = catch_unwind(AssertUnwindSafe(work));
        self.state = Some(lock());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Waits until some operation has ended.
    pub fn wait(&mut self) {
        let state = self.state.take().expect("the state is unlocked");
        self.state = Some(DONE.wait(state).unwrap_or_else(|poison| poison.into_inner()));
    }

    /// Returns what the thread remembers, after a reset nothing.
    fn thread<R>(&self, work: impl FnOnce(&mut Thread) -> R) -> R {
        THREAD.with_borrow_mut(|thread| {
            if thread.epoch != self.epoch {
                *thread = Thread { epoch: self.epoch, stack: Vec::new(), mode: 0 };
            }
            work(thread)
        })
    }

    /// Returns the thread's stack of contexts, the current one last.
    pub fn stack<R>(&self, work: impl FnOnce(&mut Vec<usize>) -> R) -> R {
        self.thread(|thread| work(&mut thread.stack))
    }

    /// Sets how this thread treats calls that a capture forbids, and returns how it did.
    pub fn exchange_mode(&self, mode: u32) -> u32 {
        self.thread(|thread| std::mem::replace(&mut thread.mode, mode))
    }

    /// Returns this thread's mode for calls that a capture forbids.
    pub fn mode(&self) -> u32 {
        self.thread(|thread| thread.mode)
    }

    /// Returns the handle of the current context, alive or not; 0 for none.
    pub fn top(&self) -> usize {
        self.stack(|stack| stack.last().copied().unwrap_or(0))
    }

    /// Returns the current context: INVALID_CONTEXT without one, CONTEXT_IS_DESTROYED when it is no more.
    pub fn current(&self) -> Result<usize> {
        self.living(self.top())
    }

    /// Returns that context, if it lives. A green context stands for its device's primary one.
    pub fn living(&self, context: usize) -> Result<usize> {
        match self.contexts.get(&context) {
            None => self.living_green(context).map(|green| green.primary),
            Some(found) if !found.alive => Err(CONTEXT_IS_DESTROYED),
            Some(_) => Ok(context),
        }
    }

    /// Returns the error that a context's work has left in it.
    pub fn sticky(&self, context: usize) -> Result {
        match self.contexts.get(&context).map_or(0, |context| context.sticky) {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// Returns the stream that a caller means: NULL, the legacy and the per-thread stream stand for those of the current
    /// context. Fails for handles that are none, for streams of a green context that has ended, and for streams of a
    /// context with a pending error.
    pub fn stream(&mut self, stream: usize) -> Result<usize> {
        let handle = self.stream_even_if_poisoned(stream)?;
        let green = self.streams[&handle].green;
        if green != 0 && !self.greens[&green].alive {
            return Err(STREAM_DETACHED);
        }
        self.sticky(self.streams[&handle].context)?;
        Ok(handle)
    }

    /// Does what [`Call::stream`] does, without a look at pending errors.
    pub fn stream_even_if_poisoned(&mut self, stream: usize) -> Result<usize> {
        if stream <= 2
            && let Ok(green) = self.living_green(self.top())
        {
            // A green context has a default stream only if it was made with one, and no per-thread stream.
            let per_thread = stream == 2 || stream == 0 && self.twin;
            return if per_thread || green.legacy == 0 { Err(INVALID_HANDLE) } else { Ok(green.legacy) };
        }
        match stream {
            0 if !self.twin => Ok(self.contexts[&self.current()?].legacy),
            1 => Ok(self.contexts[&self.current()?].legacy),
            0 | 2 => {
                let (context, thread) = (self.current()?, thread_number());
                if let Some(&handle) = self.contexts[&context].per_thread.get(&thread) {
                    return Ok(handle);
                }
                let handle = self.add_stream(context, Order::PerThread, 0);
                self.contexts.get_mut(&context).unwrap().per_thread.insert(thread, handle);
                Ok(handle)
            }
            // The streams that NULL stands for have handles of their own, which callers never see.
            _ => match self.streams.get(&stream) {
                Some(found) if matches!(found.order, Order::Blocking | Order::NonBlocking) => Ok(stream),
                _ => Err(INVALID_HANDLE),
            },
        }
    }

    /// Returns a new stream of a context.
    pub fn add_stream(&mut self, context: usize, order: Order, priority: i32) -> usize {
        let handle = self.handle(Handle::Stream);
        let (frontier, shown) = (Vec::new(), Vec::new());
        self.streams
            .insert(handle, Stream { context, green: 0, order, priority, last: 0, capture: 0, frontier, shown });
        handle
    }

    fn gate(&mut self, name: &'static str, need: Need) -> Result {
        if need == Need::Nothing {
            return Ok(());
        }
        if !self.initialised {
            return Err(NOT_INITIALIZED);
        }
        if self.config.trace {
            eprintln!("df11-emulator: thread {} context {:#x} {name}", thread_number(), self.top());
        }
        if matches!(need, Need::Context | Need::Release) {
            let context = self.current()?;
            if need == Need::Context {
                self.sticky(context)?;
            }
        }
        Ok(())
    }
}

/// Runs an entry point.
pub fn enter(name: &'static str, need: Need, twin: bool, body: impl FnOnce(&mut Call) -> Result) -> i32 {
    if IN_HOST_FUNCTION.get() {
        return NOT_PERMITTED;
    }
    let run = || {
        let mut call = Call { state: Some(lock()), twin };
        *call.calls.entry(name).or_default() += 1;
        let injected = call.injection.call(name);
        if let Some(code) = injected
            && !matches!(need, Need::Drop | Need::Release)
        {
            return Err(code);
        }
        call.gate(name, need)?;
        let context = call.current().unwrap_or(0);
        body(&mut call)?;
        if let Some(code) = injected {
            return Err(code);
        }
        if need == Need::Release { call.sticky(context) } else { Ok(()) }
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            eprintln!("df11-emulator: {name} panicked: {text}");
            UNKNOWN
        }
    }
}

/// Stores what an entry point gives back; INVALID_VALUE where the caller gave no place for it.
///
/// # Safety
/// `place` is NULL or valid for a write of a `T`.
pub unsafe fn put<T>(place: *mut T, value: T) -> Result {
    if place.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not NULL, and valid by this function's contract; callers from C need not align what they point to.
    unsafe { place.write_unaligned(value) };
    Ok(())
}

/// Does what [`put`] does, for results that the caller may not want.
///
/// # Safety
/// As [`put`].
pub unsafe fn put_if<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller's own contract.
        let _ = unsafe { put(place, value) };
    }
}

/// Writes entry points: `Need(twin) fn name(call, arguments) { body }`, the twin optional. The body is a closure from
/// the call to a `Result` and may use what the caller pointed to. A twin is the same entry point whose NULL stream is
/// the thread's own.
macro_rules! entries {
    ($($(#[$doc:meta])* $need:ident $(($twin:ident))? fn $name:ident $arguments:tt $body:block)*) => {
        $(
            entries!(@one [$(#[$doc])*] $need $name false $arguments $body);
            $(entries!(
                @one [#[doc = concat!("[`", stringify!($name), "`] whose NULL stream is the thread's own.")]]
                $need $twin true $arguments $body
            );)?
        )*

        /// Returns the entry points of this file, by name.
        pub(super) fn entries() -> Vec<(&'static str, usize)> {
            vec![$(
                (stringify!($name), $name as *const () as usize),
                $((stringify!($twin), $twin as *const () as usize),)?
            )*]
        }
    };
    (@one [$(#[$doc:meta])*] $need:ident $name:ident $twin:literal
        ($call:ident $(, $arg:ident: $ty:ty)* $(,)?) $body:block) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As of the driver: pointers are NULL or valid for what the function reads and writes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> i32 {
            $crate::driver::entry::enter(stringify!($name), $crate::driver::entry::Need::$need, $twin, |$call| {
                #[allow(unused_unsafe, reason = "not every entry point follows a pointer")]
                // SAFETY: what the body dereferences are the caller's pointers, valid by the function's own contract.
                unsafe { $body }
            })
        }
    };
}
pub(super) use entries;
