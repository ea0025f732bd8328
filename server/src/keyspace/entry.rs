//! One key with its value and metadata, in one allocation.
//!
//! Owns the byte layout below and every pointer into it. Made by [`super::db::Db`] and the loaders, held by
//! [`super::table`], read by everybody. Does not know the table, time, or the snapshot (it only carries the bit).
//!
//! ```text
//!  0      1            4          6            8
//!  ┌──────┬────────────┬──────────┬────────────┬───────────┬─────────────┬──────────┬───────────┬─────────────┐
//!  │ tag  │ access(24) │ key len  │ value len  │ expire ms │ long keylen │   body   │ key bytes │ value bytes │
//!  └──────┴────────────┴──────────┴────────────┴───────────┴─────────────┴──────────┴───────────┴─────────────┘
//!   tag: 3 bits kind, has-expire, epoch, long-key, raw      8, optional   8, optional  0/8/16     inline strings
//! ```
//!
//! * inline string: no body, the value follows the key; integer: the body is the `i64`; a string above
//!   [`MAX_INLINE_BYTES`]: the body is a `Box<Vec<u8>>`; collections: the body is the collection itself (≤ 16 bytes).
//! * A key of [`LONG_KEY`] bytes or more has its length in the long-key word, and `LONG_KEY` in the header.
//!
//! Invariants, on which every `unsafe` block here and in `entry/change.rs` rests:
//! 1. An entry's allocation is `layout(tail_len)` where `tail_len` follows from the header alone (and the long-key
//!    word); it is the size that `Box<Entry>` frees. Whoever changes the header reallocates first.
//! 2. The kind in the tag says what the body holds, and the body is initialised. All body offsets are multiples of 8.
//! 3. A pointer to an entry always carries the provenance of its whole allocation.
//!
//! Read next: `entry/change.rs`.

#![allow(
    unsafe_code,
    reason = "one allocation of variable layout per key; invariants in the module's doc"
)]

mod change;

use std::alloc::{Layout, alloc, handle_alloc_error, realloc};
use std::fmt;
use std::mem;
use std::ptr::{self, NonNull};

use super::string::{StringInput, StringRef};
use super::types::hash::Hash;
use super::types::list::List;
use super::types::set::Set;
use super::types::sorted_set::SortedSet;
use super::types::value::{StringValue, Value};

/// Longest string kept inside the entry; longer ones get a growable buffer of their own.
pub const MAX_INLINE_BYTES: usize = 16 * 1024;
/// Strings up to this length report the encoding `embstr`, longer ones `raw` (as Redis does).
pub const MAX_EMBSTR_BYTES: usize = 44;

/// Keys of this length or more keep their length in a word of their own.
const LONG_KEY: usize = u16::MAX as usize;
const ALIGN: usize = 8;
const HEADER_LEN: usize = mem::size_of::<Header>();

const KIND_MASK: u8 = 0b111;
const HAS_EXPIRE: u8 = 1 << 3;
const EPOCH: u8 = 1 << 4;
const LONG: u8 = 1 << 5;
const RAW: u8 = 1 << 6;

/// Which half of the snapshot cycle an entry was last passed in; see [`super::snapshot_hook`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Epoch {
    /// Bit clear.
    #[default]
    Even,
    /// Bit set.
    Odd,
}

impl Epoch {
    /// The epoch that a new snapshot begins.
    pub fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }
}

impl From<StringInput<'_>> for Value {
    fn from(input: StringInput<'_>) -> Self {
        Self::String(match input {
            StringInput::Int(value) => StringValue::Integer(value),
            StringInput::Bytes(bytes) => StringValue::Bytes(bytes.into()),
        })
    }
}

/// A value as it lies in its entry, to read.
pub enum ValueRef<'a> {
    /// A string.
    String(StringRef<'a>),
    /// A list.
    List(&'a List),
    /// A set.
    Set(&'a Set),
    /// A hash.
    Hash(&'a Hash),
    /// A sorted set.
    SortedSet(&'a SortedSet),
}

/// A collection as it lies in its entry, to change (strings: [`super::value::StringMut`]).
pub(super) enum CollectionMut<'a> {
    List(&'a mut List),
    Set(&'a mut Set),
    Hash(&'a mut Hash),
    SortedSet(&'a mut SortedSet),
}

/// What the body holds; the number is what the tag stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Inline = 0,
    Int = 1,
    Big = 2,
    List = 3,
    Set = 4,
    Hash = 5,
    SortedSet = 6,
}

/// Indexed by the kind's three bits; the eighth pattern is never written (invariant 2).
const KINDS: [Kind; 8] = [
    Kind::Inline,
    Kind::Int,
    Kind::Big,
    Kind::List,
    Kind::Set,
    Kind::Hash,
    Kind::SortedSet,
    Kind::SortedSet,
];

impl Kind {
    const fn body_len(self) -> usize {
        match self {
            Self::Inline => 0,
            Self::Int => mem::size_of::<i64>(),
            Self::Big => mem::size_of::<BigString>(),
            Self::List => mem::size_of::<List>(),
            Self::Set => mem::size_of::<Set>(),
            Self::Hash => mem::size_of::<Hash>(),
            Self::SortedSet => mem::size_of::<SortedSet>(),
        }
    }
}

type BigString = Box<Vec<u8>>;

const fn fits_body<T>() -> bool {
    mem::size_of::<T>() <= 16 && mem::size_of::<T>().is_multiple_of(8) && mem::align_of::<T>() <= 8
}
const _: () = assert!(fits_body::<List>() && fits_body::<Set>() && fits_body::<Hash>());
const _: () = assert!(fits_body::<SortedSet>() && fits_body::<BigString>() && HEADER_LEN == 8);

/// Entries may go to another thread to be read (snapshots) or dropped there: so must everything they hold.
const fn assert_send_sync<T: Send + Sync>() {}
const _: () = assert_send_sync::<(List, Set, Hash, SortedSet, BigString)>();

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Header {
    tag: u8,
    access: [u8; 3],
    key_len: u16,
    value_len: u16,
}

/// Bytes between the header and the key, for every tag.
static PREFIX_LEN: [u8; 128] = {
    let mut table = [0; 128];
    let mut tag = 0;
    while tag < 128 {
        table[tag] =
            body_offset(tag as u8) as u8 + KINDS[tag & KIND_MASK as usize].body_len() as u8;
        tag += 1;
    }
    table
};

/// Bytes between the header and the body.
const fn body_offset(tag: u8) -> usize {
    (if tag & HAS_EXPIRE != 0 { 8 } else { 0 }) + (if tag & LONG != 0 { 8 } else { 0 })
}

fn layout(tail_len: usize) -> Layout {
    Layout::from_size_align((HEADER_LEN + tail_len).next_multiple_of(ALIGN), ALIGN)
        .expect("a key and an inline value are far below isize::MAX")
}

impl Header {
    #[inline]
    fn prefix_len(self) -> usize {
        usize::from(PREFIX_LEN[usize::from(self.tag & 127)])
    }

    #[inline]
    fn kind(self) -> Kind {
        KINDS[usize::from(self.tag & KIND_MASK)]
    }
}

/// One key with value, expiry and access clock. Always behind a reference or a [`Box`]: `Box<Entry>` owns it.
#[repr(C, align(8))]
pub struct Entry {
    header: Header,
    tail: [u8],
}

/// What a new or rewritten entry will look like.
#[derive(Clone, Copy)]
struct Shape {
    header: Header,
    key_len: usize,
}

impl Shape {
    fn new(kind: Kind, key: &[u8], value_len: usize, expire_at: Option<i64>) -> Self {
        debug_assert!(value_len <= MAX_INLINE_BYTES);
        let expire_bit = if expire_at.is_some() { HAS_EXPIRE } else { 0 };
        let long_bit = if key.len() >= LONG_KEY { LONG } else { 0 };
        let header = Header {
            tag: kind as u8 | expire_bit | long_bit,
            access: [0; 3],
            key_len: key.len().min(LONG_KEY) as u16,
            value_len: value_len as u16,
        };
        Self {
            header,
            key_len: key.len(),
        }
    }

    fn tail_len(self) -> usize {
        self.header.prefix_len() + self.key_len + usize::from(self.header.value_len)
    }

    /// Writes header, expiry and key; returns where the body and the inline value go.
    ///
    /// # Safety
    /// `base` is an allocation of `layout(self.tail_len())`, without a live body; `key` and `expire_at` are those
    /// the shape was made from, and `key` does not lie in it.
    #[inline]
    unsafe fn write(self, base: *mut u8, key: &[u8], expire_at: Option<i64>) -> (*mut u8, *mut u8) {
        // SAFETY: all offsets lie within the layout by `tail_len`; words are 8-aligned because the header is 8 bytes
        // and every part before the key is a multiple of 8.
        unsafe {
            base.cast::<Header>().write(self.header);
            let mut at = base.add(HEADER_LEN);
            if let Some(expire_at) = expire_at {
                at.cast::<i64>().write(expire_at);
                at = at.add(8);
            }
            if self.header.tag & LONG != 0 {
                at.cast::<u64>().write(self.key_len as u64);
                at = at.add(8);
            }
            let key_at = base.add(HEADER_LEN + self.header.prefix_len());
            ptr::copy_nonoverlapping(key.as_ptr(), key_at, self.key_len);
            (at, key_at.add(self.key_len))
        }
    }
}

/// Allocates for `tail_len` bytes after the header.
fn allocate(tail_len: usize) -> NonNull<u8> {
    let layout = layout(tail_len);
    // SAFETY: the layout is never empty: it has the header.
    NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Resizes an entry's allocation from one tail length to another. Free of charge if the rounded size is the same.
///
/// # Safety
/// `base` is an allocation of `layout(old_tail)`. The caller writes a header that fits `new_tail`.
unsafe fn reallocate(base: NonNull<u8>, old_tail: usize, new_tail: usize) -> NonNull<u8> {
    let (old, new) = (layout(old_tail), layout(new_tail));
    if old.size() == new.size() {
        return base;
    }
    // SAFETY: `base` was allocated with `old` (caller); the new size is neither 0 nor above isize::MAX.
    let moved = unsafe { realloc(base.as_ptr(), old, new.size()) };
    NonNull::new(moved).unwrap_or_else(|| handle_alloc_error(new))
}

/// Constructors.
impl Entry {
    /// An entry for a string.
    #[inline]
    pub fn string(key: &[u8], input: StringInput<'_>, expire_at: Option<i64>) -> Box<Self> {
        match input {
            StringInput::Bytes(bytes) if bytes.len() > MAX_INLINE_BYTES => {
                Self::with_body(Kind::Big, key, expire_at, Box::new(bytes.to_vec()))
            }
            StringInput::Int(value) => Self::with_body(Kind::Int, key, expire_at, value),
            StringInput::Bytes(bytes) => {
                let shape = Shape::new(Kind::Inline, key, bytes.len(), expire_at);
                let base = allocate(shape.tail_len());
                // SAFETY: a fresh allocation of the shape's size; the value's place has the length of `bytes`.
                unsafe {
                    let (_, value_at) = shape.write(base.as_ptr(), key, expire_at);
                    ptr::copy_nonoverlapping(bytes.as_ptr(), value_at, bytes.len());
                    Self::from_thin(base)
                }
            }
        }
    }

    /// An entry for any value.
    pub fn new(key: &[u8], value: Value, expire_at: Option<i64>) -> Box<Self> {
        match value {
            Value::String(StringValue::Integer(int)) => {
                Self::string(key, StringInput::Int(int), expire_at)
            }
            Value::String(StringValue::Bytes(bytes)) if bytes.len() > MAX_INLINE_BYTES => {
                Self::with_body(Kind::Big, key, expire_at, Box::new(bytes.into_vec()))
            }
            Value::String(StringValue::Bytes(bytes)) => {
                Self::string(key, StringInput::Bytes(&bytes), expire_at)
            }
            Value::List(list) => Self::with_body(Kind::List, key, expire_at, list),
            Value::Set(set) => Self::with_body(Kind::Set, key, expire_at, set),
            Value::Hash(hash) => Self::with_body(Kind::Hash, key, expire_at, hash),
            Value::SortedSet(sorted) => Self::with_body(Kind::SortedSet, key, expire_at, sorted),
        }
    }

    /// `T` must be the type that `kind` stands for.
    fn with_body<T>(kind: Kind, key: &[u8], expire_at: Option<i64>, body: T) -> Box<Self> {
        debug_assert_eq!(kind.body_len(), mem::size_of::<T>());
        let shape = Shape::new(kind, key, 0, expire_at);
        let base = allocate(shape.tail_len());
        // SAFETY: a fresh allocation of the shape's size; the body's place has the kind's size and 8-alignment.
        unsafe {
            let (body_at, _) = shape.write(base.as_ptr(), key, expire_at);
            body_at.cast::<T>().write(body);
            Self::from_thin(base)
        }
    }
}

/// Thin pointers, the form in which the table holds entries.
impl Entry {
    /// Gives up ownership for one pointer word.
    #[inline]
    pub(super) fn into_thin(entry: Box<Self>) -> NonNull<u8> {
        // SAFETY: a box is never null.
        unsafe { NonNull::new_unchecked(Box::into_raw(entry).cast::<u8>()) }
    }

    /// Takes ownership back.
    ///
    /// # Safety
    /// `thin` came from [`Entry::into_thin`] and is not used afterwards.
    #[inline]
    pub(super) unsafe fn from_thin(thin: NonNull<u8>) -> Box<Self> {
        // SAFETY: by the contract; the length read from the header is that of the allocation (invariant 1).
        unsafe { Box::from_raw(Self::fat(thin)) }
    }

    /// The full pointer for a thin one: adds the tail's length, read from the header.
    ///
    /// # Safety
    /// `thin` points to a live entry.
    #[inline]
    pub(super) unsafe fn fat(thin: NonNull<u8>) -> *mut Self {
        // SAFETY: a live entry begins with a header; the long-key word exists if the tag says so.
        let tail_len = unsafe {
            let header = thin.cast::<Header>().read();
            let key_len = if header.tag & LONG == 0 {
                usize::from(header.key_len)
            } else {
                let at = HEADER_LEN + body_offset(header.tag) - 8;
                thin.add(at).cast::<u64>().read() as usize
            };
            header.prefix_len() + key_len + usize::from(header.value_len)
        };
        ptr::slice_from_raw_parts_mut(thin.as_ptr(), tail_len) as *mut Self
    }
}

/// Reading.
impl Entry {
    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        let start = self.header.prefix_len();
        let end = self.tail.len() - usize::from(self.header.value_len);
        &self.tail[start..end]
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        // SAFETY: the kind says which type the body holds (invariant 2).
        unsafe {
            match self.header.kind() {
                Kind::Inline => ValueRef::String(StringRef::Bytes(self.inline_value())),
                Kind::Int => ValueRef::String(StringRef::Int(*self.body::<i64>())),
                Kind::Big => {
                    ValueRef::String(StringRef::Bytes(self.body::<BigString>().as_slice()))
                }
                Kind::List => ValueRef::List(self.body()),
                Kind::Set => ValueRef::Set(self.body()),
                Kind::Hash => ValueRef::Hash(self.body()),
                Kind::SortedSet => ValueRef::SortedSet(self.body()),
            }
        }
    }

    /// When the key expires, in milliseconds since 1970.
    #[inline]
    pub fn expire_at(&self) -> Option<i64> {
        if self.header.tag & HAS_EXPIRE == 0 {
            return None;
        }
        let (word, _) = self.tail.split_first_chunk::<8>()?;
        Some(i64::from_ne_bytes(*word))
    }

    /// Whether the key's time is over at `now_ms`.
    #[inline]
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expire_at().is_some_and(|at| at <= now_ms)
    }

    /// The name that TYPE answers.
    pub fn type_name(&self) -> &'static str {
        match self.header.kind() {
            Kind::Inline | Kind::Int | Kind::Big => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Hash => "hash",
            Kind::SortedSet => "zset",
        }
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding_name(&self) -> &'static str {
        match self.value() {
            ValueRef::String(StringRef::Int(_)) => "int",
            ValueRef::String(StringRef::Bytes(bytes)) => {
                let embedded = bytes.len() <= MAX_EMBSTR_BYTES && self.header.tag & RAW == 0;
                if embedded { "embstr" } else { "raw" }
            }
            ValueRef::List(list) => list.encoding(),
            ValueRef::Set(set) => set.encoding(),
            ValueRef::Hash(hash) => hash.encoding(),
            ValueRef::SortedSet(sorted) => sorted.encoding(),
        }
    }

    /// Bytes of memory behind this entry: its allocation and what its value owns, from `samples` elements of a big
    /// collection (0: all of them).
    pub fn memory_bytes(&self, samples: usize) -> usize {
        let value = match self.value() {
            ValueRef::String(_) if self.header.kind() == Kind::Big => self.big_capacity(),
            ValueRef::String(_) => 0,
            ValueRef::List(list) => list.memory_bytes(samples),
            ValueRef::Set(set) => set.memory_bytes(samples),
            ValueRef::Hash(hash) => hash.memory_bytes(samples),
            ValueRef::SortedSet(sorted) => sorted.memory_bytes(samples),
        };
        layout(self.tail.len()).size() + value
    }

    /// Number of separate heap blocks, about: what freeing the entry costs.
    pub fn heap_elements(&self) -> usize {
        match self.value() {
            ValueRef::String(_) => 1,
            ValueRef::List(list) => list.heap_elements(),
            ValueRef::Set(set) => set.heap_elements(),
            ValueRef::Hash(hash) => hash.heap_elements(),
            ValueRef::SortedSet(sorted) => sorted.heap_elements(),
        }
    }

    /// The 24-bit access clock (seconds for LRU; see [`super::access`]).
    #[inline]
    pub fn access(&self) -> u32 {
        let [a, b, c] = self.header.access;
        u32::from_le_bytes([a, b, c, 0])
    }

    /// A second entry with an equal value under another key. Its epoch is [`Epoch::Even`]: inserting sets it.
    pub fn duplicate(&self, key: &[u8], expire_at: Option<i64>) -> Box<Self> {
        let mut copy = match self.value() {
            ValueRef::String(StringRef::Int(value)) => {
                Self::string(key, StringInput::Int(value), expire_at)
            }
            ValueRef::String(StringRef::Bytes(bytes)) => {
                Self::string(key, StringInput::Bytes(bytes), expire_at)
            }
            ValueRef::List(list) => Self::new(key, Value::List(list.clone()), expire_at),
            ValueRef::Set(set) => Self::new(key, Value::Set(set.clone()), expire_at),
            ValueRef::Hash(hash) => Self::new(key, Value::Hash(hash.clone()), expire_at),
            ValueRef::SortedSet(sorted) => {
                Self::new(key, Value::SortedSet(sorted.clone()), expire_at)
            }
        };
        copy.header.tag |= self.header.tag & RAW;
        copy.header.access = self.header.access;
        copy
    }

    #[inline]
    fn inline_value(&self) -> &[u8] {
        &self.tail[self.tail.len() - usize::from(self.header.value_len)..]
    }

    /// # Safety
    /// `T` is the type of this entry's kind.
    #[inline]
    unsafe fn body<T>(&self) -> &T {
        // SAFETY: initialised and of type `T` (invariant 2, caller), 8-aligned, within `tail`.
        unsafe {
            &*self
                .tail
                .as_ptr()
                .add(body_offset(self.header.tag))
                .cast::<T>()
        }
    }

    /// # Safety
    /// `T` is the type of this entry's kind.
    #[inline]
    unsafe fn body_mut<T>(&mut self) -> &mut T {
        let offset = body_offset(self.header.tag);
        // SAFETY: as for `body`; the borrow is exclusive.
        unsafe { &mut *self.tail.as_mut_ptr().add(offset).cast::<T>() }
    }

    fn big_capacity(&self) -> usize {
        // SAFETY: called for `Kind::Big` only.
        unsafe { self.body::<BigString>().capacity() + mem::size_of::<Vec<u8>>() }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: the body is initialised and of its kind's type (invariant 2), and dropped once.
        unsafe {
            match self.header.kind() {
                Kind::Inline | Kind::Int => {}
                Kind::Big => ptr::drop_in_place(self.body_mut::<BigString>()),
                Kind::List => ptr::drop_in_place(self.body_mut::<List>()),
                Kind::Set => ptr::drop_in_place(self.body_mut::<Set>()),
                Kind::Hash => ptr::drop_in_place(self.body_mut::<Hash>()),
                Kind::SortedSet => ptr::drop_in_place(self.body_mut::<SortedSet>()),
            }
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key().escape_ascii().to_string())
            .field("type", &self.type_name())
            .field("expire_at", &self.expire_at())
            .finish()
    }
}
