//! Somebody copies files to and from a node, and opens a directory of one in a browser. [`access`]: what they
//! cannot reach. [`full_disk`]: where there is no room for them.

pub(crate) mod access;
pub(crate) mod full_disk;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use portway_tests::PATIENCE;
use portway_tests::browser::Browser;
use portway_tests::client::{Connected, LinkFile};
use portway_tests::copying::{partial_of, partials, sha256sum};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::pattern;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{APP, BOTH, NativeStory, native, story};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(a_file_goes_there_and_back),
    native!(a_tree_with_odd_names_goes_there_and_back),
    native!(a_stream_goes_there_and_back),
    native!(a_killed_copy_goes_on),
    native!(a_copy_survives_a_killed_node),
    native!(what_was_left_is_checked),
    native!(nothing_half_is_left),
    native!(what_is_no_service_of_files_says_so),
    native!(programs_speak_http),
];

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, a_directory_is_a_page)];

/// Size of a large file: many windows of every layer.
const LARGE: usize = 64 * 1024 * 1024;

/// How much of one has come when it is interrupted.
const SOME: u64 = 4 * 1024 * 1024;

/// Denied, wrong use.
const DENIED: i32 = 77;
const USAGE: i32 = 2;

/// A node with a directory that may be read as `docs`, written as `drop`.
struct Stage {
    root: TempDir,
    here: TempDir,
    portway: Portway,
    state: State,
    docs: LinkFile,
    drop: LinkFile,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let (root, here, state) = (tempfile::tempdir()?, tempfile::tempdir()?, State::new()?);
        let portway = up(&state, "127.0.0.1:0", root.path()).await?;
        Ok(Self {
            docs: LinkFile::new(&portway.link("docs"))?,
            drop: LinkFile::new(&portway.link("drop"))?,
            root,
            here,
            portway,
            state,
        })
    }

    fn here(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    fn there(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    async fn share(&self, service: &str, terms: &[&str]) -> anyhow::Result<LinkFile> {
        let share = [&["share", service], terms].concat();
        let shared = self.portway.ask(&share).await?;
        LinkFile::new(shared["link"].as_str().unwrap_or_default())
    }
}

async fn up(state: &State, listen: &str, root: &Path) -> anyhow::Result<Portway> {
    let docs = format!("docs=files:{}", root.display());
    let drop = format!("drop=files+rw:{}", root.display());
    Portway::up(state, listen, &["--expose", &docs, "--expose", &drop]).await
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// A file that no other is like.
fn large(path: &Path) -> anyhow::Result<()> {
    let mut content = pattern()[..].repeat(LARGE / pattern().len() + 1);
    content.truncate(LARGE);
    for (at, byte) in content.iter_mut().step_by(4096).enumerate() {
        *byte = u8::try_from(at % 251)?;
    }
    Ok(std::fs::write(path, content)?)
}

/// Whether two trees are the same, as `diff` sees it.
async fn assert_same(one: &Path, other: &Path) -> anyhow::Result<()> {
    let said = Command::new("diff").arg("-r").args([one, other]).output();
    let said = said.await?;
    ensure!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stdout)
    );
    Ok(())
}

async fn a_file_goes_there_and_back() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let [original, back] = ["original", "back"].map(|name| stage.here(name));
    large(&original)?;
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567_890_123);
    std::fs::File::options()
        .write(true)
        .open(&original)?
        .set_modified(long_ago)?;
    std::fs::set_permissions(&original, std::fs::Permissions::from_mode(0o755))?;

    let sent = stage.drop.cp(&[text(&original), "drop:there"]).await?;
    let sent = (sent.done()?, sent.of("file"));
    let fetched = stage.docs.cp(&["docs:there", text(&back)]).await?;
    let fetched = (fetched.done()?, fetched.of("file"));
    let digest = sha256sum(&original).await?;
    for (copy, (done, file)) in [(&stage.there("there"), sent), (&back, fetched)] {
        assert_eq!(sha256sum(copy).await?, digest);
        assert_eq!(file[0]["sha256"], digest);
        assert_eq!((&done["files"], &done["moved"]), (&json!(1), &json!(LARGE)));
        let copy = std::fs::metadata(copy)?;
        assert_eq!(copy.modified()?, long_ago);
        assert!(copy.permissions().mode() & 0o100 != 0, "it may be run");
    }
    // Once more: it is all there.
    for args in [[text(&original), ":there"], [":there", text(&back)]] {
        for terms in [&[][..], &["--checksum"]] {
            let again = stage.drop.cp(&[terms, &args].concat()).await?;
            let done = again.done()?;
            assert_eq!((&done["unchanged"], &done["moved"]), (&json!(1), &json!(0)));
        }
    }
    let empty = stage.here("empty");
    std::fs::write(&empty, "")?;
    stage.drop.cp(&[text(&empty), ":"]).await?.done()?;
    let copy = stage
        .docs
        .cp(&[":empty", text(&stage.here("empty too"))])
        .await?;
    assert_eq!(copy.of("file")[0]["sha256"], sha256sum(&empty).await?);
    assert_eq!(std::fs::metadata(stage.here("empty too"))?.len(), 0);

    // Another content is not lost by accident.
    for args in [[text(&empty), ":there"], [":empty", text(&back)]] {
        let refused = stage.drop.cp(&args).await?;
        assert_eq!(refused.reason(), "FILE_EXISTS", "{args:?}");
        stage
            .drop
            .cp(&[&["--force"], &args[..]].concat())
            .await?
            .done()?;
    }
    assert_eq!(std::fs::metadata(stage.there("there"))?.len(), 0);
    assert_eq!(std::fs::metadata(&back)?.len(), 0);
    assert!(partials(stage.root.path())?.is_empty() && partials(stage.here.path())?.is_empty());
    Ok(())
}

/// Names that mean something to a shell, a URL, a page or a terminal.
const ODD: &[&[u8]] = &[
    b"a b",
    b"-rf",
    b"100%",
    b"%2e%2e",
    b"a#b?c=d&e",
    b"new\nline",
    b"\x1b[2J",
    b"\xff\xfe",
    b"\\..\\x",
    b"'\"<b>",
    b"javascript:alert(1)",
    b"...",
    b" ",
    b"~",
    b"c:d",
    "Ünïcödé 文件 🎈".as_bytes(),
];

async fn a_tree_with_odd_names_goes_there_and_back() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let [original, back] = ["original", "back"].map(|name| stage.here(name));
    let odd = |folder: &Path, name: &[u8]| folder.join(OsStr::from_bytes(name));
    for name in ODD {
        let folder = odd(&original, name);
        std::fs::create_dir_all(folder.join("empty"))?;
        for name in ODD {
            std::fs::write(odd(&folder, name), name)?;
        }
    }
    // More than one listing holds.
    std::fs::create_dir(original.join("many"))?;
    for number in 0..1100 {
        std::fs::write(
            original.join("many").join(number.to_string()),
            number.to_string(),
        )?;
    }
    let files = ODD.len() * ODD.len() + 1100;
    for (args, copy) in [
        ([text(&original), ":tree"], stage.there("tree")),
        ([":tree", text(&back)], back.clone()),
    ] {
        let args = [&["-r"], &args[..]].concat();
        let copied = stage.drop.cp(&args).await?;
        assert_eq!(copied.done()?["files"], files);
        assert_same(&original, &copy).await?;
        let again = stage.drop.cp(&args).await?;
        let done = again.done()?;
        assert_eq!(
            (&done["unchanged"], &done["moved"]),
            (&json!(files), &json!(0))
        );
    }
    // What is missing comes, what differs is told, and the rest goes on.
    std::fs::remove_file(stage.there("tree/many/7"))?;
    std::fs::write(stage.there("tree/many/8"), "other")?;
    let some = stage.drop.cp(&["-r", text(&original), ":tree"]).await?;
    assert_eq!(some.status.code(), Some(1));
    let done = some.events.last().context("it has said nothing")?;
    assert_eq!((&done["files"], &done["failed"]), (&json!(1), &json!(1)));
    assert_eq!(some.of("failed")[0]["path"], "tree/many/8");
    assert_eq!(some.reason(), "FILE_EXISTS");
    let forced = stage.drop.cp(&["-rf", text(&original), ":tree"]).await?;
    assert_eq!(forced.done()?["files"], 1);
    assert_same(&original, &stage.there("tree")).await?;
    // A directory is not copied by accident, and into another one under its own name.
    let refused = stage.drop.cp(&[":tree", text(&stage.here("x"))]).await?;
    assert_eq!(refused.reason(), "FILE_IS_DIRECTORY");
    std::fs::create_dir(stage.here("into"))?;
    let into = format!("{}/", text(&stage.here("into")));
    stage.drop.cp(&["-r", ":tree/many", &into]).await?.done()?;
    assert_same(&original.join("many"), &stage.here("into/many")).await
}

async fn a_stream_goes_there_and_back() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let poured = stage.drop.cp_from(&pattern(), &["-", ":poured"]).await?;
    assert_eq!(poured.done()?["moved"], pattern().len());
    assert_eq!(std::fs::read(stage.there("poured"))?, pattern());
    let printed = stage.docs.cp(&[":poured", "-"]).await?;
    printed.done()?;
    assert!(printed.content == pattern(), "another content was printed");
    assert_eq!(
        printed.of("file")[0]["sha256"],
        sha256sum(stage.there("poured")).await?
    );
    let nothing = stage.drop.cp_from(b"", &["-", ":nothing"]).await?;
    nothing.done()?;
    assert_eq!(std::fs::read(stage.there("nothing"))?, b"");
    Ok(())
}

/// Arguments of a copy there, and of one back; the directory that it comes to, and the copy.
fn both_ways<'a>(
    stage: &Stage,
    original: &'a Path,
    back: &'a Path,
) -> [([&'a str; 2], PathBuf, PathBuf); 2] {
    let there = stage.root.path();
    [
        ([text(original), ":copy"], there.into(), there.join("copy")),
        ([":copy", text(back)], back.into(), back.join("copy")),
    ]
}

/// Both ways: what has come before a `kill -9` does not come again.
async fn a_killed_copy_goes_on() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let original = stage.here("original");
    large(&original)?;
    let digest = sha256sum(&original).await?;
    let back = tempfile::tempdir()?;
    for (args, folder, copy) in both_ways(&stage, &original, back.path()) {
        let copying = stage.drop.start_cp(&args)?;
        copying.kill_at(&folder, SOME).await?;
        assert!(!copy.exists(), "half a file has its name");
        let again = stage.drop.cp(&args).await?;
        let moved = again.done()?["moved"].as_u64().context("a figure")?;
        let resumed_at = again.of("file")[0]["resumed_at"].as_u64();
        let resumed_at = resumed_at.context("a figure")?;
        assert!(resumed_at >= SOME, "{resumed_at}");
        assert_eq!(moved + resumed_at, LARGE as u64);
        assert_eq!(sha256sum(&copy).await?, digest);
        assert!(partials(&folder)?.is_empty());
    }
    Ok(())
}

/// Both ways: the other end is killed, comes back, and the same copy goes on.
async fn a_copy_survives_a_killed_node() -> anyhow::Result<()> {
    let mut stage = Stage::set().await?;
    let original = stage.here("original");
    large(&original)?;
    let digest = sha256sum(&original).await?;
    let back = tempfile::tempdir()?;
    for (args, folder, copy) in both_ways(&stage, &original, back.path()) {
        let copying = stage.drop.start_cp(&args)?;
        partial_of(&folder, SOME).await?;
        let listen = stage.portway.listen()?;
        stage.portway.kill().await?;
        assert!(!copy.exists(), "half a file has its name");
        stage.portway = up(&stage.state, &listen, stage.root.path()).await?;
        let copied = copying.ended().await?;
        let moved = copied.done()?["moved"].as_u64().context("a figure")?;
        assert!(moved < 2 * LARGE as u64 - SOME, "{moved}");
        assert_eq!(copied.of("lost").len(), 1, "{:?}", copied.events);
        assert_eq!(sha256sum(&copy).await?, digest);
    }
    Ok(())
}

/// What an interrupted copy has left may be damaged since: both ends find out.
async fn what_was_left_is_checked() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let original = stage.here("original");
    large(&original)?;
    let back = tempfile::tempdir()?;
    for (args, folder, copy) in both_ways(&stage, &original, back.path()) {
        stage.drop.start_cp(&args)?.kill_at(&folder, SOME).await?;
        let partial = partials(&folder)?.pop().context("nothing was left")?;
        let file = std::fs::File::options().write(true).open(&partial)?;
        std::os::unix::fs::FileExt::write_at(&file, b"damaged", 1000)?;
        stage.drop.cp(&args).await?.done()?;
        assert_eq!(sha256sum(&copy).await?, sha256sum(&original).await?);
    }
    Ok(())
}

async fn nothing_half_is_left() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let mine = stage.here("mine");
    std::fs::write(&mine, "mine")?;
    for (args, reason) in [
        ([text(&mine), ":nowhere/mine"], "DIRECTORY_MISSING"),
        ([":nothing", text(&stage.here("x"))], "FILE_NOT_FOUND"),
        ([text(&stage.here("nothing")), ":x"], "FILE_NOT_FOUND"),
    ] {
        let refused = stage.drop.cp(&args).await?;
        assert_eq!(refused.reason(), reason, "{args:?}");
    }
    let fifo = Command::new("mkfifo")
        .arg(stage.there("pipe"))
        .status()
        .await?;
    ensure!(fifo.success());
    let refused = stage.drop.cp(&[":pipe", "-"]).await?;
    assert_eq!(refused.reason(), "FILE_NOT_REGULAR");
    assert_eq!(std::fs::read_dir(stage.root.path())?.count(), 1);
    assert_eq!(std::fs::read_dir(stage.here.path())?.count(), 1);
    Ok(())
}

async fn what_is_no_service_of_files_says_so() -> anyhow::Result<()> {
    let state = State::new()?;
    let here = tempfile::tempdir()?;
    std::fs::write(here.path().join("mine"), "mine")?;
    let args = [
        "--expose",
        "web=http://127.0.0.1:9",
        "--expose",
        "db=tcp://127.0.0.1:9",
    ];
    let portway = Portway::up(&state, "127.0.0.1:0", &args).await?;
    for service in ["web", "db"] {
        let link = LinkFile::new(&portway.link(service))?;
        let refused = link.cp(&[text(&here.path().join("mine")), ":mine"]).await?;
        assert_eq!(refused.reason(), "SERVICE_NOT_FILES");
        assert_eq!(refused.status.code(), Some(USAGE));
    }
    let link = LinkFile::new(&portway.link("web"))?;
    for args in [["docs:a", "b"], ["a", "b"], [":a", ":b"]] {
        assert_eq!(link.cp(&args).await?.status.code(), Some(USAGE), "{args:?}");
    }
    Ok(())
}

/// The page lists what is there, leads into directories, and saves a file; a file cannot run on its origin.
async fn a_directory_is_a_page(browser: &mut Browser) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    std::fs::create_dir(stage.there("sub"))?;
    std::fs::write(stage.there("sub/a b#?.bin"), pattern())?;
    let page = "<script>document.title = 'it runs'</script><p id=page>a page</p>";
    std::fs::write(stage.there("page.html"), page)?;
    std::fs::write(stage.there("<img src=x onerror=alert(1)>.txt"), "text")?;
    browser.open(&stage.portway.link("docs")).await?;
    let names = format!(
        "[...{APP}.document.querySelectorAll('tbody td:first-child')].map((it) => it.innerText).join('|')"
    );
    let listed = format!("{names} === '<img src=x onerror=alert(1)>.txt|page.html|sub/'");
    browser.wait_for(&listed, PATIENCE).await?;
    let click = |name: &str| {
        format!(
            "[...{APP}.document.links].find((it) => it.innerText === {}).click()",
            json!(name)
        )
    };
    browser.eval(&click("page.html")).await?;
    let saved = browser.downloaded("page.html", PATIENCE).await?;
    assert_eq!(String::from_utf8(saved)?, page);
    browser.eval(&click("sub/")).await?;
    let listed = format!("{names} === '..|a b#?.bin'");
    browser.wait_for(&listed, PATIENCE).await?;
    browser.eval(&click("a b#?.bin")).await?;
    let saved = browser.saved("a b#_.bin", PATIENCE).await?;
    assert_eq!(
        sha256sum(saved).await?,
        sha256sum(stage.there("sub/a b#?.bin")).await?
    );
    Ok(())
}

/// Whatever speaks HTTP reads and writes files, too.
async fn programs_speak_http() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let local = Connected::start(&stage.drop).await?;
    let (head, _) = local
        .request("PUT /a%20b HTTP/1.1\r\ncontent-length: 5", b"hello")
        .await?;
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    assert_eq!(std::fs::read(stage.there("a b"))?, b"hello");
    let (head, body) = local
        .request("GET /a%20b HTTP/1.1\r\nrange: bytes=1-3", b"")
        .await?;
    assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
    assert!(head.contains("content-range: bytes 1-3/5\r\n"), "{head}");
    assert_eq!(body, b"ell");
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim_start_matches(": ").to_owned()
    };
    for told in ["default-src 'none'", "sandbox"] {
        assert!(field("content-security-policy").contains(told), "{head}");
    }
    assert_eq!(field("x-content-type-options"), "nosniff");
    assert!(
        field("content-disposition").starts_with("attachment;"),
        "{head}"
    );
    let known = format!("GET /a%20b HTTP/1.1\r\nif-none-match: {}", field("etag"));
    assert!(
        local
            .request(&known, b"")
            .await?
            .0
            .starts_with("HTTP/1.1 304 ")
    );
    // Another content is sent whole, not a part of it that would be taken for the rest of the first.
    std::fs::write(stage.there("a b"), "other")?;
    let rest = format!(
        "GET /a%20b HTTP/1.1\r\nrange: bytes=3-\r\nif-range: {}",
        field("etag")
    );
    let (head, body) = local.request(&rest, b"").await?;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && body == b"other",
        "{head}"
    );

    for (request, status) in [
        ("GET /%2e%2e/x HTTP/1.1", 400),
        ("GET /a%2Fb HTTP/1.1", 400),
        ("GET /nothing HTTP/1.1", 404),
        ("GET /.portway-partial-x HTTP/1.1", 400),
        ("DELETE /a%20b HTTP/1.1", 405),
        ("PUT /a%20b HTTP/1.1\r\nif-none-match: *", 412),
        ("PUT /x?upload=k HTTP/1.1\r\nupload-offset: 7", 409),
        ("PUT /x?upload=/ HTTP/1.1", 400),
        (
            "PUT /x HTTP/1.1\r\nrepr-digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:",
            422,
        ),
        ("PUT /x HTTP/1.1\r\nupload-length: 7", 400),
        ("MKCOL /new/ HTTP/1.1", 201),
        ("MKCOL /new/ HTTP/1.1", 412),
        ("MKCOL /no/new/ HTTP/1.1", 409),
        ("GET /new HTTP/1.1", 308),
    ] {
        let (head, _) = local.request(request, b"").await?;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {head}"
        );
    }
    assert!(!stage.there("x").exists() && partials(stage.root.path())?.is_empty());
    Ok(())
}
