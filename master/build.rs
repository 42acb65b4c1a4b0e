//! Tells cargo when the page was built anew: the files in `web/dist` are embedded, and cargo can't see new ones by itself.

use std::path::Path;

fn main() {
    // A path that isn't there would make every build a rebuild, so the folder it will appear in is watched instead.
    let watched = ["../web/dist", "../web"].into_iter().find(|path| Path::new(path).exists());
    println!("cargo::rerun-if-changed={}", watched.unwrap_or("build.rs"));
}
