//! Wall and CPU time, staying on one core, and knowing whether that core is ours alone.

use std::time::{Duration, Instant};

/// How long something took, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// By the clock on the wall.
    pub wall: f64,
    /// Spent computing, of all threads together. Other programs on the machine lengthen it less.
    pub cpu: f64,
}

/// Whose CPU time is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The calling thread's.
    Thread,
    /// All threads', those that have ended too.
    Process,
}

fn cpu_seconds(whose: Whose) -> f64 {
    let clock = match whose {
        Whose::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
        Whose::Process => libc::CLOCK_PROCESS_CPUTIME_ID,
    };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "CPU clocks are part of POSIX");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Runs `work` so many times and returns the time of one.
pub fn time<E>(whose: Whose, repeats: usize, mut work: impl FnMut() -> Result<(), E>) -> Result<Sample, E> {
    let (wall, cpu) = (Instant::now(), cpu_seconds(whose));
    for _ in 0..repeats {
        work()?;
    }
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds(whose) - cpu);
    Ok(Sample { wall: wall / repeats as f64, cpu: cpu / repeats as f64 })
}

/// The cores that this process may use, and the way to one of them and back.
pub struct Cores {
    #[cfg(target_os = "linux")]
    all: libc::cpu_set_t,
    count: usize,
}

impl Cores {
    /// Asks the system.
    #[cfg(target_os = "linux")]
    pub fn new() -> Cores {
        // SAFETY: a cpu_set_t is bits, and zeros are the empty set.
        let mut all: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a set of that size.
        unsafe { libc::sched_getaffinity(0, size_of_val(&all), &mut all) };
        // SAFETY: counts bits of the set.
        let count = unsafe { libc::CPU_COUNT(&all) } as usize;
        Cores { all, count: count.max(1) }
    }

    /// Asks the system.
    #[cfg(not(target_os = "linux"))]
    pub fn new() -> Cores {
        Cores { count: std::thread::available_parallelism().map_or(1, |n| n.get()) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Keeps the calling thread, and what it starts from now on, on one core: the last, since the first has most of a
    /// system's own work. Does nothing where the system has no such call.
    pub fn pin(&self) {
        #[cfg(target_os = "linux")]
        {
            // SAFETY: zeros are the empty set; the macros' functions stay within it for numbers below its size.
            unsafe {
                let mut one: libc::cpu_set_t = std::mem::zeroed();
                let last = (0..libc::CPU_SETSIZE as usize).rev().find(|&i| libc::CPU_ISSET(i, &self.all));
                libc::CPU_SET(last.unwrap_or(0), &mut one);
                libc::sched_setaffinity(0, size_of_val(&one), &one);
            }
        }
    }

    /// Takes [`Cores::pin`] back.
    pub fn release(&self) {
        #[cfg(target_os = "linux")]
        // SAFETY: the set is the one that the system gave.
        unsafe {
            libc::sched_setaffinity(0, size_of_val(&self.all), &self.all);
        }
    }
}

impl Default for Cores {
    fn default() -> Self {
        Cores::new()
    }
}

/// Tells whether the core is ours alone. What looks like a core is often one of two that share one (hyper-threads,
/// rented machines): while the other is busy, ours is slower by up to half, and no clock says so.
///
/// The gauge is a short loop with much to do in every cycle. It takes longer when the core is shared, when its clock is
/// low, and when something else runs in between.
#[derive(Debug, Clone, Copy)]
pub struct Gauge {
    best: Duration,
}

/// Up to so much slower than the best is quiet.
const QUIET: f64 = 1.1;

impl Gauge {
    /// Learns how fast the core can be, in a moment. It learns on as it is used.
    pub fn new() -> Gauge {
        let mut gauge = Gauge { best: Duration::MAX };
        for _ in 0..200 {
            gauge.read();
        }
        gauge
    }

    /// Runs the loop.
    pub fn read(&mut self) -> Duration {
        let start = Instant::now();
        let mut chains = std::hint::black_box([1u64, 2, 3, 4, 5, 6]);
        for _ in 0..20_000 {
            for x in &mut chains {
                // Rotations keep the compiler from using vectors, which would leave slots free.
                *x = x.rotate_left(7).wrapping_add(3);
            }
        }
        std::hint::black_box(chains);
        let reading = start.elapsed();
        self.best = self.best.min(reading);
        reading
    }

    /// The shortest reading so far.
    pub fn best(&self) -> Duration {
        self.best
    }

    /// Whether a reading was one of a core that was ours alone, by all that is known until now.
    pub fn is_quiet(&self, reading: Duration) -> bool {
        reading.as_secs_f64() < QUIET * self.best.as_secs_f64()
    }

    /// Waits until the core is ours alone, but no longer than so.
    pub fn wait(&mut self, at_most: Duration) {
        let start = Instant::now();
        loop {
            let reading = self.read();
            if self.is_quiet(reading) || start.elapsed() > at_most {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Gauge::new()
    }
}
