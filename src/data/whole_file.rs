//! Files that appear whole, in one step, or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Links that are followed from one path on; Linux follows as many.
const LINKS: usize = 40;

/// Writes a file under the hidden name `.<name>.tmp` beside it and renames it with [`finish`](Self::finish).
///
/// Readers see the old file or the new one. The hidden name is always the same and locked by its writer: a process
/// that starts while another one writes waits for its turn, and what a killed one has left is overwritten by the next.
/// A link stays, and what it leads to is replaced or created. What is no file but takes bytes, such as a pipe or a
/// device, gets them as they come.
#[derive(Debug)]
pub struct WholeFile {
    /// None where bytes go straight to their place. Before the file, whose lock holds until the hidden name is gone.
    renaming: Option<Renaming>,
    file: BufWriter<File>,
}

/// A file on its way to its place. Dropped before it is there, it leaves nothing.
#[derive(Debug)]
struct Renaming {
    hidden: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl WholeFile {
    /// Begins the file that will be `target`. Waits for a reader where that is a named pipe.
    ///
    /// # Errors
    /// The folder of `target` cannot be written to; links that lead in a circle.
    pub fn create(target: &Path) -> io::Result<Self> {
        let (target, of_process) = destination(target)?;
        if of_process || fs::metadata(&target).is_ok_and(|known| !known.is_file()) {
            let file = BufWriter::new(OpenOptions::new().append(true).open(&target)?);
            return Ok(Self { renaming: None, file });
        }
        let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut hidden_name = OsString::from(".");
        hidden_name.push(name);
        hidden_name.push(".tmp");
        let hidden = target.with_file_name(hidden_name);
        let file = BufWriter::new(acquire(&hidden)?);
        Ok(Self { renaming: Some(Renaming { hidden, target, finished: false }), file })
    }

    /// The path at which the file for `target` appears: that of what links lead to, whether or not it is there yet.
    ///
    /// # Errors
    /// Links that lead in a circle.
    pub fn place(target: &Path) -> io::Result<PathBuf> {
        destination(target).map(|(place, _)| place)
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// A failed write or rename; nothing is left then.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        // Pipes and devices cannot be synchronised.
        let Some(renaming) = &mut self.renaming else { return Ok(()) };
        self.file.get_ref().sync_all()?;
        fs::rename(&renaming.hidden, &renaming.target)?;
        renaming.finished = true;
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

impl Drop for Renaming {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody is left to tell where even that fails; the next writer overwrites the file.
            let _ = fs::remove_file(&self.hidden);
        }
    }
}

/// The place that links lead to, its folder without links where there is one; and whether that is an open file of a process
/// (`/dev/stdout` leads to one), which has a link's form but not always a path.
fn destination(target: &Path) -> io::Result<(PathBuf, bool)> {
    let mut place = std::path::absolute(target)?;
    for _ in 0..LINKS {
        if let (Some(folder), Some(name)) = (place.parent(), place.file_name())
            && let Ok(folder) = folder.canonicalize()
        {
            place = folder.join(name);
        }
        if place.starts_with("/proc") {
            return Ok((place, true));
        }
        match fs::read_link(&place) {
            Ok(next) => place = place.parent().unwrap_or(Path::new("/")).join(next),
            Err(_) => return Ok((place, false)),
        }
    }
    Err(io::Error::other("links lead in a circle"))
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

    #[test]
    fn what_a_link_leads_to_is_replaced_or_created() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("away")).unwrap();
        fs::write(at("away/old"), "old").unwrap();
        std::os::unix::fs::symlink("away/old", at("first")).unwrap();
        std::os::unix::fs::symlink("first", at("second")).unwrap();
        std::os::unix::fs::symlink("away/new", at("dangling")).unwrap();
        std::os::unix::fs::symlink("circle", at("circle")).unwrap();
        for name in ["second", "dangling"] {
            let mut file = WholeFile::create(&at(name)).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            file.finish().unwrap();
            assert!(at(name).is_symlink());
        }
        assert_eq!(fs::read_to_string(at("away/old")).unwrap(), "second");
        assert_eq!(fs::read_to_string(at("away/new")).unwrap(), "dangling");
        assert_eq!(fs::read_dir(at("away")).unwrap().count(), 2);
        assert!(WholeFile::create(&at("circle")).unwrap_err().to_string().contains("circle"));
    }

    #[test]
    fn a_pipe_gets_the_bytes_and_stays() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let name = std::ffi::CString::new(pipe.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name is a C string that outlives the call, which reads nothing else of ours.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        std::os::unix::fs::symlink("pipe", folder.path().join("link")).unwrap();
        for target in ["pipe", "link"] {
            let reader = std::thread::spawn({
                let pipe = pipe.clone();
                move || fs::read_to_string(pipe).unwrap()
            });
            let mut file = WholeFile::create(&folder.path().join(target)).unwrap();
            file.write_all(b"answers").unwrap();
            file.finish().unwrap();
            assert_eq!(reader.join().unwrap(), "answers");
        }
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert!(folder.path().join("link").is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    /// As `/dev/stdout` leads to one.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_of_a_process_gets_the_bytes() {
        use std::os::fd::AsRawFd;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("redirected");
        let redirected = File::create(&path).unwrap();
        let link = folder.path().join("stdout");
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", redirected.as_raw_fd()), &link).unwrap();
        let mut file = WholeFile::create(&link).unwrap();
        file.write_all(b"answers").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "answers");
        assert_eq!(fs::metadata(&path).unwrap().ino(), redirected.metadata().unwrap().ino());
    }
}
