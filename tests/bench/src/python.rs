//! ZipNN and OpenZL: Python packages around C cores, each in a process of its own that takes turns with the others.
//!
//! They put each answer into memory that they allocate for it; their figures include that, for their interfaces have no
//! other way.

use crate::clock::Sample;
use crate::contest::Contestant;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const WORKER: &str = include_str!("python_worker.py");

/// Whose code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// With its Huffman method.
    ZipNn,
    /// bf16 taken apart, exponents entropy coded.
    OpenZl,
}

impl Package {
    /// All of them.
    pub const ALL: [Package; 2] = [Package::ZipNn, Package::OpenZl];

    /// As Python imports it.
    pub fn module(self) -> &'static str {
        match self {
            Package::ZipNn => "zipnn",
            Package::OpenZl => "openzl",
        }
    }
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// bf16 to its stored form.
    Compress,
    /// And back.
    Decompress,
}

/// The other process.
pub struct Worker {
    package: Package,
    version: String,
    bytes: usize,
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it; `Ok(None)` if that Python has no such package.
    pub fn start(python: &str, package: Package, side: Side, weights: &[u16]) -> Result<Option<Worker>, String> {
        let import = format!("import {}", package.module());
        let probe = Command::new(python).args(["-c", &import]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let path = std::env::temp_dir().join(format!("df11-bench-{}.bf16", std::process::id()));
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
        let started = Self::start_with(python, package, side, &path);
        // It has read the file by the time it says that it is ready.
        let _ = std::fs::remove_file(&path);
        started.map(Some)
    }

    fn start_with(python: &str, package: Package, side: Side, file: &Path) -> Result<Worker, String> {
        let side = match side {
            Side::Compress => "compress",
            Side::Decompress => "decompress",
        };
        let mut child = Command::new(python)
            .args(["-W", "ignore", "-c", WORKER, package.module(), side])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("piped above")));
        let mut worker = Worker { package, version: String::new(), bytes: 0, child, to, from };
        let ready = worker.line()?;
        let mut words = ready.split_whitespace();
        match (words.next(), words.next(), words.next().and_then(|w| w.parse().ok())) {
            (Some("ready"), Some(version), Some(bytes)) => (worker.version, worker.bytes) = (version.into(), bytes),
            _ => return Err(format!("{}'s process said {ready:?} instead of being ready", package.module())),
        }
        Ok(worker)
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(0) => Err(format!("{}'s process ended", self.package.module())),
            Ok(_) => Ok(line.trim().into()),
            Err(e) => Err(e.to_string()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.to = None;
        let _ = self.child.wait();
    }
}

impl Contestant for Worker {
    fn name(&self) -> String {
        match self.package {
            Package::ZipNn => format!("ZipNN {} (huffman)", self.version),
            Package::OpenZl => format!("OpenZL {} (bf16, entropy)", self.version),
        }
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.bytes)
    }

    fn work(&mut self, dst: &mut [u16]) -> Result<(), String> {
        self.sample(dst, 1).map(|_| ())
    }

    fn sample(&mut self, _: &mut [u16], repeats: usize) -> Result<Sample, String> {
        let to = self.to.as_mut().expect("open until dropped");
        writeln!(to, "{repeats}").and_then(|()| to.flush()).map_err(|e| e.to_string())?;
        let said = self.line()?;
        let times =
            said.strip_prefix("time ").map(|t| t.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>());
        match times {
            Some(Ok(times)) if times.len() == 2 => Ok(Sample { wall: times[0], cpu: times[1] }),
            _ => Err(said),
        }
    }

    fn checks_itself(&self) -> bool {
        true
    }
}
