//! Values to change in place.
//!
//! Owns [`ValueMut`] and [`StringMut`], which [`super::db::EntryMut`] hands out after the snapshot hook has run. A string
//! may move its entry when its length changes; collections keep their place and own their memory.

use super::ValueRef;
use super::entry::Entry;
use super::string::{StringInput, StringRef};
use super::table::Occupied;
use super::types::hash::Hash;
use super::types::list::List;
use super::types::set::Set;
use super::types::sorted_set::SortedSet;

/// A value to change.
pub enum ValueMut<'a> {
    /// A string.
    String(StringMut<'a>),
    /// A list.
    List(&'a mut List),
    /// A set.
    Set(&'a mut Set),
    /// A hash.
    Hash(&'a mut Hash),
    /// A sorted set.
    SortedSet(&'a mut SortedSet),
}

/// A string to change. Key and expiry stay.
pub struct StringMut<'a> {
    occupied: Occupied<'a>,
}

impl<'a> StringMut<'a> {
    /// `occupied` holds a string.
    pub(super) fn new(occupied: Occupied<'a>) -> Self {
        debug_assert!(occupied.entry().is_string());
        Self { occupied }
    }

    /// The present text or integer.
    pub fn get(&self) -> StringRef<'_> {
        match self.occupied.entry().value() {
            ValueRef::String(string) => string,
            ValueRef::List(_) | ValueRef::Set(_) | ValueRef::Hash(_) | ValueRef::SortedSet(_) => {
                StringRef::Bytes(b"")
            }
        }
    }

    /// Length in bytes of the text.
    pub fn len(&self) -> usize {
        self.get().len()
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The integer the text is, if it is one in canonical form.
    pub fn as_int(&self) -> Option<i64> {
        self.get().as_int()
    }

    /// Replaces the string by an integer.
    #[inline]
    pub fn set_int(&mut self, value: i64) {
        if !self.occupied.entry_mut().set_int_in_place(value) {
            self.replace(StringInput::Int(value));
        }
    }

    /// Replaces the string.
    pub fn replace(&mut self, input: StringInput<'_>) {
        self.occupied.replace_with(|entry| {
            let expire_at = entry.expire_at();
            // The key is copied because writing the entry anew must not read it from the entry itself.
            let key = entry.key().to_vec();
            entry.with_string(&key, input, expire_at)
        });
    }

    /// Appends bytes; returns the new length.
    pub fn append(&mut self, suffix: &[u8]) -> usize {
        let old_len = self.len();
        self.bytes_mut(old_len + suffix.len())[old_len..].copy_from_slice(suffix);
        old_len + suffix.len()
    }

    /// Overwrites from `offset` on, filling a gap before it with zero bytes; returns the new length.
    pub fn set_range(&mut self, offset: usize, bytes: &[u8]) -> usize {
        let end = offset + bytes.len();
        let text = self.bytes_mut(end);
        text[offset..end].copy_from_slice(bytes);
        text.len()
    }

    /// The text as bytes to change in place, extended with zero bytes to at least `min_len`.
    pub fn bytes_mut(&mut self, min_len: usize) -> &mut [u8] {
        let len = self.len().max(min_len);
        self.occupied
            .replace_with(|entry| (entry.with_string_len(len), ()));
        self.occupied
            .entry_mut()
            .string_bytes_mut()
            .unwrap_or_default()
    }
}

impl Entry {
    /// Whether the value is a string.
    #[inline]
    pub fn is_string(&self) -> bool {
        matches!(self.value(), ValueRef::String(_))
    }
}
