//! A run without a destination: what would be written, from headers alone.

use super::plan::{self, Files, Grouping, Plan, SourceTensor};
use super::source::Source;
use super::work;
use super::{CompressOptions, Layout};
use crate::error::Result;
use crate::progress::Progress;
use std::path::{Path, PathBuf};

/// What a run would begin with.
pub(crate) struct Dry {
    pub source: Source,
    pub plan: Plan,
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
        let table: Vec<SourceTensor> = input.model.tensors().map(SourceTensor::from).collect();
        let wanted = plan::Wanted::of(options.preset.as_deref(), options.patterns.as_ref())?;
        let Grouping { origin, mut plan, .. } = plan::grouping(input.parsed.as_ref(), &table, wanted)?;
        if wanted.is_free() && !options.reference_only {
            plan::extend(&mut plan, &table, &options.run_sizes);
        }
        drop(table);
        Ok(Dry { source: input, plan, grouping: origin.name() })
    }

    /// Returns the files of a folder, with their bytes. `plain` are the tensors that are stored as they are, `sizes` the bytes of each
    /// group's members.
    pub fn files(&self, plain: &[usize], sizes: &[[u64; 6]]) -> Result<Vec<(PathBuf, u64)>> {
        let table: Vec<SourceTensor> = self.source.model.tensors().map(SourceTensor::from).collect();
        let main = self.source.main_file();
        let files = Files::new(Path::new(""), Layout::Folder, main, &table, &self.plan, plain);
        let runs = self.plan.in_runs.iter().flat_map(|planned| &planned.runs).map(|run| &run.group[..]);
        let names: Vec<&str> = self.plan.groups.iter().map(|g| &g.name[..]).chain(runs).collect();
        let bytes = |file: &plan::FilePlan| {
            let groups: Vec<(&str, [u64; 6])> = file.groups.iter().map(|&g| (names[g], sizes[g])).collect();
            let bytes = work::file_bytes(&self.source.model, &groups, &file.plain, &file.metadata)?;
            Ok((PathBuf::from(file.path.file_name().unwrap_or_default()), bytes))
        };
        // A rest of no tensors is not written.
        let rest = files.rest.iter().filter(|rest| !rest.plain.is_empty());
        files.files.iter().chain(rest).map(bytes).collect()
    }
}
