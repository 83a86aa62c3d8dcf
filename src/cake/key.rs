//! The API key: read where the operator keeps it, shown nowhere.

use std::fmt;
use std::path::PathBuf;

use subtle::ConstantTimeEq;

/// A secret. It has no `Display`, and `Debug` tells nothing.
#[derive(Clone)]
pub struct Key(String);

/// Tells one key from another, and nothing else of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(blake3::Hash);

/// Where the key is read from, again for every refresh, so that it can be rotated without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A variable of the environment.
    Environment(String),
    /// A file that holds the key on its only line.
    File(PathBuf),
}

/// The key could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the API key is not set: the environment variable {0} is empty or missing")]
    Environment(String),
    #[error("cannot read the API key from {}: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error("the API key in {0} is malformed: it must be one line of visible ASCII characters")]
    Malformed(String),
}

impl Key {
    /// Visible ASCII, at least one character.
    pub fn new(text: &str) -> Option<Self> {
        let well_formed = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        well_formed.then(|| Self(text.to_owned()))
    }

    /// The key itself, for a request.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What an upstream said, without the key that it may have repeated, and cut to a length that fits a log.
    pub fn struck_from(&self, said: &str) -> String {
        // serde quotes texts as Rust does.
        let escaped = self.0.escape_debug().to_string();
        let mut struck = said.replace(&self.0, "(the API key)").replace(&escaped, "(the API key)");
        if struck.len() > SAID_BYTES_MAX {
            struck.truncate(struck.floor_char_boundary(SAID_BYTES_MAX));
            struck.push('…');
        }
        struck
    }

    /// The same of the same key, for whoever remembers which one it was.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(blake3::hash(self.0.as_bytes()))
    }

    /// Whether a candidate is the key. The time it takes tells nothing but the length.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of a short key, somebody could find out which one it is of.
        f.write_str("Fingerprint(…)")
    }
}

impl KeySource {
    /// Reads the key as it is now. White space around it is dropped.
    pub fn read(&self) -> Result<Key, KeyError> {
        let text = match self {
            KeySource::Environment(name) => std::env::var(name)
                .ok()
                .filter(|text| !text.trim().is_empty())
                .ok_or_else(|| KeyError::Environment(name.clone()))?,
            KeySource::File(path) => std::fs::read_to_string(path)
                .map_err(|error| KeyError::File { path: path.clone(), reason: error.to_string() })?,
        };
        Key::new(text.trim()).ok_or_else(|| KeyError::Malformed(self.to_string()))
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Environment(name) => write!(f, "the environment variable {name}"),
            KeySource::File(path) => path.display().fmt(f),
        }
    }
}

/// Of what an upstream says in an error.
const SAID_BYTES_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing() {
        assert_eq!(format!("{:?}", Key::new("canary").unwrap()), "Key(…)");
    }

    #[test]
    fn matches_itself_alone() {
        let key = Key::new("canary").unwrap();
        assert!(key.matches(b"canary"));
        for other in ["", "canar", "canary1", "Canary"] {
            assert!(!key.matches(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn malformed_keys() {
        for text in ["", "a b", "a\nb", "schlüssel"] {
            assert!(Key::new(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn reads_a_file_and_names_it_when_it_cannot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let source = KeySource::File(path.clone());
        assert!(source.read().unwrap_err().to_string().contains(&path.display().to_string()));
        std::fs::write(&path, "  abc123\n").unwrap();
        assert_eq!(source.read().unwrap().reveal(), "abc123");
        std::fs::write(&path, "abc\n123\n").unwrap();
        let error = source.read().unwrap_err().to_string();
        assert!(error.contains("one line") && !error.contains("abc"), "{error}");
    }
}
