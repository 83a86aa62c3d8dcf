//! Who is logged in: sessions in memory, a bounded number of them, each with an end. A restart ends all. Pure: the
//! moment is an argument.
//!
//! Each is of the secret by which it began: where another one is asked for by now, it is over, since whoever changes a secret may
//! do so because somebody has it.
//!
//! A session is found by the hash of what its cookie says, so that how long the search takes tells nothing of it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;
use subtle::ConstantTimeEq;

use crate::cake::Fingerprint;

/// The sessions that there are.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<Hash, Session>>);

type Hash = [u8; 32];

#[derive(Debug)]
struct Session {
    csrf: String,
    secret: Fingerprint,
    began: Duration,
    seen: Duration,
}

impl Session {
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) >= AGE_MAX || now.saturating_sub(self.seen) >= IDLE_MAX
    }
}

impl Sessions {
    /// Begins one, of this secret, and answers what its cookie is to say. `None`: the system has no randomness.
    pub fn begin(&self, secret: Fingerprint, now: Duration) -> Option<String> {
        let (cookie, csrf) = (random_text()?, random_text()?);
        let mut sessions = self.lock();
        sessions.retain(|_, session| !session.is_over(now));
        if sessions.len() >= SESSIONS_MAX {
            // Whoever was away the longest logs in again.
            let idlest = sessions.iter().min_by_key(|(_, session)| session.seen).map(|(hash, _)| *hash);
            idlest.and_then(|hash| sessions.remove(&hash));
        }
        sessions.insert(hash(&cookie), Session { csrf, secret, began: now, seen: now });
        Some(cookie)
    }

    /// What the forms of this session say, if it is one of this secret and not over. It goes on for a while from now.
    pub fn csrf(&self, cookie: &str, secret: Fingerprint, now: Duration) -> Option<String> {
        let mut sessions = self.lock();
        let hash = hash(cookie);
        let session = sessions.get_mut(&hash)?;
        if session.secret != secret || session.is_over(now) {
            sessions.remove(&hash);
            return None;
        }
        session.seen = now;
        Some(session.csrf.clone())
    }

    pub fn end(&self, cookie: &str) {
        self.lock().remove(&hash(cookie));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Session>> {
        // Right after any panic: each change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 256 bits that nobody guesses, as text. `None`: the system has no randomness.
pub fn random_text() -> Option<String> {
    let mut bytes = [0; 32];
    SysRng.try_fill_bytes(&mut bytes).ok()?;
    Some(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}

/// Whether two secrets are the same; the time it takes tells nothing but their lengths.
pub fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn hash(cookie: &str) -> Hash {
    blake3::hash(cookie.as_bytes()).into()
}

/// More people than run a network.
const SESSIONS_MAX: usize = 64;

/// A lunch.
const IDLE_MAX: Duration = Duration::from_secs(2 * 3600);

/// A working day.
pub const AGE_MAX: Duration = Duration::from_secs(12 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn secret(text: &str) -> Fingerprint {
        crate::cake::Key::new(text).unwrap().fingerprint()
    }

    #[test]
    fn a_session_goes_on_while_it_is_used_but_not_for_ever() {
        let sessions = Sessions::default();
        let cookie = sessions.begin(secret("one"), Duration::ZERO).unwrap();
        let csrf = sessions.csrf(&cookie, secret("one"), MINUTE).unwrap();
        assert_eq!((cookie.len(), csrf.len()), (64, 64));
        assert_ne!(cookie, csrf);
        let mut now = MINUTE;
        while now + IDLE_MAX - MINUTE < AGE_MAX {
            now += IDLE_MAX - MINUTE;
            assert_eq!(sessions.csrf(&cookie, secret("one"), now).as_ref(), Some(&csrf), "{now:?}");
        }
        assert_eq!(sessions.csrf(&cookie, secret("one"), AGE_MAX), None);
        assert_eq!(sessions.csrf(&cookie, secret("one"), MINUTE), None, "it does not come back");
    }

    #[test]
    fn a_session_that_is_idle_for_long_is_over() {
        let sessions = Sessions::default();
        let cookie = sessions.begin(secret("one"), Duration::ZERO).unwrap();
        assert!(sessions.csrf(&cookie, secret("one"), IDLE_MAX - MINUTE).is_some());
        assert!(sessions.csrf(&cookie, secret("one"), IDLE_MAX - MINUTE + IDLE_MAX).is_none());
    }

    #[test]
    fn a_session_ends_when_told_and_is_nobody_elses() {
        let sessions = Sessions::default();
        let [one, other] = [0, 1].map(|_| sessions.begin(secret("one"), Duration::ZERO).unwrap());
        assert_ne!(sessions.csrf(&one, secret("one"), MINUTE), sessions.csrf(&other, secret("one"), MINUTE));
        for wrong in ["", "x", &one[1..], &format!("{one}x")] {
            assert_eq!(sessions.csrf(wrong, secret("one"), MINUTE), None, "{wrong:?}");
        }
        sessions.end(&one);
        assert!(
            sessions.csrf(&one, secret("one"), MINUTE).is_none()
                && sessions.csrf(&other, secret("one"), MINUTE).is_some()
        );
    }

    #[test]
    fn there_are_never_too_many_and_the_idlest_goes_first() {
        let sessions = Sessions::default();
        let at = |index: usize| Duration::from_secs(index as u64);
        let cookies: Vec<_> =
            (0..SESSIONS_MAX).map(|index| sessions.begin(secret("one"), at(index)).unwrap()).collect();
        assert!(sessions.csrf(&cookies[0], secret("one"), at(SESSIONS_MAX)).is_some());
        let one_more = sessions.begin(secret("one"), at(SESSIONS_MAX + 1)).unwrap();
        let now = at(SESSIONS_MAX + 2);
        assert_eq!(sessions.lock().len(), SESSIONS_MAX);
        assert!(sessions.csrf(&cookies[1], secret("one"), now).is_none(), "the second was idle the longest");
        assert!(
            sessions.csrf(&cookies[0], secret("one"), now).is_some()
                && sessions.csrf(&one_more, secret("one"), now).is_some()
        );
    }

    #[test]
    fn another_secret_ends_the_sessions_of_the_one_before() {
        let sessions = Sessions::default();
        let old = sessions.begin(secret("one"), Duration::ZERO).unwrap();
        assert_eq!(sessions.csrf(&old, secret("two"), MINUTE), None);
        let new = sessions.begin(secret("two"), MINUTE).unwrap();
        assert!(sessions.csrf(&new, secret("two"), MINUTE).is_some());
        assert_eq!(sessions.csrf(&old, secret("one"), MINUTE), None, "it does not come back");
    }
}
