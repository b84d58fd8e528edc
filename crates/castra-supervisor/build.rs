//! Builds the shim's own static program, for `host::shim_image` to embed. Nothing is downloaded.

use sha2::{Digest as _, Sha256};
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let manifest = PathBuf::from(var("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(var("OUT_DIR"));
    // Relative: a target directory may be shared by several checkouts, and each is to look at its own.
    for path in ["castra-shim/src", "castra-shim/Cargo.toml", "castra-proto/src", "castra-proto/Cargo.toml"] {
        println!("cargo::rerun-if-changed=../{path}");
    }
    println!("cargo::rerun-if-changed=build.rs");

    // A target directory of its own: the outer cargo holds the lock of the other one.
    let target_dir = out.join("shim-target");
    let target = var("TARGET").to_string_lossy().into_owned();
    let release = var("PROFILE") == "release";
    let mut command = Command::new(var("CARGO"));
    command.current_dir(&manifest).args([
        "build",
        "--quiet",
        "--package",
        "castra-shim",
        "--bin",
        "castra-shim",
    ]);
    // The shim's size and memory are part of its contract; a debug build of it is for debugging it alone.
    command.args(["--offline", "--locked", "--profile", if release { "dist" } else { "release" }]);
    command.arg("--target-dir").arg(&target_dir).args(["--target", &target]);
    if env::var_os("CARGO_FEATURE_FAILPOINTS").is_some() {
        command.args(["--features", "failpoints"]);
    }
    // What the outer build was told must not change these bytes, and coverage of it is not wanted.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"]
    {
        command.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(name);
        }
    }
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    // Symbols would be nine tenths of what is embedded and sent to every host.
    command.env("CARGO_PROFILE_RELEASE_STRIP", "true").env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    match command.status() {
        Ok(status) if status.success() => (),
        other => fail(&format!("building castra-shim: {other:?}")),
    }
    let profile = if release { "dist" } else { "release" };
    let built = target_dir.join(&target).join(profile).join("castra-shim");
    let image = std::fs::read(&built).unwrap_or_else(|error| fail(&format!("{}: {error}", built.display())));
    if let Err(error) = std::fs::write(out.join("castra-shim"), &image) {
        fail(&format!("{}: {error}", out.display()));
    }
    // Here and not in each daemon: hashing it would touch every page of it.
    let id: String = Sha256::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=CASTRA_SHIM_IMAGE_ID={id}");
}

fn var(name: &str) -> OsString {
    env::var_os(name).unwrap_or_default()
}

fn fail(text: &str) -> ! {
    println!("cargo::error={text}");
    std::process::exit(1)
}
