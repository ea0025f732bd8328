//! How the use of keys is recorded, for the eviction policies and OBJECT.
//!
//! Owns the meaning of the 24 bits that every entry has for it: the second of the last use (least recently used), or, under
//! the LFU policies, the minute of the last decay (16 bits) and a logarithmic counter of uses (8 bits), as in Redis. Called
//! by `db.rs` at every use. Pure: time and chance come in. When the policy changes, old values are read in the new way and
//! are wrong for a while, as in Redis.

/// Counter of a new key, so that it is not evicted before it can be used again.
const INITIAL_FREQUENCY: u8 = 5;
/// Values of the clock in seconds: it wraps after 194 days.
const CLOCK_MASK: i64 = 0xff_ffff;
/// Values of the clock in minutes: it wraps after 45 days.
const MINUTES_MASK: i64 = 0xffff;

/// What a use of a key records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracking {
    /// When it was.
    #[default]
    Clock,
    /// That it was, by a counter that grows ever slower and decays.
    Frequency(FrequencyRule),
}

/// Whether lookups count as uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uses {
    /// They do.
    #[default]
    Recorded,
    /// They leave no trace (`CLIENT NO-TOUCH on`).
    Unseen,
}

/// Growth and decay of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrequencyRule {
    /// `lfu-log-factor`: how much slower each step is than the one before.
    pub log_factor: u32,
    /// `lfu-decay-time`: minutes after which the counter loses one; 0 is never.
    pub decay_minutes: u32,
}

/// The clocks of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UsageClock {
    seconds: u32,
}

impl UsageClock {
    pub(super) fn new(now_ms: i64) -> Self {
        Self {
            seconds: ((now_ms / 1000) & CLOCK_MASK) as u32,
        }
    }

    /// Minutes of the same clock: both wrap at their own width.
    fn minutes(now_ms: i64) -> u32 {
        ((now_ms / 60_000) & MINUTES_MASK) as u32
    }

    /// What a new entry records.
    #[inline]
    pub(super) fn initial(self, tracking: Tracking, now_ms: i64) -> u32 {
        match tracking {
            Tracking::Clock => self.seconds,
            Tracking::Frequency(_) => pack(Self::minutes(now_ms), INITIAL_FREQUENCY),
        }
    }

    /// What an entry that recorded `access` records after another use.
    #[inline]
    pub(super) fn used(self, access: u32, tracking: Tracking, now_ms: i64, word: u64) -> u32 {
        match tracking {
            Tracking::Clock => self.seconds,
            Tracking::Frequency(rule) => {
                let counter = rule.grown(rule.decayed(access, now_ms), word);
                pack(Self::minutes(now_ms), counter)
            }
        }
    }

    /// Seconds since the last use, as far as 24 bits tell.
    pub(super) fn idle_seconds(self, access: u32) -> u32 {
        self.seconds.wrapping_sub(access) & CLOCK_MASK as u32
    }
}

fn pack(minutes: u32, counter: u8) -> u32 {
    minutes << 8 | u32::from(counter)
}

impl FrequencyRule {
    /// The counter after the decay since it was last written.
    pub fn decayed(self, access: u32, now_ms: i64) -> u8 {
        let (then, counter) = (access >> 8, (access & 0xff) as u8);
        let elapsed = UsageClock::minutes(now_ms).wrapping_sub(then) & MINUTES_MASK as u32;
        let lost = elapsed.checked_div(self.decay_minutes).unwrap_or(0);
        counter.saturating_sub(u8::try_from(lost).unwrap_or(u8::MAX))
    }

    /// The counter after one more use: one more with the probability `1 / ((counter - 5) × factor + 1)`.
    fn grown(self, counter: u8, word: u64) -> u8 {
        let above = u64::from(counter.saturating_sub(INITIAL_FREQUENCY));
        let one_in = above.saturating_mul(u64::from(self.log_factor)) + 1;
        if word.is_multiple_of(one_in) {
            counter.saturating_add(1)
        } else {
            counter
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: FrequencyRule = FrequencyRule {
        log_factor: 10,
        decay_minutes: 1,
    };

    #[test]
    fn idle_time_survives_the_end_of_the_clock() {
        let end = (CLOCK_MASK - 1) * 1000;
        let access = UsageClock::new(end).initial(Tracking::Clock, end);
        assert_eq!(UsageClock::new(end + 5000).idle_seconds(access), 5);
    }

    #[test]
    fn a_counter_grows_slower_and_slower_and_decays() {
        let tracking = Tracking::Frequency(RULE);
        let clock = UsageClock::default();
        let mut access = clock.initial(tracking, 0);
        assert_eq!(RULE.decayed(access, 0), 5);
        let mut word = 1u64;
        let mut counts = Vec::new();
        for uses in 1..=1_000_000u32 {
            word = word
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            access = clock.used(access, tracking, 0, word >> 33);
            if [100, 1000, 100_000, 1_000_000].contains(&uses) {
                counts.push(RULE.decayed(access, 0));
            }
        }
        // Redis's own table for the factor 10: about 10, 18, 142, 255.
        let expected = [(8, 12), (15, 21), (120, 160), (250, 255)];
        for (count, (least, most)) in counts.iter().zip(expected) {
            assert!((least..=most).contains(count), "{counts:?}");
        }
        let later = 60_000 * 7;
        assert_eq!(RULE.decayed(access, later), counts[3] - 7);
        assert_eq!(RULE.decayed(pack(0, 3), later), 0);
        let never = FrequencyRule {
            decay_minutes: 0,
            ..RULE
        };
        assert_eq!(never.decayed(pack(0, 3), later), 3);
    }
}
