//! Rates of late: the mean of the last samples of ever-growing counters.

/// Samples kept; at ten a second, the rates are those of the last 1.6 seconds.
const SAMPLES: usize = 16;

/// Events and bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Commands per second.
    pub commands: f64,
    /// Bytes per second from clients.
    pub input_bytes: f64,
    /// Bytes per second to clients.
    pub output_bytes: f64,
}

/// Totals at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Monotonic milliseconds.
    pub at_ms: i64,
    /// Commands run so far.
    pub commands: u64,
    /// Bytes from clients so far.
    pub input_bytes: u64,
    /// Bytes to clients so far.
    pub output_bytes: u64,
}

/// The last samples. Fed by the engine's periodic work.
#[derive(Debug, Default)]
pub struct RateMeter {
    samples: [Option<Totals>; SAMPLES],
    next: usize,
}

impl RateMeter {
    /// Adds a sample. Counters that went back (CONFIG RESETSTAT) start the measurement anew.
    pub fn sample(&mut self, now: Totals) {
        let newest = self.samples[(self.next + SAMPLES - 1) % SAMPLES];
        if newest
            .is_some_and(|last| last.commands > now.commands || last.input_bytes > now.input_bytes)
        {
            *self = Self::default();
        }
        self.samples[self.next] = Some(now);
        self.next = (self.next + 1) % SAMPLES;
    }

    /// The mean between the oldest and the newest sample.
    pub fn rates(&self) -> Rates {
        let newest = self.samples[(self.next + SAMPLES - 1) % SAMPLES];
        let oldest = self.samples[self.next].or(self.samples[0]);
        let (Some(old), Some(new)) = (oldest, newest) else {
            return Rates::default();
        };
        let seconds = (new.at_ms - old.at_ms) as f64 / 1000.0;
        if seconds <= 0.0 {
            return Rates::default();
        }
        let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
        Rates {
            commands: rate(old.commands, new.commands),
            input_bytes: rate(old.input_bytes, new.input_bytes),
            output_bytes: rate(old.output_bytes, new.output_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_mean_of_the_last_samples() {
        let mut meter = RateMeter::default();
        assert_eq!(meter.rates(), Rates::default());
        for second in 0..40u64 {
            // Slow at first, then 1000 a second: after 16 samples the slow start is forgotten.
            let commands = if second < 20 {
                second
            } else {
                20 + (second - 20) * 1000
            };
            let at_ms = second as i64 * 1000;
            meter.sample(Totals {
                at_ms,
                commands,
                input_bytes: second * 10,
                output_bytes: 0,
            });
        }
        let rates = meter.rates();
        assert_eq!(
            (rates.commands, rates.input_bytes, rates.output_bytes),
            (1000.0, 10.0, 0.0)
        );
        meter.sample(Totals {
            at_ms: 41_000,
            ..Totals::default()
        });
        assert_eq!(meter.rates(), Rates::default(), "counters were reset");
    }
}
