//! A second static library made by Rust, for a program that also links libdf11.a. It contains a standard library of its own, and
//! uses what two of them could conflict over: unwinding, threads, thread-local destructors, the allocator, the panic hook.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

static DROPPED: AtomicU32 = AtomicU32::new(0);

struct Dropped(Vec<u32>);

impl Drop for Dropped {
    fn drop(&mut self) {
        DROPPED.fetch_add(self.0.len() as u32, Ordering::SeqCst);
    }
}

thread_local! {
    static KEPT: RefCell<Dropped> = const { RefCell::new(Dropped(Vec::new())) };
}

/// Panics `depth` frames deep, each with a value to drop, and catches it. The number that the panic carried.
#[unsafe(no_mangle)]
pub extern "C" fn other_catch(depth: u32) -> u32 {
    std::panic::set_hook(Box::new(|_| ()));
    fn down(depth: u32, kept: &mut Vec<Box<u32>>) -> u32 {
        kept.push(Box::new(depth));
        let mut mine = vec![Box::new(depth)];
        if depth == 0 {
            std::panic::panic_any(kept.len() as u32)
        } else {
            down(depth - 1, &mut mine) + mine.len() as u32
        }
    }
    match catch_unwind(AssertUnwindSafe(|| down(depth, &mut Vec::new()))) {
        Ok(_) => 0,
        Err(payload) => 100 + *payload.downcast::<u32>().unwrap(),
    }
}

/// Calls a function of the caller's from many threads at once, each inside a catch_unwind that is used afterwards. How many
/// threads got the same answer, and dropped what they kept.
#[unsafe(no_mangle)]
pub extern "C" fn other_threads(count: u32, call: extern "C" fn(u32) -> u32) -> u32 {
    DROPPED.store(0, Ordering::SeqCst);
    let threads: Vec<_> = (0..count)
        .map(|i| {
            std::thread::spawn(move || {
                KEPT.with_borrow_mut(|kept| kept.0.push(i));
                let answer = catch_unwind(|| call(i)).unwrap();
                assert_eq!(other_catch(i), 100 + 2.min(i + 1), "a panic of this thread's own");
                answer
            })
        })
        .collect();
    let mut answers = HashMap::new();
    for thread in threads {
        *answers.entry(thread.join().unwrap()).or_insert(0) += 1;
    }
    if answers.len() == 1 { DROPPED.load(Ordering::SeqCst) } else { 0 }
}
