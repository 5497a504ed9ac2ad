//! What a person does: real mouse and key events, which the browser trusts.

use anyhow::bail;
use serde_json::{Value, json};

use super::{Browser, Kind};
use crate::PATIENCE;

/// A key, or keys held together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Sends a form.
    Enter,
    /// Runs a cell of a notebook.
    ShiftEnter,
}

impl Browser {
    /// Clicks in the middle of an element, given by an expression, once nothing covers it.
    ///
    /// # Errors
    /// If there is no such element, or it stays covered.
    pub async fn click(&mut self, element: &str) -> anyhow::Result<()> {
        let middle = self
            .wait_for(&format!("({MIDDLE})({element})"), PATIENCE)
            .await?;
        let (Some(x), Some(y)) = (middle["x"].as_f64(), middle["y"].as_f64()) else {
            bail!("nothing to click at {element}");
        };
        match self.kind {
            Kind::Chromium => {
                for kind in ["mousePressed", "mouseReleased"] {
                    let params =
                        json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
                    self.call("Input.dispatchMouseEvent", params).await?;
                }
            }
            Kind::Firefox => {
                let actions = json!([
                    {"type": "pointerMove", "x": x.round(), "y": y.round()},
                    {"type": "pointerDown", "button": 0},
                    {"type": "pointerUp", "button": 0},
                ]);
                self.perform(json!({"type": "pointer", "id": "mouse", "actions": actions}))
                    .await?;
            }
        }
        Ok(())
    }

    /// Types text into what has the focus.
    ///
    /// # Errors
    /// If the browser refuses.
    pub async fn type_text(&mut self, text: &str) -> anyhow::Result<()> {
        match self.kind {
            Kind::Chromium => {
                self.call("Input.insertText", json!({"text": text})).await?;
            }
            Kind::Firefox => {
                let keys: Vec<String> = text.chars().map(String::from).collect();
                let actions: Vec<Value> =
                    keys.iter().flat_map(|key| [down(key), up(key)]).collect();
                self.keys(&actions).await?;
            }
        }
        Ok(())
    }

    /// Presses a key.
    ///
    /// # Errors
    /// If the browser refuses.
    pub async fn press(&mut self, key: Key) -> anyhow::Result<()> {
        match self.kind {
            Kind::Chromium => {
                let modifiers = match key {
                    Key::Enter => 0,
                    Key::ShiftEnter => CHROMIUM_SHIFT,
                };
                for kind in ["keyDown", "keyUp"] {
                    let mut params = json!({
                        "type": kind, "key": "Enter", "code": "Enter",
                        "windowsVirtualKeyCode": 13, "modifiers": modifiers,
                    });
                    if kind == "keyDown" {
                        params["text"] = json!("\r");
                    }
                    self.call("Input.dispatchKeyEvent", params).await?;
                }
            }
            Kind::Firefox => {
                let enter = [down(FIREFOX_ENTER), up(FIREFOX_ENTER)];
                let actions = match key {
                    Key::Enter => enter.to_vec(),
                    Key::ShiftEnter => {
                        let [press, release] = enter;
                        vec![down(FIREFOX_SHIFT), press, release, up(FIREFOX_SHIFT)]
                    }
                };
                self.keys(&actions).await?;
            }
        }
        Ok(())
    }

    async fn keys(&mut self, actions: &[Value]) -> anyhow::Result<()> {
        self.perform(json!({"type": "key", "id": "keyboard", "actions": actions}))
            .await
    }

    async fn perform(&mut self, source: Value) -> anyhow::Result<()> {
        let params = json!({"context": self.tab, "actions": [source]});
        self.call("input.performActions", params).await?;
        Ok(())
    }
}

fn down(key: &str) -> Value {
    json!({"type": "keyDown", "value": key})
}

fn up(key: &str) -> Value {
    json!({"type": "keyUp", "value": key})
}

/// Where an element's middle is in the tab, through the frames of its origin. Nothing while
/// something else lies over it.
const MIDDLE: &str = "(element) => { \
    element.scrollIntoView({ block: 'center' }); \
    const box = element.getBoundingClientRect(); \
    if (box.width === 0 || box.height === 0) throw new Error('the element has no size'); \
    let [x, y] = [box.x + box.width / 2, box.y + box.height / 2]; \
    const lies_open = (target) => { \
      const hit = target.ownerDocument.elementFromPoint(x, y); \
      return hit !== null && (target.contains(hit) || hit.contains(target)); \
    }; \
    if (!lies_open(element)) return null; \
    for (let view = element.ownerDocument.defaultView; view.frameElement; view = view.parent) { \
      const frame = view.frameElement.getBoundingClientRect(); \
      x += frame.x; y += frame.y; \
      if (!lies_open(view.frameElement)) return null; \
    } \
    return { x, y }; }";

/// DevTools protocol, `Input.dispatchKeyEvent`: bit of the shift key.
const CHROMIUM_SHIFT: u8 = 8;

/// WebDriver's code points for keys without a character.
const FIREFOX_SHIFT: &str = "\u{E008}";
const FIREFOX_ENTER: &str = "\u{E007}";
