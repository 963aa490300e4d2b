//! What tests/support/traffic.rs does at random, all by the C ABI, for a long time, after which the process is as large as before.
//! A test of its own, for what others allocate meanwhile would count.
//!
//! `DF11_SOAK_SECONDS` says how long, 10 without it; a release takes 600 (`make test-deep`, tests/deep.md).
#![cfg(target_os = "linux")]

mod support;

use std::time::{Duration, Instant};
use support::engine::Emulator;
use support::traffic::{Traffic, live};
use support::weights::Random;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * page
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// A server that runs for months: memory, descriptors, threads, mappings and what lives on the device stay as they are.
#[test]
fn soak() {
    const THREADS: usize = 4;
    let seconds = std::env::var("DF11_SOAK_SECONDS").map_or(10, |text| text.parse::<u64>().unwrap());
    let emulator = Emulator::new();
    let traffic = Traffic::new(&emulator);
    let mut random = Random::new(0x50a4);
    let mut steps = 0u64;
    let threads = entries("/proc/self/task");
    let mut round = |until: Instant| {
        loop {
            let seeds: Vec<u64> = (0..THREADS).map(|_| random.bits()).collect();
            std::thread::scope(|scope| {
                for seed in seeds {
                    let (traffic, emulator) = (&traffic, &emulator);
                    scope.spawn(move || {
                        let engine = emulator.engine(0);
                        let mut random = Random::new(seed);
                        for _ in 0..50 {
                            traffic.step(&engine, &mut random);
                        }
                    });
                }
            });
            traffic.forget();
            steps += 50 * THREADS as u64;
            if Instant::now() >= until {
                break;
            }
        }
        // Threads that have given their answer may take a moment to be gone.
        let deadline = Instant::now() + Duration::from_secs(20);
        while entries("/proc/self/task") > threads && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mappings = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        // SAFETY: gives free pages back to the system, so that what is counted is what is in use.
        unsafe { libc::malloc_trim(0) };
        (resident(), entries("/proc/self/fd"), entries("/proc/self/task"), mappings, live(&emulator))
    };
    // What the allocators and the emulator keep for later is there after the first part.
    let start = Instant::now();
    let whole = Duration::from_secs(seconds);
    let first = round(start + whole / 5);
    let mut last = first.clone();
    for part in 2..=5 {
        last = round(start + whole * part / 5);
        println!("{:.0?}: {} bytes in memory, {} mappings", start.elapsed(), last.0, last.3);
    }
    println!("{steps} steps in {:.0?}: {} bytes in memory at first, {} at last", start.elapsed(), first.0, last.0);
    assert_eq!((first.1, threads), (last.1, last.2), "descriptors or threads stay behind");
    assert_eq!(first.4, last.4, "something is left on the device");
    assert!(last.0 < first.0 + (16 << 20), "memory grew from {} to {}", first.0, last.0);
    assert!(last.3 < first.3 + 64, "mappings grew from {} to {}", first.3, last.3);
    emulator.assert_no_fault();
}
