//! A small disk of a node's own, that can be full or be read-only: a file system in memory, mounted where no other process sees
//! it. It needs user namespaces (`unshare`, `nsenter`), and no root.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::wait;

/// Lasts until it is dropped, over any number of processes that use it.
pub struct Disk {
    /// Keeps the namespace; does nothing else.
    holder: Child,
    mounted_on: PathBuf,
}

impl Disk {
    /// Mounts one of so many bytes on this directory. `None`, with the reason printed, where the system does not let us.
    pub fn mount(directory: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(directory).unwrap();
        let script = "mount -t tmpfs -o size=\"$1\" tmpfs \"$0\" && touch \"$0/mounted\" && exec sleep 1000";
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", script])
            .arg(directory)
            .arg(bytes.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut disk = match holder {
            Ok(holder) => Self { holder, mounted_on: directory.to_owned() },
            Err(error) => return skipped(&format!("there is no unshare: {error}")),
        };
        let is_there = wait::until("a disk, or a reason why there is none", || {
            let mounted = disk.path().join("mounted").exists();
            let ended = disk.holder.try_wait().unwrap().is_some();
            (mounted || ended).then_some(mounted)
        });
        if is_there && disk.run("true") {
            fs::remove_file(disk.path().join("mounted")).unwrap();
            return Some(disk);
        }
        let mut said = String::new();
        if let Some(mut stderr) = disk.holder.stderr.take().filter(|_| !is_there) {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
        }
        skipped(&format!("no file system can be mounted in a user namespace, or not be entered: {said}"))
    }

    /// The directory, as those see it who are outside of the namespace.
    pub fn path(&self) -> PathBuf {
        self.seen_from_outside(&self.mounted_on)
    }

    /// A path as the processes on the disk have it, for those who are outside.
    pub fn seen_from_outside(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), path.display()))
    }

    /// A command that enters the namespace and goes to the directory. What is appended to it is run there, with its process id.
    pub fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.holder.id().to_string(), "--user", "--mount", "--preserve-credentials"])
            .args(["/bin/sh", "-c", "cd \"$0\" && exec \"$@\""])
            .arg(directory);
        command
    }

    /// Whether a line of a shell succeeds, in the directory of the disk.
    pub fn run(&self, script: &str) -> bool {
        let mut command = self.command(&self.mounted_on);
        command.args(["/bin/sh", "-c", script]).status().is_ok_and(|status| status.success())
    }

    /// Leaves no byte.
    pub fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.path().join(FILLER)).unwrap();
        loop {
            match filler.write_all(&[b'x'; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Takes back what [`Self::fill`] did.
    pub fn make_room(&self) {
        fs::remove_file(self.path().join(FILLER)).unwrap();
    }

    /// From now on nothing on the disk can be made, changed or opened for writing. Files that are open stay so.
    #[track_caller]
    pub fn make_read_only(&self) {
        // Over itself: the mount beneath has files open for writing, and cannot be made read-only.
        assert!(self.run("mount --bind \"$PWD\" \"$PWD\" && mount -o remount,bind,ro \"$PWD\""));
    }

    /// Takes back what [`Self::make_read_only`] did.
    #[track_caller]
    pub fn make_writable(&self) {
        assert!(self.run("directory=$PWD; cd / && umount \"$directory\""));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn skipped(why: &str) -> Option<Disk> {
    // Past the capture of the test's output: a test that is skipped looks like one that has passed.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    None
}

const FILLER: &str = "filler";
