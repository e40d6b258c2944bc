//! The rules of the tree that the compiler does not check, read from the text of its files.
//!
//! Each rule is a pure function from files to complaints, with a test that plants a violation and sees it found;
//! one test applies all rules to the tree. Not here: what shaders must hold to (`tests/shaders.rs`).

#[path = "architecture/code.rs"]
mod code;
#[path = "architecture/floors.rs"]
mod floors;
#[path = "architecture/rules.rs"]
mod rules;

use std::fs;
use std::path::Path;

/// A text file of the tree: its path from the root, with `/`, and its content.
#[derive(Clone, Debug)]
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

/// The folders that hold what was written here.
const FOLDERS: [&str; 6] = ["src", "shaders", "tests", "benches", "examples", ".ci"];

/// All text files below `FOLDERS`, and those at the top; models and other binary files are left out.
fn tree() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let top = fs::read_dir(root).expect("the root can be listed");
    for path in top.map(|entry| entry.expect("the root can be listed").path()) {
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        let ours = path.is_file() && name != ".git"; // a file in a work tree of git
        if ours || FOLDERS.contains(&name.as_str()) {
            collect(root, &path, &mut sources);
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn collect(root: &Path, path: &Path, sources: &mut Vec<Source>) {
    let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
    if path.is_dir() {
        if name == "tests/data" {
            return;
        }
        for entry in fs::read_dir(path).expect("a folder can be listed") {
            collect(root, &entry.expect("a folder can be listed").path(), sources);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        sources.push(Source::new(name, text));
    }
}

#[test]
fn the_tree_holds_to_its_rules() {
    let sources = tree();
    assert!(sources.iter().any(|s| s.path == "src/lib.rs"), "the walk finds nothing");
    let top = fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the root can be listed");
    let top: Vec<String> =
        top.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect();
    let complaints = [
        floors::floors(&sources),
        floors::foreign_crates(&sources),
        floors::command_line(&sources),
        rules::lengths(&sources),
        rules::openings(&sources),
        rules::outside(&sources),
        rules::unfinished(&sources),
        rules::top_level(&top),
    ]
    .concat();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}
