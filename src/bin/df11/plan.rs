//! `df11 plan`: what a model becomes, what memory it takes, and how much context fits next to it.

use crate::compress::{coverage, read_patterns, stays_plain};
use crate::kinds::{self, Kind};
use crate::size;
use crate::terminal::{Progress, bytes, clean, counted, extension, fit, line, print, share};
use crate::thousands::thousands;
use crate::{Failure, Reading, interrupt};
use df11::Error;
use df11::encode::PackedSizes;
use df11::plan::{ASSUMED_CODE_BITS, Basis, DeviceShare, GroupPlan, ModelPlan, PlainPlan, PlanOptions, Split, Tokens};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Sizes of devices' memory that are shown if none is given, in bytes.
const MEMORIES: [u64; 8] = [16 * GB, 24 * GB, 32 * GB, 48 * GB, 80 * GB, 96 * GB, 141 * GB, 192 * GB];
const GB: u64 = 1_000_000_000;
/// Names that are told one by one.
const NAMED: usize = 20;

/// Shows what a model becomes and what memory it takes, without compressing it
///
/// Only headers and config.json are read, so that this takes seconds for the largest models. (A head that is stored although
/// config.json says that it is tied is compared with the embedding.) Of a DF11 model all sizes are exact. Of
/// a plain one they are estimates: 2.662 bits are assumed for the code of an exponent, or measured on some weights with --sample.
///
/// MEMORY PER DEVICE is what the weights take: images of the groups, plain tensors, and scratch, which is --slots buffers for the
/// decoded weights of the largest group. By layers, each device holds whole layers, and the largest share is shown; by rows, each
/// holds a part of every matrix. TOKENS are those whose KV cache fits next to that, of all sequences together; bf16 is the same model
/// not compressed. Not counted are activations and what the engine and the driver take for themselves: give less than the device has.
///
/// The object that --json prints has the keys: schema (1), path, compressed, basis (exact, sampled or assumed), preset, groups[]
/// {name, tensors, weights, stored, bits_per_weight, image_bytes, extended, basis}, plain[] {name, dtype, shape, bytes}, grouped_share (of
/// the bf16 bytes), stays_plain[] {reason, tensors, bytes, bf16_bytes, largest[] {tensor, bytes}}, left[] {tensor, group, reason},
/// dropped[] {tensor, equal_to}, unmatched_patterns[], files[] {path, bytes}, totals {groups, files, weights, bf16, stored, plain,
/// original, written, images, slots, scratch}, cache {layers, cached_layers, windowed_layers, window, heads, latent, number_bytes,
/// bytes_per_token} or null, cache_unknown (the reason, or null), memory[] {devices, split, shares[], bf16_shares[]} where a share
/// has images, plain, scratch, total, cache_bytes_per_token, first, last, and tokens[] {device_memory, devices, split, df11, bf16}.
/// Here stored has the keys sign_mantissa, codes, gaps, positions, luts, splits, total; all sizes are in bytes. What does not fit
/// or is not known is null. Keys are added, never renamed.
#[derive(clap::Args)]
pub struct PlanArgs {
    /// A folder in Hugging Face layout or one .safetensors file, compressed or not
    model: PathBuf,
    /// Take the groups of this preset, or `automatic` ones [default: as `df11 compress` chooses them]
    #[arg(long, value_name = "NAME", conflicts_with = "pattern")]
    preset: Option<String>,
    /// Take the groups of this file: a pattern_dict as JSON, or any config.json that has one
    #[arg(long, value_name = "FILE")]
    pattern: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// Read some weights of each kind of group, and estimate sizes by them
    #[arg(long)]
    sample: bool,
    /// Plan what is there of a model that lacks something
    #[arg(long)]
    incomplete: bool,
    /// Numbers of devices, at most 1024, such as 1,2,4,8
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2, 4, 8],
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    devices: Vec<u32>,
    /// Memory of a device, such as 80GB or 79.6GiB, or several sizes with commas [default: usual ones from 16GB to 192GB]
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = parse_memory)]
    device_memory: Vec<u64>,
    /// Buffers for decoded weights: one is decoded to while another is multiplied with
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: u32,
    /// Bytes of a number in the KV cache: 2 is bf16, 1 fp8
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    kv_bytes: u32,
    /// Print one JSON object instead (see --help for its keys)
    #[arg(long)]
    json: bool,
    /// Give each group and each plain tensor a line of its own
    #[arg(long, conflicts_with = "json")]
    all: bool,
}

/// Parses the memory of a device: a number, which may have a fraction, and a unit.
fn parse_memory(text: &str) -> Result<u64, String> {
    let (number, unit) = size::split(text)?;
    // A device that is sold with 80 GB has that many, or 80 GiB: G alone would leave it open.
    if text.ends_with(|c: char| c.is_ascii_alphabetic() && !c.eq_ignore_ascii_case(&'b')) {
        return Err("write MB, GB and TB for powers of 1000, or MiB, GiB and TiB for powers of 1024".into());
    }
    let number = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
    let bytes = number.ok_or("write it as a number with a unit, such as 80GB")? * unit as f64;
    if bytes < 9e18 { Ok(bytes as u64) } else { Err("that is more than any device has".into()) }
}

/// Runs the subcommand.
pub fn run(args: &PlanArgs, quiet: bool) -> Result<(), Failure> {
    let patterns = args.pattern.as_ref().map(|path| read_patterns(path)).transpose()?;
    let mut options = PlanOptions::new().patterns(patterns).sample(args.sample).incomplete(args.incomplete);
    options = options.slots(args.slots).open(args.reading.options()?);
    if let Some(name) = &args.preset {
        options = options.preset(name);
    }
    let bar = Progress::new("reading headers", 0, quiet);
    let plan = ModelPlan::new(&args.model, &options.cache_number_bytes(args.kv_bytes), &bar.of_library());
    drop(bar);
    interrupt::check()?;
    let report = Report { args, plan: &plan? };
    print(&if args.json { report.json()? } else { report.text()? })
}

/// A plan and what is asked of it.
struct Report<'a> {
    args: &'a PlanArgs,
    plan: &'a ModelPlan,
}

fn bits(stored: u64, weights: u64) -> String {
    if weights == 0 { "-".into() } else { format!("{:.3}", 8.0 * stored as f64 / weights as f64) }
}

/// Returns the words for where sizes are from.
fn basis_of(groups: &[GroupPlan]) -> &'static str {
    let has = |basis| groups.iter().any(|group| group.basis == basis);
    match (has(Basis::Assumed), has(Basis::Sampled)) {
        (true, _) => "assumed",
        (false, true) => "sampled",
        (false, false) => "exact",
    }
}

impl Report<'_> {
    /// Returns the ways to split a model that are asked for: on one device there is but one.
    fn splits(&self) -> impl Iterator<Item = (u32, Split)> {
        let of = |&count: &u32| {
            let splits: &[Split] = if count == 1 { &[Split::Layers] } else { &[Split::Layers, Split::Rows] };
            splits.iter().map(move |&split| (count, split))
        };
        self.args.devices.iter().flat_map(of)
    }

    fn written(&self) -> u64 {
        self.plan.files().iter().map(|file| file.bytes).sum()
    }

    /// Returns the tokens that fit; `None` if that is not known.
    fn tokens(&self, memory: u64, count: u32, split: Split) -> Result<Option<Tokens>, Failure> {
        match self.plan.tokens(memory, count, split) {
            Err(Error::NotFound(_)) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// Formats the plan for people: at most 100 columns, except for the path.
    fn text(&self) -> Result<String, Failure> {
        let mut out = String::new();
        self.head(&mut out);
        self.sizes(&mut out);
        self.groups(&mut out);
        self.plain(&mut out);
        self.memory(&mut out)?;
        self.cache(&mut out);
        if self.plan.cache().is_ok() {
            match self.args.device_memory[..] {
                [] => self.usual_tokens(&mut out)?,
                _ => self.asked_tokens(&mut out)?,
            }
        }
        Ok(out)
    }

    fn head(&self, out: &mut String) {
        let plan = self.plan;
        line!(out, "{}", clean(&self.args.model.display().to_string()));
        let groups = counted(plan.groups().len() as u64, "group");
        let files = counted(plan.files().len() as u64, "file");
        let preset = match plan.preset() {
            Some("automatic") => ", grouped automatically".into(),
            Some(name) => format!(", preset {name}"),
            None => String::new(),
        };
        let verb = if plan.is_compressed() { "has" } else { "would have" };
        line!(out, "{verb} {groups} in {files} of {}{preset}", bytes(self.written()));
        let extended = plan.groups().iter().filter(|group| group.extended).count();
        if extended > 0 {
            line!(out, "{}", extension(extended as u64));
        }
        match basis_of(plan.groups()) {
            "exact" => line!(out, "sizes are exact"),
            "sampled" => line!(out, "sizes are estimates: some weights of each kind of group were counted"),
            _ => line!(
                out,
                "sizes are estimates: {ASSUMED_CODE_BITS} bits are assumed for the code of an exponent (--sample measures)"
            ),
        }
    }

    fn sizes(&self, out: &mut String) {
        let plan = self.plan;
        line!(out, "\n{:<22} {:>17} {:>12} {:>12} {:>9}", "SIZE", "weights", "bf16", "compressed", "ratio");
        let mut row = |what: &str, weights: String, before: u64, after: u64| {
            let ratio = share(after, before);
            line!(out, "{what:<22} {weights:>17} {:>12} {:>12} {ratio:>9}", bytes(before), bytes(after));
        };
        let (weights, plain) = (plan.element_count(), plan.plain_bytes());
        row("in groups", thousands(weights), 2 * weights, plan.packed_bytes());
        row("plain tensors", String::new(), plain, plain);
        row("all", String::new(), 2 * weights + plain, plan.packed_bytes() + plain);
    }

    fn groups(&self, out: &mut String) {
        line!(
            out,
            "\n{:<38} {:>5} {:>7} {:>15} {:>10} {:>8} {:>10}",
            "GROUP",
            "count",
            "tensors",
            "weights each",
            "stored",
            "bits",
            "images"
        );
        for kind in self.kinds(self.plan.groups(), |g| &g.name, |g| (g.tensor_count, g.element_count)) {
            let [first, ..] = kind.members[..] else { continue };
            let stored: u64 = kind.members.iter().map(|g| g.packed.total()).sum();
            let images: u64 = kind.members.iter().map(|g| g.image.image_bytes).sum();
            line!(
                out,
                "{:<38} {:>5} {:>7} {:>15} {:>10} {:>8} {:>10}",
                fit(&kind.name, 38),
                kind.members.len(),
                first.tensor_count,
                thousands(first.element_count),
                bytes(stored),
                bits(stored, first.element_count * kind.members.len() as u64),
                bytes(images)
            );
        }
    }

    fn plain(&self, out: &mut String) {
        if !self.plan.plain().is_empty() {
            line!(out, "\n{:<58} {:>5}  {:<9} {:>12}", "PLAIN TENSOR", "count", "type", "all of them");
        }
        for kind in self.kinds(self.plan.plain(), |t| &t.name, |t: &PlainPlan| (t.dtype.to_string(), &t.shape)) {
            let [first, ..] = kind.members[..] else { continue };
            let all = bytes(kind.members.iter().map(|t| t.bytes).sum());
            let dtype = first.dtype.to_string();
            line!(out, "{:<58} {:>5}  {dtype:<9} {all:>12}", fit(&kind.name, 58), kind.members.len());
        }
        if let Some(of) = self.plan.coverage() {
            out.push('\n');
            coverage(of, out);
        }
        let left = self.plan.left();
        for left in left.iter().take(NAMED) {
            line!(out, "left plain '{}': {}", clean(&left.tensor), clean(&left.reason));
        }
        if left.len() > NAMED {
            line!(out, "           and {} more (--json names all)", thousands((left.len() - NAMED) as u64));
        }
        for (head, embedding) in self.plan.dropped() {
            line!(out, "tied       '{}' is not stored if it is equal to '{}'", clean(head), clean(embedding));
        }
        for pattern in self.plan.unmatched_patterns() {
            line!(out, "no match   the pattern '{}' matches no module", clean(pattern));
        }
    }

    fn kinds<'t, T, K: std::hash::Hash + Eq>(
        &self,
        things: &'t [T],
        name: impl Fn(&'t T) -> &'t String,
        key: impl Fn(&'t T) -> K,
    ) -> Vec<Kind<&'t T>> {
        match self.args.all {
            true => things.iter().map(|thing| Kind { name: name(thing).clone(), members: vec![thing] }).collect(),
            false => kinds::fold(things, |thing| &name(thing)[..], key),
        }
    }

    fn memory(&self, out: &mut String) -> Result<(), Failure> {
        line!(
            out,
            "\n{:<24} {:>12} {:>12} {:>12} {:>12} {:>12}",
            "MEMORY PER DEVICE",
            "images",
            "plain",
            "scratch",
            "all",
            "bf16"
        );
        for (count, split) in self.splits() {
            let largest = |shares: Vec<DeviceShare>| shares.into_iter().max_by_key(DeviceShare::total_bytes);
            let share = largest(self.plan.devices(count, split)?).unwrap_or_default();
            let bf16 = largest(self.plan.devices_bf16(count, split)?).unwrap_or_default();
            line!(
                out,
                "{:<24} {:>12} {:>12} {:>12} {:>12} {:>12}",
                split_name(count, split),
                bytes(share.image_bytes),
                bytes(share.plain_bytes),
                bytes(share.scratch_bytes),
                bytes(share.total_bytes()),
                bytes(bf16.total_bytes())
            );
        }
        Ok(())
    }

    fn cache(&self, out: &mut String) {
        let cache = match self.plan.cache() {
            Ok(cache) => cache,
            Err(reason) => return line!(out, "\nKV CACHE unknown: {}", clean(reason)),
        };
        line!(out, "\nKV CACHE {} bytes for each token", thousands(self.plan.cache_bytes_per_token().unwrap_or(0)));
        let mut text = format!("{} of {}", thousands(cache.cached_layers), counted(cache.layers, "layer"));
        match cache.heads {
            _ if cache.latent => text += ", latent attention",
            Some(heads) => text += &format!(", {} of keys and values", counted(heads, "head")),
            None => {}
        }
        line!(out, "{text}, {} for a number", counted(u64::from(self.plan.cache_number_bytes()), "byte"));
        if cache.windowed_layers > 0 {
            let window = cache.window.map_or(String::new(), |tokens| format!(" of {}", counted(tokens, "token")));
            let layers = counted(cache.windowed_layers, "layer");
            line!(out, "{layers} of them need a window{window} only, and are counted as all others");
        }
    }

    /// Formats tokens for the usual sizes of memory: a line for each, and two columns for each number of devices.
    fn usual_tokens(&self, out: &mut String) -> Result<(), Failure> {
        for split in [Split::Layers, Split::Rows] {
            let counts = self.args.devices.iter().copied().filter(|&count| split == Split::Layers || count > 1);
            // More would not fit the line.
            let counts: Vec<u32> = counts.take(4).collect();
            if counts.is_empty() {
                continue;
            }
            let mut titles = format!("{:<9}", "TOKENS");
            let mut columns = format!("{:<9}", if split == Split::Layers { "by layers" } else { "by rows" });
            for &count in &counts {
                let title = if count == 1 { "1 device".into() } else { format!("{count} devices") };
                let _ = write!(titles, " {title:>21}");
                let _ = write!(columns, " {:>10} {:>10}", "DF11", "bf16");
            }
            line!(out, "\n{titles}\n{columns}");
            let mut holding = MEMORIES.len();
            for memory in MEMORIES {
                let mut row = format!("{:<9}", gigabytes(memory));
                let mut fits = false;
                for &count in &counts {
                    let tokens = self.tokens(memory, count, split)?;
                    fits |= tokens.is_none_or(|t| t.compressed.is_some() || t.bf16.is_some());
                    let of = |tokens: Option<u64>| tokens.map_or("-".into(), short);
                    let (df11, bf16) = tokens.map_or(("?".into(), "?".into()), |t| (of(t.compressed), of(t.bf16)));
                    let _ = write!(row, " {df11:>10} {bf16:>10}");
                }
                // Nobody wants to read that a model of 800 GB does not fit 16.
                if fits {
                    line!(out, "{row}");
                } else {
                    holding -= 1;
                }
            }
            if holding == 0 {
                line!(out, "none of the usual devices, of 16 GB to 192 GB, holds the weights");
            }
        }
        line!(out, "\n-: the weights do not fit.  ?: heads cannot be split so.");
        Ok(())
    }

    /// Formats tokens for the sizes of memory that were asked for: a line for each way to split the model.
    fn asked_tokens(&self, out: &mut String) -> Result<(), Failure> {
        for &memory in &self.args.device_memory {
            let title = format!("TOKENS, {} EACH", gigabytes(memory));
            line!(out, "\n{title:<24} {:>14} {:>14} {:>9}", "DF11", "bf16", "ratio");
            for (count, split) in self.splits() {
                let name = split_name(count, split);
                let Some(tokens) = self.tokens(memory, count, split)? else {
                    line!(out, "{name:<24} {:>14} {:>14}", "?", "?");
                    continue;
                };
                let of = |tokens: Option<u64>| tokens.map_or("does not fit".into(), thousands);
                let ratio = match (tokens.compressed, tokens.bf16) {
                    (Some(df11), Some(bf16)) if bf16 > 0 => format!("{:.2}", df11 as f64 / bf16 as f64),
                    _ => String::new(),
                };
                line!(out, "{name:<24} {:>14} {:>14} {ratio:>9}", of(tokens.compressed), of(tokens.bf16));
            }
        }
        Ok(())
    }

    /// Returns the text that `--json` prints.
    fn json(&self) -> Result<String, Failure> {
        let plan = self.plan;
        let group = |g: &GroupPlan| {
            let total = g.packed.total();
            let bits = (g.element_count > 0).then(|| 8.0 * total as f64 / g.element_count as f64);
            json!({
                "name": g.name,
                "tensors": g.tensor_count,
                "weights": g.element_count,
                "stored": stored(&g.packed),
                "bits_per_weight": bits,
                "image_bytes": g.image.image_bytes,
                "extended": g.extended,
                "basis": basis_of(std::slice::from_ref(g)),
            })
        };
        let plain =
            |t: &PlainPlan| json!({ "name": t.name, "dtype": t.dtype.to_string(), "shape": t.shape, "bytes": t.bytes });
        let mut sum = PackedSizes::default();
        plan.groups().iter().for_each(|g| sum.add(&g.packed));
        let (mut memory, mut tokens) = (Vec::new(), Vec::new());
        for (count, split) in self.splits() {
            let shares = |shares: Vec<DeviceShare>| shares.iter().map(share_json).collect::<Vec<_>>();
            memory.push(json!({
                "devices": count,
                "split": split_word(split),
                "shares": shares(plan.devices(count, split)?),
                "bf16_shares": shares(plan.devices_bf16(count, split)?),
            }));
        }
        let memories = if self.args.device_memory.is_empty() { &MEMORIES[..] } else { &self.args.device_memory };
        for &memory in memories {
            for (count, split) in self.splits() {
                let fit = self.tokens(memory, count, split)?;
                tokens.push(json!({
                    "device_memory": memory,
                    "devices": count,
                    "split": split_word(split),
                    "df11": fit.and_then(|t| t.compressed),
                    "bf16": fit.and_then(|t| t.bf16),
                }));
            }
        }
        let cache = plan.cache().ok().map(|cache| {
            json!({
                "layers": cache.layers,
                "cached_layers": cache.cached_layers,
                "windowed_layers": cache.windowed_layers,
                "window": cache.window,
                "heads": cache.heads,
                "latent": cache.latent,
                "number_bytes": plan.cache_number_bytes(),
                "bytes_per_token": plan.cache_bytes_per_token(),
            })
        });
        let left = |l: &df11::writer::LeftPlain| json!({ "tensor": l.tensor, "group": l.group, "reason": l.reason });
        let dropped = |(head, embedding): &(String, String)| json!({ "tensor": head, "equal_to": embedding });
        let file = |f: &df11::plan::FilePlan| json!({ "path": f.path.display().to_string(), "bytes": f.bytes });
        let whole = json!({
            "schema": 1,
            "path": self.args.model.display().to_string(),
            "compressed": plan.is_compressed(),
            "basis": basis_of(plan.groups()),
            "preset": plan.preset(),
            "groups": plan.groups().iter().map(group).collect::<Vec<_>>(),
            "plain": plan.plain().iter().map(plain).collect::<Vec<_>>(),
            "grouped_share": plan.coverage().map(|coverage| coverage.share()),
            "stays_plain": plan.coverage().map(|coverage| coverage.plain.iter().map(stays_plain).collect::<Vec<_>>()),
            "left": plan.left().iter().map(left).collect::<Vec<_>>(),
            "dropped": plan.dropped().iter().map(dropped).collect::<Vec<_>>(),
            "unmatched_patterns": plan.unmatched_patterns(),
            "files": plan.files().iter().map(file).collect::<Vec<_>>(),
            "totals": {
                "groups": plan.groups().len(),
                "files": plan.files().len(),
                "weights": plan.element_count(),
                "bf16": 2 * plan.element_count(),
                "stored": stored(&sum),
                "plain": plan.plain_bytes(),
                "original": plan.original_bytes(),
                "written": self.written(),
                "images": plan.image_bytes(),
                "slots": plan.slots(),
                "scratch": plan.scratch_bytes(),
            },
            "cache": cache,
            "cache_unknown": plan.cache().err(),
            "memory": memory,
            "tokens": tokens,
        });
        Ok(format!("{whole:#}\n"))
    }
}

fn split_word(split: Split) -> &'static str {
    if split == Split::Rows { "rows" } else { "layers" }
}

fn split_name(count: u32, split: Split) -> String {
    if count == 1 { "1 device".into() } else { format!("{count} devices, by {}", split_word(split)) }
}

/// Formats the memory of a device as it was given: without digits that mean nothing.
fn gigabytes(memory: u64) -> String {
    match memory {
        _ if memory.is_multiple_of(GB) => format!("{} GB", memory / GB),
        _ if memory.is_multiple_of(1 << 30) => format!("{} GiB", memory >> 30),
        _ => bytes(memory),
    }
}

/// Formats a number in ten columns.
fn short(number: u64) -> String {
    let text = thousands(number);
    if text.len() <= 10 { text } else { format!("{:.3e}", number as f64) }
}

fn stored(sizes: &PackedSizes) -> Value {
    json!({
        "sign_mantissa": sizes.sign_mantissa,
        "codes": sizes.encoded_exponent,
        "gaps": sizes.gaps,
        "positions": sizes.output_positions,
        "luts": sizes.luts,
        "splits": sizes.split_positions,
        "total": sizes.total(),
    })
}

fn share_json(share: &DeviceShare) -> Value {
    json!({
        "images": share.image_bytes,
        "plain": share.plain_bytes,
        "scratch": share.scratch_bytes,
        "total": share.total_bytes(),
        "cache_bytes_per_token": share.cache_bytes_per_token,
        "first": share.first,
        "last": share.last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_devices_has_units() {
        assert_eq!(parse_memory("80GB"), Ok(80_000_000_000));
        assert_eq!(parse_memory("79.5 GiB"), Ok(159 << 29));
        assert_eq!(parse_memory("123456789"), Ok(123_456_789));
        for bad in ["", "GB", "80G", "-1GB", "0GB", "nanGB", "infGB", "1e30GB", "8OGB"] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
        assert_eq!(gigabytes(80_000_000_000), "80 GB");
        assert_eq!(gigabytes(80 << 30), "80 GiB");
        assert_eq!(short(1_234_567), "1,234,567");
        assert_eq!(short(u64::MAX).len(), 8);
    }
}
