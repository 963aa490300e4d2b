//! Structs with a `struct_size`: how they are read and written, so that a program and a library of different versions fit.

use crate::error::{Error, Result};

/// A struct of the C ABI whose first field is `struct_size`, in bytes.
///
/// # Safety
///
/// The type is `repr(C)`, begins with a `usize`, has no padding, and all zeros is a value of it.
pub(super) unsafe trait Sizeable: Copy {
    /// The C name, for messages.
    const NAME: &'static str;
    /// The size in the first version of the library that had the struct.
    const FIRST: usize;
}

/// The largest size that any version of a struct will have. A larger one is garbage.
const MOST: usize = 4096;

/// Reads and checks the size of the caller's struct.
///
/// # Safety
///
/// `at` is NULL or points to a struct as large as its `struct_size` says.
unsafe fn size_of_caller<T: Sizeable>(at: *const T) -> Result<usize> {
    if at.is_null() {
        return Err(Error::InvalidArgument(format!("the {} is NULL", T::NAME)));
    }
    // SAFETY: `at` is not NULL, and the size is the first field of every such struct.
    let size = unsafe { at.cast::<usize>().read_unaligned() };
    if !(T::FIRST..=MOST).contains(&size) {
        let reason = format!("{}.struct_size is {size}: begin with {}_INIT", T::NAME, T::NAME.to_uppercase());
        return Err(Error::InvalidArgument(reason));
    }
    Ok(size)
}

/// Reads what this library knows of a struct; `None` for NULL. Fields that the caller's struct is too old to have are zero.
/// What the library is too old to know is looked at by [`refuse_unknown`], after the outputs that the struct names have been
/// cleared.
///
/// # Safety
///
/// `at` is NULL or points to a struct as large as its `struct_size` says.
pub(super) unsafe fn read_known<T: Sizeable>(at: *const T) -> Result<Option<T>> {
    if at.is_null() {
        return Ok(None);
    }
    // SAFETY: `at` is not NULL, and no more is read than its struct_size; all zeros are a T.
    unsafe {
        let size = size_of_caller(at)?;
        let mut value = std::mem::zeroed::<T>();
        std::ptr::copy_nonoverlapping(at.cast::<u8>(), (&raw mut value).cast(), size.min(size_of::<T>()));
        Ok(Some(value))
    }
}

/// Fails if there is anything but zeros in fields that this library does not know: it cannot do what it does not know.
///
/// # Safety
///
/// `at` is NULL or points to a struct as large as its `struct_size` says.
pub(super) unsafe fn refuse_unknown<T: Sizeable>(at: *const T) -> Result<()> {
    if at.is_null() {
        return Ok(());
    }
    // SAFETY: `at` is not NULL, and as many bytes as its struct_size says can be read.
    unsafe {
        let size = size_of_caller(at)?;
        let bytes = std::slice::from_raw_parts(at.cast::<u8>(), size);
        if let Some(unknown) = bytes.iter().skip(size_of::<T>()).position(|&b| b != 0) {
            let at = size_of::<T>() + unknown;
            return Err(Error::UnsupportedOption(format!(
                "byte {at} of the {} is set, and this version knows {} bytes of it",
                T::NAME,
                size_of::<T>()
            )));
        }
    }
    Ok(())
}

/// Fails if flags of options have a bit that this library does not know.
pub(super) fn check_flags<T: Sizeable>(flags: u32, known: u32) -> Result<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Error::UnsupportedOption(format!("{}.flags has unknown bits: {unknown:#x}", T::NAME))),
    }
}

/// Checks a struct that will be filled in, and clears all of it but its size.
///
/// # Safety
///
/// `at` is NULL or points to a writable struct as large as its `struct_size` says.
pub(super) unsafe fn clear<T: Sizeable>(at: *mut T) -> Result<()> {
    // SAFETY: `size_of_caller` refused NULL, and as many bytes as struct_size says can be written.
    unsafe {
        let size = size_of_caller(at)?;
        at.cast::<u8>().add(size_of::<usize>()).write_bytes(0, size - size_of::<usize>());
    }
    Ok(())
}

/// Fills in as much of a cleared struct as the caller's version has; its `struct_size` stays.
///
/// # Safety
///
/// `at` is NULL or points to a writable struct as large as its `struct_size` says.
pub(super) unsafe fn write<T: Sizeable>(at: *mut T, value: &T) -> Result<()> {
    const SKIP: usize = size_of::<usize>();
    // SAFETY: `size` is at most the caller's struct_size and the size of a T, so both structs hold what is copied.
    unsafe {
        let size = size_of_caller(at)?.min(size_of::<T>());
        let from = (&raw const *value).cast::<u8>().add(SKIP);
        std::ptr::copy_nonoverlapping(from, at.cast::<u8>().add(SKIP), size - SKIP);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Now {
        struct_size: usize,
        a: u64,
        b: u64,
    }

    // SAFETY: three words.
    unsafe impl Sizeable for Now {
        const NAME: &'static str = "now";
        const FIRST: usize = 16;
    }

    #[test]
    fn older_and_newer_callers_fit() {
        let mut words = [16usize, 7, 8, 9];
        let at = |words: &[usize; 4]| words.as_ptr().cast::<Now>();
        // SAFETY: in each case the array is larger than its first word says.
        unsafe {
            let read = |at: *const Now| read_known(at).and_then(|value| refuse_unknown(at).map(|()| value));
            assert_eq!(read(at(&words)).unwrap(), Some(Now { struct_size: 16, a: 7, b: 0 }));
            words[0] = 24;
            assert_eq!(read(at(&words)).unwrap(), Some(Now { struct_size: 24, a: 7, b: 8 }));
            words[0] = 32;
            assert!(matches!(read(at(&words)), Err(Error::UnsupportedOption(m)) if m.contains("byte 24")));
            words[3] = 0;
            assert_eq!(read(at(&words)).unwrap().map(|n| n.b), Some(8));
            for size in [0, 8, 15, 5000, usize::MAX] {
                words[0] = size;
                assert!(matches!(read(at(&words)), Err(Error::InvalidArgument(m)) if m.contains("NOW_INIT")), "{size}");
            }
            assert_eq!(read(std::ptr::null()).unwrap(), None);

            let value = Now { struct_size: 99, a: 1, b: 2 };
            for (size, want) in [(16, [16, 1, 5, 5]), (24, [24, 1, 2, 5]), (32, [32, 1, 2, 0])] {
                let mut words: [usize; 4] = [size, 5, 5, 5];
                let at = words.as_mut_ptr().cast::<Now>();
                clear(at).unwrap();
                write(at, &value).unwrap();
                assert_eq!(words, want);
            }
            assert!(clear::<Now>(std::ptr::null_mut()).is_err());
        }
    }
}
