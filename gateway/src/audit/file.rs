//! Where records lie: `audit.jsonl`, and what was that before it was full: `audit.1.jsonl` and so on, the
//! oldest with the highest number.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::record::{Entry, MAX_LINE};

/// A file of this size, in bytes, takes no more. About 20,000 records.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// Full files that are kept; older ones go.
const KEPT: usize = 15;

/// The files of a log.
#[derive(Debug, Clone)]
pub(super) struct Files {
    dir: PathBuf,
    /// See [`MAX_FILE`].
    pub(super) max_file: u64,
}

/// One of them, read line by line.
pub(super) struct Lines {
    pub(super) path: PathBuf,
    /// Size in bytes when it was opened.
    length: u64,
    reader: BufReader<File>,
}

impl Files {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            max_file: MAX_FILE,
        }
    }

    /// The one that is written.
    pub(super) fn current(&self) -> PathBuf {
        self.dir.join("audit.jsonl")
    }

    fn older(&self, age: usize) -> PathBuf {
        self.dir.join(format!("audit.{age}.jsonl"))
    }

    /// Whether so many are there, and have been full, that older ones may have gone.
    pub(super) fn have_rotated(&self, files: &[Lines]) -> bool {
        let is_full = |lines: &Lines| lines.length >= self.max_file;
        files.len() > KEPT && files.iter().take(KEPT).all(is_full)
    }

    /// Those that are there, oldest first.
    fn paths(&self) -> impl DoubleEndedIterator<Item = PathBuf> {
        let older = (1..=KEPT).rev().map(|age| self.older(age));
        let all: Vec<_> = older.chain([self.current()]).collect();
        all.into_iter().filter(|path| path.exists())
    }

    /// Opens all, oldest first.
    pub(super) fn read(&self) -> io::Result<Vec<Lines>> {
        self.paths().map(Lines::open).collect()
    }

    /// Opens the one that is written to append, for its owner only.
    pub(super) fn append(&self) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.current())
    }

    /// Makes room for another one, unless that has been done.
    pub(super) fn rotate(&self) -> io::Result<()> {
        if !self.current().exists() {
            return Ok(());
        }
        for age in (1..KEPT).rev() {
            let path = self.older(age);
            if path.exists() {
                fs::rename(path, self.older(age + 1))?;
            }
        }
        fs::rename(self.current(), self.older(1))
    }

    /// Moves all into a directory of their own, named by the time; returns its name.
    pub(super) fn put_aside(&self, at_ms: u64) -> io::Result<String> {
        let name = format!("audit-damaged-{at_ms}");
        let dir = self.dir.join(&name);
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        for path in self.paths() {
            let file = path.file_name().expect("our files have names");
            fs::rename(&path, dir.join(file))?;
        }
        Ok(name)
    }

    /// The last records, oldest first.
    pub(super) fn last(&self, limit: usize) -> io::Result<Vec<Entry>> {
        let mut last: VecDeque<Entry> = VecDeque::new();
        for path in self.paths().rev() {
            let wanted = limit - last.len();
            let mut found: VecDeque<String> = VecDeque::new();
            let mut lines = Lines::open(path)?;
            while let Some(line) = lines.next()? {
                if found.len() == wanted {
                    found.pop_front();
                }
                found.push_back(line);
            }
            for line in found.iter().rev() {
                last.push_front(serde_json::from_str(line)?);
            }
            if last.len() == limit {
                break;
            }
        }
        Ok(last.into())
    }
}

impl Lines {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        Ok(Self {
            path,
            length: file.metadata()?.len(),
            reader: BufReader::new(file),
        })
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::InvalidData`] for a line that is too long, has no end, or is no text.
    pub(super) fn next(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut bounded = self.reader.by_ref().take(MAX_LINE as u64);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line without end",
            ));
        }
        String::from_utf8(line)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
