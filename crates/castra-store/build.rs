//! Rebuilds when a migration is added: the macro that embeds them only notices changed ones.
#![allow(clippy::print_stdout)]

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
