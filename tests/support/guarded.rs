//! Memory with a page on each side that nobody may touch: a read or write out of bounds ends the test at once, in any
//! build.

/// Which end of the buffer touches a forbidden page.
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
    /// A copy of these elements, as near to the forbidden page of that side as their alignment lets them be (which is
    /// right at it, for a page is a multiple of everything).
    pub fn new(elements: &[T], side: Side) -> Guarded<T> {
        // SAFETY: a question about the system.
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

    /// For writing through: the memory is this value's own.
    pub fn as_mut_ptr(&self) -> *mut T {
        self.first
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: so many elements were copied there.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: so many elements were copied there.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}

impl<T: Copy> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made.
        unsafe { libc::munmap(self.map.cast(), self.map_bytes) };
    }
}
