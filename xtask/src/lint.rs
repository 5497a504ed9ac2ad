//! `cargo xtask lint`: what a machine can check of the rules.

use std::fs;
use std::path::Path;

use anyhow::bail;

use crate::run::{command, root, step};
use crate::tools;

/// Crates that each crate may depend on, of our own, by their folders.
const DIRECTION: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("transport", &["protocol"]),
    ("signaling", &["protocol"]),
    ("turn-relay/proto", &[]),
    ("turn-relay/server", &["turn-relay/proto"]),
    ("turn-relay/client", &["turn-relay/proto"]),
    ("gateway", &["protocol", "transport"]),
    ("web-client", &["protocol"]),
    (
        "cli",
        &[
            "protocol",
            "transport",
            "signaling",
            "gateway",
            "turn-relay/proto",
            "turn-relay/server",
            "turn-relay/client",
        ],
    ),
    ("bindgen", &[]),
    ("lab", &[]),
    ("xtask", &[]),
    ("tests", &["protocol", "transport"]),
    ("examples/embed-rust", &["gateway"]),
];

/// What a module marked `Sans-IO.` may not name.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::net::Udp",
    "std::net::Tcp",
    "Instant::now",
    "SystemTime::now",
    "getrandom::",
];

/// Checks everything.
pub(crate) fn run() -> anyhow::Result<()> {
    tools::node()?;
    step(
        "formatting",
        &mut command("cargo", &["fmt", "--all", "--check"]),
    )?;
    step(
        "clippy",
        &mut command(
            "cargo",
            &[
                "clippy",
                "--locked",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
    )?;
    step(
        "clippy of the fuzz targets, a workspace of their own",
        &mut command(
            "cargo",
            &[
                "clippy",
                "--locked",
                "--manifest-path",
                "fuzz/Cargo.toml",
                "--",
                "-D",
                "warnings",
            ],
        ),
    )?;
    step(
        "docs",
        command(
            "cargo",
            &[
                "doc",
                "--locked",
                "--no-deps",
                "--document-private-items",
                "--quiet",
            ],
        )
        .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    step(
        "install the type checker for JavaScript",
        &mut command("npm", &["ci", "--silent", "--prefix", "web-client"]),
    )?;
    step(
        "types of the JavaScript",
        &mut command(
            "npm",
            &["run", "--silent", "--prefix", "web-client", "check"],
        ),
    )?;
    tidy()
}

/// Direction of dependencies, purity of cores.
fn tidy() -> anyhow::Result<()> {
    eprintln!("==> rules of the tree");
    let mut broken = Vec::new();
    for (package, allowed) in DIRECTION {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml"))?;
        let product = manifest
            .split("[dev-dependencies]")
            .next()
            .unwrap_or(&manifest);
        for (other, _) in DIRECTION {
            let name = package_name(other);
            let names_it = product.lines().any(|line| {
                line.strip_prefix(&name)
                    .is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
            });
            if names_it && !allowed.contains(other) {
                broken.push(format!("{package} may not depend on {other}"));
            }
        }
        sources(&root().join(package).join("src"), &mut |path, text| {
            let product = text.split("#[cfg(test)]").next().unwrap_or(text);
            if !product.contains("Sans-IO.") || *package == "xtask" {
                return;
            }
            for word in IMPURE {
                if product.contains(word) {
                    broken.push(format!("{}: Sans-IO, but names `{word}`", path.display()));
                }
            }
        })?;
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!("{}", broken.join("\n"))
}

/// Name of the package in a folder.
fn package_name(folder: &str) -> String {
    match folder {
        "turn-relay/proto" => "portway-relay-proto".to_owned(),
        "turn-relay/server" => "portway-relay".to_owned(),
        "turn-relay/client" => "portway-relay-client".to_owned(),
        _ => format!("portway-{folder}"),
    }
}

fn sources(folder: &Path, visit: &mut impl FnMut(&Path, &str)) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, visit)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path, &fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
