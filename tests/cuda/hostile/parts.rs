//! Heads of images that hold a part of a group, and lie about it.

use df11::Status;
use df11::internals::cuda::image::Head;

use super::support::weights;
use super::{image_of, model_of, range_of, shard_of, sum};

/// Heads that lie about their range, with the right checksum: refused, or harmless.
#[test]
fn heads_that_lie_about_their_range_are_refused() {
    let model = model_of(&weights::trained_like(20_000, 3), &[5000, 10_000]);
    let good = range_of(&model, 0, 6000, 9000).1;
    let head = Head::parse(&good).unwrap();
    let head_bytes = head.layout().head_bytes() as usize;
    assert_eq!((head.layout().extent.first_tensor, head.layout().tensors), (1, 2));
    let with = |at: usize, bytes: &[u8]| {
        let mut lie = good[..head_bytes].to_vec();
        lie[at..at + bytes.len()].copy_from_slice(bytes);
        sum(&mut lie, head_bytes);
        Head::parse(&lie)
    };
    for first in [6001u64, 11_000, 1, 0] {
        let lie = with(128, &first.to_le_bytes()).unwrap();
        assert_eq!(lie.layout().extent.first, first);
    }
    for (at, value) in [
        (128, 11_001u64.to_le_bytes()),
        (128, u64::MAX.to_le_bytes()),
        (136, 14_999u64.to_le_bytes()),
        (136, (1u64 << 32).to_le_bytes()),
        (144, 2u64.to_le_bytes()),
        (144, (2 | 3u64 << 32).to_le_bytes()),
        (144, (1 | 1025u64 << 32).to_le_bytes()),
        // Slices, in a range.
        (152, 2u64.to_le_bytes()),
        // What must be zero.
        (152, (1u64 << 32).to_le_bytes()),
        (160, 1u64.to_le_bytes()),
    ] {
        let error = with(at, &value).expect_err(&format!("{at}: {value:?}"));
        assert_eq!(error.status(), Status::Corrupt, "{at}: {error}");
    }
    // All zeros say that it is a whole group.
    assert!(with(128, &[0; 28]).unwrap().layout().is_whole());
    // And a whole group says so in one way only.
    let before = image_of(&model, 0).1;
    let mut whole = before.clone();
    whole[136..144].copy_from_slice(&20_000u64.to_le_bytes());
    whole[148..152].copy_from_slice(&3u32.to_le_bytes());
    let head_bytes = Head::parse(&before).unwrap().layout().head_bytes() as usize;
    sum(&mut whole, head_bytes);
    assert_eq!(Head::parse(&whole).unwrap_err().status(), Status::Corrupt);
}

/// Heads that lie about their slices, with the right checksum.
#[test]
fn heads_that_lie_about_their_slices_are_refused() {
    let model = model_of(&weights::trained_like(20_000, 3), &[5000, 10_000]);
    let (layout, good) = shard_of(&model, 0);
    let head_bytes = layout.head_bytes() as usize;
    let slices = Head::parse(&good).unwrap().slices().to_vec();
    assert_eq!(slices.len(), 2);
    let with = |at: usize, bytes: &[u8]| {
        let mut lie = good[..head_bytes].to_vec();
        lie[at..at + bytes.len()].copy_from_slice(bytes);
        sum(&mut lie, head_bytes);
        Head::parse(&lie)
    };
    // Other elements of as many weights are other slices: the head is all that says which.
    let at = layout.slices as usize;
    assert_eq!(with(at, &2u32.to_le_bytes()).unwrap().slices()[0].tensor, 2);
    assert_eq!(with(at + 4, &9u32.to_le_bytes()).unwrap().slices()[0].first, 9);
    for (field, value) in [
        // A tensor that is none; elements outside the group; another number of elements; runs that overlap.
        (0, 3),
        (0, u32::MAX),
        (4, 20_000),
        (4, u32::MAX),
        (8, slices[0].run_elements + 1),
        (8, 0),
        (8, u32::MAX),
        (12, slices[0].run_elements - 1),
        (12, u32::MAX),
        (16, slices[0].run_count + 1),
        (16, 0),
        (16, u32::MAX),
    ] {
        let error = with(at + field, &value.to_le_bytes()).expect_err(&format!("{value} at {field}"));
        assert_eq!(error.status(), Status::Corrupt, "{value} at {field}: {error}");
    }
    // After the last slice, and in the header: how many there are, that slices begin with weight 0, and their group.
    for (at, value) in [(at + 40, 1u32), (128, 1), (144, 1), (152, 1), (152, 3), (152, 0), (148, 1), (148, 1025)] {
        let error = with(at, &value.to_le_bytes()).expect_err(&format!("{value} at {at}"));
        assert_eq!(error.status(), Status::Corrupt, "{value} at {at}: {error}");
    }
}
