//! What a page must contain, and what no results may say.

use super::*;

const SMALL: &str = r#"{"v":1,"date":"2026-11-24","commit":"abc<def","machine":"2 cores & Linux",
"matrix":[
 {"client":"chromium","from":"port","to":"cone","connected":true,"path":"direct","open_ms":93.1},
 {"client":"chromium","from":"cone","to":"cone","connected":true,"path":"direct","open_ms":97.1},
 {"client":"chromium","from":"port","to":"sym","connected":true,"path":"relayed","open_ms":183},
 {"client":"firefox","from":"port","to":"sym","connected":false,"error":"<script>alert(1)</script>"}],
"recovery":[
 {"scenario":"rebind","client":"gateway","path":"direct","stall_ms":400,"bar_ms":5800,"lost":0,
  "intact":true,"verdict":"good"},
 {"scenario":"roam","client":"chromium","path":"relayed","stall_ms":9100,"bar_ms":5800,"lost":3,
  "intact":false,"verdict":"red","note":"\"ICE\" was slow"}],
"throughput":[
 {"name":"download","mbytes_per_s":41.5,"reference":"direct TCP","reference_mbytes_per_s":83},
 {"name":"alone","mbytes_per_s":1}]}"#;

/// A file of results in a folder that goes with it.
struct Written {
    folder: tempfile::TempDir,
}

impl Written {
    fn of(results: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("results.json"), results).unwrap();
        Self { folder }
    }

    fn report(&self) -> Result<(), ReportError> {
        let file = |name: &str| self.folder.path().join(name);
        write(
            &file("results.json"),
            &file("page.html"),
            Some(&file("drawings")),
        )
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

fn page_of(results: &str) -> String {
    let written = Written::of(results);
    written.report().unwrap();
    written.read("page.html")
}

fn complaint(results: &str) -> String {
    Written::of(results).report().unwrap_err().to_string()
}

#[test]
fn a_page_tells_counts_medians_and_verdicts() {
    let page = page_of(SMALL);
    for expected in [
        "3/4 connected · 1/2 recoveries good",
        "✓ 95 ms, bar 100 ms",
        "✗ 183 ms, bar 170 ms",
        "chromium: 3 of 3 pairs connected",
        "✗ RED 9.1 s, 3 lost, not intact",
        "41.5 MB/s, 50 % of direct TCP 83.0 MB/s",
        "&quot;ICE&quot; was slow",
    ] {
        assert!(page.contains(expected), "no `{expected}` in {page}");
    }
    assert_eq!(page.matches("<svg ").count(), 4);
}

#[test]
fn text_of_the_results_is_escaped_and_nothing_comes_from_elsewhere() {
    let page = page_of(SMALL);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.contains("abc&lt;def"));
    assert!(page.contains("2 cores &amp; Linux"));
    for foreign in ["<script", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(foreign), "`{foreign}` in {page}");
    }
}

#[test]
fn drawings_are_files_that_know_light_and_dark() {
    let written = Written::of(SMALL);
    written.report().unwrap();
    for name in [
        "matrix-chromium.svg",
        "matrix-firefox.svg",
        "recovery.svg",
        "throughput.svg",
    ] {
        let svg = written.read(&format!("drawings/{name}"));
        assert!(svg.starts_with("<svg "), "{name}");
        assert!(svg.trim_end().ends_with("</svg>"), "{name}");
        assert!(svg.contains("prefers-color-scheme: dark"), "{name}");
        assert!(
            svg.contains("xmlns=\"http://www.w3.org/2000/svg\""),
            "{name}"
        );
    }
}

#[test]
fn what_was_not_measured_is_left_out() {
    let page = page_of(r#"{"v":1,"date":"d","commit":"c","machine":"m"}"#);
    assert!(page.contains("neither connections nor recoveries were measured"));
    assert!(!page.contains("<svg"));
}

#[test]
fn an_unknown_field_is_named() {
    let results = SMALL.replace("\"lost\":3", "\"losses\":3");
    let told = complaint(&results);
    assert!(told.contains("unknown field `losses`"), "{told}");
    assert!(told.contains("results.json"), "{told}");
    assert!(told.contains("line "), "{told}");
}

#[test]
fn another_version_is_refused() {
    let told = complaint(r#"{"invented":true,"v":2}"#);
    assert!(told.contains("version 2, expected 1"), "{told}");
}

#[test]
fn figures_that_cannot_be_are_refused() {
    let told = complaint(&SMALL.replace("\"open_ms\":93.1", "\"open_ms\":-1"));
    assert!(
        told.contains("-1: expected a figure that is not negative"),
        "{told}"
    );
    let told = complaint(&SMALL.replace(",\"open_ms\":93.1", ""));
    assert!(
        told.contains("chromium from port to cone: connected"),
        "{told}"
    );
    let told = complaint(&SMALL.replace(",\"reference_mbytes_per_s\":83", ""));
    assert!(told.contains("belong together"), "{told}");
}

#[test]
fn two_results_of_one_pair_are_refused() {
    let told = complaint(&SMALL.replace("\"from\":\"cone\"", "\"from\":\"port\""));
    assert!(
        told.contains("two results of chromium from port to cone"),
        "{told}"
    );
}
