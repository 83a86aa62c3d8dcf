//! The newest snapshot that was accepted, on disk, so that a node routes when it starts and its upstream is away.
//!
//! ```text
//! smartlink-snapshot 1 <blake3 of the rest, hexadecimal>\n
//! {"smart_links":[…],"offers":[…],…}
//! ```
//!
//! Written to a temporary file, flushed to the disk, and renamed: a crash leaves the old file or the new one. What is
//! replaced is kept as `snapshot.previous`, which is taken when the newest file is damaged.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::cake::wire::Network;
use crate::types::UnixMillis;

/// A last good file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    #[error("cannot read the snapshot {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the snapshot {} is damaged: {reason}", .path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{newest}; {previous}")]
    Neither { newest: Box<LastGoodError>, previous: Box<LastGoodError> },
}

/// What a node may start from.
#[derive(Debug)]
pub struct Kept {
    pub network: Network,
    /// The snapshot's name.
    pub name: String,
    /// Why it is the previous generation: what is wrong with the newest.
    pub passed_over: Option<String>,
}

/// The canonical bytes of a network and their hash. Equal content has equal bytes.
pub struct Encoded {
    pub body: Vec<u8>,
    pub hash: blake3::Hash,
}

impl Encoded {
    /// `network` must be canonical.
    pub fn new(network: &Network) -> Result<Self, String> {
        let body = serde_json::to_vec(network)
            .map_err(|error| format!("the snapshot cannot be written as JSON: {error}"))?;
        let hash = blake3::hash(&body);
        Ok(Self { body, hash })
    }

    /// The name of the snapshot in logs and answers: the first 16 digits of its hash.
    pub fn name(&self) -> String {
        name(&self.hash)
    }
}

/// Replaces the file, and keeps the old one as the previous generation.
///
/// A crash between the two renames leaves the previous generation alone, which [`read_newest`] then takes.
pub fn write(path: &Path, encoded: &Encoded) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(first_line(&encoded.hash).as_bytes())?;
    file.write_all(&encoded.body)?;
    file.sync_all()?;
    drop(file);
    // A damaged file must not push out a good one.
    if is_whole(path) {
        fs::rename(path, previous(path))?;
    }
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

/// Reads the newest generation that is whole. `None` if there is none at all.
pub fn read_newest(path: &Path) -> Result<Option<Kept>, LastGoodError> {
    let newest = match read(path) {
        Ok(Some((network, name))) => return Ok(Some(Kept { network, name, passed_over: None })),
        Ok(None) => None,
        Err(error) => Some(error),
    };
    match (read(&previous(path)), newest) {
        (Ok(Some((network, name))), newest) => {
            let missing = || format!("there is no snapshot {}", path.display());
            let passed_over = Some(newest.map_or_else(missing, |error| error.to_string()));
            Ok(Some(Kept { network, name, passed_over }))
        }
        (Ok(None), None) => Ok(None),
        (Ok(None), Some(error)) | (Err(error), None) => Err(error),
        (Err(previous), Some(newest)) => {
            Err(LastGoodError::Neither { newest: Box::new(newest), previous: Box::new(previous) })
        }
    }
}

/// When the file was written: the upstream was heard then at the latest.
pub fn written_at(path: &Path) -> Option<UnixMillis> {
    let since = fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(UnixMillis(since.as_millis() as i64))
}

/// The file of the generation before.
pub fn previous(path: &Path) -> PathBuf {
    path.with_extension("previous")
}

/// Whether the checksum of a file is right, without holding the file in memory.
fn is_whole(path: &Path) -> bool {
    let stored_and_found = || -> io::Result<(String, blake3::Hash)> {
        let mut file = BufReader::new(File::open(path)?);
        let (mut line, mut hasher) = (String::new(), blake3::Hasher::new());
        file.read_line(&mut line)?;
        hasher.update_reader(file)?;
        Ok((line, hasher.finalize()))
    };
    stored_and_found().is_ok_and(|(line, hash)| line == first_line(&hash))
}

fn first_line(hash: &blake3::Hash) -> String {
    format!("{MAGIC} {}\n", hash.to_hex())
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
        network_of(301)
    }

    fn network_of(link: i64) -> Network {
        serde_json::from_str(&format!(
            r#"{{"smart_links":[{{"smart_link_id":{link},"affiliate_id":67890,"smart_link_status":"active"}}],
                "offers":[],"offer_geo_targets":[],"smart_link_offers":[],"routing_rules":[]}}"#,
        ))
        .unwrap()
    }

    /// The link of the network that would be started from, and whether the newest was passed over.
    fn newest(path: &Path) -> Option<(i64, bool)> {
        let kept = read_newest(path).unwrap()?;
        Some((kept.network.smart_links[0].smart_link_id, kept.passed_over.is_some()))
    }

    #[test]
    fn two_generations_are_kept_and_a_damaged_one_never_replaces_a_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.last-good");
        assert_eq!(newest(&path), None);
        for link in 1..=3 {
            write(&path, &Encoded::new(&network_of(link)).unwrap()).unwrap();
            assert_eq!(newest(&path), Some((link, false)));
        }
        let third = fs::read(&path).unwrap();
        fs::write(&path, &third[..third.len() - 1]).unwrap();
        assert_eq!(newest(&path), Some((2, true)));
        assert!(read_newest(&path).unwrap().unwrap().passed_over.unwrap().contains("is damaged"));

        write(&path, &Encoded::new(&network_of(4)).unwrap()).unwrap();
        assert_eq!(newest(&path), Some((4, false)));
        assert_eq!(newest(&previous(&path)), Some((2, false)), "not the damaged third");

        // As a crash between the two renames leaves it.
        fs::remove_file(&path).unwrap();
        assert_eq!(newest(&path), Some((2, true)));
        fs::write(&path, "").unwrap();
        fs::write(previous(&path), "rubbish").unwrap();
        let error = read_newest(&path).unwrap_err().to_string();
        assert!(error.contains("last-good is damaged") && error.contains("previous is damaged"), "{error}");
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
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file is left");
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
