//! What a result was measured on, with what, and when.

use serde_json::{Value, json};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything that a figure needs beside it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The processor's name, as it gives it.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Caches of the first core: level and kind, size.
    pub caches: Vec<(String, String)>,
    /// Vector instructions that matter here.
    pub features: Vec<&'static str>,
    /// Transparent huge pages: always, madvise or never.
    pub huge_pages: String,
    /// Of the compiler.
    pub rustc: &'static str,
    /// What it compiled for.
    pub target: &'static str,
    /// The commit, with `-dirty` if files have changed since.
    pub revision: String,
    /// Today, UTC: year-month-day.
    pub date: String,
}

impl Machine {
    /// Asks the system. What it does not tell is "unknown".
    pub fn new(cores: usize) -> Machine {
        Machine {
            cpu: cpu_name().unwrap_or_else(|| "unknown".into()),
            cores,
            caches: caches(),
            features: features(),
            huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|s| Some(s.split_once('[')?.1.split_once(']')?.0.to_owned()))
                .unwrap_or_else(|| "unknown".into()),
            rustc: env!("BENCH_RUSTC"),
            target: env!("BENCH_TARGET"),
            revision: revision().unwrap_or_else(|| "unknown".into()),
            date: date(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())),
        }
    }

    /// The processor's name as part of a file name.
    pub fn slug(&self) -> String {
        let words: String = self
            .cpu
            .replace("(R)", "")
            .replace("(TM)", "")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { ' ' })
            .collect();
        words.split_whitespace().collect::<Vec<_>>().join("-")
    }

    /// One fact per line.
    pub fn lines(&self) -> Vec<String> {
        let caches: Vec<_> = self.caches.iter().map(|(name, size)| format!("{name} {size}")).collect();
        vec![
            format!("date      {}", self.date),
            format!("cpu       {}, {} cores", self.cpu, self.cores),
            format!("caches    {}", caches.join(", ")),
            format!("features  {}", self.features.join(" ")),
            format!("pages     huge pages: {}", self.huge_pages),
            format!("compiler  {}, {}", self.rustc, self.target),
            format!("revision  {}", self.revision),
        ]
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let caches: serde_json::Map<_, _> = self.caches.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        json!({
            "date": self.date, "cpu": self.cpu, "cores": self.cores, "caches": caches, "features": self.features,
            "huge_pages": self.huge_pages, "rustc": self.rustc, "target": self.target, "revision": self.revision,
        })
    }
}

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

fn cpu_name() -> Option<String> {
    let info = read("/proc/cpuinfo")?;
    let line = info.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn caches() -> Vec<(String, String)> {
    let get = |index: usize, what: &str| read(&format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{what}"));
    (0..8)
        .filter_map(|i| {
            let kind = match get(i, "type")?.as_str() {
                "Data" => "d",
                "Instruction" => "i",
                _ => "",
            };
            Some((format!("L{}{kind}", get(i, "level")?), get(i, "size")?))
        })
        .collect()
}

fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let all = [
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512bw", is_x86_feature_detected!("avx512bw")),
            ("avx512vbmi", is_x86_feature_detected!("avx512vbmi")),
            ("avx512vbmi2", is_x86_feature_detected!("avx512vbmi2")),
        ];
        all.into_iter().filter(|f| f.1).map(|f| f.0).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

fn revision() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let revision = git(&["rev-parse", "--short=12", "HEAD"])?;
    // Results of earlier runs do not change what is measured.
    let changes = git(&["status", "--porcelain", "--", ".", "../../src", "../../Cargo.toml", ":!results"])?;
    Some(if changes.is_empty() { revision } else { format!("{revision}-dirty") })
}

/// Seconds since 1970 as year-month-day.
fn date(seconds: u64) -> String {
    let (mut days, mut year) = (seconds / 86_400, 1970);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + leap(year) as u64 {
        days -= 365 + leap(year) as u64;
        year += 1;
    }
    let february = 28 + leap(year) as u64;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_735_689_599), "2024-12-31");
        assert_eq!(date(1_735_689_600), "2025-01-01");
    }

    #[test]
    fn slugs() {
        let mut machine = Machine::new(1);
        machine.cpu = "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz".into();
        assert_eq!(machine.slug(), "intel-xeon-platinum-8481c-cpu-2.70ghz");
    }
}
