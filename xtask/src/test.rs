//! `cargo xtask test`: units, integration, JavaScript. `cargo xtask stories`: real browsers.

use crate::run::{command, portway, step};
use crate::tools::{self, TestInterface};
use crate::web::{self, Profile};

/// Crates whose tests are stories, and crates that are tools.
const NOT_UNITS: [&str; 4] = ["--exclude", "portway-tests", "--exclude", "portway-bindgen"];

/// Stands for the JavaScript among the names of crates.
const JAVASCRIPT: &str = "js";

/// Runs the tests that need no browser: all, or those of the crates named (`protocol`, …, `js`).
pub(crate) fn run(names: &[String]) -> anyhow::Result<()> {
    let crates: Vec<String> = names
        .iter()
        .filter(|name| *name != JAVASCRIPT)
        .map(|name| format!("--package=portway-{name}"))
        .collect();
    if names.is_empty() || !crates.is_empty() {
        let mut unit = command("cargo", &["test", "--locked"]);
        if crates.is_empty() {
            unit.arg("--workspace").args(NOT_UNITS);
        } else {
            unit.args(&crates);
        }
        step("unit and integration tests", &mut unit)?;
    }
    if names.is_empty() || names.iter().any(|name| name == JAVASCRIPT) {
        tools::node()?;
        step(
            "tests of the JavaScript",
            command("node", &["--test"]).arg("web-client/test/"),
        )?;
    }
    Ok(())
}

/// Runs the stories in real browsers, or those whose names contain the filter.
pub(crate) fn stories(filter: Option<&str>) -> anyhow::Result<()> {
    tools::for_stories()?;
    let _interface = TestInterface::ensure()?;
    web::build_all(Profile::Dev)?;
    let mut stories = command("cargo", &["test", "--locked", "--package", "portway-tests"]);
    stories.args(filter);
    // Each story runs real browsers: one at a time keeps a small machine honest.
    stories.args(["--", "--test-threads=1"]);
    stories.env("PORTWAY_BIN", portway(Profile::Dev));
    step("end-to-end tests in real browsers", &mut stories)
}
