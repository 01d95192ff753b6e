//! When a delivery that failed is tried again.

use std::time::Duration;

/// The longest wait that a receiver may ask for, seconds. A receiver that says "in a year" is not obeyed.
pub const MOST_RETRY_AFTER_S: u64 = 86_400;
/// Attempts of one delivery, at most.
pub const MOST_ATTEMPTS: usize = 32;
/// The longest wait between two attempts, seconds.
pub const MOST_WAIT_S: u64 = 7 * 86_400;

/// The waits before the attempts of one delivery. The first is made at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    waits: Vec<Duration>,
}

impl Schedule {
    /// Waits in seconds, one for each attempt.
    ///
    /// # Errors
    /// Says what to change.
    pub fn new(waits_s: &[u64]) -> Result<Self, String> {
        if waits_s.is_empty() || waits_s.len() > MOST_ATTEMPTS {
            return Err(format!("has {} waits; 1 to {MOST_ATTEMPTS} are allowed, one for each attempt", waits_s.len()));
        }
        if waits_s[0] != 0 {
            return Err(format!("begins with {}; the first attempt is made at once, so it begins with 0", waits_s[0]));
        }
        if let Some(wait) = waits_s.iter().find(|wait| **wait > MOST_WAIT_S) {
            return Err(format!("holds a wait of {wait} seconds; at most {MOST_WAIT_S} are allowed"));
        }
        Ok(Self { waits: waits_s.iter().copied().map(Duration::from_secs).collect() })
    }

    /// How long to wait after so many attempts failed; `None` when that was the last. A receiver that asked for more
    /// time gets it, within [`MOST_RETRY_AFTER_S`].
    pub fn wait(&self, failed: u32, retry_after: Option<Duration>) -> Option<Duration> {
        let planned = *self.waits.get(usize::try_from(failed).unwrap_or(usize::MAX))?;
        let asked = retry_after.unwrap_or_default().min(Duration::from_secs(MOST_RETRY_AFTER_S));
        Some(planned.max(asked))
    }
}

/// What a `Retry-After` header asks for (RFC 9110 10.2.3): seconds, or a date in any of the three forms that a recipient
/// has to understand (RFC 9110 5.6.7). A date that is past asks for nothing; what is neither is no wish.
pub fn retry_after(value: &str, now_ms: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are more time than anybody gets.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(at.saturating_sub(Duration::from_millis(now_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STANDARD: [u64; 10] = [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
    const NOW_MS: u64 = 784_111_777_000;

    fn seconds(s: u64) -> Option<Duration> {
        Some(Duration::from_secs(s))
    }

    #[test]
    fn each_failure_leads_to_the_next_wait_and_the_last_to_none() {
        let schedule = Schedule::new(&STANDARD).unwrap();
        for (failed, wait) in STANDARD.iter().enumerate() {
            assert_eq!(schedule.wait(failed as u32, None), seconds(*wait));
        }
        assert_eq!(schedule.wait(10, None), None);
        assert_eq!(schedule.wait(10, seconds(60)), None, "no wish makes an eleventh attempt");
        assert_eq!(schedule.wait(u32::MAX, None), None);
    }

    #[test]
    fn a_receiver_gets_the_time_it_asks_for_within_a_day() {
        let schedule = Schedule::new(&STANDARD).unwrap();
        assert_eq!(schedule.wait(1, seconds(60)), seconds(60));
        assert_eq!(schedule.wait(2, seconds(60)), seconds(300));
        assert_eq!(schedule.wait(1, seconds(u64::MAX)), seconds(MOST_RETRY_AFTER_S));
    }

    #[test]
    fn retry_after_is_seconds_or_any_http_date() {
        assert_eq!(retry_after("120", NOW_MS), seconds(120));
        assert_eq!(retry_after(" 0 ", NOW_MS), seconds(0));
        assert_eq!(retry_after("99999999999999999999999", NOW_MS), seconds(u64::MAX));
        for date in ["Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"] {
            assert_eq!(retry_after(date, NOW_MS), seconds(60), "{date}");
        }
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", NOW_MS + 1), seconds(0));
        for nonsense in ["", "-5", "1.5", "soon", "1994-11-06T08:49:37Z", "0x10"] {
            assert_eq!(retry_after(nonsense, NOW_MS), None, "{nonsense}");
        }
    }

    #[test]
    fn a_schedule_that_makes_no_sense_says_what_to_change() {
        for (waits, said) in [(&[][..], "0 waits"), (&[5][..], "begins with 0"), (&[0, 999_999][..], "999999")] {
            let error = Schedule::new(waits).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert!(Schedule::new(&[0; MOST_ATTEMPTS + 1]).is_err());
    }

    proptest! {
        #[test]
        fn no_header_makes_the_wait_longer_than_a_day_or_shorter_than_planned(value in "\\PC{0,40}", failed in 0_u32..10) {
            let schedule = Schedule::new(&STANDARD).unwrap();
            let wait = schedule.wait(failed, retry_after(&value, NOW_MS)).unwrap();
            prop_assert!(wait >= Duration::from_secs(STANDARD[failed as usize]));
            prop_assert!(wait <= Duration::from_secs(MOST_RETRY_AFTER_S));
        }
    }
}
