//! A download that stands still again and again.

use portway_tests::PATIENCE;
use portway_tests::browser::{Browser, Kind};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::{HALT, Upstream, is_right, pattern};

use crate::{APP, in_app, story};

pub(crate) const STORIES: &[crate::Story] =
    &[story!(&[Kind::Firefox], a_file_comes_with_a_long_silence)];

/// So often does it stand still: three minutes in all.
const HALTS: usize = 4;

/// Firefox kills a service worker that has had nothing to do for 30 s, and a made response ends with
/// it. The file is complete all the same.
async fn a_file_comes_with_a_long_silence(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
    browser.open(&portway.link("app")).await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;

    let save = format!(
        "(() => {{ const link = document.createElement('a'); link.href = '/halting?n={HALTS}'; \
         link.download = 'slow.bin'; document.body.append(link); link.click(); }})()"
    );
    browser.eval(&in_app(&save)).await?;
    let at_most = HALT * u32::try_from(HALTS)? + PATIENCE;
    let saved = browser.downloaded("slow.bin", at_most).await?;
    let pattern = pattern();
    assert_eq!(saved.len(), pattern.len() * (HALTS + 1));
    assert!(is_right(&pattern, 0, &saved));
    Ok(())
}
