//! A copy of the emulator's shared library that lacks symbols, for tests of what happens then.

use std::io;
use std::path::Path;

/// Writes a copy of the shared library `library` to `copy` in which `dlsym` does not find `symbols`.
///
/// The names in the copy's string table are spoiled and nothing else is changed: the loader finds a symbol by the hash
/// of its name and then compares the name itself. A symbol that the library does not have is an error.
pub fn without_symbols(library: &Path, copy: &Path, symbols: &[&str]) -> io::Result<()> {
    let mut bytes = std::fs::read(library)?;
    for symbol in symbols {
        let name: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
        let found: Vec<usize> = (0..bytes.len().saturating_sub(name.len() - 1))
            .filter(|&at| bytes[at] == 0 && bytes[at..].starts_with(&name))
            .collect();
        if found.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{symbol} is no symbol of {}", library.display()),
            ));
        }
        for at in found {
            bytes[at + 1] = b'X';
        }
    }
    std::fs::write(copy, bytes)
}
