//! What a browser may have to fetch. A build that exceeds it fails, and so does CI.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};

use super::coding::Coding;

/// Bytes of the wasm, compressed: nothing of a service is seen before it is there.
const WASM: usize = 300_000;

/// Bytes of all that the page takes to be seen for the first time: itself, its style and its scripts.
const SHELL: usize = 50_000;

/// The page that the shell is.
const PAGE: &str = "wrapper.html";

/// Before a file's name in the page.
const IN_PAGE: &str = "\"/_portway/";

/// Before a file's name in a script.
const IN_SCRIPT: &str = "from './";

/// Tells what browsers have to fetch.
///
/// # Errors
/// It is too much.
pub(super) fn check(files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    let wasm = fetched(files, "portway_bg.wasm")?;
    within("the wasm", wasm, WASM)?;
    let mut bytes = 0;
    for name in shell(files)? {
        bytes += fetched(files, &name)?;
    }
    within("the shell", bytes, SHELL)
}

fn within(what: &str, bytes: usize, most: usize) -> anyhow::Result<()> {
    if bytes > most {
        bail!(
            "{what} is {bytes} bytes compressed, and a browser is to fetch {most} at most: see \"What a browser fetches\" in docs/architecture.md"
        );
    }
    eprintln!(
        "    {what}: {} kB compressed, of {}",
        bytes.div_ceil(1000),
        most / 1000
    );
    Ok(())
}

/// Bytes of a file as browsers get it.
fn fetched(files: &BTreeMap<String, Vec<u8>>, name: &str) -> anyhow::Result<usize> {
    let compressed = files.get(&Coding::Brotli.name(name));
    let content = compressed.or_else(|| files.get(name));
    Ok(content
        .with_context(|| format!("there is no {name}"))?
        .len())
}

/// The page, what it names, and what that imports.
fn shell(files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<BTreeSet<String>> {
    let mut shell = BTreeSet::new();
    let mut found = vec![PAGE.to_owned()];
    while let Some(name) = found.pop() {
        let content = files
            .get(&name)
            .with_context(|| format!("there is no {name}"))?;
        let text = String::from_utf8_lossy(content);
        found.extend(named(&text, IN_PAGE, '"'));
        found.extend(named(&text, IN_SCRIPT, '\''));
        shell.insert(name);
        found.retain(|name| !shell.contains(name));
    }
    Ok(shell)
}

fn named<'a>(text: &'a str, before: &'a str, after: char) -> impl Iterator<Item = String> + 'a {
    let rests = text.split(before).skip(1);
    rests.filter_map(move |rest| Some(rest.split_once(after)?.0.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(style: usize) -> BTreeMap<String, Vec<u8>> {
        let page = r#"<link href="/_portway/style.css"><script src="/_portway/a.js"></script>"#;
        let script = "import { b } from './b.js';\nimport {\n  c,\n} from './c.js';\n";
        [
            ("wrapper.html", page.into()),
            ("style.css", vec![0; 2 * SHELL]),
            ("style.css.br", vec![0; style]),
            ("a.js", script.into()),
            ("b.js", b"import { a } from './a.js';".to_vec()),
            ("c.js", b"/** @type {import('./portway.js').C} */".to_vec()),
            ("portway.js", vec![0; SHELL]),
            ("portway_bg.wasm", vec![0; 2 * WASM]),
            ("portway_bg.wasm.br", vec![0; WASM]),
        ]
        .map(|(name, content)| (name.to_owned(), content))
        .into()
    }

    #[test]
    fn the_shell_is_the_page_and_all_that_it_leads_to() {
        let shell = shell(&files(1)).unwrap();
        let names: Vec<&str> = shell.iter().map(String::as_str).collect();
        assert_eq!(names, ["a.js", "b.js", "c.js", "style.css", "wrapper.html"]);
    }

    #[test]
    fn what_is_too_much_fails_and_is_named() {
        check(&files(SHELL / 2)).unwrap();
        let error = check(&files(SHELL)).unwrap_err().to_string();
        assert!(error.starts_with("the shell is 5"), "{error}");

        let mut large = files(1);
        large.insert("portway_bg.wasm.br".into(), vec![0; WASM + 1]);
        let error = check(&large).unwrap_err().to_string();
        assert!(error.starts_with("the wasm is 300001 bytes"), "{error}");
    }
}
