//! Memory between two pages that must not be touched: a read or write out of bounds ends the test at once, in any build.

/// The end of the buffer that touches a forbidden page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Front,
    Back,
}

/// A fixed number of elements between two forbidden pages.
pub struct Guarded<T: Copy> {
    map: *mut u8,
    map_bytes: usize,
    first: *mut T,
    len: usize,
}

impl<T: Copy> Guarded<T> {
    /// Copies elements next to the forbidden page of that side. They touch it, because a page's size is a multiple of every
    /// alignment.
    pub fn new(elements: &[T], side: Side) -> Guarded<T> {
        // SAFETY: sysconf() only returns a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let bytes = size_of_val(elements);
        let inner = bytes.next_multiple_of(page).max(page);
        let map_bytes = inner + 2 * page;
        // SAFETY: a new mapping, whose two outer pages become forbidden. The copy fits into the inner ones.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(std::ptr::null_mut(), map_bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert!(map != libc::MAP_FAILED, "no memory");
            let map = map.cast::<u8>();
            for outer in [map, map.add(page + inner)] {
                assert_eq!(libc::mprotect(outer.cast(), page, libc::PROT_NONE), 0);
            }
            let first = match side {
                Side::Front => map.add(page),
                Side::Back => map.add(page + inner - bytes),
            };
            let first = first.cast::<T>();
            std::ptr::copy_nonoverlapping(elements.as_ptr(), first, elements.len());
            Guarded { map, map_bytes, first, len: elements.len() }
        }
    }

    pub fn as_ptr(&self) -> *const T {
        self.first
    }

    /// Returns a pointer for writing: this value owns the memory.
    pub fn as_mut_ptr(&self) -> *mut T {
        self.first
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: `new` has copied `len` elements there.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `new` has copied `len` elements there.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}

impl<T: Copy> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: `new` has made this mapping, and nothing else unmaps it.
        unsafe { libc::munmap(self.map.cast(), self.map_bytes) };
    }
}
