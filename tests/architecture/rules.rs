//! What every file must be like, whatever module it belongs to.

use crate::Source;

/// The longest file in lines, by the ending of its name.
const CAPS: [(&str, usize); 2] = [(".rs", 400), (".wgsl", 250)];

/// What the top of the tree may hold besides names with a leading dot; `target` is Cargo's.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "src",
    "shaders",
    "tests",
    "benches",
    "examples",
    "target",
];

/// Places outside the tree that it must not depend on, put together so that this file does not name them.
const OUTSIDE: [&str; 7] = [
    concat!("..", "/shared"),
    concat!("/work", "/shared"),
    concat!("/work", "/main"),
    concat!("shared", "/data"),
    concat!("shared", "/models"),
    concat!("shared", "/reference"),
    concat!("shared", "/tools"),
];

/// Marks of work that was put off.
const UNFINISHED: [&str; 5] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];

/// Files stay short enough to be read in one go.
pub(crate) fn lengths(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        for (ending, cap) in CAPS {
            if source.path.ends_with(ending) && lines > cap {
                complaints.push(format!("{}: {lines} lines, {cap} at most; split it", source.path));
            }
        }
    }
    complaints
}

/// Each Rust file opens with what it is responsible for, each shader with what it computes, each script with its use.
pub(crate) fn openings(sources: &[Source]) -> Vec<String> {
    let opens = |source: &Source| match source.path.rsplit('.').next() {
        Some("rs") => source.text.starts_with("//! "),
        Some("wgsl") => source.text.starts_with("//"),
        Some("sh") => {
            source.text.starts_with("#!") && source.text.lines().nth(1).is_some_and(|l| l.starts_with("# "))
        }
        _ => true,
    };
    let silent = sources.iter().filter(|source| !opens(source));
    silent.map(|source| format!("{}: does not begin with what it is for", source.path)).collect()
}

/// Nothing refers to a folder outside the tree.
pub(crate) fn outside(sources: &[Source]) -> Vec<String> {
    containing(sources, &OUTSIDE, "refers to a place outside the tree")
}

/// Nothing is left to be done later.
pub(crate) fn unfinished(sources: &[Source]) -> Vec<String> {
    containing(sources, &UNFINISHED, "is unfinished")
}

fn containing(sources: &[Source], patterns: &[&str], fault: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    // The lock file and the models' JSON files are not written by hand.
    let written = sources.iter().filter(|s| !s.path.ends_with(".lock") && !s.path.ends_with(".json"));
    for source in written {
        for (number, line) in source.text.lines().enumerate() {
            for pattern in patterns.iter().filter(|pattern| line.contains(**pattern)) {
                complaints.push(format!("{}:{}: {fault}: `{pattern}`", source.path, number + 1));
            }
        }
    }
    complaints
}

/// The top of the tree holds the agreed entries and nothing else.
pub(crate) fn top_level(names: &[String]) -> Vec<String> {
    let strange = names.iter().filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()));
    strange.map(|name| format!("{name}: does not belong at the top level")).collect()
}

#[test]
fn a_long_file_is_found() {
    let file = |path: &str, lines: usize| vec![Source::new(path, "x\n".repeat(lines))];
    assert_eq!(lengths(&file("src/a.rs", 401)).len(), 1);
    assert_eq!(lengths(&file("shaders/common/a.wgsl", 251)).len(), 1);
    assert!(
        lengths(&[file("src/a.rs", 400), file("shaders/a.wgsl", 250), file("README.md", 900)].concat())
            .is_empty()
    );
}

#[test]
fn a_file_that_does_not_say_what_it_is_for_is_found() {
    let files = [
        ("src/a.rs", "use std::fs;\n//! Late."),
        ("src/b.rs", "// An ordinary comment."),
        ("shaders/a.wgsl", "@compute fn main() {}"),
        ("tests/a.sh", "#!/bin/sh\nset -e"),
        ("src/fine.rs", "//! Good."),
        ("shaders/fine.wgsl", "// out = a + b"),
        ("tests/fine.sh", "#!/bin/sh\n# Does a thing."),
    ];
    let found = openings(&files.map(|(path, text)| Source::new(path, text)));
    let expected = ["src/a.rs", "src/b.rs", "shaders/a.wgsl", "tests/a.sh"];
    assert_eq!(found, expected.map(|path| format!("{path}: does not begin with what it is for")));
}

#[test]
fn a_reference_to_the_outside_is_found() {
    for pattern in OUTSIDE {
        assert_eq!(
            outside(&[Source::new("README.md", format!("fine\nsee {pattern}x"))]).len(),
            1,
            "{pattern}"
        );
    }
    assert!(outside(&[Source::new("src/a.rs", "// shared by all; a shared/private split")]).is_empty());
}

#[test]
fn unfinished_work_is_found() {
    for pattern in UNFINISHED {
        assert_eq!(
            unfinished(&[Source::new("src/a.rs", format!("//! A.\n{pattern}"))]).len(),
            1,
            "{pattern}"
        );
    }
}

#[test]
fn a_strange_entry_at_the_top_is_found() {
    let names = ["src", ".ci", "notes.txt", "doc", "target"].map(str::to_owned);
    assert_eq!(top_level(&names).len(), 2);
}
