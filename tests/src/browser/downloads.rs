//! Files that the browser saves, as a person finds them in the downloads folder.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{Browser, Kind, LOOK_AGAIN};

/// Preferences of a fresh Firefox profile: save without a question.
pub(super) fn firefox_preferences(profile: &Path) -> String {
    format!(
        "user_pref('browser.download.folderList', 2);\n\
         user_pref('browser.download.dir', {});\n\
         user_pref('browser.download.useDownloadDir', true);\n\
         user_pref('browser.download.alwaysOpenPanel', false);\n\
         user_pref('browser.download.always_ask_before_handling_new_types', false);\n",
        json!(folder(profile))
    )
}

/// The downloads folder of a profile.
pub(super) fn folder(profile: &Path) -> PathBuf {
    profile.join("downloads")
}

impl Browser {
    /// Waits until a saved file is complete, and returns its bytes.
    ///
    /// # Errors
    /// If it is not there in time; says what lies in the folder.
    pub async fn downloaded(&self, name: &str, patience: Duration) -> anyhow::Result<Vec<u8>> {
        Ok(std::fs::read(self.saved(name, patience).await?)?)
    }

    /// Waits until a saved file is complete, and returns its path.
    ///
    /// # Errors
    /// If it is not there in time; says what lies in the folder.
    pub async fn saved(&self, name: &str, patience: Duration) -> anyhow::Result<PathBuf> {
        let folder = folder(self.profile.path());
        let deadline = Instant::now() + patience;
        loop {
            let there = names(&folder)?;
            let is_under_way = there.iter().any(|name| is_partial(name));
            let path = folder.join(name);
            // Firefox reserves the name with an empty file before it writes beside it.
            if !is_under_way && std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
                return Ok(path);
            }
            if Instant::now() > deadline {
                bail!("{:?} has not saved {name}; saved: {there:?}", self.kind);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Makes an empty folder, and tells Chromium of it; Firefox knows by its preferences.
    pub(super) async fn accept_downloads(&mut self) -> anyhow::Result<()> {
        let folder = folder(self.profile.path());
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir(&folder)?;
        if self.kind == Kind::Chromium {
            let params = json!({
                "behavior": "allow", "downloadPath": folder, "browserContextId": self.context,
            });
            self.call("Browser.setDownloadBehavior", params).await?;
        }
        Ok(())
    }
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn is_partial(name: &str) -> bool {
    [".part", ".crdownload", ".tmp"]
        .iter()
        .any(|ending| name.ends_with(ending))
}
