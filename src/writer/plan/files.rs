//! Which files are written, under which names: a folder of one file per group, or a single file.

use super::{Part, Plan, SourceTensor, place};
use crate::writer::Layout;
use crate::writer::target::{ledger_of_file, ledger_of_part};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A file of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePlan {
    pub path: PathBuf,
    /// Numbers of its groups: those of the plan, then the runs of all tensors in runs.
    pub groups: Vec<usize>,
    /// Tensors of the source that are copied.
    pub plain: Vec<usize>,
    /// The metadata of its header.
    pub metadata: BTreeMap<String, String>,
}

/// The files that a model becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A folder of one file per group.
    PerGroup,
    /// A single file in a folder of its own.
    InFolder,
    /// A single file in a folder that has other things in it.
    Alone,
}

/// The files of a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Files {
    kind: Kind,
    /// The folder that is written to.
    pub folder: PathBuf,
    /// The files with groups.
    pub files: Vec<FilePlan>,
    /// The file for tensors that are in none of these. It is written when all groups are done, because those that DF11 cannot
    /// hold go there, too. A single file has none: its groups that DF11 cannot hold are plain in itself.
    pub rest: Option<FilePlan>,
}

impl Files {
    /// Decides which files are written. `plain` are the tensors that no group has; `main` is the name of a model's only file.
    pub fn new(
        destination: &Path,
        layout: Layout,
        main: &str,
        table: &[SourceTensor<'_>],
        plan: &Plan,
        plain: &[usize],
    ) -> Files {
        let (kind, path) = kind_of(destination, layout, main);
        let folder = if kind == Kind::PerGroup { destination } else { path.parent().unwrap_or(Path::new("")) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = folder.to_owned();
        let stem = main.trim_end_matches(".safetensors");
        let placement = place(table, plan, stem);
        let mut beside = vec![Vec::new(); plan.groups.len()];
        let mut rest = Vec::new();
        for &tensor in plain {
            match placement.files[tensor] {
                Some(group) => beside[group].push(tensor),
                None => rest.push(tensor),
            }
        }
        if kind != Kind::PerGroup {
            let plain = beside.into_iter().flatten().chain(rest).collect();
            let groups = (0..plan.group_count()).collect();
            let file = FilePlan { path, groups, plain, metadata: BTreeMap::new() };
            return Files { kind, folder, files: vec![file], rest: None };
        }
        let file = |(group, (stem, plain)): (usize, (String, Vec<usize>))| FilePlan {
            path: folder.join(format!("{stem}.safetensors")),
            groups: vec![group],
            plain,
            metadata: BTreeMap::new(),
        };
        let mut files: Vec<FilePlan> = placement.stems.into_iter().zip(beside).enumerate().map(file).collect();
        let mut next = plan.groups.len();
        for (planned, stem) in plan.in_runs.iter().zip(placement.stems_of_runs) {
            let groups = (next..next + planned.runs.len()).collect();
            next += planned.runs.len();
            let path = folder.join(format!("{stem}.safetensors"));
            files.push(FilePlan { path, groups, plain: Vec::new(), metadata: BTreeMap::new() });
        }
        // Without this word some versions of transformers refuse a file.
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let rest = FilePlan { path: folder.join(main), groups: Vec::new(), plain: rest, metadata };
        Files { kind, folder, files, rest: Some(rest) }
    }

    /// Returns whether each file gets its name as soon as it is complete. Otherwise the model is one file, which gets its name
    /// at the very end.
    pub fn named_one_by_one(&self) -> bool {
        self.kind == Kind::PerGroup
    }

    /// Returns whether the folder is the model's own: then what goes with the model is written to it, too.
    pub fn own_folder(&self) -> bool {
        self.kind != Kind::Alone
    }

    /// Returns the one file, if it is one.
    pub fn single(&self) -> Option<&Path> {
        if self.named_one_by_one() { None } else { self.files.first().map(|file| file.path.as_path()) }
    }

    /// Returns the paths of all files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().chain(&self.rest).map(|file| file.path.as_path())
    }

    /// Returns the name of a part's ledger in the folder.
    pub fn ledger(&self, part: Part) -> OsString {
        match self.single() {
            Some(file) => ledger_of_file(name(file)),
            None => ledger_of_part(part.number, part.count),
        }
    }

    /// Returns the words by which a ledger distinguishes one kind of run from another.
    pub fn manner(&self) -> &'static str {
        match self.kind {
            Kind::PerGroup => "a file per group",
            Kind::InFolder => "a file in its folder",
            Kind::Alone => "a file",
        }
    }

    /// Returns what the run writes, for messages.
    pub fn subject(&self, part: Part) -> (&Path, Option<Part>) {
        (self.single().unwrap_or(&self.folder), (part != Part::WHOLE).then_some(part))
    }

    /// Returns the tensors that go to the rest if these groups cannot be compressed.
    pub fn plain_of(&self, plan: &Plan, left: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut plain: Vec<usize> = self.rest.iter().flat_map(|rest| rest.plain.iter().copied()).collect();
        let runs: Vec<usize> = plan.in_runs.iter().flat_map(|p| p.runs.iter().map(|_| p.tensor)).collect();
        for file in self.files.iter().filter(|file| file.groups.iter().all(|&g| left(g))) {
            for &g in &file.groups {
                match plan.groups.get(g) {
                    Some(group) if !group.tied => plain.extend(&group.members),
                    // A tied head's tensor is the embedding's, which may be stored already.
                    Some(_) => {}
                    None => plain.push(runs[g - plan.groups.len()]),
                }
            }
            plain.extend(&file.plain);
        }
        plain.sort_unstable();
        plain.dedup();
        plain
    }
}

/// Returns whether a destination is one file, by its name; otherwise it is a folder.
pub(crate) fn is_file(destination: &Path) -> bool {
    destination.extension().is_some_and(|e| e == "safetensors")
}

/// Returns what a destination becomes, and the path of the file if it is one.
fn kind_of(destination: &Path, layout: Layout, main: &str) -> (Kind, PathBuf) {
    match (layout, is_file(destination)) {
        (Layout::Folder, _) | (Layout::ByName, false) => (Kind::PerGroup, destination.to_owned()),
        (Layout::SingleFile, false) => (Kind::InFolder, destination.join(main)),
        (Layout::ByName | Layout::SingleFile, true) => (Kind::Alone, destination.to_owned()),
    }
}

fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{Patterns, PlannedRun, PlannedTensor};
    use super::*;
    use safetensors::Dtype;

    const fn tensor(name: &str) -> SourceTensor<'_> {
        SourceTensor { name, dtype: Dtype::BF16, elements: 64, shape: &[8, 8] }
    }

    static TABLE: [SourceTensor; 4] =
        [tensor("l.0.a.weight"), tensor("l.0.norm.weight"), tensor("l.1.a.weight"), tensor("x.weight")];

    fn plan() -> Plan {
        let patterns = Patterns::from_value(&serde_json::json!({ r"l\.\d": ["a"] })).unwrap();
        super::super::plan(&TABLE, &patterns, false).unwrap()
    }

    fn files(destination: &str, layout: Layout) -> Files {
        let plan = plan();
        Files::new(Path::new(destination), layout, "model.safetensors", &TABLE, &plan, &plan.plain)
    }

    #[test]
    fn a_folder_has_a_file_per_group_and_the_rest() {
        let files = files("out", Layout::ByName);
        let all: Vec<_> = files.files.iter().map(|f| (f.path.to_str().unwrap(), &f.groups[..], &f.plain[..])).collect();
        assert_eq!(all, [("out/l_0.safetensors", &[0][..], &[1][..]), ("out/l_1.safetensors", &[1], &[])]);
        let rest = files.rest.as_ref().unwrap();
        assert_eq!((rest.path.to_str().unwrap(), &rest.plain[..]), ("out/model.safetensors", &[3][..]));
        assert!(files.single().is_none() && files.own_folder() && files.named_one_by_one());
        assert_eq!(files.ledger(Part { number: 2, count: 3 }), ".df11-part-2-of-3.df11-job");
        assert_eq!(files.plain_of(&plan(), |g| g == 0), [0, 1, 3]);
    }

    #[test]
    fn all_runs_of_a_tensor_are_in_one_file() {
        let run = |group: &str, first| PlannedRun { group: group.into(), first, count: 32 };
        let mut plan = plan();
        plan.in_runs = vec![PlannedTensor { tensor: 3, runs: vec![run("x.run_0", 0), run("x.run_1", 32)] }];
        plan.plain = vec![1];
        let make = |layout| Files::new(Path::new("out"), layout, "model.safetensors", &TABLE, &plan, &plan.plain);
        let files = make(Layout::Folder);
        let file = &files.files[2];
        assert_eq!((file.path.to_str().unwrap(), &file.groups[..]), ("out/x_weight.safetensors", &[2, 3][..]));
        assert!(files.rest.as_ref().unwrap().plain.is_empty());
        assert_eq!(files.plain_of(&plan, |g| g >= 2), [3]);
        assert!(files.plain_of(&plan, |g| g == 2).is_empty());
        assert_eq!(make(Layout::SingleFile).files[0].groups, [0, 1, 2, 3]);
    }

    #[test]
    fn a_single_file_has_all() {
        for (destination, layout, path, folder, own) in [
            ("out", Layout::SingleFile, "out/model.safetensors", "out", true),
            ("a/x.safetensors", Layout::ByName, "a/x.safetensors", "a", false),
            ("x.safetensors", Layout::SingleFile, "x.safetensors", ".", false),
        ] {
            let files = files(destination, layout);
            assert_eq!((files.single(), files.folder.as_path()), (Some(Path::new(path)), Path::new(folder)));
            assert_eq!((&files.files[0].groups[..], &files.files[0].plain[..]), (&[0, 1][..], &[1, 3][..]));
            assert!(files.rest.is_none() && files.own_folder() == own && !files.named_one_by_one());
        }
        assert!(files("x.safetensors", Layout::Folder).single().is_none());
    }
}
