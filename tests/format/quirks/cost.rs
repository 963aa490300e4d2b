//! Time and memory that opening takes.

use std::time::{Duration, Instant};

use super::open;
use super::support::{encoder, files, weights};

#[test]
fn a_model_of_400_groups_opens_in_milliseconds() {
    let mut tensors = Vec::new();
    for layer in 0..400 {
        let encoded = encoder::encode(&weights::gaussian(500, 0.02, layer), &[200, 300]);
        tensors.extend(encoder::group_tensors(&format!("model.layers.{layer}"), &encoded));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), encoder::safetensors(&tensors, None)).unwrap();
    let config = files::config("0.5.0", r#"{"model\\.layers\\.\\d+": ["a", "b", "c"]}"#);
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let start = Instant::now();
    let model = open(folder.path());
    let took = start.elapsed();
    assert_eq!((model.groups().len(), model.tensors().len()), (400, 1200));
    assert_eq!(model.group(10).unwrap().name(), "model.layers.10");
    // About 10 ms on one core; the bound is for machines that do much else.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Returns the bytes of memory that this process holds.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// Opens 400 groups of 20 million weights, of which only the header, the rows and the positions are stored: the rest are holes of the
/// file. That this takes little time and little memory shows that nothing else is read.
#[cfg(target_os = "linux")]
#[test]
fn open_reads_nothing_but_headers_rows_and_positions() {
    use std::fmt::Write;
    use std::os::unix::fs::FileExt;
    const GROUPS: usize = 400;
    const BLOCKS: usize = 1700;
    const PER_BLOCK: usize = 12_000;
    let luts = encoder::luts(&encoder::canonical(&[(120, 1), (121, 2), (122, 31)], 32));
    let positions: Vec<u8> = (0..=BLOCKS).flat_map(|k| ((k * PER_BLOCK) as u32).to_le_bytes()).collect();
    let sizes = [luts.len(), 4096 * BLOCKS, PER_BLOCK * BLOCKS, positions.len(), 320 * BLOCKS, 0];
    let (mut header, mut at, mut pieces) = (String::from("{"), 0, Vec::new());
    for group in 0..GROUPS {
        for (member, len) in files::MEMBERS.into_iter().zip(sizes) {
            let (dtype, shape) = match member {
                "luts" => ("U8", format!("{}, 256", len / 256)),
                "split_positions" => ("I64", "0".into()),
                _ => ("U8", len.to_string()),
            };
            let comma = if at == 0 { "" } else { "," };
            write!(
                header,
                r#"{comma}"layers.{group}.{member}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{at},{}]}}"#,
                at + len
            )
            .unwrap();
            match member {
                "luts" => pieces.push((at, &luts)),
                "output_positions" => pieces.push((at, &positions)),
                _ => {}
            }
            at += len;
        }
    }
    header.push('}');
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let file = std::fs::File::create(&path).unwrap();
    let head = files::raw(&header, &[]);
    file.set_len((head.len() + at) as u64).unwrap();
    file.write_all_at(&head, 0).unwrap();
    for (offset, piece) in pieces {
        file.write_all_at(piece, (head.len() + offset) as u64).unwrap();
    }
    for read in [false, true] {
        let before = resident_bytes();
        let start = Instant::now();
        let model = crate::support::files::open(&path, read).unwrap();
        let (took, grown) = (start.elapsed(), resident_bytes().saturating_sub(before));
        assert_eq!(model.groups().len(), GROUPS);
        let weights: u64 = model.groups().map(|g| g.element_count()).sum();
        assert_eq!(weights, (GROUPS * BLOCKS * PER_BLOCK) as u64);
        // Some 30 ms and, mapped, some pages around each of 1,200 places; what other tests hold is in it too.
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(grown < 256 << 20, "{grown} bytes of {}", head.len() + at);
    }
}
