//! `cargo xtask test`: everything, or one kind.

use std::fs;

use anyhow::{Context as _, bail};

use crate::run::{command, portway, root, step};
use crate::tools::{self, TestInterface};
use crate::web::{self, Profile};

/// The package whose integration tests are the stories.
const STORIES: &str = "tests";

/// Runs all tests, or `units` (Rust without browsers), `js`, `stories [FILTER]` (real browsers) or
/// `lab [FILTER]` (simulated networks).
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        [] => {
            javascript()?;
            tools::clients()?;
            tools::for_labs()?;
            let _interface = prepare_stories()?;
            cargo_test(
                "all tests in Rust, stories in real browsers among them",
                web::TESTED,
            )
        }
        ["js"] => javascript(),
        ["units"] => units(),
        ["stories"] => stories(None),
        ["stories", filter] => stories(Some(filter)),
        ["lab"] => lab(None),
        ["lab", filter] => lab(Some(filter)),
        _ => bail!("usage: cargo xtask test [js | units | stories [FILTER] | lab [FILTER]]"),
    }
}

fn javascript() -> anyhow::Result<()> {
    tools::node()?;
    step(
        "tests of the JavaScript",
        command("node", &["--test"]).arg("web-client/test/"),
    )
}

/// All targets but the stories. The packages stay those of a whole run: with fewer, cargo would
/// choose other features for shared crates and build them again.
fn units() -> anyhow::Result<()> {
    tools::clients()?;
    let mut args = vec!["--lib".to_owned(), "--bins".to_owned()];
    for package in members()? {
        let folder = root().join(&package).join("tests");
        if package == STORIES || !folder.is_dir() {
            continue;
        }
        for test in fs::read_dir(folder)? {
            let path = test?.path();
            if let (Some("rs"), Some(name)) = (
                path.extension().and_then(|e| e.to_str()),
                path.file_stem().and_then(|n| n.to_str()),
            ) {
                args.extend(["--test".to_owned(), name.to_owned()]);
            }
        }
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    cargo_test("unit and integration tests", &args)
}

/// Folders of the workspace's packages.
fn members() -> anyhow::Result<Vec<String>> {
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = "))
        .context("the workspace has members")?;
    let names = line.trim_matches(['[', ']']).split(',');
    Ok(names
        .map(|name| name.trim().trim_matches('"').to_owned())
        .collect())
}

fn stories(filter: Option<&str>) -> anyhow::Result<()> {
    let _interface = prepare_stories()?;
    let mut args = vec!["--test", "stories", "--"];
    args.extend(filter);
    cargo_test("end-to-end tests in real browsers", &args)
}

fn lab(filter: Option<&str>) -> anyhow::Result<()> {
    tools::for_labs()?;
    let _interface = prepare_stories()?;
    let mut args = vec!["--test", "lab", "--"];
    args.extend(filter);
    cargo_test("scenarios on simulated networks", &args)
}

/// Browsers, a network that they accept, and the binary that they meet.
fn prepare_stories() -> anyhow::Result<TestInterface> {
    let interface = prepare_browsers()?;
    web::build_all(Profile::Dev)?;
    // Of all packages, so that those they share keep their features.
    let mut examples = command("cargo", &["build", "--locked", "--bin", "embed-rust"]);
    step("examples", &mut examples)?;
    Ok(interface)
}

/// Browsers and a network that they accept.
pub(crate) fn prepare_browsers() -> anyhow::Result<TestInterface> {
    tools::for_stories()?;
    TestInterface::ensure()
}

fn cargo_test(what: &str, args: &[&str]) -> anyhow::Result<()> {
    let mut test = command("cargo", &["test", "--locked"]);
    test.args(args).env("PORTWAY_BIN", portway(Profile::Dev));
    step(what, &mut test)
}
