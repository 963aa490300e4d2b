//! What tests/support/traffic.rs does at random, all by the C ABI, on sixteen threads at once: plain, and under ThreadSanitizer
//! (tests/sanitize.sh).
#![cfg(target_os = "linux")]

mod soak;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Barrier;
use support::check::rounds;
use support::engine::Emulator;
use support::traffic::{self, Traffic, live};
use support::weights::Random;

#[test]
fn sixteen_threads_at_once() {
    const THREADS: u64 = 16;
    let emulator = Emulator::new();
    {
        let traffic = Traffic::new(&emulator);
        let before = live(&emulator);
        let start = Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (traffic, start, emulator) = (&traffic, &start, &emulator);
                scope.spawn(move || {
                    let engine = emulator.engine(0);
                    let mut random = Random::new(thread);
                    start.wait();
                    for _ in 0..rounds(40) {
                        traffic.step(&engine, &mut random);
                    }
                });
            }
        });
        assert_eq!(live(&emulator), before, "something is left on the device");
    }
    assert!(traffic::logged() > 0, "nobody logged anything");
    emulator.assert_no_fault();
}

/// Two threads write one number without a word: under ThreadSanitizer this must fail, or what it says of the test above is
/// worth nothing.
#[cfg(df11_planted_race)]
#[test]
fn a_race_that_a_checker_must_find() {
    struct Number(std::cell::UnsafeCell<u64>);
    // SAFETY: it is not, and that is the point. Nothing depends on the number.
    unsafe impl Sync for Number {}
    impl Number {
        fn add(&self) {
            // SAFETY: the address is valid; the race is what is to be found.
            unsafe { *self.0.get() += 1 };
        }
    }
    // By turns, roughly: what a thread did that has ended is forgotten soon.
    let number = Number(0.into());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..50 {
                    std::hint::black_box(&number).add();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
        }
    });
}
