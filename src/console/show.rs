//! How figures are written in pages.

use std::time::Duration;

use jiff::Timestamp;

use crate::types::UnixMillis;

/// `1 234 567`, with thin spaces that do not break.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut shown = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// `97.3 %`, or a dash where there is nothing to tell.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.1}\u{202f}%", share * 100.0))
}

/// `97 %`
pub fn whole_percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.0}\u{202f}%", share * 100.0))
}

/// Clicks a second.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 100.0 => count(rate.round() as u64),
        rate if rate >= 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.2}"),
    }
}

/// `3 s`, `12 min`, `5 h 10 min`, `3 d 4 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}\u{202f}s"),
        60..3600 => format!("{minutes}\u{202f}min"),
        3600..86_400 => format!("{hours}\u{202f}h {:02}\u{202f}min", minutes % 60),
        _ => format!("{days}\u{202f}d {:02}\u{202f}h", hours % 24),
    }
}

/// `2026-11-22 14:30:05 UTC`
pub fn moment(at: UnixMillis) -> String {
    Timestamp::from_millisecond(at.0)
        .map(|at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default()
}

/// How long ago.
pub fn ago(at: UnixMillis, now: UnixMillis) -> String {
    let millis = u64::try_from(now.0 - at.0).unwrap_or(0);
    format!("{} ago", duration(Duration::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
        assert_eq!(percent(Some(0.97345)), "97.3\u{202f}%");
        assert_eq!(percent(None), "–");
        assert_eq!([0.0, 9.996, 12.34, 12_345.6].map(rate), ["0.00", "10.00", "12.3", "12\u{202f}346"]);
        let shown = [0, 59, 60, 3599, 3600, 86_399, 90_000]
            .map(|seconds| duration(Duration::from_secs(seconds)).replace('\u{202f}', " "));
        assert_eq!(shown, ["0 s", "59 s", "1 min", "59 min", "1 h 00 min", "23 h 59 min", "1 d 01 h"]);
        assert_eq!(moment(UnixMillis(1_763_821_805_000)), "2025-11-22 14:30:05 UTC");
    }
}
