//! Milliseconds since 1970 as the text that customers read, and back. No clock is asked.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `2023-11-14T22:13:20.000Z`. A time after the year 9999 is its last millisecond.
pub fn format(at_ms: u64) -> String {
    /// 9999-12-31T23:59:59.999Z.
    const LATEST_MS: u64 = 253_402_300_799_999;
    let nanoseconds = i128::from(at_ms.min(LATEST_MS)) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (at.date(), at.time());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = time.as_hms();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", time.millisecond())
}

/// Milliseconds since 1970; none for what is no time or before 1970.
pub fn parse(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// The day in UTC, `2023-11-14`.
pub fn day(at_ms: u64) -> String {
    format(at_ms)[..10].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_it_is_written() {
        for (at_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000_001, "2023-11-14T22:13:20.001Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format(at_ms), text);
            assert_eq!(parse(text), Some(at_ms));
        }
        assert_eq!(format(u64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(parse("2023-11-14T23:13:20.001+01:00"), Some(1_700_000_000_001));
        assert_eq!((parse("yesterday"), parse("1960-01-01T00:00:00Z")), (None, None));
        assert_eq!(day(1_709_164_800_000), "2024-02-29");
    }
}
