//! Damage: files with changed bytes, moved parts, and headers that lie. The same seed gives the same damage.

use serde_json::Value;

use super::files;
use super::weights::Random;

/// Numbers at which careless arithmetic goes wrong.
pub const EVIL: [u64; 22] = [
    0,
    1,
    2,
    3,
    7,
    255,
    256,
    4_095,
    4_097,
    32_768,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    (1 << 53) + 1,
    (1 << 61) - 1,
    1 << 61,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];

/// Returns a random element.
pub fn pick<'a, T>(random: &mut Random, of: &'a [T]) -> &'a T {
    &of[random.below(of.len() as u64) as usize]
}

/// Damages a safetensors file in one to three ways. Returns a description of them.
pub fn file(random: &mut Random, file: &mut Vec<u8>) -> String {
    let ways = 1 + random.below(4) / 2 + random.below(4) / 3;
    let done: Vec<String> = (0..ways).map(|_| once(random, file)).collect();
    done.join("; ")
}

fn once(random: &mut Random, file: &mut Vec<u8>) -> String {
    let len = file.len() as u64;
    if len < 16 {
        file.extend([0; 16]);
        return "zeros at the end".into();
    }
    let at = random.below(len) as usize;
    let most = *pick(random, &[4, 64, 5_000, len]);
    let part = 1 + random.below(most.min(len - at as u64)) as usize;
    match random.below(20) {
        0 => {
            file[at] ^= 1 << random.below(8);
            format!("a bit of byte {at}")
        }
        1 => {
            let at = at.min(8 + random.below(3_000) as usize).min(file.len() - 1);
            file[at] = random.bits() as u8;
            format!("byte {at}, likely of the header")
        }
        2 => {
            let value = *pick(random, &EVIL);
            file[..8].copy_from_slice(&value.to_le_bytes());
            format!("header size {value}")
        }
        3 => {
            let part = part.min(64);
            let end = (at + part).min(file.len());
            file[at..end].iter_mut().for_each(|b| *b = random.bits() as u8);
            format!("noise in bytes {at} to {end}")
        }
        4 => {
            let value = *pick(random, &[0, 0xff, b'0', b'"']);
            file[at..at + part].fill(value);
            format!("{part} bytes of {value} at {at}")
        }
        5 => {
            file.truncate(at);
            format!("cut to {at} bytes")
        }
        6 => {
            file.drain(at..at + part);
            format!("{part} bytes taken out at {at}")
        }
        7 => {
            let copy = file[at..at + part.min(5_000)].to_vec();
            file.splice(at..at, copy);
            format!("up to {part} bytes doubled at {at}")
        }
        8..=10 => {
            // Far after the header, where the large members are.
            let at = file.len() / 4 + random.below(3 * len / 4) as usize;
            file[at] ^= 1 << random.below(8);
            format!("a bit of byte {at}")
        }
        11..=16 => member(random, file).unwrap_or_else(|| "nothing: no members".into()),
        _ => header(random, file).unwrap_or_else(|| "nothing: no header".into()),
    }
}

/// Parses the header of a file, if it still has one. Returns where the payload begins, too.
fn parse(file: &[u8]) -> Option<(usize, Value)> {
    let len = u64::from_le_bytes(file.get(..8)?.try_into().ok()?);
    let end = usize::try_from(len).ok()?.checked_add(8)?;
    let value: Value = serde_json::from_slice(file.get(8..end)?).ok()?;
    value.is_object().then_some((end, value))
}

/// Changes a number in a member of a group.
fn member(random: &mut Random, file: &mut [u8]) -> Option<String> {
    let (start, header) = parse(file)?;
    let header = header.as_object()?;
    let names: Vec<&String> = header.keys().filter(|name| files::member_of(name).is_some()).collect();
    let name = *names.get(random.below(names.len().max(1) as u64) as usize)?;
    let offsets = &header[name]["data_offsets"];
    let (from, to) = (start + offsets[0].as_u64()? as usize, start + offsets[1].as_u64()? as usize);
    let data = file.get_mut(from..to).filter(|data| !data.is_empty())?;
    let width = match files::member_of(name)?.1 {
        "output_positions" => 4,
        "split_positions" => 8,
        _ => 1,
    };
    let at = width * random.below((data.len() / width).max(1) as u64) as usize;
    let slot = data.get_mut(at..at + width)?;
    let old = slot.to_vec();
    match (width, random.below(3)) {
        (1, _) => slot[0] = *pick(random, &[0, 1, 8, 9, 32, 33, 239, 240, 241, 254, 255, slot[0] ^ 1, slot[0] ^ 128]),
        (_, 0) => slot.copy_from_slice(&pick(random, &EVIL).to_le_bytes()[..width]),
        (_, 1) => slot[0] = slot[0].wrapping_add(1),
        _ => slot[0] = slot[0].wrapping_sub(1),
    }
    Some(format!("{name}: {old:?} at {at} becomes {slot:?}"))
}

/// Changes an entry of the header.
fn header(random: &mut Random, file: &mut Vec<u8>) -> Option<String> {
    let (end, mut value) = parse(file)?;
    let tensors = value.as_object_mut()?;
    let names: Vec<String> = tensors.keys().filter(|k| *k != "__metadata__").cloned().collect();
    let name = names.get(random.below(names.len().max(1) as u64) as usize)?.clone();
    let other = pick(random, &names).clone();
    let evil = *pick(random, &EVIL);
    let said = match random.below(9) {
        0 => {
            let entry = tensors.remove(&name)?;
            let new =
                pick(random, &["x", "", ".luts", "a.gaps", "lm_head.luts", "\u{0}", "é", "a.b.c.gaps"]).to_string();
            tensors.insert(new.clone(), entry);
            format!("{name} becomes {new:?}")
        }
        1 => {
            tensors.remove(&name);
            format!("{name} is left out")
        }
        2 => {
            let dtype = *pick(random, &["U8", "I8", "I64", "U64", "BF16", "F4", "F6_E2M3", "C64", "BOOL", "?"]);
            tensors.get_mut(&name)?["dtype"] = dtype.into();
            format!("{name} is {dtype}")
        }
        3 => {
            let dimension = random.below(3) as usize;
            let shape = tensors.get_mut(&name)?["shape"].as_array_mut()?;
            match shape.get_mut(dimension) {
                Some(d) => *d = evil.into(),
                None => shape.push(evil.into()),
            }
            format!("dimension {dimension} of {name} is {evil}")
        }
        4 => {
            let side = random.below(2) as usize;
            tensors.get_mut(&name)?["data_offsets"][side] = evil.into();
            format!("offset {side} of {name} is {evil}")
        }
        5 | 6 => {
            // Two tensors exchange their names: sizes still fit.
            let (a, b) = (tensors.get(&name)?.clone(), tensors.get(&other)?.clone());
            tensors.insert(name.clone(), b);
            tensors.insert(other.clone(), a);
            format!("{name} and {other} change places")
        }
        7 => {
            // The tensor and the next one meet at another place: offsets still fit.
            let from = tensors.get(&name)?["data_offsets"][0].as_u64()?;
            let to = tensors.get(&name)?["data_offsets"][1].as_u64()?;
            let next =
                names.iter().find(|n| tensors[*n]["data_offsets"][0].as_u64() == Some(to) && **n != name)?.clone();
            let next_to = tensors[&next]["data_offsets"][1].as_u64()?;
            let cut = from + random.below(next_to.checked_sub(from)? + 1);
            tensors.get_mut(&name)?["data_offsets"][1] = cut.into();
            tensors.get_mut(&name)?["shape"] = vec![cut - from].into();
            tensors.get_mut(&next)?["data_offsets"][0] = cut.into();
            tensors.get_mut(&next)?["shape"] = vec![next_to - cut].into();
            format!("{name} ends at {cut} instead of {to}, where {next} begins")
        }
        _ => {
            tensors.get_mut(&name)?["shape"] = Value::from(pick(random, &[-1i64, i64::MIN]).to_owned());
            format!("the shape of {name} is a number")
        }
    };
    let mut text = value.to_string().into_bytes();
    if random.below(2) == 0 {
        text.resize(text.len().next_multiple_of(8), b' ');
    }
    let mut whole = (text.len() as u64).to_le_bytes().to_vec();
    whole.extend(text);
    whole.extend_from_slice(&file[end..]);
    *file = whole;
    Some(said)
}
