//! What the processor is asked for directly: 32 tags compared at once, and cache lines fetched ahead.
//!
//! Called by the segment. SSE2 on x86-64, plain words elsewhere.

/// Hints that the cache line at `at` will be read.
#[inline]
pub(super) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on the cache, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Which of 32 tags equal `tag`: bit i for tag i.
///
/// # Safety
/// 32 bytes at `tags` may be read.
#[inline]
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn match_tags(tags: *const u8, tag: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    // SAFETY: two unaligned loads of 16 bytes each; SSE2 is part of x86-64.
    unsafe {
        let wanted = _mm_set1_epi8(tag as i8);
        let low = _mm_cmpeq_epi8(_mm_loadu_si128(tags.cast()), wanted);
        let high = _mm_cmpeq_epi8(_mm_loadu_si128(tags.add(16).cast()), wanted);
        (_mm_movemask_epi8(low) as u32) | ((_mm_movemask_epi8(high) as u32) << 16)
    }
}

/// Which of 32 tags equal `tag`: bit i for tag i.
///
/// # Safety
/// 32 bytes at `tags` may be read.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn match_tags(tags: *const u8, tag: u8) -> u32 {
    // SAFETY: by the contract.
    let words = unsafe { tags.cast::<[[u8; 8]; 4]>().read_unaligned() };
    words.iter().rev().fold(0, |bits, word| {
        (bits << 8) | match_word(u64::from_le_bytes(*word), tag)
    })
}

/// Which of the 8 bytes of `word` equal `tag`, without false positives.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(super) fn match_word(word: u64, tag: u8) -> u32 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let differs = word ^ (LOW * u64::from(tag));
    let zero = !(((differs & !HIGH) + !HIGH) | differs) & HIGH;
    ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}
