//! The tests' own footing: both browsers can be driven, before any story blames Portway.

use portway_tests::PATIENCE;
use portway_tests::browser::{Browser, Kind};
use portway_tests::upstream::Upstream;
use serde_json::json;

/// Smaller than any real picture of a window, larger than an empty file.
const SMALLEST_PICTURE: usize = 1_000;

async fn a_plain_page_is_read(kind: Kind) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let mut browser = Browser::launch(kind).await?;
    browser.open(&upstream.target()).await?;
    browser
        .wait_for("document.title === 'The service'", PATIENCE)
        .await?;
    let doubled = browser.eval("Promise.resolve({ twice: 2 * 21 })").await?;
    assert_eq!(doubled, json!({"twice": 42}));
    assert!(
        browser.eval("nothing_of_this_name").await.is_err(),
        "what a page throws is an error"
    );
    let picture = tempfile::NamedTempFile::new()?;
    assert!(browser.screenshot(picture.path()).await? > SMALLEST_PICTURE);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_reads_a_plain_page() {
    a_plain_page_is_read(Kind::Chromium).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn firefox_reads_a_plain_page() {
    a_plain_page_is_read(Kind::Firefox).await.unwrap();
}
