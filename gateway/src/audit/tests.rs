//! Logs that are written, changed in every way, and checked.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use portway_protocol::id::{GrantId, SessionId};
use portway_protocol::reason::Reason;
use portway_protocol::secret::Secret;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::{broadcast, watch};

use super::event::Ending;
use super::verify::{Flaw, Summary, VerifyError, verify, verify_files};
use super::*;

const RECORDS: usize = 6;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([seed; 32]))
}

fn events() -> [Event; RECORDS] {
    let session = SessionId::from_bytes([3; 16]);
    let grant = GrantId::from_bytes([7; 9]);
    let service: portway_protocol::id::ServiceName = "lab".parse().unwrap();
    let route = Some(event::Route {
        from: "192.0.2.7".parse().unwrap(),
        path: event::Way::Direct,
        protocol: event::Transport::Udp,
    });
    [
        Event::GatewayStarted {
            version: "1".into(),
            commit: "c".into(),
        },
        Event::SessionRefused {
            service: Some(service.clone()),
            grant: Some(grant),
            reason: Reason::ProofInvalid,
            route: None,
            unrecorded: 0,
        },
        Event::SessionOpened {
            session,
            user: "ann \"\\\u{1}ö".into(),
            grant,
            device: Box::new(key(5).public()),
            service,
            route,
        },
        Event::RequestDenied {
            session,
            method: "PUT".into(),
            path: "/admin".into(),
            reason: Reason::PermissionDenied,
            unrecorded: 3,
        },
        Event::SessionEnded {
            session,
            duration_ms: 5,
            received: 6,
            sent: u64::MAX,
            requests: 8,
            denied: 4,
            why: Ending::ClientLeft,
        },
        Event::GatewayEnded,
    ]
}

fn open(dir: &Path) -> Log {
    Log::open(dir, "nas".parse().unwrap(), key(1)).unwrap()
}

/// A log with all events, closed.
fn written() -> (TempDir, Head) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for event in events() {
        log.note(event);
    }
    drop(log);
    let log = open(dir.path());
    (dir, log.head())
}

fn text(dir: &Path) -> String {
    fs::read_to_string(dir.join("audit.jsonl")).unwrap()
}

#[allow(clippy::unwrap_in_result, reason = "a test's directory is there")]
fn check(dir: &Path, content: &[u8], heads: &[Hash]) -> Result<Summary, VerifyError> {
    fs::write(dir.join("audit.jsonl"), content).unwrap();
    verify(dir, &key(1).public(), heads)
}

/// Line and flaw.
fn flaw(checked: Result<Summary, VerifyError>) -> (u64, Flaw) {
    match checked {
        Err(VerifyError::Tampered { line, flaw, .. }) => (line, flaw),
        Ok(_) | Err(VerifyError::Io(_) | VerifyError::Empty) => panic!("not found: {checked:?}"),
    }
}

#[test]
fn what_was_noted_is_read_again_and_stands_checks() {
    let (dir, head) = written();
    let log = open(dir.path());
    let entries = log.last(100).unwrap();
    let read: Vec<_> = entries
        .iter()
        .map(|entry| entry.record.event.clone())
        .collect();
    assert_eq!(read, events());
    assert_eq!(log.last(2).unwrap(), entries[RECORDS - 2..]);
    let summary = verify(dir.path(), &key(1).public(), &[head.hash]).unwrap();
    assert_eq!((summary.records, summary.first), (RECORDS as u64, 1));
    assert_eq!((summary.seq, summary.head), (head.seq, head.hash));
    let mode = std::os::unix::fs::MetadataExt::mode(
        &fs::metadata(dir.path().join("audit.jsonl")).unwrap(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn another_process_goes_on_with_the_chain() {
    let (dir, _) = written();
    let log = open(dir.path());
    log.note(Event::GatewayEnded);
    drop(log);
    let summary = verify(dir.path(), &key(1).public(), &[]).unwrap();
    assert_eq!(summary.records, RECORDS as u64 + 1);
}

#[test]
fn a_record_that_is_removed_repeated_or_moved_is_found() {
    let (dir, head) = written();
    let text = text(dir.path());
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for at in 0..RECORDS {
        let number = at as u64 + 1;
        let mut removed = lines.clone();
        removed.remove(at);
        let checked = check(dir.path(), removed.concat().as_bytes(), &[head.hash]);
        if at + 1 == RECORDS {
            assert_eq!(flaw(checked), (number - 1, Flaw::Truncated));
        } else {
            assert_eq!(flaw(checked), (number, Flaw::Removed { missing: 1 }));
        }
        let mut repeated = lines.clone();
        repeated.insert(at, lines[at]);
        let checked = check(dir.path(), repeated.concat().as_bytes(), &[]);
        assert_eq!(flaw(checked), (number + 1, Flaw::Inserted));
        if at + 1 < RECORDS {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            let checked = check(dir.path(), swapped.concat().as_bytes(), &[]);
            assert_eq!(flaw(checked), (number, Flaw::Reordered));
        }
    }
    assert!(check(dir.path(), text.as_bytes(), &[head.hash]).is_ok());
}

#[test]
fn a_chain_of_another_key_or_another_beginning_is_found() {
    let (dir, head) = written();
    let checked = verify(dir.path(), &key(2).public(), &[]);
    assert_eq!(flaw(checked), (1, Flaw::Signature));

    // The same node, another log: every record is good, but not here.
    let other = tempfile::tempdir().unwrap();
    let log = open(other.path());
    log.note(Event::GatewayEnded);
    events().into_iter().for_each(|event| log.note(event));
    drop(log);
    let (ours, theirs) = (text(dir.path()), text(other.path()));
    let (ours, rest) = (ours.split_inclusive('\n'), theirs.split_inclusive('\n'));
    let spliced: String = ours.take(3).chain(rest.skip(3)).collect();
    let checked = check(dir.path(), spliced.as_bytes(), &[]);
    assert_eq!(flaw(checked), (4, Flaw::Inserted));
    let checked = check(dir.path(), theirs.as_bytes(), &[head.hash]);
    assert_eq!(flaw(checked), (RECORDS as u64 + 1, Flaw::Truncated));
}

proptest! {
    #[test]
    fn whatever_lies_there_is_judged(content: Vec<u8>, suffix in "(,\"hash\":\"[A-Za-zö]{42,43}\",\"sig\":\"[A-Z]{84,86}\"\\})?\n?") {
        let dir = tempfile::tempdir().unwrap();
        let content = [&content, suffix.as_bytes()].concat();
        prop_assert!(check(dir.path(), &content, &[]).is_err());
    }

    #[test]
    fn any_byte_that_changes_is_found(at in 0usize..4000, to: u8) {
        let (dir, _) = written();
        let mut content = text(dir.path()).into_bytes();
        let at = at % content.len();
        prop_assume!(content[at] != to);
        content[at] = to;
        prop_assert!(check(dir.path(), &content, &[]).is_err());
    }
}

#[test]
fn a_damaged_log_is_kept_and_the_next_one_says_so() {
    let (dir, _) = written();
    let damaged = text(dir.path()).replace("/admin", "/index");
    fs::write(dir.path().join("audit.jsonl"), &damaged).unwrap();
    let log = open(dir.path());
    log.note(Event::GatewayEnded);
    drop(log);
    let summary = verify(dir.path(), &key(1).public(), &[]).unwrap();
    assert_eq!((summary.records, summary.first), (2, 1));
    let first = open(dir.path()).last(2).unwrap().remove(0);
    let Event::ChainBegun(damage) = first.record.event else {
        panic!("{first:?}");
    };
    assert_eq!(damage.problem, "line 4: it was changed");
    let kept = fs::read_to_string(dir.path().join(damage.kept).join("audit.jsonl")).unwrap();
    assert_eq!(kept, damaged);
}

fn appender(dir: &Path, max_file: u64) -> Appender {
    let mut files = Files::new(dir);
    files.max_file = max_file;
    let (appender, damage) = Appender::open(files, "nas".parse().unwrap(), key(1)).unwrap();
    assert_eq!(damage, None);
    appender
}

fn noted() -> Noted {
    Noted {
        at_ms: 1,
        event: Event::GatewayEnded,
    }
}

#[test]
fn the_chain_goes_on_over_files_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        // A process of its own each time; its first record finds the file full.
        appender(dir.path(), 1)
            .append(vec![noted(), noted()], 0)
            .unwrap();
    }
    let mut files = Files::new(dir.path());
    files.max_file = 1;
    let public = key(1).public();
    let summary = verify_files(&files, &public, &[]).unwrap();
    assert_eq!((summary.seq, summary.records), (40, 32));
    assert_eq!(summary.first, 9);
    assert_eq!(files.last(5).unwrap().len(), 5);

    // Nothing goes by rotation before there are that many, and full.
    let checked = verify(dir.path(), &public, &[]);
    assert_eq!(flaw(checked), (1, Flaw::Removed { missing: 8 }));
    fs::remove_file(dir.path().join("audit.15.jsonl")).unwrap();
    let checked = verify_files(&files, &public, &[]);
    assert_eq!(flaw(checked), (1, Flaw::Removed { missing: 10 }));
}

#[test]
fn a_crash_within_a_rotation_does_not_begin_another_chain() {
    let dir = tempfile::tempdir().unwrap();
    appender(dir.path(), 1).append(vec![noted()], 0).unwrap();
    Files::new(dir.path()).rotate().unwrap();
    assert_eq!(appender(dir.path(), 1).head().seq, 1);
    fs::write(dir.path().join("audit.jsonl"), "").unwrap();
    assert_eq!(appender(dir.path(), 1).head().seq, 1);
}

#[test]
fn what_a_full_disk_cannot_take_is_told_by_the_next_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut appender = appender(dir.path(), u64::MAX);
    let lost = AtomicU64::new(2);
    let written = Written {
        head: watch::Sender::default(),
        entries: broadcast::Sender::new(1),
    };
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = std::mem::replace(&mut appender.file, full);
    assert!(!writer::append(
        &mut appender,
        vec![noted(), noted()],
        &lost,
        &written
    ));
    assert!(appender.is_torn);
    appender.file = file;
    assert!(writer::append(
        &mut appender,
        vec![noted()],
        &lost,
        &written
    ));
    assert_eq!(lost.load(Ordering::Relaxed), 0);
    let summary = verify(dir.path(), &key(1).public(), &[written.head.borrow().hash]).unwrap();
    assert_eq!((summary.records, summary.lost), (1, 4));
}
