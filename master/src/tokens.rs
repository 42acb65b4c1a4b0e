//! How many tokens a text has, about: nobody but the provider can count them, and limits must be checked before it is asked.

/// An estimate that is rather too high: four ASCII characters a token, one of any other script.
#[must_use]
pub fn estimate(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let others = text.chars().filter(|c| !c.is_ascii()).count() as u64;
    ascii.div_ceil(4) + others + 4
}
