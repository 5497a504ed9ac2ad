//! Builds the browser client into `web-client/dist`, then the binary that embeds it.

mod budget;
mod coding;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::run::{command, portway, root, step, target_dir};
use crate::tools;
use coding::Coding;

/// First line of a script that is made of rooms.
const ROOMS: &str = "// rooms: ";

/// What is compiled for tests. One choice for all of them: with another one, cargo would choose other
/// features for shared crates and build them again.
pub(crate) const TESTED: &[&str] = &["--lib", "--bins", "--tests"];

/// How the binary is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What people run.
    Release,
    /// What the tests drive, and the tests: one set of compiled crates.
    Dev,
}

/// Builds everything.
pub(crate) fn build_all(profile: Profile) -> anyhow::Result<()> {
    tools::wasm_target()?;
    build_client()?;
    if profile == Profile::Dev {
        build_weakened()?;
    }
    let mut build = command("cargo", &["build", "--locked"]);
    match profile {
        Profile::Release => build.args([
            "--package",
            "portway-cli",
            "--package",
            "portway-lab",
            "--release",
        ]),
        Profile::Dev => build.args(TESTED),
    };
    step("build portway and portway-lab", &mut build)
}

/// Builds a second `portway` in which checks can be switched off: what tests of attacks compare with. Any
/// test is built along, for cargo then chooses the same features for shared crates as for all tests.
fn build_weakened() -> anyhow::Result<()> {
    let features = ["--features", "portway-cli/weakened"];
    let targets = ["--bin", "portway", "--test", "rfc5769"];
    step(
        "build portway with checks that can be switched off, for tests of attacks",
        command("cargo", &["build", "--locked"])
            .args(targets)
            .args(features),
    )?;
    let built = portway(Profile::Dev);
    fs::copy(&built, built.with_file_name("portway-weakened"))?;
    // What is built next takes its place, and must not be taken for it.
    fs::remove_file(built)?;
    Ok(())
}

/// Builds `web-client/dist`. Files are only touched when they change, so that nothing is rebuilt
/// for nothing.
fn build_client() -> anyhow::Result<()> {
    step(
        "build the browser client",
        &mut command(
            "cargo",
            &[
                "build",
                "--locked",
                "--profile",
                "web",
                "--target",
                "wasm32-unknown-unknown",
                "--package",
                "portway-web-client",
            ],
        ),
    )?;
    let mut files = scripts(&root().join("web-client/js"))?;
    files.extend(bindings()?);
    let mut compressed = Vec::new();
    for (name, content) in &files {
        if coding::pays(name, content) {
            for coding in Coding::ALL {
                compressed.push((coding.name(name), coding.compress(content)?));
            }
        }
    }
    files.extend(compressed);
    write_dist(&root().join("web-client/dist"), &files)?;
    budget::check(&files)
}

/// The wasm and its glue.
fn bindings() -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let wasm = target_dir().join("wasm32-unknown-unknown/web/portway_web_client.wasm");
    let out = target_dir().join("web-bindings");
    let mut bindgen = command(
        "cargo",
        &[
            "run",
            "--locked",
            "--quiet",
            "--package",
            "portway-bindgen",
            "--",
        ],
    );
    step(
        "make the glue of the browser client",
        bindgen.arg(wasm).arg(&out),
    )?;
    ["portway.js", "portway.d.ts", "portway_bg.wasm"]
        .into_iter()
        .map(|name| Ok((name.to_owned(), fs::read(out.join(name))?)))
        .collect()
}

/// The hand-written files: modules as they are, scripts of rooms put together. Rooms lie in
/// folders, so what lies flat is what is served.
fn scripts(folder: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            continue;
        }
        let name = file_name(&path)?;
        let content = fs::read(&path)?;
        let text = String::from_utf8_lossy(&content);
        let content = match text.strip_prefix(ROOMS) {
            Some(rest) => join_rooms(folder, rest, &text)?.into_bytes(),
            None => content,
        };
        files.insert(name, content);
    }
    Ok(files)
}

/// One classic script of several modules: imports and the word `export` are dropped, for all rooms
/// share one scope. Service workers cannot be modules everywhere, and a shim must run at once.
fn join_rooms(folder: &Path, manifest: &str, main: &str) -> anyhow::Result<String> {
    let rooms = manifest.lines().next().unwrap_or_default();
    let mut script = String::from("(() => {\n'use strict';\n");
    for room in rooms.split_whitespace() {
        let text = fs::read_to_string(folder.join(room)).with_context(|| room.to_owned())?;
        script.push_str(&without_modules(&text));
    }
    script.push_str(&without_modules(main));
    script.push_str("})();\n");
    Ok(script)
}

fn without_modules(text: &str) -> String {
    let mut out = String::new();
    let mut in_import = false;
    for line in text.lines() {
        if in_import || line.starts_with("import ") {
            in_import = !line.trim_end().ends_with(';');
            continue;
        }
        out.push_str(line.strip_prefix("export ").unwrap_or(line));
        out.push('\n');
    }
    out
}

fn write_dist(dist: &Path, files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    fs::create_dir_all(dist)?;
    for entry in fs::read_dir(dist)? {
        let path = entry?.path();
        if !files.contains_key(&file_name(&path)?) {
            fs::remove_file(path)?;
        }
    }
    for (name, content) in files {
        let path = dist.join(name);
        if fs::read(&path).ok().as_ref() != Some(content) {
            fs::write(path, content)?;
        }
    }
    Ok(())
}

fn file_name(path: &Path) -> anyhow::Result<String> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(name.to_owned()),
        None => bail!("a file without a readable name: {}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_become_one_script() {
        let text = "import { a } from './a.js';\nimport {\n  b,\n} from './b.js';\nexport const c = 1;\nexport function d() {}\n  export_me();\n";
        assert_eq!(
            without_modules(text),
            "const c = 1;\nfunction d() {}\n  export_me();\n"
        );
    }
}
