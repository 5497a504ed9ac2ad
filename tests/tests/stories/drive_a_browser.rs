//! The tests' own footing: both browsers can be driven, before any story blames Portway.

use portway_tests::PATIENCE;
use portway_tests::browser::Browser;
use portway_tests::upstream::Upstream;
use serde_json::json;

use crate::{BOTH, story};

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, a_plain_page_is_read)];

/// Smaller than any real picture of a window, larger than an empty file.
const SMALLEST_PICTURE: usize = 1_000;

async fn a_plain_page_is_read(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
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
