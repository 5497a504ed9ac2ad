//! Tells the lab which commit it was built from, so that it can refuse another build of `portway`.

use std::process::Command;

fn main() {
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo::rustc-env=PORTWAY_COMMIT={commit}");
    println!("cargo::rerun-if-changed=../.git/logs/HEAD");
}
