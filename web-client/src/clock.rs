//! Time in a browser: a monotonic clock and a sleep.

use std::time::Duration;

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;

    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &js_sys::Function, millis: f64) -> JsValue;
}

/// Time since the page began, monotonic.
pub(crate) fn now() -> Duration {
    Duration::from_secs_f64(performance_now() / 1000.0)
}

/// Waits.
pub(crate) async fn sleep(duration: Duration) {
    let promise = js_sys::Promise::new(&mut |resolve, _reject| {
        set_timeout(&resolve, duration.as_secs_f64() * 1000.0);
    });
    // A timer never rejects.
    drop(JsFuture::from(promise).await);
}

/// Fills a value with random bytes.
///
/// # Panics
/// Never in a browser: `crypto.getRandomValues` is always there.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("a browser provides randomness");
    bytes
}
