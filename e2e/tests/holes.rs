//! Each hole and each scenario that the program was built against has a test that bears its
//! number (`b01_…`, `u01_…`, `s02_…`), or a reason why there is nothing to test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rows without a test among ours.
const ELSEWHERE: &[(&str, &str)] = &[
    ("b13", "with u18 and u23: nothing tells a secret"),
    (
        "u03",
        "russh reads what SSH clients send; no length is added up here",
    ),
    (
        "u19",
        "deploy/helm/check: no shell in what the chart starts",
    ),
    (
        "u20",
        "deploy/helm/check: one of each variable, and no root",
    ),
];

/// Numbers that another list has too; its tests are here.
const OTHERS: [&str; 2] = ["e2e/tests/scenarios.rs", "e2e/tests/verbs.rs"];

#[test]
fn every_hole_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| panic!("the package is in the workspace"));
    let mut found = BTreeSet::new();
    for dir in ["src", "derp", "mesh", "session", "e2e"] {
        for file in sources(&root.join(dir)) {
            let is_other = OTHERS.iter().any(|other| file.ends_with(other));
            let text = fs::read_to_string(&file).unwrap_or_default();
            found.extend(numbers(&text).filter(|row| !(is_other && row.starts_with('s'))));
        }
    }
    let rows = |letter: char, from: u32, to: u32| {
        (from..=to).map(move |number| format!("{letter}{number:02}"))
    };
    let mut missing: Vec<_> = rows('b', 1, 19)
        .chain(rows('u', 1, 24))
        .chain(rows('s', 2, 8))
        .chain(rows('s', 20, 28))
        .chain(rows('s', 30, 30))
        .filter(|row| !found.contains(row))
        .collect();
    missing.retain(|row| !ELSEWHERE.iter().any(|(other, _)| other == row));
    assert!(missing.is_empty(), "without a test: {missing:?}");
}

/// Every patch that opens a hole names a test that there is.
#[test]
fn every_patch_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code: String = ["../src", "../mesh/src", "../session/src", "../derp/src"]
        .iter()
        .flat_map(|dir| sources(&root.join(dir)))
        .map(|file| fs::read_to_string(file).unwrap_or_default())
        .collect();
    let mut patches = 0;
    for entry in fs::read_dir(root.join("holes"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if path
            .extension()
            .is_none_or(|extension| extension != "patch")
        {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let test = text.lines().find_map(|line| line.strip_prefix("Test: "));
        let name = test
            .and_then(|test| test.rsplit("::").next())
            .unwrap_or_default();
        assert!(
            code.contains(&format!("fn {name}(")),
            "{}: {name:?}",
            path.display()
        );
        patches += 1;
    }
    assert!(patches >= 10, "{patches}");
}

/// The numbers in the names of functions.
fn numbers(text: &str) -> impl Iterator<Item = String> + '_ {
    let names = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("fn ")?;
        rest.split_once('(').map(|(name, _)| name)
    });
    names
        .flat_map(|name| name.split('_'))
        .filter(|word| {
            word.len() == 3
                && word.starts_with(['b', 'u', 's'])
                && word
                    .get(1..)
                    .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .map(str::to_owned)
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
