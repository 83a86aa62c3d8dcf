//! The newest snapshot that was accepted, on disk, so that a node routes when it starts and its upstream is away.
//!
//! ```text
//! smartlink-snapshot 1 <blake3 of the rest, hexadecimal>\n
//! {"smart_links":[…],"offers":[…],…}
//! ```
//!
//! Written to a temporary file, flushed to the disk, and renamed: a crash leaves the old file or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cake::wire::Network;

/// A last good file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    #[error("cannot read the snapshot {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the snapshot {} is damaged: {reason}", .path.display())]
    Damaged { path: PathBuf, reason: String },
}

/// The canonical bytes of a network and their hash. Equal content has equal bytes.
pub struct Encoded {
    pub body: Vec<u8>,
    pub hash: blake3::Hash,
}

impl Encoded {
    /// `network` must be canonical.
    pub fn new(network: &Network) -> serde_json::Result<Self> {
        let body = serde_json::to_vec(network)?;
        let hash = blake3::hash(&body);
        Ok(Self { body, hash })
    }

    /// The name of the snapshot in logs and answers: the first 16 digits of its hash.
    pub fn name(&self) -> String {
        name(&self.hash)
    }
}

/// Replaces the file.
pub fn write(path: &Path, encoded: &Encoded) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{MAGIC} {}", encoded.hash.to_hex())?;
    file.write_all(&encoded.body)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    // The rename itself must survive a power cut.
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads the file back: the network and the snapshot's name. `None` if there is no file.
pub fn read(path: &Path) -> Result<Option<(Network, String)>, LastGoodError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LastGoodError::Io { path: path.to_owned(), source }),
    };
    decode(&bytes).map(Some).map_err(|reason| LastGoodError::Damaged { path: path.to_owned(), reason })
}

fn decode(bytes: &[u8]) -> Result<(Network, String), String> {
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or("it has no first line")?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let stored = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix(MAGIC))
        .ok_or_else(|| format!("its first line does not begin with \"{MAGIC}\""))?;
    let hash = blake3::hash(body);
    if stored.trim() != hash.to_hex().as_str() {
        return Err("its checksum does not match".to_owned());
    }
    let network =
        serde_json::from_slice(body).map_err(|error| format!("its content cannot be read: {error}"))?;
    Ok((network, name(&hash)))
}

fn name(hash: &blake3::Hash) -> String {
    hash.to_hex()[..16].to_owned()
}

const MAGIC: &str = "smartlink-snapshot 1";

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        serde_json::from_str(
            r#"{"smart_links":[{"smart_link_id":301,"affiliate_id":67890,"smart_link_status":"active"}],
                "offers":[],"offer_geo_targets":[],"smart_link_offers":[],"routing_rules":[]}"#,
        )
        .unwrap()
    }

    #[test]
    fn reads_back_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.json");
        assert!(read(&path).unwrap().is_none());
        let encoded = Encoded::new(&network()).unwrap();
        write(&path, &encoded).unwrap();
        write(&path, &encoded).unwrap();
        let (back, name) = read(&path).unwrap().unwrap();
        assert_eq!((back, name), (network(), encoded.name()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.json");
        write(&path, &Encoded::new(&network()).unwrap()).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "cut to {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
    }
}
