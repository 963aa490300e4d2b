//! Laying a file out, once every group that shall be in it is counted: which groups fit the format, where each member and each
//! plain tensor goes, what the header says, and what is left to do.

use super::super::target::Entry;
use super::*;
use crate::format::{HASHES_KEY, SHAPES_KEY};
use safetensors::Dtype;
use std::collections::{BTreeMap, HashSet};

/// Type and shape of a group's member of so many bytes.
pub(super) fn member_type(member: Member, bytes: u64) -> (Dtype, Vec<u64>) {
    match member {
        Member::Luts => (Dtype::U8, vec![bytes / 256, 256]),
        Member::SplitPositions => (Dtype::I64, vec![bytes / 8]),
        _ => (Dtype::U8, vec![bytes]),
    }
}

impl Engine<'_> {
    /// Everything is known of a file: it is laid out, and the rest of its work begins.
    pub(super) fn lay_out(&self, number: usize) -> Result<()> {
        let file = &self.files[number];
        let is_fit = |&g: &usize| lock(&self.groups[g].live).outline.is_some();
        let (fit, unfit): (Vec<usize>, Vec<usize>) = file.spec.groups.iter().partition(|g| is_fit(g));
        if fit.is_empty() && !file.spec.groups.is_empty() && file.spec.journal.is_none() {
            // Its tensors go elsewhere.
            return self.complete(number, None);
        }
        let mut plain = file.spec.plain.clone();
        for &g in &unfit {
            plain.extend(&self.groups[g].spec.tensors);
        }
        let mut tensors = Vec::new();
        let mut owners = HashMap::new();
        for &g in &fit {
            let group = &self.groups[g];
            let Some(outline) = lock(&group.live).outline.clone() else { continue };
            for member in Member::ALL {
                let name = format!("{}.{}", group.spec.name, MEMBERS[member as usize]);
                let bytes = outline.bytes(member);
                let (dtype, shape) = member_type(member, bytes);
                owners.insert(name.clone(), (g, member));
                tensors.push(LayoutTensor { name, dtype, shape, bytes });
            }
        }
        let mut sources = HashMap::new();
        for &t in &plain {
            let tensor = self.model.tensor_at(t);
            sources.insert(tensor.name(), t);
            tensors.push(LayoutTensor {
                name: tensor.name().into(),
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
                bytes: tensor.bytes(),
            });
        }
        let layout = FileLayout::new(tensors, &self.metadata(file, &fit, &plain))?;

        let to = Entry::at(&file.spec.path)?;
        let out = Arc::new(match &file.spec.journal {
            Some(_) => PartialFile::resume(&to, layout.bytes())?,
            None => PartialFile::create(&to, layout.bytes())?,
        });
        let mut done: HashSet<usize> = HashSet::new();
        if let Some(journal) = &file.spec.journal {
            let goes_on = out.starts_with(layout.header());
            done.extend(fit.iter().filter(|&&g| goes_on && journal.has(&self.groups[g].spec.name)));
            if !goes_on {
                journal.clear()?;
            }
        }
        out.write_at(0, layout.header())?;
        let mut at: HashMap<usize, [(u64, u64); 6]> = HashMap::new();
        let mut copies = Vec::new();
        for (tensor, offset) in layout.tensors() {
            if let Some(&(g, member)) = owners.get(&tensor.name) {
                at.entry(g).or_default()[member as usize] = (offset, tensor.bytes);
            } else if let Some(&source) = sources.get(&tensor.name[..]) {
                let pieces = (0..tensor.bytes).step_by(PIECE);
                copies.extend(
                    pieces.map(|from| (source, from, (tensor.bytes - from).min(PIECE as u64) as usize, offset + from)),
                );
            }
        }
        let pieces = copies.len();
        file.left.store(pieces + fit.len() + 1, Ordering::Release);
        *lock(&file.plan) = Some(Arc::new(FilePlan { out: out.clone(), copies }));
        for &g in &fit {
            let group = &self.groups[g];
            if done.contains(&g) {
                self.resumed.fetch_add(1, Ordering::Relaxed);
                let weights = Self::weights(group);
                let verify = if self.settings.verify { self.share(Kind::Verify, weights) } else { 0 };
                self.progress.advance(self.share(Kind::Encode, weights) + verify);
                *lock(&group.live) = Live::default();
                self.one_less(number)?;
                continue;
            }
            let at = at.get(&g).copied().unwrap_or_default();
            lock(&group.live).sink = Some(Arc::new(FileSink { out: out.clone(), at }));
            let tiles = Self::tiles(group);
            group.left.store(tiles, Ordering::Release);
            self.tasks.push(Kind::Encode, g, tiles);
        }
        if pieces > 0 {
            self.tasks.push(Kind::Copy, number, pieces);
        }
        // The one that was counted for laying out.
        self.one_less(number)
    }

    fn metadata(&self, file: &OutFile, fit: &[usize], plain: &[usize]) -> BTreeMap<String, String> {
        let mut metadata = file.spec.metadata.clone();
        let packed = || fit.iter().flat_map(|&g| &self.groups[g].spec.tensors);
        let name = |t: &usize| self.model.tensor_at(*t).name().to_owned();
        if self.settings.shapes && !fit.is_empty() {
            let shapes: BTreeMap<String, &[u64]> =
                packed().map(|t| (name(t), self.model.tensor_at(*t).shape())).collect();
            metadata.insert(SHAPES_KEY.into(), serde_json::json!(shapes).to_string());
        }
        if self.settings.hashes {
            let hashes = lock(&file.hashes);
            let of = |t: &usize| Some((name(t), hashes.get(t)?.clone()));
            let all: BTreeMap<String, String> = packed().chain(plain).filter_map(of).collect();
            metadata.insert(HASHES_KEY.into(), serde_json::json!(all).to_string());
        }
        metadata
    }
}
