//! Shapes that the caller gives: of the original's files, or of a list.

use super::super::header::Dimensions;
use super::super::json::{self, Fault};
use super::super::source::{Access, Source};
use super::super::tensor::{Data, ShapeSource, TensorData};
use super::super::{SHAPES_KEY, files};
use crate::error::{Error, Place, Result, shorten, shorten_path};
use crate::progress::Progress;
use std::path::Path;

/// The tensors that take shapes. `find` returns the number of one.
pub(super) struct Given<'a, F> {
    pub tensors: &'a mut [TensorData],
    pub find: F,
    pub progress: &'a Progress,
    /// Names that were given, and those of them that the model has.
    pub given: u64,
    pub known: u64,
}

impl<F: Fn(&[TensorData], &str) -> Option<usize>> Given<'_, F> {
    /// Takes the shapes of a folder, a safetensors file or a list in JSON. Of safetensors files only the headers are read, so
    /// no more of them need be there.
    pub fn take_path(&mut self, path: &Path) -> Result<()> {
        self.take_files(path).map_err(|e| e.into_argument("the shapes cannot be used"))?;
        self.warn_of_strangers(&format!("those of '{}'", shorten_path(path)));
        Ok(())
    }

    /// Warns if shapes were given and none is of the model's tensors.
    fn warn_of_strangers(&mut self, whose: &str) {
        if self.given > 0 && self.known == 0 {
            let given = self.given;
            log::warn!(
                "none of the {given} shapes that are given, {whose}, is of a tensor of this model: is it another's?"
            );
        }
        (self.given, self.known) = (0, 0);
    }

    /// Takes the shapes of a list. They come before those that are given already.
    pub fn take_list(&mut self, list: &str) -> Result<()> {
        let invalid = |reason| Error::InvalidArgument(format!("the list of shapes cannot be used: {reason}"));
        self.take_json(list.as_bytes(), true).map_err(|fault| fault.or(invalid))?;
        self.warn_of_strangers("in a list");
        Ok(())
    }

    fn take_files(&mut self, path: &Path) -> Result<()> {
        if std::fs::metadata(path).map_err(|e| Error::opening(path, e))?.is_dir() {
            return files::safetensors_of(path)?.iter().try_for_each(|file| self.take_file(file));
        }
        if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
            return self.take_file(path);
        }
        let text = files::read_text(path)?.unwrap_or_default();
        self.take_json(&text, false).map_err(|fault| fault.or(|reason| Error::invalid(Place::of(path), reason)))
    }

    /// Takes the shapes of a file's header, and those that its metadata has of tensors in groups.
    fn take_file(&mut self, path: &Path) -> Result<()> {
        self.progress.check()?;
        let source = Source::open(path, Access::Read)?;
        let header = source.header_alone(0, self.progress)?;
        for (name, stored) in header.tensors {
            self.take(&name, &stored.shape, false)?;
        }
        let invalid =
            |reason| Error::invalid(source.place(), format!("the metadata '{SHAPES_KEY}' is not valid: {reason}"));
        let text = header.shapes.as_deref().unwrap_or("{}");
        self.take_json(text.as_bytes(), false).map_err(|fault| fault.or(invalid))
    }

    /// Takes the shapes of a JSON object from names to lists of dimensions, or to objects that have these as `shape`, as the header
    /// of a safetensors file is.
    fn take_json(&mut self, text: &[u8], replaces: bool) -> std::result::Result<(), Fault> {
        json::each(text, |name, value| {
            self.progress.check().map_err(Fault::Is)?;
            let shape = match value.get() {
                entry if entry.starts_with('{') => json::fields(entry.as_bytes(), ["shape"])?[0],
                list => Some(list),
            };
            match shape {
                Some(shape) => {
                    let Dimensions(shape) = json::parse(shape.as_bytes())?;
                    self.take(&name, &shape, replaces).map_err(Fault::Is)
                }
                None if name == "__metadata__" => Ok(()),
                None => Err(Fault::Json(format!("'{}' has no list of dimensions", shorten(&name, 80)))),
            }
        })
    }

    /// Takes a shape, if the tensor is there, in a group, and has no shape in the model's files.
    fn take(&mut self, name: &str, shape: &[u64], replaces: bool) -> Result<()> {
        self.given += 1;
        let Some(number) = (self.find)(self.tensors, name) else { return Ok(()) };
        self.known += 1;
        let tensor = &mut self.tensors[number];
        let open = matches!(tensor.shape_from, ShapeSource::Unknown | ShapeSource::Given);
        if !open || matches!(tensor.data, Data::Plain(_)) {
            return Ok(());
        }
        let refuse = |reason: String| {
            let name = shorten(name, 80);
            Err(Error::InvalidArgument(format!("the shape {shape:?} is given for tensor '{name}', {reason}")))
        };
        let count = tensor.bytes / 2;
        if shape.iter().try_fold(1u64, |p, &d| p.checked_mul(d)) != Some(count) {
            return refuse(format!("which has {count} weights: it is another model's"));
        }
        if tensor.shape_from == ShapeSource::Given && !replaces && *tensor.shape != *shape {
            return refuse(format!("and another file gives {:?}", tensor.shape));
        }
        (tensor.shape, tensor.shape_from) = (shape.into(), ShapeSource::Given);
        Ok(())
    }
}
