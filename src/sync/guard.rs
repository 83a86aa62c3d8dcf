//! Refuses a snapshot that looks like an accident: empty where the live one is not, or much smaller than it.
//!
//! An upstream that answers with half of its links, all of it well-formed, would send half of the clicks to a
//! fallback. Such a snapshot is taken only when the same content has come [`SEEN_ENOUGH`] times in a row, or when an
//! operator forces it. The embedded API knows what was deleted; its snapshots need no guard.

use std::fmt;

/// When a loss is suspicious.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardOptions {
    /// A greater share of links or entries, from 0 to 1, …
    pub lost_share_max: f64,
    /// … and at least so many of them.
    pub lost_count_min: usize,
}

/// How large a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub links: usize,
    pub entries: usize,
}

/// Remembers what it refused.
#[derive(Debug)]
pub struct Guard {
    options: Option<GuardOptions>,
    /// The suspicious snapshot that came last, and how often in a row.
    refused: Option<(String, u32)>,
}

/// Why a snapshot was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    live: Size,
    new: Size,
    seen: u32,
}

impl Guard {
    /// Without options nothing is refused.
    pub fn new(options: Option<GuardOptions>) -> Self {
        Self { options, refused: None }
    }

    /// Whether the snapshot may replace the live one.
    pub fn admit(&mut self, live: Size, new: Size, snapshot: &str) -> Result<(), Suspicion> {
        let suspicious = self.options.is_some_and(|options| options.is_suspicious(live, new));
        if !suspicious {
            self.refused = None;
            return Ok(());
        }
        let seen = match &self.refused {
            Some((refused, seen)) if refused == snapshot => seen + 1,
            _ => 1,
        };
        if seen >= SEEN_ENOUGH {
            self.refused = None;
            return Ok(());
        }
        self.refused = Some((snapshot.to_owned(), seen));
        Err(Suspicion { live, new, seen })
    }

    /// Something else came in between, or nothing did: what was refused is no longer in a row.
    pub fn interrupted(&mut self) {
        self.refused = None;
    }
}

impl GuardOptions {
    fn is_suspicious(self, live: Size, new: Size) -> bool {
        let emptied = (live.links > 0 && new.links == 0) || (live.entries > 0 && new.entries == 0);
        emptied || self.lost_too_many(live.links, new.links) || self.lost_too_many(live.entries, new.entries)
    }

    fn lost_too_many(self, live: usize, new: usize) -> bool {
        let lost = live.saturating_sub(new);
        lost >= self.lost_count_min && lost as f64 > live as f64 * self.lost_share_max
    }
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { live, new, seen } = self;
        write!(
            f,
            "the snapshot has {} links and {} entries where the live one has {} and {}; refused ({seen} of \
             {SEEN_ENOUGH} times seen; POST /refresh?force=true takes it now)",
            new.links, new.entries, live.links, live.entries
        )
    }
}

/// How often in a row the same suspicious snapshot is seen before it is believed.
const SEEN_ENOUGH: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: GuardOptions = GuardOptions { lost_share_max: 0.2, lost_count_min: 100 };

    fn size(links: usize, entries: usize) -> Size {
        Size { links, entries }
    }

    #[test]
    fn what_is_suspicious() {
        for (live, new, suspicious) in [
            (size(1000, 4000), size(1000, 4000), false),
            (size(1000, 4000), size(2000, 9000), false),
            (size(1000, 4000), size(800, 3200), false),
            (size(1000, 4000), size(799, 3200), true),
            (size(1000, 4000), size(1000, 3199), true),
            // Many in share, few in number.
            (size(100, 400), size(50, 350), false),
            (size(100, 400), size(1, 1), true),
            (size(99, 99), size(1, 1), false),
            (size(3, 3), size(0, 0), true),
            (size(3, 3), size(3, 0), true),
            (size(0, 0), size(0, 0), false),
            (size(0, 0), size(5, 5), false),
        ] {
            let refused = Guard::new(Some(OPTIONS)).admit(live, new, "a").is_err();
            assert_eq!(refused, suspicious, "{live:?} → {new:?}");
        }
    }

    #[test]
    fn believed_when_seen_three_times_in_a_row() {
        let (live, new) = (size(1000, 1000), size(0, 0));
        let mut guard = Guard::new(Some(OPTIONS));
        assert!(guard.admit(live, new, "a").is_err());
        assert!(guard.admit(live, new, "a").is_err());
        assert!(guard.admit(live, new, "a").is_ok());
        // Believed once, not forever.
        assert!(guard.admit(live, new, "a").is_err());
    }

    #[test]
    fn in_a_row_means_without_anything_in_between() {
        let (live, new) = (size(1000, 1000), size(0, 0));
        let mut guard = Guard::new(Some(OPTIONS));
        for snapshot in ["a", "a", "b", "a", "a"] {
            assert!(guard.admit(live, new, snapshot).is_err());
        }
        guard.interrupted();
        assert!(guard.admit(live, new, "a").is_err());
        assert!(guard.admit(live, live, "c").is_ok());
        assert!(guard.admit(live, new, "a").is_err());
    }

    #[test]
    fn without_options_everything_is_taken() {
        assert!(Guard::new(None).admit(size(1000, 1000), size(0, 0), "a").is_ok());
    }
}
