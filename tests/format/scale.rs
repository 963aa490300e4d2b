//! Models far larger than memory, in files that are mostly holes: a group of more than 2^31 bytes and 2^31 weights, and a model of 2,000
//! groups and 1 TB. Opening takes time and memory for headers, rows and positions only; ranges beyond 32 bits decode to what is stored
//! there.
//!
//! Holes read as zeros, and in the code tables used here zeros are the first code word.
#![cfg(target_os = "linux")]

use crate::support;

use df11::{DecodeOptions, Model, OpenOptions};
use half::bf16;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};
use support::alloc;
use support::alone::alone;
use support::encoder::{Codes, Word};
use support::hollow::write_hollow;

/// Far more than opening takes on a free machine, and far less than reading the files would take.
const PATIENCE: Duration = Duration::from_secs(100);

/// Returns the weight of this exponent, sign and mantissa.
fn weight(exponent: u8, sign_mantissa: u8) -> u16 {
    u16::from(sign_mantissa & 0x80) << 8 | u16::from(exponent) << 7 | u16::from(sign_mantissa & 0x7f)
}

/// Opens a model, and asserts that it takes little time and no more than `most` bytes of memory. Prints both.
fn open(path: &Path, read: bool, most: usize) -> Model {
    let start = Instant::now();
    let (model, taken) = alloc::taken(|| crate::support::files::open(path, read).unwrap());
    let bytes: u64 = model.files().map(|f| f.bytes).sum();
    println!("{bytes} bytes, read {read}: {:.1?}, {} bytes of memory at most", start.elapsed(), taken.peak);
    assert!(start.elapsed() < PATIENCE, "opening takes {:?}", start.elapsed());
    assert!(taken.peak < most, "opening takes {} bytes", taken.peak);
    model
}

/// Returns codes of one byte: 0 for exponent 100, 1 for exponent 101. Other exponents take the rest of the code space.
fn byte_codes() -> Codes {
    let mut words = vec![(100, Word::parse("00000000")), (101, Word::parse("00000001"))];
    let others = ["0000001", "000001", "00001", "0001", "001", "01"];
    words.extend((102..).zip(others.map(Word::parse)));
    Codes::new(&words, Word::parse("1"))
}

#[test]
fn no_group_has_more_weights_than_positions_can_count() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let most = u32::MAX as u64;
    write_hollow(&path, "most", &byte_codes(), 8, most);
    let model = open(&path, false, 16 << 20);
    assert_eq!(model.group(0).unwrap().element_count(), most);
    let mut found = [bf16::ZERO; 3];
    model.group(0).unwrap().decompress(most - 3, &mut found, &DecodeOptions::default()).unwrap();
    assert!(found.iter().all(|w| w.to_bits() == weight(100, 0)), "{found:?}");
    drop(model);

    write_hollow(&path, "more", &byte_codes(), 8, most + 1);
    let error = Model::open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("more.sign_mantissa") && error.contains("4294967295 are the most"), "{error}");
}

#[test]
fn a_group_beyond_two_to_the_31_bytes_and_weights() {
    alone!();
    let codes = byte_codes();
    let weights = (1u64 << 31) + (1 << 20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (file, code_start, sign_start) = write_hollow(&path, "huge", &codes, 8, weights);
    // What stands behind 2^31 bytes of codes and of signs, and at the very end, and what would be found if a number lost
    // its upper bits.
    let marked = [5u64, (1 << 31) - 1, 1 << 31, (1 << 31) + 5, weights - 1];
    let sign = |i: usize| 0x81 + i as u8;
    for (i, &at) in marked.iter().enumerate() {
        file.write_all_at(&[1], code_start + at).unwrap();
        file.write_all_at(&[sign(i)], sign_start + at).unwrap();
    }
    drop(file);
    let meta = path.metadata().unwrap();
    assert!(meta.len() > 4 << 30 && meta.blocks() * 512 < 64 << 20, "this file system knows no holes");

    for read in [false, true] {
        // The positions are 2 MB.
        let model = open(&path, read, 16 << 20);
        let group = model.group(0).unwrap();
        assert_eq!(group.element_count(), weights);
        let tensor = model.tensor(0).unwrap();
        assert_eq!((tensor.bytes(), tensor.group_offset()), (2 * weights, 0));
        assert_eq!(tensor.group().map(|g| g.number()), Some(0));
        for (i, &at) in marked.iter().enumerate() {
            let first = at.saturating_sub(4);
            let count = (weights - first).min(9) as usize;
            let want: Vec<u16> = (first..first + count as u64)
                .map(|w| marked.iter().position(|&m| m == w).map_or(weight(100, 0), |m| weight(101, sign(m))))
                .collect();
            let mut found = vec![bf16::ZERO; count];
            for threads in [1, 2] {
                let options = DecodeOptions::new().threads(threads);
                let ((), taken) =
                    alloc::taken(|| model.group(0).unwrap().decompress(first, &mut found, &options).unwrap());
                assert!(found.iter().map(|w| w.to_bits()).eq(want.iter().copied()), "mark {i} at {at}: {found:?}");
                assert!(taken.peak < 16 << 20, "{} bytes for {count} weights", taken.peak);
            }
            let mut bytes = [0; 2];
            tensor.read(2 * at, &mut bytes, &DecodeOptions::default()).unwrap();
            assert_eq!(u16::from_le_bytes(bytes), weight(101, sign(i)));
        }
        // Its image would be beyond 2^32 bytes, and is laid out without being made.
        let layout = df11::internals::cuda::image::ImageLayout::of(group).unwrap();
        assert!(layout.weights == weights && layout.image_bytes > 2 * weights, "{layout:?}");
        if std::env::var_os("DF11_DEEP").is_some() {
            model.group(0).unwrap().verify(2).unwrap();
        }
    }
}

#[test]
fn two_thousand_groups_and_a_terabyte() {
    alone!();
    const GROUPS: u64 = 2000;
    // Multiples of what a block holds; signs and codes are 9 bits for each.
    const WEIGHTS: u64 = 13_570 * 32_768;
    let codes = Codes::new(&[(100, Word::parse("0")), (101, Word::parse("10"))], Word::parse("11"));
    let folder = tempfile::tempdir().unwrap();
    for group in 0..GROUPS {
        let path = folder.path().join(format!("model_layers_{group}.safetensors"));
        let (file, _, sign_start) = write_hollow(&path, &format!("model.layers.{group}"), &codes, 1, WEIGHTS);
        file.write_all_at(&(group as u32 | 1 << 31).to_le_bytes(), sign_start + WEIGHTS - 4).unwrap();
    }
    let patterns = r#"{"model\\.layers\\.\\d+": ["mlp"]}"#;
    std::fs::write(folder.path().join("config.json"), support::files::config("0.5.0", patterns)).unwrap();

    let model = open(folder.path(), false, 64 << 20);
    assert!(model.files().map(|f| f.bytes).sum::<u64>() >= 1_000_000_000_000);
    assert_eq!(model.groups().len() as u64, GROUPS);
    assert_eq!(model.find_tensor("model.layers.1999.mlp.weight").map(|t| t.number()), Some(1999));
    for group in [0, 2, 10, 999, 1999] {
        assert_eq!(model.group(group).unwrap().name(), format!("model.layers.{group}"), "groups are in natural order");
        let mut found = [bf16::ZERO; 4];
        model.group(group).unwrap().decompress(WEIGHTS - 4, &mut found, &DecodeOptions::default()).unwrap();
        let want = (group as u32 | 1 << 31).to_le_bytes().map(|sign_mantissa| weight(100, sign_mantissa));
        assert_eq!(found.map(bf16::to_bits), want);
    }
    drop(model);

    // Read instead of mapped, some files keep a descriptor: half as many as there are files are enough. With too few for one file, that
    // is said, and none stays open.
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open_files();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a struct that lives.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    let set = |cur| {
        // SAFETY: as above; the soft limit is this process's to choose.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: cur, ..limit }) };
        assert_eq!(set, 0);
    };
    set(1000.min(limit.rlim_max));
    // Then positions are in memory: here 4 bytes for each 32,768 weights.
    let model = open(folder.path(), true, (GROUPS * WEIGHTS / 32_768 * 4) as usize + (16 << 20));
    for group in [1999, 0, 999] {
        let mut found = [bf16::ZERO; 4];
        model.group(group).unwrap().decompress(WEIGHTS - 4, &mut found, &DecodeOptions::default()).unwrap();
        assert!(open_files() <= before + 128);
    }
    drop(model);
    assert_eq!(open_files(), before);
    set(3);
    let error = Model::open(folder.path(), &OpenOptions::new()).map(drop).unwrap_err();
    set(1000.min(limit.rlim_max));
    assert_eq!((error.status(), error.native_code()), (df11::Status::Io, libc::EMFILE), "{error}");
    assert_eq!(open_files(), before);
    set(limit.rlim_cur);
}
