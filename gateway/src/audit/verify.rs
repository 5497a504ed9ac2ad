//! Checks a log: that every record is as it was written, by this node, in its place.
//!
//! What cannot be seen from the files alone is that records are missing at the end. Whoever has noted a
//! [`Head`] before, or asks the gateway that runs, gives it: then that is seen too.

use std::io;
use std::path::{Path, PathBuf};

use portway_protocol::key::PublicKey;
use serde::Serialize;

use super::file::{Files, Lines};
use super::record::{Hash, Head, Line, VERSION};

/// A log that is as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Records that are there.
    pub records: u64,
    /// Position of the first one: above 1 when older ones have gone by rotation.
    pub first: u64,
    /// When it was written, milliseconds since 1970.
    pub from_ms: u64,
    /// When the last one was written, milliseconds since 1970.
    pub to_ms: u64,
    /// Position of the last one.
    pub seq: u64,
    /// Its hash.
    pub head: Hash,
    /// Records that could not be written, as others say.
    pub lost: u64,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "flaw")]
pub enum Flaw {
    /// It is not what was written, or no record at all.
    #[error("it was changed")]
    Changed,
    /// It was not signed by this node.
    #[error("the signature is not this node's")]
    Signature,
    /// Records before it are missing.
    #[error("{missing} before it were removed")]
    Removed {
        /// How many.
        missing: u64,
    },
    /// It does not belong here.
    #[error("it was inserted")]
    Inserted,
    /// It stands before one that belongs before it.
    #[error("it was moved")]
    Reordered,
    /// It is the last one, and there were more.
    #[error("it is the last one, but the chain had gone on: the end was cut off")]
    Truncated,
    /// Written by a newer version.
    #[error("it has format {found}, this version reads {VERSION}: update portway")]
    Newer {
        /// Its format.
        found: u32,
    },
}

/// Why a log is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is none.
    #[error("there is no record")]
    Empty,
    /// It is not what was written.
    #[error("{}, line {line}: {flaw}", .file.display())]
    Tampered {
        /// The file.
        file: PathBuf,
        /// The line, from 1: the first that is wrong.
        line: u64,
        /// Position that the record claims, if it is one.
        seq: Option<u64>,
        /// What is wrong.
        flaw: Flaw,
    },
}

/// Checks all files in a directory. `heads`: hashes that the chain has had, which must be there.
///
/// # Errors
/// See [`VerifyError`].
pub fn verify(dir: &Path, key: &PublicKey, heads: &[Hash]) -> Result<Summary, VerifyError> {
    verify_files(&Files::new(dir), key, heads)
}

pub(super) fn verify_files(
    files: &Files,
    key: &PublicKey,
    heads: &[Hash],
) -> Result<Summary, VerifyError> {
    let mut opened = files.read()?;
    let have_rotated = files.have_rotated(&opened);
    let mut walk = Walk {
        summary: None,
        missing: heads.to_vec(),
    };
    let mut last = None;
    for at in 0..opened.len() {
        let mut number = 0;
        loop {
            let file = opened[at].path.clone();
            number += 1;
            let tampered = |seq, flaw| VerifyError::Tampered {
                file: file.clone(),
                line: number,
                seq,
                flaw,
            };
            let text = match opened[at].next() {
                Ok(Some(text)) => text,
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(tampered(None, Flaw::Changed));
                }
                Err(error) => return Err(error.into()),
            };
            let line = Line::parse(&text).ok_or_else(|| tampered(None, Flaw::Changed))?;
            let seq = line.link.seq;
            let stepped = walk
                .step(&line, have_rotated)
                .and_then(|()| line.verify(key));
            if let Err(flaw) = stepped {
                let is_moved = matches!(flaw, Flaw::Removed { missing }
                    if comes_later(&mut opened[at..], seq - missing));
                let flaw = if is_moved { Flaw::Reordered } else { flaw };
                return Err(tampered(Some(seq), flaw));
            }
            last = Some((file, number));
        }
    }
    let (Some(summary), Some((file, line))) = (walk.summary, last) else {
        return Err(VerifyError::Empty);
    };
    if !walk.missing.is_empty() {
        let seq = Some(summary.seq);
        let flaw = Flaw::Truncated;
        return Err(VerifyError::Tampered {
            file,
            line,
            seq,
            flaw,
        });
    }
    Ok(summary)
}

/// Where the chain ends, by the newest file that has records; the inner error is why it cannot be gone on
/// with.
pub(super) fn tail(files: &Files, key: &PublicKey) -> io::Result<Result<Head, String>> {
    for lines in files.read()?.iter_mut().rev() {
        let head = tail_of(lines, key)?;
        // An empty one was made just before a crash.
        if head != Ok(Head::default()) {
            return Ok(head);
        }
    }
    Ok(Ok(Head::default()))
}

/// The last signature stands for all: through the hashes it covers every record before.
fn tail_of(lines: &mut Lines, key: &PublicKey) -> io::Result<Result<Head, String>> {
    let mut walk = Walk::default();
    let mut number = 0;
    let mut last = None;
    loop {
        let text = match lines.next() {
            Ok(Some(text)) => text,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(Err(format!("line {}: {error}", number + 1)));
            }
            Err(error) => return Err(error),
        };
        number += 1;
        let line = Line::parse(&text).ok_or(Flaw::Changed);
        if let Err(flaw) = line.and_then(|line| walk.step(&line, true)) {
            return Ok(Err(format!("line {number}: {flaw}")));
        }
        last = Some(text);
    }
    let signed = last.as_deref().and_then(Line::parse);
    if let Some(Err(flaw)) = signed.map(|line| line.verify(key)) {
        return Ok(Err(format!("line {number}: {flaw}")));
    }
    Ok(Ok(walk.summary.map_or_else(Head::default, |summary| {
        Head {
            seq: summary.seq,
            hash: summary.head,
        }
    })))
}

/// Goes along a chain.
#[derive(Default)]
struct Walk {
    summary: Option<Summary>,
    /// Hashes that must still come.
    missing: Vec<Hash>,
}

impl Walk {
    /// `may_begin_late`: older records may have gone by rotation.
    fn step(&mut self, line: &Line<'_>, may_begin_late: bool) -> Result<(), Flaw> {
        let link = &line.link;
        if link.format != VERSION {
            return Err(Flaw::Newer { found: link.format });
        }
        if !line.is_whole() {
            return Err(Flaw::Changed);
        }
        match &self.summary {
            Some(before) => {
                in_place(link.seq, before.seq + 1)?;
                if link.prev != before.head {
                    return Err(Flaw::Inserted);
                }
            }
            None if may_begin_late && link.seq > 1 => {}
            None => {
                in_place(link.seq, 1)?;
                if link.prev != Hash::default() {
                    return Err(Flaw::Inserted);
                }
            }
        }
        let summary = self.summary.get_or_insert_with(|| Summary {
            records: 0,
            first: link.seq,
            from_ms: link.at_ms,
            to_ms: 0,
            seq: 0,
            head: Hash::default(),
            lost: 0,
        });
        summary.records += 1;
        summary.to_ms = link.at_ms;
        summary.seq = link.seq;
        summary.head = line.hash;
        summary.lost = summary.lost.saturating_add(link.lost);
        self.missing.retain(|hash| *hash != line.hash);
        Ok(())
    }
}

fn in_place(seq: u64, expected: u64) -> Result<(), Flaw> {
    if seq > expected {
        return Err(Flaw::Removed {
            missing: seq - expected,
        });
    }
    if seq < expected {
        return Err(Flaw::Inserted);
    }
    Ok(())
}

/// Whether the record of this position is in the rest.
fn comes_later(files: &mut [Lines], seq: u64) -> bool {
    files.iter_mut().any(|lines| {
        while let Ok(Some(text)) = lines.next() {
            if Line::parse(&text).is_some_and(|line| line.link.seq == seq) {
                return true;
            }
        }
        false
    })
}
