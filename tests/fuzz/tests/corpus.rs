//! What the fuzzers found once, and the inputs that they start from, with every test run.

use std::fs;
use std::path::Path;

#[test]
fn every_unit_file_of_the_corpus_and_of_the_examples_holds() -> std::io::Result<()> {
    each("corpus/unit_file", fleet_fuzz::unit_file)?;
    each("../../unit-examples", fleet_fuzz::unit_file)
}

#[test]
fn every_request_of_the_corpus_holds() -> std::io::Result<()> {
    each("corpus/api", fleet_fuzz::api)
}

fn each(folder: &str, holds: impl Fn(&[u8])) -> std::io::Result<()> {
    let count = each_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &holds)?;
    assert!(count > 0, "{folder} is empty");
    Ok(())
}

/// Calls with the content of each file below `folder`. Answers how many there are.
fn each_below(folder: &Path, holds: &impl Fn(&[u8])) -> std::io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            count += each_below(&path, holds)?;
            continue;
        }
        eprintln!("{}", path.display()); // shown when it fails
        holds(&fs::read(&path)?);
        count += 1;
    }
    Ok(count)
}
