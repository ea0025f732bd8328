//! Changes of an entry: in place, and such that may move it.
//!
//! Called by the table's `Occupied::replace_with` (everything that takes `Box<Entry>` and gives one back) and by
//! `value.rs`. Rests on the invariants of [`super`] and keeps them.

use std::mem::ManuallyDrop;
use std::ptr;

use super::{
    BigString, CollectionMut, EPOCH, Entry, Epoch, HAS_EXPIRE, HEADER_LEN, Header, Kind,
    MAX_INLINE_BYTES, RAW, Shape, ValueRef, layout, reallocate,
};
use crate::keyspace::string::{Decimal, StringInput, StringRef};
use crate::keyspace::types::value::{StringValue, Value};

/// Changes that keep the size.
impl Entry {
    /// The half of the snapshot cycle this entry was last passed in.
    #[inline]
    pub(in crate::keyspace) fn epoch(&self) -> Epoch {
        if self.header.tag & EPOCH == 0 {
            Epoch::Even
        } else {
            Epoch::Odd
        }
    }

    #[inline]
    pub(in crate::keyspace) fn set_epoch(&mut self, epoch: Epoch) {
        match epoch {
            Epoch::Even => self.header.tag &= !EPOCH,
            Epoch::Odd => self.header.tag |= EPOCH,
        }
    }

    /// Sets the access clock (its low 24 bits).
    #[inline]
    pub(in crate::keyspace) fn set_access(&mut self, access: u32) {
        let [a, b, c, _] = access.to_le_bytes();
        self.header.access = [a, b, c];
    }

    /// The collection; `None` for a string.
    #[inline]
    pub(in crate::keyspace) fn collection_mut(&mut self) -> Option<CollectionMut<'_>> {
        // SAFETY: the kind says which type the body holds (invariant 2).
        unsafe {
            match self.header.kind() {
                Kind::Inline | Kind::Int | Kind::Big => None,
                Kind::List => Some(CollectionMut::List(self.body_mut())),
                Kind::Set => Some(CollectionMut::Set(self.body_mut())),
                Kind::Hash => Some(CollectionMut::Hash(self.body_mut())),
                Kind::SortedSet => Some(CollectionMut::SortedSet(self.body_mut())),
            }
        }
    }

    /// Stores an integer if this entry already holds one; says whether it did.
    #[inline]
    pub(in crate::keyspace) fn set_int_in_place(&mut self, value: i64) -> bool {
        let is_int = self.header.kind() == Kind::Int;
        if is_int {
            // SAFETY: the body is an integer.
            unsafe { *self.body_mut::<i64>() = value };
        }
        is_int
    }

    /// The bytes of a string that is held as bytes, to change in place; marks the encoding `raw`.
    pub(in crate::keyspace) fn string_bytes_mut(&mut self) -> Option<&mut [u8]> {
        match self.header.kind() {
            Kind::Inline => {
                self.header.tag |= RAW;
                let start = self.tail.len() - usize::from(self.header.value_len);
                Some(&mut self.tail[start..])
            }
            // SAFETY: the body of `Kind::Big` is a big string.
            Kind::Big => Some(unsafe { self.body_mut::<BigString>() }.as_mut_slice()),
            Kind::Int | Kind::List | Kind::Set | Kind::Hash | Kind::SortedSet => None,
        }
    }
}

/// Changes that may move the entry.
impl Entry {
    /// Sets or clears the expiry.
    pub fn with_expire(mut self: Box<Self>, expire_at: Option<i64>) -> Box<Self> {
        match (self.header.tag & HAS_EXPIRE != 0, expire_at) {
            (false, None) => self,
            (true, Some(at)) => {
                self.tail[..8].copy_from_slice(&at.to_ne_bytes());
                self
            }
            (false, Some(at)) => self.insert_expire(at),
            (true, None) => self.remove_expire(),
        }
    }

    fn insert_expire(self: Box<Self>, expire_at: i64) -> Box<Self> {
        let old_tail = self.tail.len();
        let thin = Self::into_thin(self);
        // SAFETY: the allocation grows by the 8 bytes by which everything after the header moves up; the tag then
        // says so. Bodies may be moved bytewise.
        unsafe {
            let thin = reallocate(thin, old_tail, old_tail + 8);
            let tail = thin.as_ptr().add(HEADER_LEN);
            ptr::copy(tail, tail.add(8), old_tail);
            tail.cast::<i64>().write(expire_at);
            thin.cast::<Header>().as_mut().tag |= HAS_EXPIRE;
            Self::from_thin(thin)
        }
    }

    fn remove_expire(self: Box<Self>) -> Box<Self> {
        let old_tail = self.tail.len();
        let thin = Self::into_thin(self);
        // SAFETY: the mirror image of `insert_expire`: move down first, then shrink.
        unsafe {
            let tail = thin.as_ptr().add(HEADER_LEN);
            ptr::copy(tail.add(8), tail, old_tail - 8);
            thin.cast::<Header>().as_mut().tag &= !HAS_EXPIRE;
            Self::from_thin(reallocate(thin, old_tail, old_tail - 8))
        }
    }

    /// Makes this entry hold a string under the same `key`. Reuses the allocation unless it holds a big value, which
    /// is then returned for the caller to drop where that may take long. Keeps epoch and access clock.
    #[inline]
    pub(in crate::keyspace) fn with_string(
        self: Box<Self>,
        key: &[u8],
        input: StringInput<'_>,
        expire_at: Option<i64>,
    ) -> (Box<Self>, Option<Box<Self>>) {
        debug_assert_eq!(self.key(), key);
        let plain_old = matches!(self.header.kind(), Kind::Inline | Kind::Int);
        let shape = match input {
            StringInput::Int(_) => Shape::new(Kind::Int, key, 0, expire_at),
            StringInput::Bytes(bytes) if bytes.len() <= MAX_INLINE_BYTES => {
                Shape::new(Kind::Inline, key, bytes.len(), expire_at)
            }
            StringInput::Bytes(_) => return self.replaced_by(Self::string(key, input, expire_at)),
        };
        if !plain_old {
            return self.replaced_by(Self::string(key, input, expire_at));
        }
        let (old_tail, old_header) = (self.tail.len(), self.header);
        let thin = Self::into_thin(self);
        // SAFETY: the old body needs no drop; the allocation gets the shape's size before its parts are written.
        // `key` and the bytes are the caller's, not this entry's.
        let mut entry = unsafe {
            let thin = reallocate(thin, old_tail, shape.tail_len());
            let (body_at, value_at) = shape.write(thin.as_ptr(), key, expire_at);
            match input {
                StringInput::Int(value) => body_at.cast::<i64>().write(value),
                StringInput::Bytes(bytes) => {
                    ptr::copy_nonoverlapping(bytes.as_ptr(), value_at, bytes.len());
                }
            }
            Self::from_thin(thin)
        };
        entry.header.access = old_header.access;
        entry.header.tag |= old_header.tag & EPOCH;
        (entry, None)
    }

    /// `next` in this entry's place: takes over epoch and access clock.
    pub(in crate::keyspace) fn replaced_by(
        self: Box<Self>,
        mut next: Box<Self>,
    ) -> (Box<Self>, Option<Box<Self>>) {
        next.header.access = self.header.access;
        next.set_epoch(self.epoch());
        (next, Some(self))
    }

    /// The same value, expiry, access clock and epoch under another key.
    pub(in crate::keyspace) fn with_key(self: Box<Self>, key: &[u8]) -> Box<Self> {
        let (expire_at, header) = (self.expire_at(), self.header);
        let mut entry = match self.value() {
            ValueRef::String(StringRef::Bytes(bytes)) if header.kind() == Kind::Inline => {
                Self::string(key, StringInput::Bytes(bytes), expire_at)
            }
            ValueRef::String(_)
            | ValueRef::List(_)
            | ValueRef::Set(_)
            | ValueRef::Hash(_)
            | ValueRef::SortedSet(_) => Self::new(key, self.into_value(), expire_at),
        };
        entry.header.access = header.access;
        entry.header.tag |= header.tag & (EPOCH | RAW);
        entry
    }

    /// The value without its key.
    pub fn into_value(self: Box<Self>) -> Value {
        let tail_len = self.tail.len();
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the body is moved out once, by its kind; then only the memory is freed.
        unsafe {
            let value = match this.header.kind() {
                Kind::Inline => Value::String(StringValue::Bytes(this.inline_value().into())),
                Kind::Int => Value::String(StringValue::Integer(*this.body())),
                Kind::Big => Value::String(StringValue::Bytes(
                    ptr::read(this.body::<BigString>()).into_boxed_slice(),
                )),
                Kind::List => Value::List(ptr::read(this.body())),
                Kind::Set => Value::Set(ptr::read(this.body())),
                Kind::Hash => Value::Hash(ptr::read(this.body())),
                Kind::SortedSet => Value::SortedSet(ptr::read(this.body())),
            };
            let base: *mut Self = &raw mut **this;
            std::alloc::dealloc(base.cast(), layout(tail_len));
            value
        }
    }

    /// Makes a string's length `new_len` and its encoding `raw`, filling with zero bytes. An integer becomes its
    /// text first. Not for collections, which stay as they are.
    pub(in crate::keyspace) fn with_string_len(self: Box<Self>, new_len: usize) -> Box<Self> {
        match self.header.kind() {
            Kind::Int => {
                let ValueRef::String(StringRef::Int(value)) = self.value() else {
                    return self;
                };
                let (text, expire_at) = (Decimal::new(value), self.expire_at());
                let bytes = StringInput::Bytes(text.as_bytes());
                let entry = Self::string(self.key(), bytes, expire_at);
                self.replaced_by(entry).0.with_string_len(new_len)
            }
            Kind::Inline if new_len <= MAX_INLINE_BYTES => self.resize_inline(new_len),
            Kind::Inline => {
                let mut bytes = Vec::with_capacity(new_len);
                bytes.extend_from_slice(self.inline_value());
                bytes.resize(new_len, 0);
                let entry =
                    Self::with_body(Kind::Big, self.key(), self.expire_at(), Box::new(bytes));
                self.replaced_by(entry).0
            }
            Kind::Big => {
                let mut this = self;
                // SAFETY: the body of `Kind::Big` is a big string.
                resize_big(unsafe { this.body_mut::<BigString>() }, new_len);
                this
            }
            Kind::List | Kind::Set | Kind::Hash | Kind::SortedSet => self,
        }
    }

    fn resize_inline(self: Box<Self>, new_len: usize) -> Box<Self> {
        let (old_tail, old_len) = (self.tail.len(), usize::from(self.header.value_len));
        let new_tail = old_tail - old_len + new_len;
        let thin = Self::into_thin(self);
        // SAFETY: the value is the last part: the allocation's end moves with it, and new bytes are zeroed.
        unsafe {
            let thin = reallocate(thin, old_tail, new_tail);
            if new_len > old_len {
                let value_end = thin.as_ptr().add(HEADER_LEN + old_tail);
                ptr::write_bytes(value_end, 0, new_len - old_len);
            }
            let header = thin.cast::<Header>().as_mut();
            header.value_len = new_len as u16;
            header.tag |= RAW;
            Self::from_thin(thin)
        }
    }
}

/// A string that is appended to doubles its buffer up to this size, then gets this much at a time.
const MAX_SPARE_BYTES: usize = 1024 * 1024;

fn resize_big(buffer: &mut Vec<u8>, new_len: usize) {
    if new_len > buffer.capacity() {
        let spare = new_len.min(MAX_SPARE_BYTES);
        buffer.reserve_exact(new_len + spare - buffer.len());
    }
    buffer.resize(new_len, 0);
}
