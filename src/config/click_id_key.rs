//! The file of the keys that sign click ids: where it is, how it is read, and how a node makes one of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::click_id::{ClickIdKeys, KeyTextError};

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClickIdKeyFile {
    /// In the data directory: made at the first start.
    Own(PathBuf),
    /// Where the operator keeps it, the same on all nodes of a network: it must be there.
    Named(PathBuf),
}

/// Keys as read, and what is doubtful about their file.
#[derive(Debug)]
pub struct KeptKeys {
    pub keys: ClickIdKeys,
    pub warning: Option<String>,
}

/// The keys cannot be had. It says of which file, and never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum ClickIdKeyError {
    #[error(
        "cannot read the click id key file {}: {source}; copy it from another node of the network, or make the first \
         with `openssl rand -hex 32`",
        .path.display()
    )]
    Named { path: PathBuf, source: io::Error },
    #[error("cannot read the click id key file {}: {source}", .path.display())]
    Own { path: PathBuf, source: io::Error },
    #[error("the click id key file {}, {problem}", .path.display())]
    Text { path: PathBuf, problem: KeyTextError },
    #[error("cannot keep a key for click ids in {}: {source}", .path.display())]
    Make { path: PathBuf, source: io::Error },
}

impl ClickIdKeyFile {
    pub fn path(&self) -> &Path {
        let (Self::Own(path) | Self::Named(path)) = self;
        path
    }

    /// Reads the keys. `None` if the node is to make its own and has not yet.
    pub fn read(&self) -> Result<Option<KeptKeys>, ClickIdKeyError> {
        let path = self.path();
        let (text, mode) = match read(path) {
            Ok(read) => read,
            Err(source) => {
                let path = path.to_owned();
                return match self {
                    Self::Own(_) if source.kind() == io::ErrorKind::NotFound => Ok(None),
                    Self::Own(_) => Err(ClickIdKeyError::Own { path, source }),
                    Self::Named(_) => Err(ClickIdKeyError::Named { path, source }),
                };
            }
        };
        let keys = ClickIdKeys::from_text(&text)
            .map_err(|problem| ClickIdKeyError::Text { path: path.to_owned(), problem })?;
        let warning = (mode & OTHERS != 0).then(|| {
            let path = path.display();
            format!(
                "every user of this machine can read or write the click id key file {path}, and forge click ids; \
                 `chmod o= {path}`"
            )
        });
        Ok(Some(KeptKeys { keys, warning }))
    }

    /// Reads the keys; at the first start of a node that keeps its own, makes one. Nobody else may use the data directory
    /// meanwhile.
    pub fn read_or_make(&self) -> Result<KeptKeys, ClickIdKeyError> {
        if let Some(kept) = self.read()? {
            return Ok(kept);
        }
        let path = self.path();
        let made = |source| ClickIdKeyError::Make { path: path.to_owned(), source };
        make(path).map_err(made)?;
        self.read()?.ok_or_else(|| made(io::ErrorKind::NotFound.into()))
    }
}

/// The text and the mode. A file that is no key file is not read to its end, which it may not have.
fn read(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    let mut text = Vec::new();
    file.take(TEXT_BYTES_MAX).read_to_end(&mut text)?;
    Ok((text, mode))
}

/// Whole or not at all: after a crash in between, the next start makes another.
fn make(path: &Path) -> io::Result<()> {
    let mut random = [0; 32];
    SysRng.try_fill_bytes(&mut random).map_err(io::Error::other)?;
    let key: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let begun = path.with_extension("new");
    // One that a crash has left could have another mode.
    match fs::remove_file(&begun) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&begun)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    fs::rename(&begun, path)?;
    // Ids that were signed must be believed after a power failure, too.
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Who is neither the owner nor of its group. A group is often let in on purpose.
const OTHERS: u32 = 0o006;

/// Two keys and a lot of white space.
const TEXT_BYTES_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn own() -> (tempfile::TempDir, ClickIdKeyFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("click-id-key");
        (directory, ClickIdKeyFile::Own(path))
    }

    #[test]
    fn made_once_for_the_owner_alone() {
        let (directory, own) = own();
        assert!(own.read().unwrap().is_none());
        // A start that was killed half-way.
        fs::write(directory.path().join("click-id-key.new"), "5a").unwrap();
        assert!(own.read_or_make().unwrap().warning.is_none());
        let text = fs::read_to_string(own.path()).unwrap();
        assert!(text.len() == 65 && text.ends_with('\n'), "{text:?}");
        assert_eq!(fs::metadata(own.path()).unwrap().mode() & 0o777, 0o600);
        own.read_or_make().unwrap();
        assert_eq!(fs::read_to_string(own.path()).unwrap(), text);
        let names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["click-id-key"]);

        let (_other_directory, other) = self::own();
        other.read_or_make().unwrap();
        assert_ne!(fs::read_to_string(other.path()).unwrap(), text);
    }

    #[test]
    fn a_file_for_everybody_is_warned_of() {
        let (_directory, own) = own();
        own.read_or_make().unwrap();
        for (mode, warns) in [(0o600, false), (0o400, false), (0o640, false), (0o644, true), (0o602, true)] {
            fs::set_permissions(own.path(), fs::Permissions::from_mode(mode)).unwrap();
            let warning = own.read().unwrap().unwrap().warning;
            assert_eq!(warning.is_some(), warns, "{mode:o}: {warning:?}");
        }
    }

    #[test]
    fn a_named_file_must_be_there_and_none_is_repaired() {
        let (_directory, own) = own();
        let named = ClickIdKeyFile::Named(own.path().to_owned());
        let missing = named.read_or_make().unwrap_err().to_string();
        let path = own.path().display().to_string();
        assert!(missing.contains(&path) && missing.contains("copy it from another node"), "{missing}");
        assert!(!own.path().exists());
        fs::write(own.path(), "canary\n").unwrap();
        for file in [&own, &named] {
            let damaged = file.read_or_make().unwrap_err().to_string();
            assert!(
                damaged.contains(&format!("{path}, line 1: ")) && !damaged.contains("canary"),
                "{damaged}"
            );
        }
        assert_eq!(fs::read_to_string(own.path()).unwrap(), "canary\n");
    }

    #[test]
    fn a_file_without_end_is_not_read_to_it() {
        let endless = ClickIdKeyFile::Named("/dev/zero".into());
        assert!(matches!(endless.read(), Err(ClickIdKeyError::Text { .. })));
    }
}
