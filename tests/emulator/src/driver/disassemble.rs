//! Cubins that run as machine code: NVIDIA's disassembler reads them, the interpreter runs what it prints.

use crate::sass;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Cubins that were read before: they are kept, because disassembling one takes half a second.
static READ: Mutex<Vec<(Vec<u8>, sass::Module)>> = Mutex::new(Vec::new());

/// Reads a cubin. The error is a sentence for people.
pub(super) fn machine_code(program: &Path, cubin: &[u8]) -> Result<sass::Module, String> {
    let mut read = READ.lock().unwrap_or_else(|poison| poison.into_inner());
    if let Some((_, module)) = read.iter().find(|(of, _)| of == cubin) {
        return Ok(module.clone());
    }
    let listing = disassemble(program, cubin)?;
    let module = sass::Module::parse(cubin, &listing).map_err(|error| error.to_string())?;
    read.push((cubin.to_vec(), module.clone()));
    Ok(module)
}

/// Returns what the disassembler prints of a cubin.
fn disassemble(program: &Path, cubin: &[u8]) -> Result<String, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // The address of a static tells copies of this library in one process apart.
    let name = format!("df11-emulator-{}-{:p}-{number}.cubin", std::process::id(), &NEXT);
    let path = std::env::temp_dir().join(name);
    let said = |error: std::io::Error| format!("{}: {error}", program.display());
    std::fs::write(&path, cubin).map_err(|error| format!("{}: {error}", path.display()))?;
    let output = Command::new(program).arg("-c").arg(&path).output();
    let _ = std::fs::remove_file(&path);
    let output = output.map_err(said)?;
    if !output.status.success() {
        return Err(format!("{}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}
