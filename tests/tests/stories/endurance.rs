//! A download that takes minutes and often stands still.

use std::time::Duration;

use portway_tests::PATIENCE;
use portway_tests::browser::{Browser, Kind};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::{HALT, HALTS, Upstream, is_right, pattern};

use crate::{APP, in_app};

/// Firefox kills a service worker that has had nothing to do for 30 s, and a made response ends with
/// it. The file is complete all the same.
#[tokio::test(flavor = "multi_thread")]
async fn firefox_saves_a_file_that_comes_with_long_silences() {
    save_a_halting_file(Kind::Firefox).await.unwrap();
}

async fn save_a_halting_file(kind: Kind) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
    let mut browser = Browser::launch(kind).await?;
    browser.open(&portway.link("app")).await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;

    let save = in_app(
        "(() => { const link = document.createElement('a'); link.href = '/halting'; \
         link.download = 'slow.bin'; document.body.append(link); link.click(); })()",
    );
    browser.eval(&save).await?;
    let silences = HALT * u32::try_from(HALTS)?;
    let patience = silences + Duration::from_secs(60);
    let saved = browser.downloaded("slow.bin", patience).await?;
    let pattern = pattern();
    assert_eq!(saved.len(), pattern.len() * (HALTS + 1));
    assert!(is_right(&pattern, 0, &saved));
    Ok(())
}
