//! The arguments of C as values that safe code can use.
//!
//! A C caller gives addresses, and the header says what each of them must be. The constructors here (and those of the
//! options structs, next to each struct) are where an address becomes a value: they are unsafe because they believe the
//! caller. What they return is safe to use for as long as the call runs, so that the body of every exported function is
//! safe code. NULL is looked at here too; whether it is a mistake is said by the method that a body calls.

use super::structs::{self, Sizeable};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::path::Path;

fn null(what: &str) -> Error {
    Error::InvalidArgument(format!("{what} is NULL"))
}

/// A handle, or another thing that a call reads.
pub(super) struct In<'a, T> {
    at: Option<&'a T>,
    what: &'static str,
}

impl<'a, T> In<'a, T> {
    /// # Safety
    ///
    /// `at` is NULL or points to a `T` that nobody changes or frees during `'a`.
    pub unsafe fn new(at: *const T, what: &'static str) -> Self {
        // SAFETY: C caller: `at` is NULL or a live handle; no call may free a handle that another one uses.
        In { at: unsafe { at.as_ref() }, what }
    }

    /// Returns the thing; NULL is an error.
    pub fn get(self) -> Result<&'a T> {
        self.at.ok_or_else(|| null(self.what))
    }

    /// Returns the thing, or `None` for NULL.
    pub fn given(self) -> Option<&'a T> {
        self.at
    }
}

/// A handle that the caller gives back to be freed.
pub(super) struct Owned<T>(Option<Box<T>>);

impl<T> Owned<T> {
    /// # Safety
    ///
    /// `at` is NULL or came from [`Place::give`], and nobody uses or frees it again.
    pub unsafe fn new(at: *mut T) -> Self {
        // SAFETY: C caller: `at` is NULL, or a handle of this library that is freed once; `give` made it from a Box.
        Owned((!at.is_null()).then(|| unsafe { Box::from_raw(at) }))
    }

    /// Frees the thing, if there is one.
    pub fn free(self) {
        drop(self.0);
    }
}

/// A place that a call writes one value to. It may be uninitialised, and two outputs may be the same.
pub(super) struct Out<'a, T>(Option<&'a Cell<MaybeUninit<T>>>);

impl<'a, T> Out<'a, T> {
    /// # Safety
    ///
    /// `at` is NULL or valid for writes of a `T` during `'a`, and no other thread uses it.
    pub unsafe fn new(at: *mut T) -> Self {
        // SAFETY: C caller: `at` is NULL or an output of the call's. Cell and MaybeUninit have the layout of a T.
        Out(unsafe { at.cast::<Cell<MaybeUninit<T>>>().as_ref() })
    }

    /// Writes the value that the output has after an error; NULL is an error.
    pub fn clear(self, value: T) -> Result<Place<'a, T>> {
        let place = Place(self.0.ok_or_else(|| null("the output"))?);
        place.set(value);
        Ok(place)
    }

    /// Writes a value unless the caller does not want it.
    pub fn offer(self, value: T) {
        if let Some(cell) = self.0 {
            Place(cell).set(value);
        }
    }
}

/// An output that has been cleared.
pub(super) struct Place<'a, T>(&'a Cell<MaybeUninit<T>>);

impl<T> Place<'_, T> {
    pub fn set(&self, value: T) {
        self.0.set(MaybeUninit::new(value));
    }
}

impl<T> Place<'_, *mut T> {
    /// Gives the caller a new handle, which comes back in an [`Owned`].
    pub fn give(&self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// A text that ends in a zero byte.
pub(super) struct Text<'a> {
    text: Option<&'a CStr>,
    what: &'static str,
}

impl<'a> Text<'a> {
    /// # Safety
    ///
    /// `at` is NULL or points to a text that ends in a zero byte and that nobody changes during `'a`.
    pub unsafe fn new(at: *const c_char, what: &'static str) -> Self {
        // SAFETY: C caller: `at` is NULL or a C string.
        Text { text: (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) }), what }
    }

    pub fn is_null(&self) -> bool {
        self.text.is_none()
    }

    /// Returns the text, of any bytes; NULL is an error.
    pub fn get(&self) -> Result<&'a CStr> {
        self.text.ok_or_else(|| null(self.what))
    }

    /// Returns the text as a path, on Unix of any bytes; NULL is an error.
    pub fn path(&self) -> Result<&'a Path> {
        let text = self.get()?;
        #[cfg(unix)]
        return Ok(Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(text.to_bytes())));
        #[cfg(not(unix))]
        text.to_str().map(Path::new).map_err(|_| Error::InvalidArgument(format!("{} is not UTF-8", self.what)))
    }

    /// Returns a copy of the text, or `None` for NULL.
    pub fn copy(&self) -> Result<Option<String>> {
        let Some(text) = self.text else { return Ok(None) };
        match text.to_str() {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(Error::InvalidArgument(format!("{} is not UTF-8", self.what))),
        }
    }
}

/// A list in host memory.
pub(super) struct List<'a, T> {
    list: Option<&'a [T]>,
    at: *const T,
    count: usize,
    what: &'static str,
}

impl<'a, T> List<'a, T> {
    /// # Safety
    ///
    /// `at` is NULL, or `count` elements can be read there during `'a`, which nobody changes.
    pub unsafe fn new(at: *const T, count: usize, what: &'static str) -> Self {
        let most = isize::MAX as usize / size_of::<T>().max(1);
        let list = match count {
            0 => Some(&[][..]),
            _ if at.is_null() || !at.is_aligned() || count > most => None,
            // SAFETY: C caller: `count` elements can be read at `at`. It is aligned, and no slice would be too large.
            _ => Some(unsafe { std::slice::from_raw_parts(at, count) }),
        };
        List { list, at, count, what }
    }

    pub fn is_null(&self) -> bool {
        self.at.is_null()
    }

    /// Returns the list; NULL is an error unless it has no elements.
    pub fn get(&self) -> Result<&'a [T]> {
        let &List { list, at, count, what } = self;
        list.ok_or_else(|| match at.is_null() {
            true => null(what),
            false => Error::InvalidArgument(format!("{what} at {at:p} cannot be a list of {count}")),
        })
    }
}

/// Bytes in host memory that a call reads.
pub(super) struct Bytes<'a> {
    bytes: Option<&'a [u8]>,
    at: *const c_void,
    len: usize,
    what: &'static str,
}

impl<'a> Bytes<'a> {
    /// # Safety
    ///
    /// `at` is NULL, or `len` bytes can be read there during `'a`, which nobody changes.
    pub unsafe fn new(at: *const c_void, len: usize, what: &'static str) -> Self {
        let can_be = !at.is_null() && len <= isize::MAX as usize;
        // SAFETY: C caller: `len` bytes can be read at `at`, which is not NULL, and no slice would be too large.
        let bytes = can_be.then(|| unsafe { std::slice::from_raw_parts(at.cast(), len) });
        Bytes { bytes, at, len, what }
    }

    /// Returns the bytes; NULL is an error.
    pub fn get(&self) -> Result<&'a [u8]> {
        let &Bytes { bytes, at, len, what } = self;
        bytes.ok_or_else(|| match at.is_null() {
            true => null(what),
            false => Error::InvalidArgument(format!("{what} of {len} bytes is larger than any memory")),
        })
    }
}

/// Refuses NULL as a place to write bytes to.
pub(super) fn destination(dst: *mut c_void) -> Result<*mut u8> {
    if dst.is_null() { Err(null("the destination")) } else { Ok(dst.cast()) }
}

/// A struct with a `struct_size` that a call fills in, and perhaps reads first.
#[derive(Clone, Copy)]
pub(super) struct Info<'a, T: Sizeable> {
    at: *mut T,
    life: PhantomData<&'a Cell<T>>,
}

impl<'a, T: Sizeable> Info<'a, T> {
    /// # Safety
    ///
    /// `at` is NULL, or points to a struct as large as its `struct_size` says, which can be read and written during
    /// `'a` and which no other thread uses.
    pub unsafe fn new(at: *mut T) -> Self {
        Info { at, life: PhantomData }
    }

    pub fn is_null(&self) -> bool {
        self.at.is_null()
    }

    /// Clears everything but the size; NULL and a wrong size are errors, and then nothing is written.
    pub fn clear(self) -> Result<Cleared<'a, T>> {
        // SAFETY: `new`: NULL or a struct of its size.
        unsafe { structs::clear(self.at)? };
        Ok(Cleared(self))
    }

    /// Reads as much as this library knows; NULL and a wrong size are errors.
    pub fn read(&self) -> Result<T> {
        // SAFETY: `new`: NULL or a struct of its size.
        unsafe { structs::read_known(self.at)? }.ok_or_else(|| null(&format!("the {}", T::NAME)))
    }

    /// Fails if anything is set that this library does not know.
    pub fn refuse_unknown(&self) -> Result<()> {
        // SAFETY: `new`: NULL or a struct of its size.
        unsafe { structs::refuse_unknown(self.at) }
    }

    /// Writes without clearing first. For a struct that [`Info::read`] has accepted.
    pub fn set(&self, value: &T) -> Result<()> {
        // SAFETY: `new`: NULL or a struct of its size.
        unsafe { structs::write(self.at, value) }
    }
}

/// A struct that has been cleared.
pub(super) struct Cleared<'a, T: Sizeable>(Info<'a, T>);

impl<T: Sizeable> Cleared<'_, T> {
    /// Fills in as much as the caller's version has; the caller's `struct_size` stays.
    pub fn set(&self, value: &T) -> Result<()> {
        self.0.set(value)
    }
}
