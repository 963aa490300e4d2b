//! How much memory writing an image takes. In a process of its own, because what other tests allocate would count.

use crate::support;

use df11::internals::cuda::image::ImageLayout;
use support::alloc;
use support::alone::alone;
use support::{encoder, weights};

#[test]
fn little_however_large_the_group_is() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    // One-bit codes have the most signs for their codes.
    for (name, all) in
        [("trained", weights::trained_like(6_000_000, 1)), ("one bit", weights::one_bit(6_000_000, 120, 1))]
    {
        let path = folder.path().join("model.safetensors");
        let e = encoder::encode(&all, &[]);
        std::fs::write(&path, encoder::safetensors(&encoder::group_tensors("g", &e), None)).unwrap();
        for (read, most) in [(false, 100 << 10), (true, 1_000_000)] {
            let model = crate::support::files::open(&path, read).unwrap();
            let layout = ImageLayout::of(model.group(0).unwrap()).unwrap();
            let mut memory = vec![0; layout.image_bytes as usize];
            let (result, taken) = alloc::taken(|| model.group(0).unwrap().write_image(&mut memory, 1));
            result.unwrap();
            assert!(taken.peak < most, "{name}, read: {read}: {taken:?}");
            let (_, taken) = alloc::taken(|| ImageLayout::of(model.group(0).unwrap()).unwrap());
            assert_eq!(taken.total, 0, "a layout allocates");
        }
    }
}
