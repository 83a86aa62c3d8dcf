//! Every file of `fuzz/corpus/` through its fuzz target, in plain `cargo test`: what a fuzzer has found once is never lost, and
//! what is a seed for it is a test for everybody. The targets are those of `fuzz/src/lib.rs`, the very same text.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use targets::TARGETS;

#[test]
fn every_file_of_every_corpus_passes_through_its_target() {
    let mut failed = Vec::new();
    for (name, target) in TARGETS {
        let files = files(&root().join("corpus").join(name));
        assert!(files.len() >= SEEDS_MIN, "the corpus of {name} has {} files; is it all there?", files.len());
        for path in files {
            let data = fs::read(&path).unwrap();
            assert!(data.len() <= SEED_BYTES_MAX, "{} is too large to read; minimise it", path.display());
            if panic::catch_unwind(|| target(&data)).is_err() {
                failed.push(format!("{name} fails on {}", path.display()));
            }
        }
    }
    // The panics themselves are in the output above.
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn each_target_has_its_file_for_the_fuzzer_and_its_corpus() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert!(!names.is_empty());
    let stems = |directory: &str| -> BTreeSet<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        fs::read_dir(root().join(directory)).unwrap().map(|entry| stem(entry.unwrap().path())).collect()
    };
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("corpus"), names);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in &names {
        let target = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("smartlink_fuzz::{name}(data)")), "{name}.rs runs another target");
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} is not in Cargo.toml"
        );
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Fewer were lost.
const SEEDS_MIN: usize = 10;

/// A person is to see what a seed is about.
const SEED_BYTES_MAX: usize = 4096;
