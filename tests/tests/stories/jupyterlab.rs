//! Somebody works in their JupyterLab at home from a borrowed browser.

use std::time::Duration;

use portway_tests::browser::{Browser, Key};
use portway_tests::jupyter::{Jupyter, TOKEN};
use portway_tests::portway::{Portway, State};
use serde_json::json;

use crate::{APP, BOTH, in_app, story};

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, work_in_jupyterlab)];

/// Part of the names of the stories that need JupyterLab.
pub(crate) const NAME: &str = "jupyterlab";

/// JupyterLab is some 20 MB of scripts: the longest that a step may take on a small machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A person whose click had no effect clicks again, so often and after such a time.
const CLICKS: u32 = 10;
const CLICK_AGAIN: Duration = Duration::from_secs(5);

/// Size of the file that travels; not a multiple of any chunk.
const FILE: usize = 1_000_003;

/// What the cell prints; its source does not contain it.
const SOURCE: &str = "print(6 * 7 * 42)";
const PRINTED: &str = "1764";

fn element(selector: &str) -> String {
    format!("{APP}.document.querySelector({})", json!(selector))
}

/// Byte `i` of the file.
fn byte(i: usize) -> u8 {
    u8::try_from((i.wrapping_mul(31) >> 3) % 251).expect("below 251")
}

async fn work_in_jupyterlab(browser: &mut Browser) -> anyhow::Result<()> {
    let jupyter = Jupyter::start("story.ipynb", SOURCE).await?;
    let state = State::new()?;
    let expose = format!("lab={}", jupyter.target());
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;

    browser.open(&deep_link(&portway)?).await?;
    log_in(browser).await?;
    run_the_cell(browser).await?;
    upload_and_download(browser, &jupyter).await?;
    save(browser).await?;

    browser.reload().await?;
    let notebook = element(".jp-Notebook .cm-content");
    browser.wait_for(&format!("!!{notebook}"), PATIENCE).await?;
    Ok(())
}

/// The link, leading straight to the notebook.
fn deep_link(portway: &Portway) -> anyhow::Result<String> {
    let link = portway.link("lab");
    let (address, secret) = link
        .split_once('#')
        .ok_or_else(|| anyhow::anyhow!("the link has no secret"))?;
    Ok(format!("{address}lab/tree/story.ipynb#{secret}"))
}

async fn log_in(browser: &mut Browser) -> anyhow::Result<()> {
    let password = element("input[name=password]");
    browser.wait_for(&format!("!!{password}"), PATIENCE).await?;
    browser.click(&password).await?;
    browser.type_text(TOKEN).await?;
    browser.press(Key::Enter).await
}

async fn run_the_cell(browser: &mut Browser) -> anyhow::Result<()> {
    let ready = element(".jp-Notebook-ExecutionIndicator[data-status=idle]");
    browser.wait_for(&format!("!!{ready}"), PATIENCE).await?;
    // JupyterLab is still building itself: a click may be lost, and it would ask which kernel to
    // use as long as its status bar does not show one.
    let bar = element("#jp-main-statusbar");
    let idle = format!("{bar}?.innerText.includes('| Idle')");
    let cell = element(".jp-Notebook .jp-Cell .cm-content");
    for _click in 0..CLICKS {
        browser.click(&cell).await?;
        if browser.wait_for(&idle, CLICK_AGAIN).await.is_ok() {
            break;
        }
    }
    browser.press(Key::ShiftEnter).await?;
    let output = element(".jp-OutputArea-output");
    let printed = format!("{output}?.textContent.includes('{PRINTED}')");
    browser.wait_for(&printed, PATIENCE).await?;
    Ok(())
}

/// Through JupyterLab's own upload button and the kind of link that its download makes.
async fn upload_and_download(browser: &mut Browser, jupyter: &Jupyter) -> anyhow::Result<()> {
    let right: Vec<u8> = (0..FILE).map(byte).collect();
    browser.eval(&in_app(&choose_file())).await?;
    browser
        .click(&element("[data-jp-item-name=uploader] *"))
        .await?;
    let listed = format!(
        "[...{APP}.document.querySelectorAll('.jp-DirListing-itemText')].some((e) => e.textContent.includes('travels.bin'))"
    );
    browser.wait_for(&listed, PATIENCE).await?;
    assert!(
        std::fs::read(jupyter.file("travels.bin"))? == right,
        "the uploaded file is the one that was chosen"
    );

    let save = "(() => { const link = document.createElement('a'); \
        link.href = '/files/travels.bin?download=1'; link.download = 'travels.bin'; \
        document.body.append(link); link.click(); link.remove(); })()";
    browser.eval(&in_app(save)).await?;
    assert!(
        browser.downloaded("travels.bin", PATIENCE).await? == right,
        "the saved file is the one that lies there"
    );
    Ok(())
}

/// An unsaved notebook would ask before it goes.
async fn save(browser: &mut Browser) -> anyhow::Result<()> {
    browser
        .click(&element(".jp-NotebookPanel [data-jp-item-name=save] *"))
        .await?;
    let unsaved = element(".lm-TabBar-tab.jp-mod-dirty");
    browser.wait_for(&format!("!{unsaved}"), PATIENCE).await?;
    Ok(())
}

/// Answers the next question for a file, as a person would in the system's dialog.
fn choose_file() -> String {
    format!(
        "(() => {{ \
           const bytes = Uint8Array.from({{ length: {FILE} }}, (_, i) => Math.floor(i * 31 / 8) % 251); \
           const ask = HTMLInputElement.prototype.click; \
           HTMLInputElement.prototype.click = function () {{ \
             if (this.type !== 'file') return ask.call(this); \
             HTMLInputElement.prototype.click = ask; \
             const chosen = new DataTransfer(); \
             chosen.items.add(new File([bytes], 'travels.bin')); \
             this.files = chosen.files; \
             this.dispatchEvent(new Event('change', {{ bubbles: true }})); \
           }}; }})()"
    )
}
