//! What the emulated driver and its devices pose as, and how the emulator behaves: from the environment and by
//! `df11_emulator_control`. It holds no state of running work.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::exec::Options;

/// The prefix of every environment variable that the emulator reads.
pub const PREFIX: &str = "DF11_EMULATOR_";

/// Keys that the environment (in capitals, after [`PREFIX`]) and `df11_emulator_control` (as here) both know.
pub const KEYS: [&str; 26] = [
    "driver",
    "cc",
    "devices",
    "memory",
    "sparse",
    "peers",
    "sms",
    "context_sms",
    "integrated",
    "device_name",
    "missing",
    "accept_cubin",
    "nvdisasm",
    "jit",
    "module_loading",
    "memory_pools",
    "eager",
    "seed",
    "threads",
    "races",
    "budget",
    "trace",
    "launches",
    "leaks",
    "leak_exit",
    "fail",
];

/// The settings of the emulator. Everything may be changed at any time; objects keep the settings that they were made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The driver's CUDA version, as `cuDriverGetVersion` says it: 12000 is 12.0, that is driver 525.
    pub driver: i32,
    /// Compute capabilities as 10 · major + minor, one per device; the last serves all further devices.
    pub cc: Vec<i32>,
    /// The number of devices.
    pub devices: i32,
    /// Bytes of device memory of each device.
    pub memory: u64,
    /// Bytes from which on an allocation is sparse: zero, and taking memory only where it is written. 0 for never.
    pub sparse: u64,
    /// True if devices reach each other's memory.
    pub peers: bool,
    /// Streaming multiprocessors of each device.
    pub sms: i32,
    /// The multiprocessors that a context may use, as with a share of a device under MPS; 0 for all.
    pub context_sms: i32,
    /// True if the devices are part of the processor, as Tegra's are.
    pub integrated: bool,
    /// The name of each device.
    pub device_name: String,
    /// Entry points that `cuGetProcAddress` does not find.
    pub missing: BTreeSet<String>,
    /// True if an ELF image is accepted and runs as the PTX that was loaded last, or is named by `cubin_ptx`.
    pub accept_cubin: bool,
    /// The program that disassembles cubins, `nvdisasm`: cubins that fit are accepted, and their machine code runs.
    pub nvdisasm: Option<PathBuf>,
    /// True if PTX can be compiled; without, PTX gives JIT_COMPILER_NOT_FOUND.
    pub jit: bool,
    /// True if functions are loaded at first use, as drivers from 12.2 on do by themselves.
    pub lazy: bool,
    /// True if stream-ordered allocation is there (`cuMemAllocAsync` and the device attribute).
    pub memory_pools: bool,
    /// True if work runs when it is queued, instead of when something waits for it.
    pub eager: bool,
    /// If not 0, work of other streams runs at random synchronisation points, chosen by this seed.
    pub seed: u64,
    /// The options by which kernels run: host threads, search for races, most instructions of a block.
    pub options: Options,
    /// True if every call is written to standard error.
    pub trace: bool,
    /// A file to which each launch is appended as one line of JSON.
    pub launches: Option<PathBuf>,
    /// The destination of the leak report at exit: `stderr`, or a file.
    pub leaks: Option<PathBuf>,
    /// The exit status of a process that leaked; 0 leaves the status as it is.
    pub leak_exit: i32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            driver: 12040,
            cc: vec![90],
            devices: 1,
            memory: 8 << 30,
            sparse: 0,
            peers: false,
            sms: 4,
            context_sms: 0,
            integrated: false,
            device_name: "DF11 emulated device".into(),
            missing: BTreeSet::new(),
            accept_cubin: false,
            nvdisasm: None,
            jit: true,
            lazy: true,
            memory_pools: true,
            eager: false,
            seed: 0,
            options: Options::default(),
            trace: false,
            launches: None,
            leaks: None,
            leak_exit: 0,
        }
    }
}

impl Config {
    /// Sets one key, but `fail`, which is no property of the pose. The error is a sentence for people.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let value = value.trim();
        let wrong = || format!("{key} cannot be `{value}`");
        let number = || value.parse::<i64>().map_err(|_| wrong());
        let small = |low: i64, high: i64| {
            number().and_then(|n| if (low..=high).contains(&n) { Ok(n as i32) } else { Err(wrong()) })
        };
        let yes = || match value {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" | "" => Ok(false),
            _ => Err(wrong()),
        };
        let path = || (!value.is_empty()).then(|| PathBuf::from(value));
        match key {
            "driver" => self.driver = small(1000, 99_990)?,
            "cc" => {
                let list: Result<Vec<i32>, _> = value.split(',').map(|cc| cc.trim().parse::<i32>()).collect();
                let list = list.map_err(|_| wrong())?;
                if list.iter().any(|cc| !(10..1000).contains(cc)) {
                    return Err(wrong());
                }
                self.cc = list;
            }
            "devices" => self.devices = small(0, 64)?,
            "memory" => self.memory = bytes(value).ok_or_else(wrong)?,
            "sparse" => self.sparse = bytes(value).ok_or_else(wrong)?,
            "peers" => self.peers = yes()?,
            "sms" => self.sms = small(1, 1024)?,
            "context_sms" => self.context_sms = small(0, 1024)?,
            "integrated" => self.integrated = yes()?,
            "device_name" => self.device_name = value.into(),
            "missing" => {
                self.missing = value.split(',').map(str::trim).filter(|s| !s.is_empty()).map(String::from).collect();
            }
            "accept_cubin" => self.accept_cubin = yes()?,
            "nvdisasm" => self.nvdisasm = path(),
            "jit" => self.jit = yes()?,
            "module_loading" => {
                self.lazy = match value.to_ascii_uppercase().as_str() {
                    "LAZY" => true,
                    "EAGER" => false,
                    _ => return Err(wrong()),
                }
            }
            "memory_pools" => self.memory_pools = yes()?,
            "eager" => self.eager = yes()?,
            "seed" => self.seed = value.parse().map_err(|_| wrong())?,
            "threads" => self.options.threads = small(1, 256)? as usize,
            "races" => self.options.races = yes()?,
            "budget" => self.options.budget = value.parse().map_err(|_| wrong())?,
            "trace" => self.trace = yes()?,
            "launches" => self.launches = path(),
            "leaks" => self.leaks = path(),
            "leak_exit" => self.leak_exit = small(0, 255)?,
            _ => return Err(format!("there is no key `{key}`")),
        }
        Ok(())
    }

    /// Returns the compute capability of a device, as 10 · major + minor.
    pub fn cc_of(&self, device: i32) -> i32 {
        self.cc[(device.max(0) as usize).min(self.cc.len() - 1)]
    }

    /// Returns the newest PTX ISA version that the posed driver compiles, as 10 · major + minor: CUDA 12.0 has 8.0, 13.0 has
    /// 9.0. (From NVIDIA's release table of the PTX ISA; CUDA 12.6 and 12.7 brought 8.5 and 8.6, and 12.8 8.7.)
    pub fn newest_ptx(&self) -> i32 {
        let (major, minor) = (self.driver / 1000, self.driver % 1000 / 10);
        match major {
            11 => 70 + minor,
            12 if minor <= 5 => 80 + minor,
            12 => 79 + minor,
            _ if major >= 13 => 90 + (major - 13) * 10 + minor,
            _ => 10 * major - 40 + minor,
        }
    }

    /// Bytes of shared memory that a block may have on that compute capability when it asks for them. (CUDA C++
    /// Programming Guide, table of technical specifications.)
    pub fn shared_optin(cc: i32) -> i32 {
        match cc {
            75 => 64 << 10,
            80 | 87 => 163 << 10,
            86 | 89 | 120..=129 => 99 << 10,
            90..=119 => 227 << 10,
            _ if cc >= 130 => 227 << 10,
            70..=74 => 96 << 10,
            _ => 48 << 10,
        }
    }
}

/// Returns a number of bytes: digits, then nothing, K, M or G (powers of 1,024).
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_and_wrong_values_refused() {
        let mut config = Config::default();
        config.set("driver", "12000").unwrap();
        config.set("cc", "90, 75").unwrap();
        config.set("memory", "3M").unwrap();
        assert_eq!((config.driver, config.cc_of(0), config.cc_of(1), config.cc_of(5)), (12000, 90, 75, 75));
        assert_eq!(config.memory, 3 << 20);
        for (key, value) in [
            ("cc", "x"),
            ("cc", ""),
            ("driver", "12.0"),
            ("memory", "G"),
            ("sparse", "-1"),
            ("peers", "2"),
            ("eager", "perhaps"),
            ("no", "1"),
        ] {
            assert!(config.set(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn ptx_versions_follow_the_driver() {
        let newest = |driver| Config { driver, ..Config::default() }.newest_ptx();
        let pairs = [(11080, 78), (12000, 80), (12040, 84), (12050, 85), (12060, 85), (12080, 87), (12090, 88)];
        for (driver, isa) in pairs.into_iter().chain([(13000, 90), (13010, 91)]) {
            assert_eq!(newest(driver), isa, "{driver}");
        }
    }
}
