//! Files that appear whole, in one step, or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Writes a file under the hidden name `.<name>.tmp` beside it and renames it with [`finish`](Self::finish).
///
/// Readers see the old file or the new one. The hidden name is always the same and locked by its writer: a process
/// that starts while another one writes waits for its turn, and what a killed one has left is overwritten by the next.
#[derive(Debug)]
pub struct WholeFile {
    file: BufWriter<File>,
    hidden: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl WholeFile {
    /// Begins the file that will be `target`.
    ///
    /// # Errors
    /// The folder of `target` cannot be written to.
    pub fn create(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut hidden_name = OsString::from(".");
        hidden_name.push(name);
        hidden_name.push(".tmp");
        let hidden = target.with_file_name(hidden_name);
        let file = BufWriter::new(acquire(&hidden)?);
        Ok(Self { file, hidden, target: target.to_owned(), finished: false })
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// A failed write or rename; nothing is left then.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.hidden, &self.target)?;
        self.finished = true;
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for WholeFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody is left to tell where even that fails; the next writer overwrites the file.
            let _ = fs::remove_file(&self.hidden);
        }
    }
}

/// Opens `path` for this process alone, empty.
fn acquire(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.lock() {
            // Some network file systems have no locks.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
            _ => {}
        }
        // The process that had the lock may have renamed or removed the file meanwhile.
        let same = fs::metadata(path).and_then(|now| Ok((now.dev(), now.ino(), file.metadata()?)));
        if same.is_ok_and(|(device, inode, own)| (device, inode) == (own.dev(), own.ino())) {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_has_left_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("table.md");
        fs::write(folder.path().join(".table.md.tmp"), "much longer than the new text").unwrap();
        let mut file = WholeFile::create(&target).unwrap();
        file.write_all(b"new").unwrap();
        assert!(!target.exists());
        file.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn writers_of_one_file_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("run.json");
        std::thread::scope(|scope| {
            for writer in 0..8_u8 {
                let target = &target;
                scope.spawn(move || {
                    let mut file = WholeFile::create(target).unwrap();
                    for _ in 0..1000 {
                        file.write_all(&[b'a' + writer; 16]).unwrap();
                    }
                    file.finish().unwrap();
                });
            }
        });
        let bytes = fs::read(&target).unwrap();
        assert_eq!(bytes, vec![bytes[0]; 16_000]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
