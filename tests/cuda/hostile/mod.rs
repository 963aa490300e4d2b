//! Hostile images and hostile programs on a device: heads made by hand whose checksum is right, thousands of damaged images
//! held against the oracle, files that change under an upload, the largest group that there can be, contexts that end too
//! early, and many threads while the driver fails.
#![cfg(target_os = "linux")]

pub(crate) mod images;
mod parts;
mod places;
mod programs;
use crate::support;

use df11::cuda::Slice;
use df11::internals::cuda::image;
use df11::{Model, OpenOptions, Progress};
use sha2::{Digest, Sha256};
use support::encoder::{encode, group_tensors, safetensors};

const PAINT: u8 = 0xa5;

fn model_of(weights: &[u16], splits: &[u64]) -> Model {
    let file = safetensors(&group_tensors("g", &encode(weights, splits)), None);
    Model::from_bytes(file, &OpenOptions::default()).unwrap()
}

fn image_of(model: &Model, group: usize) -> (image::ImageLayout, Vec<u8>) {
    let layout = image::ImageLayout::of(model.group(group).unwrap()).unwrap();
    let mut bytes = vec![0; layout.image_bytes as usize];
    model.group(group).unwrap().write_image(&mut bytes, 1).unwrap();
    (layout, bytes)
}

/// Writes the image of a range of a group.
fn range_of(model: &Model, group: usize, first: u64, count: u64) -> (image::ImageLayout, Vec<u8>) {
    let group = model.group(group).unwrap();
    let layout = group.image_range_layout(first, count).unwrap();
    let mut bytes = vec![0; layout.image_bytes as usize];
    group.write_image_range(first, count, &mut bytes, 1).unwrap();
    (layout, bytes)
}

/// Writes the image of two slices of a group: runs of its second tensor, and the first elements of its first.
fn shard_of(model: &Model, group: usize) -> (image::ImageLayout, Vec<u8>) {
    let slices = [
        Slice { tensor: 1, first: 3, run_elements: 12, run_stride: 40, run_count: 100 },
        Slice { tensor: 0, first: 0, run_elements: 2000, run_stride: 2000, run_count: 1 },
    ];
    let shard = model.group(group).unwrap().shard(&slices, 1, &Progress::new()).unwrap();
    let mut bytes = vec![0; shard.layout().image_bytes as usize];
    shard.write_image(&mut bytes, 1, &Progress::new()).unwrap();
    (*shard.layout(), bytes)
}

/// Gives a head the checksum that fits it, as an attacker can.
fn sum(image: &mut [u8], head_bytes: usize) {
    let mut hasher = Sha256::new();
    hasher.update(&image[..240]);
    hasher.update(&image[256..head_bytes]);
    let digest = hasher.finalize();
    image[240..248].copy_from_slice(&digest[..8]);
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
