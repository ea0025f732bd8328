//! Byte strings behind one thin pointer: the only `unsafe` of the value types.
//!
//! Owns: [`ThinBytes`], an exact-size heap allocation whose first four bytes are its own length
//! (little endian), and [`TaggedBytes`], the same with 16 bits of a hash in the unused top of the
//! pointer. Called by: the compact encodings and the table entries of this folder.
//!
//! Layout of an allocation of `n` bytes, alignment 1:
//!
//! ```text
//! +----------------+---------------------+
//! | n: u32, LE     | n - 4 bytes of body |
//! +----------------+---------------------+
//! ```
//!
//! Invariants, on which every `unsafe` block below relies:
//! - the pointer comes from the global allocator with the layout `(n, 1)` and is owned alone;
//! - the first four bytes hold `n`, `4 <= n <= MAX_BYTES`; safe code can write the body only, so
//!   nobody else can break this;
//! - all `n` bytes are initialized.
//!
//! Not done here: any meaning of the body.

#![allow(
    unsafe_code,
    reason = "the audited module for thin owned pointers; see the invariants"
)]

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc},
    fmt,
    ptr::NonNull,
};

/// Bytes of the length in front of every body.
pub const PREFIX_BYTES: usize = 4;

/// Largest allocation. A body this large needs elements beyond every limit of the protocol.
pub const MAX_BYTES: usize = u32::MAX as usize;

/// An owned byte string of one pointer's size.
pub struct ThinBytes(NonNull<u8>);

// SAFETY: the allocation is owned alone and has no interior mutability.
unsafe impl Send for ThinBytes {}
// SAFETY: a shared reference permits reads only.
unsafe impl Sync for ThinBytes {}

fn layout(total: usize) -> Layout {
    assert!(
        (PREFIX_BYTES..=MAX_BYTES).contains(&total),
        "thin bytes of {total} bytes"
    );
    Layout::from_size_align(total, 1).expect("a u32 length fits the address space")
}

impl ThinBytes {
    /// An allocation of exactly `PREFIX_BYTES` plus the parts' bytes, holding the parts in order.
    pub fn concat(parts: &[&[u8]]) -> Self {
        let total = PREFIX_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
        let layout = layout(total);
        // SAFETY: the layout is not of size zero.
        let raw = unsafe { alloc(layout) };
        let Some(pointer) = NonNull::new(raw) else {
            handle_alloc_error(layout)
        };
        let mut new = Self(pointer);
        new.store_length(total);
        let mut at = PREFIX_BYTES;
        for part in parts {
            // SAFETY: `total` is the sum of the parts, so `at + part.len() <= total`; the fresh
            // allocation cannot overlap a part that a caller borrowed.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), raw.add(at), part.len()) };
            at += part.len();
        }
        new
    }

    fn store_length(&mut self, total: usize) {
        let prefix = u32::try_from(total)
            .expect("`layout` checked it")
            .to_le_bytes();
        // SAFETY: every allocation has at least four bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(prefix.as_ptr(), self.0.as_ptr(), PREFIX_BYTES);
        }
    }

    /// Number of bytes of the allocation, the prefix included.
    #[inline]
    pub fn total(&self) -> usize {
        // SAFETY: every allocation has at least four initialized bytes.
        let prefix = unsafe { self.0.as_ptr().cast::<[u8; PREFIX_BYTES]>().read() };
        u32::from_le_bytes(prefix) as usize
    }

    /// All bytes, the prefix included.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `total` initialized bytes are owned by `self`.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.total()) }
    }

    /// The bytes after the prefix.
    #[inline]
    pub fn body(&self) -> &[u8] {
        &self.as_bytes()[PREFIX_BYTES..]
    }

    /// The bytes after the prefix, to be changed in place.
    #[inline]
    pub fn body_mut(&mut self) -> &mut [u8] {
        let length = self.total() - PREFIX_BYTES;
        // SAFETY: the body is owned by `self`, initialized, and borrowed alone; it leaves out the
        // length, which safe code must not change.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().add(PREFIX_BYTES), length) }
    }

    /// Replaces `removed` bytes at offset `at` (counted from the start of the allocation, at least
    /// `PREFIX_BYTES`) by the parts. Reallocates to the exact new size.
    pub fn splice(&mut self, at: usize, removed: usize, parts: &[&[u8]]) {
        let old = self.total();
        let inserted = parts.iter().map(|part| part.len()).sum::<usize>();
        assert!(
            at >= PREFIX_BYTES && at <= old && removed <= old - at,
            "splice out of bounds"
        );
        let new = old - removed + inserted;
        let tail = old - at - removed;
        if new > old {
            self.reallocate(old, new);
        }
        if new != old {
            let base = self.0.as_ptr();
            // SAFETY: both ranges of `tail` bytes lie within max(old, new) bytes, which are
            // allocated at this point.
            unsafe { std::ptr::copy(base.add(at + removed), base.add(at + inserted), tail) };
        }
        if new < old {
            self.reallocate(old, new);
        }
        let mut to = at;
        for part in parts {
            // SAFETY: `at + inserted <= new` bytes are allocated; a part cannot be borrowed from
            // `self`, which is borrowed mutably.
            unsafe {
                let target = self.0.as_ptr().add(to);
                std::ptr::copy_nonoverlapping(part.as_ptr(), target, part.len());
            }
            to += part.len();
        }
        // Every byte is initialized again: those before `at` and the tail were, and the parts
        // fill exactly what lies between.
    }

    /// Changes the size; new bytes at the end are not initialized, so this stays private.
    fn reallocate(&mut self, old: usize, new: usize) {
        let new_layout = layout(new);
        // SAFETY: the block was allocated with `layout(old)`; `new` is neither zero nor too large.
        let raw = unsafe { realloc(self.0.as_ptr(), layout(old), new) };
        let Some(pointer) = NonNull::new(raw) else {
            handle_alloc_error(new_layout)
        };
        self.0 = pointer;
        self.store_length(new);
    }
}

impl Drop for ThinBytes {
    fn drop(&mut self) {
        let layout = layout(self.total());
        // SAFETY: allocated with this layout, owned alone, and not used again.
        unsafe { dealloc(self.0.as_ptr(), layout) };
    }
}

impl Clone for ThinBytes {
    fn clone(&self) -> Self {
        Self::concat(&[self.body()])
    }
}

impl fmt::Debug for ThinBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThinBytes({:?})", self.body().escape_ascii().to_string())
    }
}

/// Bits of an address that user space uses on the 64-bit platforms we run on.
const ADDRESS_BITS: u32 = 48;

/// [`ThinBytes`] with a 16-bit tag kept in the top of the pointer.
pub struct TaggedBytes(NonNull<u8>);

// SAFETY: as for `ThinBytes`.
unsafe impl Send for TaggedBytes {}
// SAFETY: as for `ThinBytes`.
unsafe impl Sync for TaggedBytes {}

impl TaggedBytes {
    /// Takes the bytes over and remembers the tag.
    pub fn new(bytes: ThinBytes, tag: u16) -> Self {
        let plain = bytes.0;
        std::mem::forget(bytes);
        assert!(
            plain.addr().get() >> ADDRESS_BITS == 0,
            "an address beyond 48 bits"
        );
        Self(plain.map_addr(|address| address | (usize::from(tag) << ADDRESS_BITS)))
    }

    /// The tag.
    #[inline]
    pub fn tag(&self) -> u16 {
        (self.0.addr().get() >> ADDRESS_BITS) as u16
    }

    #[inline]
    fn pointer(&self) -> NonNull<u8> {
        let address = self
            .0
            .as_ptr()
            .map_addr(|address| address & ((1 << ADDRESS_BITS) - 1));
        NonNull::new(address).expect("made from a pointer that is not null")
    }

    /// The bytes after the prefix.
    #[inline]
    pub fn body(&self) -> &[u8] {
        let thin = std::mem::ManuallyDrop::new(ThinBytes(self.pointer()));
        let body = thin.body();
        // SAFETY: the body lives as long as `self` owns the allocation and is not changed while
        // `self` is borrowed; only the lifetime of the local alias is replaced.
        unsafe { std::slice::from_raw_parts(body.as_ptr(), body.len()) }
    }

    /// Bytes of the allocation.
    pub fn total(&self) -> usize {
        self.body().len() + PREFIX_BYTES
    }

    /// Changes the bytes with `change`, keeping the tag.
    pub fn update<R>(&mut self, change: impl FnOnce(&mut ThinBytes) -> R) -> R {
        let tag = self.tag();
        // If `change` panics, `self` still points to memory that the unwinding `thin` would free:
        // `ManuallyDrop` makes that a leak, and the pointer is stale only if it was reallocated,
        // so a panic in between aborts.
        struct AbortOnUnwind;
        impl Drop for AbortOnUnwind {
            fn drop(&mut self) {
                std::process::abort();
            }
        }
        let guard = AbortOnUnwind;
        let mut thin = std::mem::ManuallyDrop::new(ThinBytes(self.pointer()));
        let result = change(&mut thin);
        std::mem::forget(guard);
        let plain = thin.0;
        self.0 = plain.map_addr(|address| address | (usize::from(tag) << ADDRESS_BITS));
        result
    }
}

impl Drop for TaggedBytes {
    fn drop(&mut self) {
        drop(ThinBytes(self.pointer()));
    }
}

impl fmt::Debug for TaggedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TaggedBytes({:04x}, {:?})",
            self.tag(),
            self.body().escape_ascii().to_string()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splice_equals_the_same_on_a_vector() {
        for (at, removed, inserted) in [(0, 0, 3), (2, 1, 1), (6, 0, 9), (0, 6, 0), (1, 4, 2)] {
            let mut thin = ThinBytes::concat(&[b"ab", b"cdef"]);
            let mut model = b"abcdef".to_vec();
            let new = vec![b'x'; inserted];
            let (first, second) = new.split_at(inserted / 2);
            thin.splice(PREFIX_BYTES + at, removed, &[first, second]);
            model.splice(at..at + removed, new.iter().copied());
            assert_eq!(thin.body(), model);
            assert_eq!(thin.total(), model.len() + PREFIX_BYTES);
        }
    }

    #[test]
    fn a_tag_survives_updates_and_leaves_the_bytes_alone() {
        let mut tagged = TaggedBytes::new(ThinBytes::concat(&[b"hello"]), 0xbeef);
        assert_eq!((tagged.tag(), tagged.body()), (0xbeef, b"hello".as_slice()));
        tagged.update(|thin| thin.splice(PREFIX_BYTES, 5, &[&[7; 5000]]));
        assert_eq!(
            (tagged.tag(), tagged.body()),
            (0xbeef, [7; 5000].as_slice())
        );
        assert_eq!(size_of::<Option<TaggedBytes>>(), 8);
    }
}
