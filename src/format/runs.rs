//! The tensors of groups, as runs: consecutive elements of a tensor that are consecutive weights of a group.
//!
//! By the format of the reference a group holds whole tensors, each one run. A group that a file's metadata lists
//! ([`GROUPS_KEY`](super::GROUPS_KEY)) holds whatever runs the list names, and a tensor may have its runs in many groups.

use super::config::Config;
use super::group::{GroupData, Member};
use super::names::{MOST_NAME_BYTES, check_name, names_of};
use super::source::Source;
use super::tensor::{Data, ListedGroup, RunData, ShapeSource, TensorData};
use super::{GROUPS_KEY, header};
use crate::error::{Error, Result, shorten};
use crate::progress::Progress;
use safetensors::Dtype;
use std::collections::{BTreeMap, HashMap};

/// The tensors that are in groups, and their runs: those of each tensor together, in the order of its elements.
pub(super) struct Packed {
    pub tensors: Vec<TensorData>,
    pub runs: Vec<RunData>,
    /// The numbers of the tensors that lists of groups name, and the file of the first such list.
    pub listed: BTreeMap<usize, usize>,
}

/// Finds out what the weights of each group are. Tensors are in the order in which the groups name them first. Names of
/// tensors in groups are not those of stored tensors, so the length of all together is bounded here.
pub(super) fn packed_tensors(
    sources: &[Source],
    groups: &mut [GroupData],
    config: Option<&Config>,
    mut lists: BTreeMap<usize, ListedGroup>,
    progress: &Progress,
) -> Result<Packed> {
    let mut building =
        Building { sources, tensors: Vec::new(), runs: Vec::new(), listed: HashMap::new(), name_bytes: 0 };
    for (number, group) in groups.iter_mut().enumerate() {
        progress.check()?;
        match lists.remove(&number) {
            Some(list) => {
                group.extended = true;
                building.add_listed(number, group, list)?;
            }
            None => building.add_whole(number, group, config)?,
        }
    }
    building.finish(groups, progress)
}

/// What is known after some of the groups.
struct Building<'a> {
    sources: &'a [Source],
    tensors: Vec<TensorData>,
    /// In the order of the groups.
    runs: Vec<RunData>,
    /// The tensors that lists name: their numbers, and the file of the first such list.
    listed: HashMap<String, (usize, usize)>,
    name_bytes: usize,
}

impl Building<'_> {
    /// Adds a group of whole tensors, which the config names.
    fn add_whole(&mut self, number: usize, group: &GroupData, config: Option<&Config>) -> Result<()> {
        let place = || group.place(self.sources, Member::SplitPositions, 0);
        let names =
            names_of(group.name(), group.cuts().len() - 1, config).map_err(|reason| Error::invalid(place(), reason))?;
        for (name, cut) in names.into_iter().zip(group.cuts().windows(2)) {
            let (group_offset, count) = (cut[0], cut[1] - cut[0]);
            self.check_name(&name, group)?;
            // One dimension, if no file says which.
            let tensor = self.add_tensor(name, [count].into(), count);
            self.runs.push(RunData { tensor, tensor_offset: 0, group: number, group_offset, count });
        }
        Ok(())
    }

    /// Adds a group of runs, as a file's metadata lists them.
    fn add_listed(&mut self, number: usize, group: &GroupData, list: ListedGroup) -> Result<()> {
        let count = group.cuts().len() - 1;
        if list.runs.len() != count {
            let place = group.place(self.sources, Member::SplitPositions, 0);
            let listed = list.runs.len();
            let reason = format!("the metadata '{GROUPS_KEY}' lists {listed} runs for this group, and it has {count}");
            return Err(Error::invalid(place, reason));
        }
        for (i, ((name, first), cut)) in list.runs.into_iter().zip(group.cuts().windows(2)).enumerate() {
            let (group_offset, count) = (cut[0], cut[1] - cut[0]);
            if count == 0 {
                let place = group.place(self.sources, Member::SplitPositions, 8 * i.saturating_sub(1) as u64);
                let reason = format!("the group's run {i}, of '{}', has no weight", shorten(&name, 80));
                return Err(Error::corrupt(place, reason));
            }
            let tensor = match self.listed.get(&name) {
                Some(&(tensor, _)) => tensor,
                None => self.add_listed_tensor(name, group, list.file)?,
            };
            self.runs.push(RunData { tensor, tensor_offset: first, group: number, group_offset, count });
        }
        Ok(())
    }

    /// Adds a tensor that a list names for the first time.
    fn add_listed_tensor(&mut self, name: String, group: &GroupData, file: usize) -> Result<usize> {
        self.check_name(&name, group)?;
        // Its shape, and so its size, is known when the shapes of all files are.
        let tensor = self.add_tensor(name.clone(), [].into(), 0);
        self.listed.insert(name, (tensor, file));
        Ok(tensor)
    }

    fn add_tensor(&mut self, name: String, shape: Box<[u64]>, count: u64) -> usize {
        // Where its runs are is known when all groups are.
        let data = Data::Packed { first_run: 0, run_count: 0 };
        self.tensors.push(TensorData {
            name,
            dtype: Dtype::BF16,
            shape,
            shape_from: ShapeSource::Unknown,
            data,
            bytes: 2 * count,
            sha256: None,
        });
        self.tensors.len() - 1
    }

    fn check_name(&mut self, name: &str, group: &GroupData) -> Result<()> {
        let place = || group.place(self.sources, Member::SplitPositions, 0);
        check_name(name).map_err(|reason| Error::invalid(place(), format!("{reason}: '{}'", shorten(name, 80))))?;
        self.name_bytes += name.len();
        if self.name_bytes > MOST_NAME_BYTES {
            let reason = format!("the names of the tensors in groups take more than {MOST_NAME_BYTES} bytes");
            return Err(Error::unsupported(place(), reason));
        }
        Ok(())
    }

    /// Brings the runs of each tensor together.
    fn finish(self, groups: &mut [GroupData], progress: &Progress) -> Result<Packed> {
        let Building { mut tensors, mut runs, listed, .. } = self;
        let key = |run: &RunData| (run.tensor, run.tensor_offset);
        header::sort(&mut runs, |a, b| key(a).cmp(&key(b)), progress)?;
        let mut rest = &runs[..];
        let mut first_run = 0;
        for (number, tensor) in tensors.iter_mut().enumerate() {
            let run_count = rest.iter().take_while(|run| run.tensor == number).count();
            tensor.data = Data::Packed { first_run, run_count };
            first_run += run_count;
            rest = &rest[run_count..];
        }
        for (number, run) in runs.iter().enumerate() {
            groups[run.group].runs.push(number as u32);
        }
        // Equal offsets are those of empty tensors, which keep their order.
        groups.iter_mut().for_each(|group| group.runs.sort_by_key(|&run| runs[run as usize].group_offset));
        Ok(Packed { tensors, runs, listed: listed.into_values().collect() })
    }
}

/// Checks that the runs of each tensor that lists of groups name are all of it.
pub(super) fn check_listed(
    listed: &BTreeMap<usize, usize>,
    tensors: &[TensorData],
    runs: &[RunData],
    groups: &[GroupData],
    sources: &[Source],
) -> Result<()> {
    for (&number, &file) in listed {
        let tensor = &tensors[number];
        let Data::Packed { first_run, run_count } = tensor.data else { continue };
        check_runs(&runs[first_run..][..run_count], tensor.bytes / 2, groups)
            .map_err(|reason| Error::corrupt(sources[file].place().tensor(&tensor.name), reason))?;
    }
    Ok(())
}

/// Checks that runs in the order of their first elements are the `count` elements of a tensor, each once. Returns what is
/// wrong.
fn check_runs(runs: &[RunData], count: u64, groups: &[GroupData]) -> std::result::Result<(), String> {
    let name = |run: &RunData| shorten(groups[run.group].name(), 80);
    let lacks = |from: u64, to: u64| format!("no group has its elements {from} to {}", to - 1);
    let mut end = 0;
    for (i, run) in runs.iter().enumerate() {
        let first = run.tensor_offset;
        let after = first.checked_add(run.count).filter(|&after| after <= count);
        let Some(after) = after else {
            return Err(format!(
                "the group '{}' has {} of its elements from {first} on, and it has {count} by its shape",
                name(run),
                run.count
            ));
        };
        if first > end {
            return Err(lacks(end, first));
        }
        if first < end {
            let (a, b) = (name(&runs[i - 1]), name(run));
            return Err(format!("its elements from {first} on are there twice: in the groups '{a}' and '{b}'"));
        }
        end = after;
    }
    if end < count { Err(lacks(end, count)) } else { Ok(()) }
}

/// Returns a file that has a part of a tensor, for messages.
pub(super) fn file_of<'s>(
    tensor: &TensorData,
    runs: &[RunData],
    groups: &[GroupData],
    sources: &'s [Source],
) -> &'s Source {
    let file = match tensor.data {
        Data::Plain(span) => span.file,
        Data::Packed { first_run, .. } => groups[runs[first_run].group].member(Member::Luts).file,
    };
    &sources[file]
}
