//! Any bytes where an audit log is expected. Both readers agree on one that is accepted, record by record.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portway_gateway::audit::{Entry, verify::verify};
use portway_protocol::key::SigningKey;
use portway_protocol::secret::Secret;

/// A directory for this process, with nothing but the log.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("portway-fuzz-audit.{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a temporary directory");
    dir
});

fuzz_target!(|log: &[u8]| {
    // The node key of the seeds.
    let key = SigningKey::from_seed(&Secret::new([1; 32])).public();
    fs::write(DIR.join("audit.jsonl"), log).expect("a file in it");
    let verified = verify(&DIR, &key, &[]);
    let entries: Vec<_> = log
        .split_inclusive(|byte| *byte == b'\n')
        .map(serde_json::from_slice::<Entry>)
        .collect();
    if let Ok(summary) = verified {
        let last = entries.last().expect("an empty log is none");
        let last = last.as_ref().expect("what is accepted can be shown");
        assert_eq!(summary.records, entries.len() as u64);
        assert_eq!((summary.seq, summary.head), (last.record.seq, last.hash));
        assert!(entries.iter().all(Result::is_ok));
    }
});
