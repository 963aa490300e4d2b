//! What tests/support/traffic.rs does at random, all by the C ABI, for a long time, after which the process is as large as before.
//! In a process of its own, because what other tests allocate would count.
//!
//! `DF11_SOAK_SECONDS` says how long, 5 without it; a release takes 600 (`make test-deep`, tests/README.md).
#![cfg(target_os = "linux")]

use crate::support;

use std::time::{Duration, Instant};
use support::alone::alone;
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

/// Bytes that are allocated, of all threads, and not what the allocator keeps beside them: that depends on who ran when.
#[cfg(target_env = "gnu")]
fn allocated() -> u64 {
    // SAFETY: asks for numbers.
    let numbers = unsafe { libc::mallinfo2() };
    (numbers.uordblks + numbers.hblkhd) as u64
}

/// Other allocators are not asked.
#[cfg(not(target_env = "gnu"))]
fn allocated() -> u64 {
    0
}

/// What the process has: bytes, then numbers of things.
#[derive(Debug)]
struct Now {
    allocated: u64,
    resident: u64,
    descriptors: usize,
    threads: usize,
    mappings: usize,
    device: Vec<(&'static str, u64)>,
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// A server that runs for months: memory, descriptors, threads, mappings and what lives on the device stay as they are.
#[test]
fn soak() {
    alone!();
    const THREADS: usize = 4;
    let seconds = std::env::var("DF11_SOAK_SECONDS").map_or(5, |text| text.parse::<u64>().unwrap());
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
        Now {
            allocated: allocated(),
            resident: resident(),
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            mappings,
            device: live(&emulator),
        }
    };
    // What is made once and kept comes with the first step that needs it, on a busy machine after a while: then the process
    // stays as it is, two parts of the time long. One that leaks never does.
    let (start, part) = (Instant::now(), Duration::from_secs(seconds) / 5);
    let mut seen: Vec<Now> = Vec::new();
    loop {
        seen.push(round(start + part * (seen.len() as u32 + 1)));
        let now = seen.last().unwrap();
        println!(
            "{:.0?}: {} bytes allocated, {} in memory, {} mappings",
            start.elapsed(),
            now.allocated,
            now.resident,
            now.mappings
        );
        if seen.len() >= 5 && (seen.len() == 30 || now.allocated < seen[seen.len() - 3].allocated + (64 << 10)) {
            break;
        }
    }
    let (first, last) = (&seen[seen.len() - 3], &seen[seen.len() - 1]);
    println!("{steps} steps in {:.0?}, {} parts", start.elapsed(), seen.len());
    assert_eq!((first.descriptors, threads), (last.descriptors, last.threads), "descriptors or threads stay behind");
    assert_eq!(first.device, last.device, "something is left on the device");
    assert!(last.allocated < first.allocated + (64 << 10), "what is allocated grows: {seen:?}");
    // What the allocator keeps between allocations grows for a while, and the longer, the fewer processors there are.
    assert!(last.resident < seen[0].resident + (64 << 20), "memory grew: {seen:?}");
    assert!(last.mappings < first.mappings + 64, "mappings grew: {seen:?}");
    emulator.assert_no_fault();
}
