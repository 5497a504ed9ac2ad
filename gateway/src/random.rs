//! Randomness of the operating system.

/// Random bytes.
///
/// # Panics
/// Where the operating system has no randomness.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}
