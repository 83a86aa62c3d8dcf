//! The newest snapshot that was accepted, on disk, so that a node routes when it starts and its upstream is away.
//!
//! ```text
//! smartlink-snapshot 2 <blake3 of the rest, hexadecimal>\n
//! {"offer":{…}}\n{"smart_link":{…}}\n…                        the items, as cake::Lines reads them
//! ```
//!
//! Written to a temporary file, flushed to the disk, and renamed: a crash leaves the old file or the new one. What is
//! replaced is kept as `snapshot.previous`, which is taken when the newest file is damaged.
//!
//! Changes of a few links, and of caps, are appended to `snapshot.changes`, each in a block that names the snapshot it
//! changes:
//!
//! ```text
//! smartlink-changes 1 <name of the snapshot before> <bytes> <blake3 of that name, a line feed, and the lines>\n
//! {"changed_link":{…}}\n{"smart_link":{…}}\n…
//! ```
//!
//! A crash in the middle of a block leaves it incomplete, and the snapshot is the one before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::cake::{Changes, Line, Lines, Network};
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
    /// Whether changes were appended to it, which are in the network.
    pub is_changed: bool,
    /// What is wrong with changes that were appended and are not in the network.
    pub unread_changes: Option<String>,
    /// Why it is the previous generation: what is wrong with the newest.
    pub passed_over: Option<String>,
}

/// Changes, as they are appended.
pub struct Block {
    lines: Vec<u8>,
    before: String,
    hash: blake3::Hash,
}

/// The hash of the bytes of a canonical network: equal content has an equal hash.
pub fn hash(network: &Network) -> io::Result<blake3::Hash> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, blake3::Hasher::new());
    network.write(&mut out)?;
    out.flush()?;
    Ok(out.get_ref().finalize())
}

/// The name of a snapshot in logs and answers: the first 16 digits of its hash.
pub fn name(hash: &blake3::Hash) -> String {
    hash.to_hex()[..16].to_owned()
}

/// Replaces the file, keeps the old one as the previous generation, and forgets the changes since.
///
/// A crash between the two renames leaves the previous generation alone, which [`read_newest`] then takes.
pub fn write(path: &Path, network: &Network, hash: &blake3::Hash) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&temporary)?);
    file.write_all(first_line(hash).as_bytes())?;
    network.write(&mut file)?;
    file.into_inner()?.sync_all()?;
    match whole(path) {
        // Changed, and changed back: only the changes are to go.
        Some(on_disk) if on_disk == *hash => fs::remove_file(&temporary)?,
        Some(_) => {
            fs::rename(path, previous(path))?;
            fs::rename(&temporary, path)?;
        }
        // A damaged file must not push out a good one.
        None => fs::rename(&temporary, path)?,
    }
    // They name a snapshot that is replaced now: if a crash leaves them, they are not taken for this one's.
    match fs::remove_file(changes(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The renames themselves must survive a power cut.
    sync_directory(path)
}

/// Appends changes of the newest snapshot.
pub fn append(path: &Path, block: &Block) -> io::Result<()> {
    let path = changes(path);
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let head = format!("{CHANGES_MAGIC} {} {} {}\n", block.before, block.lines.len(), block.hash.to_hex());
    let length = file.metadata()?.len();
    let written = file.write_all(&[head.as_bytes(), &block.lines].concat()).and_then(|()| file.sync_all());
    if written.is_err() {
        // What stands behind half a block would never be read.
        file.set_len(length)?;
    }
    written?;
    if is_new { sync_directory(&path) } else { Ok(()) }
}

/// Reads the file back with the changes since. `None` if there is no file.
pub fn read(path: &Path) -> Result<Option<Kept>, LastGoodError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LastGoodError::Io { path: path.to_owned(), source }),
    };
    let (network, name) = decode(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(|problem| {
        let path = path.to_owned();
        match problem {
            Problem::Io(source) => LastGoodError::Io { path, source },
            Problem::Damage(reason) => LastGoodError::Damaged { path, reason },
        }
    })?;
    Ok(Some(changed(path, network, name)))
}

/// Reads the newest generation that is whole. `None` if there is none at all.
pub fn read_newest(path: &Path) -> Result<Option<Kept>, LastGoodError> {
    let newest = match read(path) {
        Ok(Some(kept)) => return Ok(Some(kept)),
        Ok(None) => None,
        Err(error) => Some(error),
    };
    match (read(&previous(path)), newest) {
        (Ok(Some(kept)), newest) => {
            let missing = || format!("there is no snapshot {}", path.display());
            let passed_over = Some(newest.map_or_else(missing, |error| error.to_string()));
            Ok(Some(Kept { passed_over, ..kept }))
        }
        (Ok(None), None) => Ok(None),
        (Ok(None), Some(error)) | (Err(error), None) => Err(error),
        (Err(previous), Some(newest)) => {
            Err(LastGoodError::Neither { newest: Box::new(newest), previous: Box::new(previous) })
        }
    }
}

/// When the snapshot was written or last changed: the upstream was heard then at the latest.
pub fn written_at(path: &Path) -> Option<UnixMillis> {
    let modified = |path: &Path| fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok();
    let since = modified(path).max(modified(&changes(path)))?;
    Some(UnixMillis(since.as_millis() as i64))
}

/// The file of the generation before.
pub fn previous(path: &Path) -> PathBuf {
    path.with_extension("previous")
}

/// The file of the changes since.
pub fn changes(path: &Path) -> PathBuf {
    path.with_extension("changes")
}

impl Block {
    /// The changes of the snapshot `before`.
    pub fn new(before: &str, changes: &Changes) -> io::Result<Self> {
        let mut lines = Vec::new();
        let mut links: Vec<_> = changes.links.iter().collect();
        links.sort_unstable();
        for link in links {
            Line::ChangedLink { smart_link_id: link.value().into() }.write(&mut lines)?;
        }
        changes.network.write(&mut lines)?;
        if let Some(caps) = &changes.caps {
            Line::OfferCapsChanged {}.write(&mut lines)?;
            caps.iter().try_for_each(|cap| Line::OfferCap(cap).write(&mut lines))?;
        }
        Ok(Self { hash: block_hash(before, &lines), lines, before: before.to_owned() })
    }

    /// The name of the snapshot after the changes.
    pub fn name(&self) -> String {
        name(&self.hash)
    }

    pub fn bytes(&self) -> usize {
        self.lines.len()
    }
}

/// The checksum of a file, if it is right, without holding the file in memory.
fn whole(path: &Path) -> Option<blake3::Hash> {
    let stored_and_found = || -> io::Result<(String, blake3::Hash)> {
        let mut file = BufReader::new(File::open(path)?);
        let (mut line, mut hasher) = (String::new(), blake3::Hasher::new());
        file.read_line(&mut line)?;
        hasher.update_reader(file)?;
        Ok((line, hasher.finalize()))
    };
    stored_and_found().ok().filter(|(line, hash)| *line == first_line(hash)).map(|(_, hash)| hash)
}

fn first_line(hash: &blake3::Hash) -> String {
    format!("{MAGIC} {}\n", hash.to_hex())
}

/// Why a file is no snapshot.
enum Problem {
    Io(io::Error),
    Damage(String),
}

fn decode(mut file: impl BufRead) -> Result<(Network, String), Problem> {
    let damage = |reason: String| Problem::Damage(reason);
    let mut first = Vec::new();
    file.by_ref().take(FIRST_LINE_BYTES_MAX).read_until(b'\n', &mut first).map_err(Problem::Io)?;
    let stored = std::str::from_utf8(&first)
        .ok()
        .and_then(|line| line.strip_prefix(MAGIC)?.strip_suffix('\n'))
        .ok_or_else(|| damage(format!("its first line does not begin with \"{MAGIC}\"")))?;
    let (mut lines, mut hasher) = (Lines::default(), blake3::Hasher::new());
    loop {
        let piece = file.fill_buf().map_err(Problem::Io)?;
        if piece.is_empty() {
            break;
        }
        hasher.update(piece);
        lines.push(piece).map_err(|error| damage(error.to_string()))?;
        let bytes_read = piece.len();
        file.consume(bytes_read);
    }
    let hash = hasher.finalize();
    if stored.trim() != hash.to_hex().as_str() {
        return Err(damage("its checksum does not match".to_owned()));
    }
    Ok((lines.network, name(&hash)))
}

/// The network with the changes that follow the snapshot of this name, as far as they are whole, and the name then.
fn changed(path: &Path, mut network: Network, mut name: String) -> Kept {
    let path = changes(path);
    let (mut blocks, mut caps, mut unread_changes) = (Vec::new(), None, None);
    match File::open(&path).map(BufReader::new) {
        Ok(mut file) => loop {
            match next_block(&mut file, &name) {
                Ok(Some((mut lines, after))) => {
                    if lines.caps_changed {
                        caps = Some(std::mem::take(&mut lines.network.offer_caps));
                    }
                    blocks.push((lines.changed, lines.network));
                    name = after;
                }
                Ok(None) => break,
                Err(problem) => {
                    unread_changes = Some(format!("the changes in {} {problem}", path.display()));
                    break;
                }
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            unread_changes = Some(format!("cannot read the changes in {}: {error}", path.display()))
        }
    }
    let is_changed = !blocks.is_empty();
    if is_changed {
        let (changed, newest) = Network::newest(blocks);
        network.replace(&changed, newest);
        if let Some(caps) = caps {
            network.offer_caps = caps;
        }
        network = network.canonical();
    }
    Kept { network, name, is_changed, unread_changes, passed_over: None }
}

/// The block of changes of the snapshot `before`, and the snapshot's name after it; `None` at the end. Otherwise what is
/// wrong with all that follows.
fn next_block(file: &mut impl BufRead, before: &str) -> Result<Option<(Lines, String)>, String> {
    let mut head = Vec::new();
    file.take(FIRST_LINE_BYTES_MAX)
        .read_until(b'\n', &mut head)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if head.is_empty() {
        return Ok(None);
    }
    let fields = |head: &[u8]| -> Option<(String, u64, String)> {
        let head = std::str::from_utf8(head).ok()?.strip_suffix('\n')?.strip_prefix(CHANGES_MAGIC)?;
        let mut fields = head.split_ascii_whitespace();
        Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?, fields.next()?.to_owned()))
    };
    let (of, bytes, stored) = fields(&head)
        .ok_or_else(|| format!("have no line that begins with \"{CHANGES_MAGIC}\" where one is due"))?;
    if of != before {
        return Err(format!("are of the snapshot {of}, and not of {before}"));
    }
    let mut text = Vec::new();
    let bytes_read =
        file.take(bytes).read_to_end(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    let hash = block_hash(&of, &text);
    if bytes_read as u64 != bytes {
        return Err("end in the middle of one".to_owned());
    }
    if stored != hash.to_hex().as_str() {
        return Err("have a checksum that does not match".to_owned());
    }
    let mut lines = Lines::default();
    lines.push(&text).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(Some((lines, name(&hash))))
}

fn block_hash(before: &str, lines: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(b"\n").update(lines).finalize()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

const MAGIC: &str = "smartlink-snapshot 2";

const CHANGES_MAGIC: &str = "smartlink-changes 1";

/// More than either first line has.
const FIRST_LINE_BYTES_MAX: u64 = 256;

const BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cake::wire::OfferCap;
    use crate::types::LinkId;
    use http::HeaderValue;

    fn network() -> Network {
        network_of(&[301])
    }

    fn network_of(links: &[u32]) -> Network {
        let links: Vec<String> = links
            .iter()
            .map(|link| {
                format!(r#"{{"smart_link_id":{link},"affiliate_id":67890,"smart_link_status":"active"}}"#)
            })
            .collect();
        serde_json::from_str(&format!(
            r#"{{"smart_links":[{}],"offers":[],"offer_geo_targets":[],"smart_link_offers":[],"routing_rules":[]}}"#,
            links.join(",")
        ))
        .unwrap()
    }

    fn keep(path: &Path, network: &Network) -> String {
        let hash = hash(network).unwrap();
        write(path, network, &hash).unwrap();
        name(&hash)
    }

    /// Appends that all of these links were changed, and the `left` ones are there. Answers the new name.
    fn change(path: &Path, before: &str, links: &[u32], left: &[u32]) -> String {
        let changes = Changes {
            links: links.iter().filter_map(|&link| LinkId::new(link)).collect(),
            network: network_of(left),
            caps: None,
            revision: HeaderValue::from_static("x"),
        };
        let block = Block::new(before, &changes).unwrap();
        append(path, &block).unwrap();
        block.name()
    }

    fn links(network: &Network) -> Vec<u32> {
        network.smart_links.iter().map(|link| link.id.value()).collect()
    }

    /// The link of the network that would be started from, and whether the newest was passed over.
    fn newest(path: &Path) -> Option<(u32, bool)> {
        let kept = read_newest(path).unwrap()?;
        Some((links(&kept.network)[0], kept.passed_over.is_some()))
    }

    #[test]
    fn two_generations_are_kept_and_a_damaged_one_never_replaces_a_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.last-good");
        assert_eq!(newest(&path), None);
        for link in 1..=3 {
            keep(&path, &network_of(&[link]));
            assert_eq!(newest(&path), Some((link, false)));
        }
        let third = fs::read(&path).unwrap();
        fs::write(&path, &third[..third.len() - 1]).unwrap();
        assert_eq!(newest(&path), Some((2, true)));
        assert!(read_newest(&path).unwrap().unwrap().passed_over.unwrap().contains("is damaged"));

        keep(&path, &network_of(&[4]));
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
        keep(&path, &network());
        let name = keep(&path, &network());
        let kept = read(&path).unwrap().unwrap();
        assert_eq!((kept.network, kept.name), (network(), name));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    /// An older smartlink wrote a line for each attachment, and rules with their conditions.
    #[test]
    fn a_file_of_an_older_smartlink_is_read_and_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.last-good");
        let items = concat!(
            r#"{"smart_link":{"smart_link_id":301,"affiliate_id":7,"smart_link_status":"active","rotation_type":"weighted","cap_aware":true}}"#,
            "\n",
            r#"{"smart_link_offer":{"smart_link_id":301,"offer_id":10,"offer_weight":60,"priority":1}}"#,
            "\n",
            r#"{"routing_rule":{"rule_id":7,"smart_link_id":301,"offer_id":10,"priority":1,"offer_weight":1,"conditions":{}}}"#,
            "\n",
        );
        let older = blake3::hash(items.as_bytes());
        fs::write(&path, format!("{}{items}", first_line(&older))).unwrap();
        let kept = read(&path).unwrap().unwrap();
        assert_eq!((links(&kept.network), kept.network.entries(), &kept.name), (vec![301], 2, &name(&older)));

        let lines = b"{\"changed_link\":{\"smart_link_id\":302}}\n{\"smart_link\":{\"smart_link_id\":302,\"affiliate_id\":7,\"smart_link_status\":\"active\"}}\n";
        let block =
            Block { lines: lines.to_vec(), before: kept.name.clone(), hash: block_hash(&kept.name, lines) };
        append(&path, &block).unwrap();
        change(&path, &block.name(), &[303], &[303]);
        assert_eq!(links(&read(&path).unwrap().unwrap().network), [301, 302, 303]);

        keep(&path, &kept.network);
        assert_eq!(read(&path).unwrap().unwrap().network, kept.network);
        assert!(fs::read(&path).unwrap().len() < items.len());
    }

    #[test]
    fn changes_are_read_with_the_snapshot_that_they_change_and_with_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.last-good");
        let first = keep(&path, &network_of(&[1, 2, 3]));
        let second = change(&path, &first, &[2, 4], &[4]);
        let third = change(&path, &second, &[2, 4], &[2]);
        let Kept { network, name, is_changed, .. } = read(&path).unwrap().unwrap();
        assert_eq!((links(&network), &name, is_changed), (vec![1, 2, 3], &third, true));
        assert_ne!(name, first, "another way to the same content has another name");

        // What does not follow is not taken, nor what stands behind it.
        change(&path, &first, &[1], &[]);
        change(&path, &third, &[1], &[]);
        let kept = read(&path).unwrap().unwrap();
        assert_eq!(kept.name, third);
        assert!(
            kept.unread_changes
                .unwrap()
                .ends_with(&format!("are of the snapshot {first}, and not of {third}"))
        );

        keep(&path, &network_of(&[9]));
        assert!(!changes(&path).exists());
        assert_eq!(links(&read(&path).unwrap().unwrap().network), [9]);
    }

    #[test]
    fn caps_are_kept_with_the_whole_and_with_changes() {
        let cap = |offer: i64| -> OfferCap {
            serde_json::from_value(serde_json::json!({
                "offer_id": offer, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5,
            }))
            .unwrap()
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.last-good");
        let without = hash(&network()).unwrap();
        let mut whole = network();
        whole.offer_caps = vec![cap(1)];
        assert_ne!(hash(&whole).unwrap(), without, "caps are content");
        let mut name = keep(&path, &whole);
        let caps = || read(&path).unwrap().unwrap().network.offer_caps;
        assert_eq!(caps(), [cap(1)]);
        for now in [vec![cap(2), cap(3)], Vec::new()] {
            let revision = HeaderValue::from_static("x");
            let none = Network::default();
            let changes =
                Changes { links: [].into_iter().collect(), network: none, caps: Some(now.clone()), revision };
            let block = Block::new(&name, &changes).unwrap();
            append(&path, &block).unwrap();
            name = change(&path, &block.name(), &[9], &[9]);
            assert_eq!(caps(), now, "what touches a link leaves them");
        }
        assert_eq!(links(&read(&path).unwrap().unwrap().network), [9, 301]);
    }

    #[test]
    fn changes_that_are_cut_or_damaged_leave_the_snapshot_before_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.last-good");
        let first = keep(&path, &network_of(&[1]));
        let second = change(&path, &first, &[2], &[2]);
        let one = fs::read(changes(&path)).unwrap().len();
        let third = change(&path, &second, &[3], &[3]);
        let whole = fs::read(changes(&path)).unwrap();
        let named = |bytes: &[u8]| {
            fs::write(changes(&path), bytes).unwrap();
            let kept = read(&path).unwrap().unwrap();
            // Whatever is not in it is spoken of; only where a block ends, nothing can be missed.
            let is_missed = ![0, one, whole.len()].contains(&bytes.len()) || bytes != &whole[..bytes.len()];
            assert_eq!(kept.unread_changes.is_some(), is_missed, "{:?}", kept.unread_changes);
            kept.name
        };
        assert_eq!(named(&whole), third);
        for length in 0..whole.len() {
            assert_eq!(
                named(&whole[..length]),
                if length < one { &*first } else { &second },
                "cut to {length}"
            );
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(named(&flipped), third, "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.json");
        keep(&path, &network());
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "cut to {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&*flipped).is_err(), "bit {bit}");
        }
    }
}
