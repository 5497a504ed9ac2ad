//! Makes the JavaScript glue of the browser client: `portway-bindgen WASM OUT_DIR`.
//!
//! A crate of its own, so that commands that need no browser client do not wait for it. It uses
//! wasm-bindgen as a library of the very version that is locked.

use anyhow::bail;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [wasm, out] = args.as_slice() else {
        bail!("usage: portway-bindgen WASM OUT_DIR");
    };
    Bindgen::new()
        .input_path(wasm)
        .web(true)?
        .out_name("portway")
        .remove_name_section(true)
        .remove_producers_section(true)
        .typescript(true)
        .generate(out)
}
