//! What a compiler writes, run: `data/compiled.cu` by NVRTC, its results worked out anew in Rust.

use crate::support;

use df11_emulator::memory::{Kind, Memory};
use df11_emulator::ptx::{Counts, Launch, Module, Options};
use support::{device, read};

struct Device {
    module: Module,
    memory: Memory,
}

impl Device {
    fn new() -> Device {
        Device { module: Module::parse(include_str!("../data/compiled.ptx")).unwrap(), memory: Memory::new() }
    }

    fn launch(&self, name: &str, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, params: &[u8]) -> Counts {
        let options = Options { threads: 2, ..Default::default() };
        let function = self.module.function(name).unwrap();
        assert_eq!(params.len(), function.parameter_bytes() as usize);
        let memory = &self.memory;
        let launch = Launch { function, grid, block, shared_bytes, params, memory, options };
        launch.run().unwrap_or_else(|fault| panic!("{fault}"))
    }

    fn words(&self, address: u64, count: usize) -> Vec<u32> {
        let bytes = read(&self.memory, address, 4 * count);
        bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    fn put(&self, words: &[u32]) -> u64 {
        device(&self.memory, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
    }
}

/// Numbers that look random.
fn noise(count: u32) -> Vec<u32> {
    (0..count).map(|n| (n ^ 0x55aa).wrapping_mul(0x9e37_79b9).rotate_left(n) ^ n << 7).collect()
}

#[test]
fn scan() {
    for (n, threads) in [(1, 32), (100, 32), (1000, 256), (5000, 1024)] {
        let device = Device::new();
        let input = noise(n);
        let out = device.put(&vec![0; n as usize]);
        let mut params = [out.to_le_bytes(), device.put(&input).to_le_bytes()].concat();
        params.extend(n.to_le_bytes());
        device.launch("scan", [1; 3], [threads, 1, 1], 0, &params);
        let mut sum = 0u32;
        let want: Vec<_> = input
            .iter()
            .map(|value| {
                let before = sum;
                sum = sum.wrapping_add(*value);
                before
            })
            .collect();
        assert_eq!(device.words(out, n as usize), want, "{n} {threads}");
    }
}

#[test]
fn histogram() {
    let device = Device::new();
    let (n, bins) = (10_000, 300);
    let input = noise(n);
    let out = device.put(&vec![0; bins]);
    let mut params = [out.to_le_bytes(), device.put(&input).to_le_bytes()].concat();
    params.extend([n, bins as u32].map(u32::to_le_bytes).concat());
    device.launch("histogram", [7, 1, 1], [96, 1, 1], 4 * bins as u32, &params);
    let mut want = vec![0; bins];
    input.iter().for_each(|value| want[*value as usize % bins] += 1);
    assert_eq!(device.words(out, bins), want);
}

#[test]
fn transpose() {
    let device = Device::new();
    let (width, height) = (96u32, 64u32);
    let input = noise(width * height);
    let out = device.put(&vec![0; input.len()]);
    let mut params = [out.to_le_bytes(), device.put(&input).to_le_bytes()].concat();
    params.extend([width, height].map(u32::to_le_bytes).concat());
    let counts = device.launch("transpose", [width / 32, height / 32, 1], [8, 8, 1], 0, &params);
    let got = device.words(out, input.len());
    for (at, value) in got.iter().enumerate() {
        let (x, y) = (at as u32 / height, at as u32 % height);
        assert_eq!(*value, input[(y * width + x) as usize]);
    }
    // Whole sectors, each once.
    assert_eq!(counts.global_sectors_read, u64::from(width * height * 4 / 32));
    assert_eq!(counts.global_sectors_written, u64::from(width * height * 4 / 32));
    assert_eq!(counts.blocks, 6);
}

fn collatz(mut n: u32) -> u32 {
    let mut steps = 0;
    while n != 1 {
        n = if n % 2 == 1 { 3 * n + 1 } else { n / 2 };
        steps += 1;
    }
    steps
}

/// Returns what the kernel `tasks` computes for one element.
fn task(i: u32, factor: u32) -> u32 {
    const WEIGHTS: [i32; 8] = [3, -5, 7, -11, 13, -17, 19, -23];
    let picked = i.wrapping_mul(factor) >> (4 * (i & 7)) & 15;
    let hash = i.wrapping_mul(0x9e37_79b9);
    let bytes = [i.to_le_bytes(), (!i).to_le_bytes()].concat();
    let both = u64::from(!i) << 32 | u64::from(i);
    match picked {
        0 => collatz(i + 1),
        1 => i.count_ones() << 8 | i.leading_zeros(),
        2 => i.reverse_bits(),
        3 => u32::from_le_bytes([bytes[5], bytes[3], bytes[1], bytes[7]]),
        4 => ((both << (i & 31)) >> 32) as u32,
        5 => (both >> i.min(32)) as u32,
        6 => ((0x1234_5678_9abc_def0 + u64::from(i)) / u64::from(i | 1)) as u32,
        7 => ((-i64::from(i) * 1_000_003) % 977) as u32,
        8 => ((u64::from(hash) * 0x85eb_ca6b) >> 32) as u32,
        9 => (hash as i32 >> (i & 31)) as u32,
        10 => {
            if i == 0 {
                0
            } else {
                i.trailing_zeros() + 1
            }
        }
        11 => (WEIGHTS[i as usize & 7] as u32).wrapping_mul(i),
        12 => (i.wrapping_mul(0x8000_0001) as i32).max(-5) as u32,
        _ => picked,
    }
}

#[test]
fn tasks_by_value() {
    let device = Device::new();
    let tasks = [(0u32, 100u32, 0x9e37_79b9u32), (2, 1, 5), (3, 640, 0x85eb_ca6b), (13, 257, 0xc2b2_ae35)];
    let mut params = vec![0; device.module.function("tasks").unwrap().parameter_bytes() as usize];
    assert_eq!(params.len(), 8 + 20 * 24);
    params[..4].copy_from_slice(&(tasks.len() as u32).to_le_bytes());
    let mut outs = Vec::new();
    for (at, (first, count, factor)) in tasks.into_iter().enumerate() {
        let out = device.memory.alloc(4 * u64::from(count), Kind::Device, 0).unwrap();
        outs.push(out);
        let entry = [&out.to_le_bytes()[..], &[first, count, factor].map(u32::to_le_bytes).concat()].concat();
        params[8 + 24 * at..8 + 24 * at + 20].copy_from_slice(&entry);
    }
    device.launch("tasks", [18, 1, 1], [64, 1, 1], 0, &params);
    for ((_, count, factor), out) in tasks.into_iter().zip(outs) {
        let want: Vec<_> = (0..count).map(|i| task(i, factor)).collect();
        assert_eq!(device.words(out, count as usize), want);
    }
    assert_eq!(device.module.variable("calls").unwrap().bytes, 8);
}
