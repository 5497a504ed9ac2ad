//! What is kept of a lab that failed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::run_json;
use crate::control::{Request, ask};
use crate::output::progress;
use crate::spec::Role;
use crate::state::LabDir;

/// Files of the lab, and of each host, that may be shown around: keys, tokens and links may not.
const OF_LAB: [&str; 4] = ["lab.json", "keeper.log", "hosts", SNAPSHOT];
const OF_HOST: [&str; 3] = ["log", "ready.jsonl", "portway.toml"];

/// What every part said of itself before the end.
const SNAPSHOT: &str = "snapshot.json";

/// Asks every part of a lab that is about to end how it is, and writes that down.
pub(super) fn snapshot(dir: &LabDir) {
    let or_error = |answer: anyhow::Result<Value>| match answer {
        Ok(value) => value,
        Err(error) => json!({ "error": format!("{error:#}") }),
    };
    let mut parts = BTreeMap::new();
    if let Ok(plan) = dir.plan() {
        for (name, host) in &plan.spec.hosts {
            let questions: &[&[&str]] = match host.run {
                None => continue,
                Some(Role::Gateway) => &[&["status"], &["services"], &["sessions"]],
                Some(Role::Signaling) => &[&["status"], &["nodes"], &["events"]],
                Some(Role::Relay) => &[&["status"], &["relay", "status"]],
            };
            let state = dir.node(name).join("state").display().to_string();
            let answers: BTreeMap<String, Value> = questions
                .iter()
                .map(|question| {
                    let args = [question, &["--state", &state][..]].concat();
                    (
                        question.join(" "),
                        or_error(run_json(&plan.portway, &args, "")),
                    )
                })
                .collect();
            parts.insert(name.clone(), answers);
        }
    }
    let snapshot = json!({
        "status": or_error(ask(dir, &Request::Status)),
        "health": or_error(ask(dir, &Request::Health)),
        "parts": parts,
    });
    if let Err(error) = fs::write(dir.file(SNAPSHOT), format!("{snapshot:#}")) {
        progress(&format!("what the parts say is not kept: {error}"));
    }
}

/// Says where a failed lab's files are, after copying them where they were asked for.
pub(super) fn keep(dir: &LabDir, artifacts: Option<&Path>) {
    let Some(target) = artifacts else {
        progress(&format!("its files are kept in {}", dir.path().display()));
        return;
    };
    match copy(dir, target) {
        Ok(()) => progress(&format!("its logs are in {}", target.display())),
        Err(error) => progress(&format!(
            "its logs cannot be copied to {} ({error:#}); they are in {}",
            target.display(),
            dir.path().display()
        )),
    }
}

fn copy(dir: &LabDir, target: &Path) -> anyhow::Result<()> {
    copy_those(&OF_LAB, dir.path(), target)?;
    for host in fs::read_dir(dir.file("nodes"))? {
        let host = host?;
        copy_those(&OF_HOST, &host.path(), &target.join(host.file_name()))?;
    }
    Ok(())
}

fn copy_those(files: &[&str], from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for file in files {
        if from.join(file).exists() {
            fs::copy(from.join(file), to.join(file))?;
        }
    }
    Ok(())
}
