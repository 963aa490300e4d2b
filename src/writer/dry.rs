//! A run without a destination: what would be written, from headers alone.

use super::plan::{self, Files, Grouping, Plan, Wanted};
use super::run;
use super::source::Source;
use super::work;
use super::{CompressOptions, Coverage, Layout};
use crate::error::Result;
use crate::format::refuse_missing;
use crate::progress::Progress;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A group that would be written.
pub(crate) struct DryGroup {
    pub name: String,
    /// The elements of the source that it is made of: the tensor, the first of them, their number.
    pub segments: Vec<(usize, u64, u64)>,
    /// True if only an extension of the format can hold it.
    pub extended: bool,
}

/// What a run would begin with.
pub(crate) struct Dry {
    pub source: Source,
    pub plan: Plan,
    /// The groups of the plan, then the runs of all tensors in runs.
    pub groups: Vec<DryGroup>,
    /// What share of the model is in the groups, and what stays plain.
    pub coverage: Coverage,
    /// The name of the preset whose patterns these are, or `automatic`; `None` for those of the options.
    pub grouping: Option<&'static str>,
}

impl Dry {
    /// Opens a source and plans its groups, as [`super::compress`] does.
    ///
    /// # Errors
    ///
    /// Those of [`super::compress`] for the source, the patterns and the preset.
    pub fn new(source: &Path, options: &CompressOptions, progress: &Progress) -> Result<Dry> {
        let input = Source::open(source, progress)?;
        if !options.incomplete {
            refuse_missing(source, "plan", &input.found.missing)?;
        }
        let table = run::table(&input.model);
        let wanted = plan::Wanted::of(options.preset.as_deref(), options.patterns.as_ref())?;
        if let (Wanted::Best | Wanted::Automatic, Some(reason)) = (wanted, run::no_bf16(&input, &table)) {
            return Err(run::nothing(source, &reason));
        }
        let Grouping { origin, mut plan, .. } = input.grouping(&table, wanted, progress)?;
        if wanted.is_free() && !options.reference_only {
            plan::extend(&mut plan, &table, &options.run_sizes);
        }
        progress.check()?;
        let dropped = plan.dropped.iter().map(|dropped| dropped.tensor).collect();
        let coverage = Coverage::new(&table, &plan, &options.run_sizes, &HashSet::new(), &dropped);
        let group = |spec: work::GroupSpec| DryGroup {
            segments: spec.segments.iter().map(|s| (s.tensor, s.first, s.count)).collect(),
            extended: spec.is_run,
            name: spec.name,
        };
        let groups = run::group_specs(&plan, &table).into_iter().map(group).collect();
        drop(table);
        Ok(Dry { source: input, plan, groups, coverage, grouping: origin.name() })
    }

    /// Returns the files of a folder, with their bytes. `plain` are the tensors that are stored as they are, `sizes` the bytes of each
    /// group's members.
    pub fn files(&self, plain: &[usize], sizes: &[[u64; 6]], progress: &Progress) -> Result<Vec<(PathBuf, u64)>> {
        let table = run::table(&self.source.model);
        let main = self.source.main_file();
        let files = Files::new(Path::new(""), Layout::Folder, main, &table, &self.plan, plain);
        let bytes = |file: &plan::FilePlan| {
            progress.check()?;
            let groups: Vec<(&str, [u64; 6])> =
                file.groups.iter().map(|&g| (&self.groups[g].name[..], sizes[g])).collect();
            let bytes = work::file_bytes(&self.source.model, &groups, &file.plain, &file.metadata)?;
            Ok((PathBuf::from(file.path.file_name().unwrap_or_default()), bytes))
        };
        // A rest of no tensors is not written.
        let rest = files.rest.iter().filter(|rest| !rest.plain.is_empty());
        files.files.iter().chain(rest).map(bytes).collect()
    }
}
