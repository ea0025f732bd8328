//! Byte strings behind one thin pointer: the only `unsafe` of the value types.
//!
//! Owns: [`ThinBytes`], an exact-size heap allocation whose first four bytes are its own length
//! (little endian), [`TaggedBytes`], the same with 16 bits of a hash in the unused top of the
//! pointer, and [`OneOf`], thin bytes or a box in one word. Called by: the compact encodings and the table entries of this folder.
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
    marker::PhantomData,
    ptr::NonNull,
};

/// Bytes of the length in front of every body.
pub const PREFIX_BYTES: usize = 4;

/// Largest allocation. A body this large needs elements beyond every limit of the protocol.
pub const MAX_BYTES: usize = u32::MAX as usize;

/// An owned byte string of one pointer's size.
#[repr(transparent)]
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

/// A type that is nothing but [`ThinBytes`] in memory.
///
/// # Safety
/// It is `repr(transparent)` over `ThinBytes`.
pub unsafe trait Thin {}

/// A thin value or a box, in one word: the top bit of the pointer tells which.
pub struct OneOf<A: Thin, B> {
    word: NonNull<u8>,
    owns: PhantomData<(A, B)>,
}

/// What a [`OneOf`] holds.
pub enum View<A, B> {
    /// The thin value.
    Small(A),
    /// What is in the box.
    Big(B),
}

/// Set in the word of a box.
const BOX_BIT: usize = 1 << (usize::BITS - 1);

// SAFETY: it owns what it holds, as the two types themselves do.
unsafe impl<A: Thin + Send, B: Send> Send for OneOf<A, B> {}
// SAFETY: a shared reference gives shared references only.
unsafe impl<A: Thin + Sync, B: Sync> Sync for OneOf<A, B> {}

impl<A: Thin, B> OneOf<A, B> {
    /// Holds a thin value.
    #[inline]
    pub fn small(value: A) -> Self {
        let value = std::mem::ManuallyDrop::new(value);
        // SAFETY: `A` is `ThinBytes` in memory, which is one `NonNull<u8>`; the value is not used
        // or dropped any more.
        let word = unsafe { std::mem::transmute_copy::<A, NonNull<u8>>(&value) };
        Self::holding(word)
    }

    /// Holds a box.
    pub fn big(value: Box<B>) -> Self {
        let plain = Self::holding(NonNull::from(Box::leak(value)).cast());
        let word = plain.word.map_addr(|address| address | BOX_BIT);
        std::mem::forget(plain);
        Self::new(word)
    }

    fn holding(word: NonNull<u8>) -> Self {
        assert!(
            word.addr().get() & BOX_BIT == 0,
            "an address in the upper half"
        );
        Self::new(word)
    }

    fn new(word: NonNull<u8>) -> Self {
        Self {
            word,
            owns: PhantomData,
        }
    }

    #[inline]
    fn is_small(&self) -> bool {
        self.word.addr().get() & BOX_BIT == 0
    }

    #[inline]
    fn boxed(&self) -> *mut B {
        let plain = |address| address & !BOX_BIT;
        self.word.as_ptr().map_addr(plain).cast()
    }

    /// What it holds, to read.
    #[inline]
    pub fn view(&self) -> View<&A, &B> {
        // SAFETY: without the bit the word is the thin value itself, with it the word leads to a
        // live `B`; both are borrowed with `self`.
        unsafe {
            if self.is_small() {
                View::Small(&*(&raw const self.word).cast::<A>())
            } else {
                View::Big(&*self.boxed())
            }
        }
    }

    /// What it holds, to change.
    #[inline]
    pub fn view_mut(&mut self) -> View<&mut A, &mut B> {
        // SAFETY: as for `view`, borrowed exclusively. A thin value that is changed stays one: the
        // allocator gives addresses below the bit (user addresses have 48 bits, see above).
        unsafe {
            if self.is_small() {
                View::Small(&mut *(&raw mut self.word).cast::<A>())
            } else {
                View::Big(&mut *self.boxed())
            }
        }
    }
}

impl<A: Thin, B> Drop for OneOf<A, B> {
    fn drop(&mut self) {
        // SAFETY: what the word owns is dropped once, as what it is.
        unsafe {
            if self.is_small() {
                std::ptr::drop_in_place((&raw mut self.word).cast::<A>());
            } else {
                drop(Box::from_raw(self.boxed()));
            }
        }
    }
}

impl<A: Thin + Clone, B: Clone> Clone for OneOf<A, B> {
    fn clone(&self) -> Self {
        match self.view() {
            View::Small(small) => Self::small(small.clone()),
            View::Big(big) => Self::big(Box::new(big.clone())),
        }
    }
}

impl<A: Thin + fmt::Debug, B: fmt::Debug> fmt::Debug for OneOf<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.view() {
            View::Small(small) => small.fmt(f),
            View::Big(big) => big.fmt(f),
        }
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

    #[repr(transparent)]
    struct Small(ThinBytes);

    // SAFETY: it is transparent.
    unsafe impl Thin for Small {}

    #[test]
    fn one_word_holds_either_and_drops_it() {
        let counted = std::rc::Rc::new(());
        let mut one = OneOf::<Small, std::rc::Rc<()>>::small(Small(ThinBytes::concat(&[b"ab"])));
        assert_eq!(size_of_val(&one), 8);
        match one.view_mut() {
            View::Small(small) => small.0.splice(PREFIX_BYTES + 1, 0, &[&[b'x'; 5000]]),
            View::Big(_) => panic!("it is small"),
        }
        assert!(matches!(one.view(), View::Small(small) if small.0.body().len() == 5002));
        one = OneOf::big(Box::new(counted.clone()));
        assert!(matches!(one.view(), View::Big(_)));
        assert_eq!(std::rc::Rc::strong_count(&counted), 2);
        drop(one);
        assert_eq!(std::rc::Rc::strong_count(&counted), 1);
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
