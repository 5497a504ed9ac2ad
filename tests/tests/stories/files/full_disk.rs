//! A disk that gets full at either end of a copy.

use std::path::Path;

use portway_tests::client::LinkFile;
use portway_tests::copying::{Copied, partials, sha256sum};
use portway_tests::disk::Disk;
use portway_tests::portway::{Portway, Program, State};

use super::{LARGE, Stage, large, text};
use crate::{NativeStory, native};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(the_node_s_disk_gets_full),
    native!(a_stream_finds_no_room_at_the_node),
    native!(a_tree_ends_where_the_disk_is_full),
    native!(the_disk_here_gets_full),
];

const MEBIBYTE: usize = 1024 * 1024;

/// Where there is room for a large file, but not beside the other that takes [`TAKEN`] of it.
const DISK: usize = LARGE + 16 * MEBIBYTE;
const TAKEN: usize = 48 * MEBIBYTE;

/// Code of a failure of no other kind.
const FAILURE: i32 = 1;

/// A node with a small disk that may be written as `drop`.
struct SmallNode {
    disk: Disk,
    portway: Portway,
    drop: LinkFile,
    _state: State,
}

impl SmallNode {
    async fn set() -> anyhow::Result<Self> {
        let (disk, state) = (Disk::new(DISK).await?, State::new()?);
        disk.fill(TAKEN)?;
        let drop = format!("drop=files+rw:{}", disk.path().display());
        let args = ["up", "--listen", "127.0.0.1:0", "--expose", &drop];
        let portway = Portway::start_as(&Program::with(&disk)?, &state, &args).await?;
        Ok(Self {
            drop: LinkFile::new(&portway.link("drop"))?,
            disk,
            portway,
            _state: state,
        })
    }

    fn name(&self) -> &str {
        self.portway.ready["node"].as_str().unwrap_or_default()
    }
}

/// Whether somebody was told that a machine's disk is full, and what to do.
fn assert_full(copied: &Copied, machine: &str) {
    assert_eq!(copied.status.code(), Some(FAILURE), "{}", copied.error);
    assert_eq!(copied.reason(), "DISK_FULL");
    let message = copied.error["error"]["message"].as_str();
    let message = message.unwrap_or_default();
    let said = format!("no space left on {machine}");
    assert!(message.contains(&said), "{message}");
    assert!(message.contains("run the same command again"), "{message}");
}

/// Whether it went on with what fitted.
fn assert_went_on(copied: &Copied) -> anyhow::Result<()> {
    let done = copied.done()?;
    let resumed_at = copied.of("file")[0]["resumed_at"].as_u64();
    let resumed_at = usize::try_from(resumed_at.unwrap_or_default())?;
    assert!(resumed_at > MEBIBYTE && resumed_at < LARGE, "{resumed_at}");
    let moved = done["moved"].as_u64().unwrap_or_default();
    assert_eq!(usize::try_from(moved)?, LARGE - resumed_at);
    Ok(())
}

/// Whether there is nothing of that name.
fn is_absent(path: &Path) -> bool {
    !path.exists()
}

async fn the_node_s_disk_gets_full() -> anyhow::Result<()> {
    let node = SmallNode::set().await?;
    let here = tempfile::tempdir()?;
    let (original, folder) = (here.path().join("original"), node.disk.from_outside()?);
    large(&original)?;
    let copy = [text(&original), "drop:there"];
    for _ in 0..2 {
        assert_full(&node.drop.cp(&copy).await?, node.name());
        assert!(is_absent(&folder.join("there")));
        assert_eq!(partials(&folder)?.len(), 1, "what has come stays");
    }
    node.disk.make_room()?;
    assert_went_on(&node.drop.cp(&copy).await?)?;
    let digest = sha256sum(&original).await?;
    assert_eq!(sha256sum(folder.join("there")).await?, digest);
    assert!(partials(&folder)?.is_empty());
    Ok(())
}

async fn a_stream_finds_no_room_at_the_node() -> anyhow::Result<()> {
    let node = SmallNode::set().await?;
    let folder = node.disk.from_outside()?;
    let content = vec![7; LARGE];
    let copied = node.drop.cp_from(&content, &["-", "drop:there"]).await?;
    assert_full(&copied, node.name());
    assert!(is_absent(&folder.join("there")));
    assert!(partials(&folder)?.is_empty(), "it cannot go on");
    node.disk.make_room()?;
    let copied = node.drop.cp_from(&content, &["-", "drop:there"]).await?;
    copied.done()?;
    assert_eq!(std::fs::metadata(folder.join("there"))?.len(), LARGE as u64);
    Ok(())
}

async fn a_tree_ends_where_the_disk_is_full() -> anyhow::Result<()> {
    let node = SmallNode::set().await?;
    let here = tempfile::tempdir()?;
    let tree = here.path().join("tree");
    std::fs::create_dir(&tree)?;
    for name in 0..LARGE / MEBIBYTE {
        std::fs::write(tree.join(name.to_string()), vec![7; MEBIBYTE])?;
    }
    let copy = ["-r", text(&tree), "drop:tree"];
    let copied = node.drop.cp(&copy).await?;
    assert_full(&copied, node.name());
    assert!(copied.of("done").is_empty());
    node.disk.make_room()?;
    let copied = node.drop.cp(&copy).await?;
    let done = copied.done()?;
    let count = |kind: &str| done[kind].as_u64().unwrap_or_default();
    assert!(count("unchanged") > 0, "{done}");
    let all = count("files") + count("unchanged");
    assert_eq!(usize::try_from(all)?, LARGE / MEBIBYTE);
    super::assert_same(&tree, &node.disk.from_outside()?.join("tree")).await
}

async fn the_disk_here_gets_full() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    large(&stage.there("original"))?;
    let disk = Disk::new(DISK).await?;
    disk.fill(TAKEN)?;
    let (here, folder) = (Program::with(&disk)?, disk.from_outside()?);
    let to = disk.path().join("copy");
    let copy = ["docs:original", text(&to)];
    for _ in 0..2 {
        assert_full(&stage.docs.cp_as(&here, &copy).await?, "this machine");
        assert!(is_absent(&folder.join("copy")));
        assert_eq!(partials(&folder)?.len(), 1, "what has come stays");
    }
    disk.make_room()?;
    assert_went_on(&stage.docs.cp_as(&here, &copy).await?)?;
    let digest = sha256sum(stage.there("original")).await?;
    assert_eq!(sha256sum(folder.join("copy")).await?, digest);
    assert!(partials(&folder)?.is_empty());
    Ok(())
}
