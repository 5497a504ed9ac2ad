//! What somebody with a link cannot read or write.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use portway_tests::PATIENCE;
use portway_tests::upstream::pattern;

use super::{DENIED, Stage, USAGE, text};
use crate::{NativeStory, native};

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(nothing_leads_out_of_the_root),
    native!(a_link_that_comes_meanwhile_is_not_followed),
    native!(who_may_only_read_writes_nothing),
    native!(a_link_restricts_files),
];

async fn nothing_leads_out_of_the_root() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let outside = tempfile::tempdir()?;
    std::fs::write(outside.path().join("secret"), "secret")?;
    std::fs::write(stage.here("mine"), "mine")?;
    std::fs::write(stage.there("inside"), "inside")?;
    symlink(outside.path(), stage.there("dir"))?;
    symlink(outside.path().join("secret"), stage.there("file"))?;
    symlink("../../../../../../../../etc/passwd", stage.there("up"))?;
    symlink("inside", stage.there("within"))?;
    for path in [":dir/secret", ":file", ":up", ":dir/"] {
        let refused = stage.drop.cp(&[path, "-"]).await?;
        assert_eq!(refused.reason(), "FILE_DENIED", "{path}");
        assert_eq!(refused.status.code(), Some(DENIED));
        assert_eq!(refused.content, b"", "{path}");
    }
    assert_eq!(stage.drop.cp(&[":within", "-"]).await?.content, b"inside");
    let dots = stage.drop.cp(&[":../secret", "-"]).await?;
    assert_eq!(dots.status.code(), Some(USAGE));

    let mine = stage.here("mine");
    let refused = stage.drop.cp(&[text(&mine), ":dir/mine"]).await?;
    assert_eq!(refused.reason(), "FILE_DENIED");
    let refused = stage
        .drop
        .cp(&["-r", text(stage.here.path()), ":dir/sub"])
        .await?;
    assert_eq!(refused.reason(), "FILE_DENIED");
    let refused = stage.drop.cp(&["--force", text(&mine), ":file"]).await?;
    assert_eq!(refused.reason(), "FILE_DENIED");
    assert_eq!(std::fs::read(outside.path().join("secret"))?, b"secret");
    assert_eq!(std::fs::read_dir(outside.path())?.count(), 1);
    // A link is replaced itself, not what it leads to.
    stage
        .drop
        .cp(&["--force", text(&mine), ":within"])
        .await?
        .done()?;
    assert_eq!(std::fs::read(stage.there("within"))?, b"mine");
    assert_eq!(std::fs::read(stage.there("inside"))?, b"inside");

    // In a tree, links that lead out, and to directories, are left where they are.
    let tree = stage
        .drop
        .cp(&["-r", ":", text(&stage.here("tree"))])
        .await?;
    let mut skipped: Vec<_> = tree
        .of("skipped")
        .iter()
        .map(|it| it["path"].clone())
        .collect();
    skipped.sort_by_key(ToString::to_string);
    assert_eq!(skipped, ["dir", "file", "up"]);
    assert_eq!(tree.done()?["files"], 2);
    Ok(())
}

/// A link leads in and out by turns, while files are written into where it leads, and read.
async fn a_link_that_comes_meanwhile_is_not_followed() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let outside = tempfile::tempdir()?;
    let many = stage.here("many");
    std::fs::create_dir(&many)?;
    for number in 0..200 {
        std::fs::write(many.join(number.to_string()), "inside")?;
        std::fs::write(outside.path().join(format!("secret {number}")), "secret")?;
    }
    let (place, next) = (stage.there("place"), stage.there("next"));
    std::fs::create_dir(stage.there("inside"))?;
    symlink("inside", &place)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let turning = scope.spawn(|| -> std::io::Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                for target in [outside.path(), Path::new("inside")] {
                    symlink(target, &next)?;
                    std::fs::rename(&next, &place)?;
                }
            }
            Ok(())
        });
        let fetched = stage.here("fetched");
        let copies = async {
            // Until the link has led both ways, each way of copying.
            for args in [
                ["-rf", text(&many), ":place"],
                ["-rf", ":place", text(&fetched)],
            ] {
                let (mut copied, mut denied) = (0, 0);
                while copied == 0 || denied == 0 {
                    let copy = stage.drop.cp(&args).await?;
                    copied += copy.of("file").len();
                    denied += usize::from(copy.reason() == "FILE_DENIED");
                    std::fs::remove_dir_all(stage.there("inside"))?;
                    std::fs::create_dir(stage.there("inside"))?;
                    std::fs::write(stage.there("inside/0"), "inside")?;
                }
            }
            anyhow::Ok(())
        };
        let copied = tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Handle::current();
            runtime.block_on(tokio::time::timeout(PATIENCE, copies))
        });
        is_over.store(true, Ordering::Relaxed);
        turning.join().expect("it does not panic")?;
        copied.context("the link has not led both ways")?
    })?;
    assert_eq!(std::fs::read_dir(outside.path())?.count(), 200);
    for folder in [stage.here("fetched"), stage.there("inside")] {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            assert_eq!(std::fs::read(entry?.path())?, b"inside");
        }
    }
    Ok(())
}

async fn who_may_only_read_writes_nothing() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let mine = stage.here("mine");
    std::fs::write(&mine, "mine")?;
    for args in [
        &[text(&mine), ":mine"][..],
        &["-r", text(stage.here.path()), ":sub"],
    ] {
        let refused = stage.docs.cp(args).await?;
        assert_eq!(refused.reason(), "FILES_READ_ONLY");
        assert_eq!(refused.status.code(), Some(DENIED));
    }
    let refused = stage.docs.cp_from(&pattern(), &["-", ":mine"]).await?;
    assert_eq!(refused.reason(), "FILES_READ_ONLY");
    assert_eq!(std::fs::read_dir(stage.root.path())?.count(), 0);
    Ok(())
}

async fn a_link_restricts_files() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let mine = stage.here("mine");
    std::fs::write(&mine, "mine")?;
    for path in ["d", "e"] {
        std::fs::create_dir(stage.there(path))?;
        std::fs::write(stage.there(path).join("x y"), path)?;
    }
    let reader = stage
        .share("drop", &["--methods", "GET,HEAD", "--path", "/d/*"])
        .await?;
    assert_eq!(reader.cp(&[":d/x y", "-"]).await?.content, b"d");
    for args in [[":e/x y", "-"], [":", "-"], [text(&mine), ":d/mine"]] {
        let refused = reader.cp(&args).await?;
        assert_eq!(refused.reason(), "PERMISSION_DENIED", "{args:?}");
        assert_eq!(refused.status.code(), Some(DENIED));
    }
    // A letter box: what was put there cannot be looked at.
    let writer = stage.share("drop", &["--methods", "PUT"]).await?;
    writer.cp(&[text(&mine), ":e/mine"]).await?.done()?;
    assert_eq!(std::fs::read(stage.there("e/mine"))?, b"mine");
    assert_eq!(
        writer.cp(&[":e/mine", "-"]).await?.reason(),
        "PERMISSION_DENIED"
    );
    // Nor lost by whoever puts another one there.
    std::fs::write(&mine, "other")?;
    assert_eq!(
        writer.cp(&[text(&mine), ":e/mine"]).await?.reason(),
        "FILE_EXISTS"
    );
    Ok(())
}
