//! Who may use whom: the floors of `src`, and the crates that only some of them may name.

use crate::Source;
use crate::code::{code_only, lines_naming, names_after};

/// Each module of the library with those that it may use, in floor order.
const FLOORS: [(&str, &[&str]); 12] = [
    ("error", &[]),
    ("packing", &["error"]),
    ("random", &[]),
    ("gpu", &["error", "packing"]),
    ("ops", &["error", "packing", "gpu"]),
    ("formats", &["error", "packing"]),
    ("model", &["error", "packing", "random", "gpu", "ops", "formats"]),
    ("reference", &["error", "formats"]),
    ("selftest", &["error", "packing", "random", "gpu", "ops", "reference"]),
    ("generate", &["error", "packing", "gpu", "ops", "formats", "model"]),
    ("quant", &["error", "packing", "random", "gpu", "ops", "formats", "model", "generate"]),
    (
        "bench",
        &[
            "error",
            "packing",
            "random",
            "gpu",
            "ops",
            "formats",
            "model",
            "reference",
            "selftest",
            "generate",
        ],
    ),
];

/// Crates that only these files and folders of `src` may name.
const FOREIGN: [(&str, &[&str]); 3] = [
    ("anyhow", &["main.rs", "cli/"]),
    ("clap", &["main.rs", "cli/"]),
    ("wgpu", &["error.rs", "gpu/", "ops/", "model/", "generate/", "quant/", "cli/"]),
];

/// The files of the library with their module (`formats` for `src/formats/exl2.rs`) and their depth below the
/// crate's root. `lib.rs` only declares; the binary may use everything.
fn library(sources: &[Source]) -> impl Iterator<Item = (&Source, &str, usize)> {
    sources.iter().filter_map(|source| {
        let path = source.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let module = path.split('/').next().unwrap_or(path);
        let depth = path.split('/').filter(|&part| part != "mod").count();
        let tests = path.split('/').any(|part| part == "tests");
        (!tests && !["lib", "main", "cli"].contains(&module)).then_some((source, module, depth))
    })
}

/// Modules use lower floors only, through `crate::` or as many `super::` as lead to the root.
pub(crate) fn floors(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (source, module, depth) in library(sources) {
        let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == module) else {
            complaints.push(format!("{}: `{module}` has no floor; add it to FLOORS", source.path));
            continue;
        };
        let code = code_only(&source.text);
        let fine = |name: &str| name == module || allowed.contains(&name);
        let mut used = names_after(&code, "crate::");
        // The root itself offers the two names of `error`.
        used.retain(|(_, name)| !fine(name) && name != "Error" && name != "Result");
        // From inline modules as many `super::` lead less far up, so only what is a module of the root counts.
        let upward = names_after(&code, &"super::".repeat(depth));
        used.extend(upward.into_iter().filter(|(_, name)| !fine(name) && FLOORS.iter().any(|f| f.0 == name)));
        complaints.extend(
            used.iter()
                .map(|(line, name)| format!("{}:{line}: `{module}` may not use `{name}`", source.path)),
        );
    }
    complaints
}

/// Crates that belong to certain floors are named only there.
pub(crate) fn foreign_crates(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let Some(path) = source.path.strip_prefix("src/").filter(|path| path.ends_with(".rs")) else {
            continue;
        };
        let code = code_only(&source.text);
        for (name, places) in FOREIGN {
            if !places.iter().any(|place| path.starts_with(place)) {
                let lines = lines_naming(&code, name);
                complaints.extend(lines.iter().map(|line| format!("{}:{line}: names `{name}`", source.path)));
            }
        }
    }
    complaints
}

/// `cli` is a part of the binary: `main.rs` declares it, and nothing else does.
pub(crate) fn command_line(sources: &[Source]) -> Vec<String> {
    let declares = |source: &&Source| {
        let code = code_only(&source.text);
        let mut words =
            code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        let mut previous = "";
        words.any(|word| std::mem::replace(&mut previous, word) == "mod" && word == "cli")
    };
    let others = sources.iter().filter(|s| s.path.starts_with("src/") && s.path != "src/main.rs");
    others.filter(declares).map(|s| format!("{}: declares `cli`, which belongs to main.rs", s.path)).collect()
}

fn one(path: &str, text: &str) -> Vec<Source> {
    vec![Source::new(path, text)]
}

#[test]
fn a_use_of_a_higher_floor_is_found() {
    let found = floors(&one(
        "src/formats/exl2.rs",
        "use crate::error::Result;\nuse crate::{packing::Layout, gpu};\n",
    ));
    assert_eq!(found, ["src/formats/exl2.rs:2: `formats` may not use `gpu`"]);
    let found =
        floors(&one("src/generate/mod.rs", "fn f() { crate::quant::measure(); super::quant::measure() }"));
    assert_eq!(found.len(), 2, "{found:?}");
    let found =
        floors(&one("src/ops/tiles/wide.rs", "use super::super::super::formats; use super::super::model;"));
    assert_eq!(found, ["src/ops/tiles/wide.rs:1: `ops` may not use `formats`"]);
    assert_eq!(floors(&one("src/packing.rs", "use crate::gpu::Device;")).len(), 1);
    assert_eq!(floors(&one("src/error.rs", "use super::packing::Layout;")).len(), 1);
    assert_eq!(floors(&one("src/quant/mod.rs", "use crate::*;")).len(), 1);
    assert_eq!(floors(&one("src/quant/mod.rs", "use crate::cli::Flags;")).len(), 1);
}

#[test]
fn an_oracle_that_uses_what_it_judges_is_found() {
    for module in ["packing", "gpu", "ops", "model", "generate", "quant"] {
        let found = floors(&one("src/reference/llama.rs", &format!("use crate::{module}::X;")));
        assert_eq!(found, [format!("src/reference/llama.rs:1: `reference` may not use `{module}`")]);
    }
    assert!(
        floors(&one("src/reference/llama.rs", "use crate::formats::X; use crate::error::Error;")).is_empty()
    );
}

#[test]
fn a_module_without_a_floor_is_found() {
    assert_eq!(floors(&one("src/extra/mod.rs", "//! New.")).len(), 1);
    assert_eq!(floors(&one("src/quant/mod.rs", "use crate::extra::X;")).len(), 1);
}

#[test]
fn what_is_allowed_is_not_found() {
    let text = "//! See [`crate::quant`].\n#[cfg(test)]\nmod tests {\n    use crate::reference::X;\n}\n";
    assert!(floors(&one("src/ops/add.rs", text)).is_empty());
    assert!(floors(&one("src/packing.rs", "mod words { use super::pack; }")).is_empty());
    assert!(floors(&one("src/ops/tests.rs", "use crate::reference::X;")).is_empty());
}

#[test]
fn crates_above_their_floor_are_found() {
    let found =
        foreign_crates(&one("src/quant/mod.rs", "use anyhow::Context;\n// clap\n#[derive(clap::Args)]"));
    assert_eq!(found, ["src/quant/mod.rs:1: names `anyhow`", "src/quant/mod.rs:3: names `clap`"]);
    assert_eq!(foreign_crates(&one("src/formats/config.rs", "use wgpu::Device;")).len(), 1);
    assert!(foreign_crates(&one("src/cli/convert.rs", "use clap::Args; use anyhow::Result;")).is_empty());
    assert!(foreign_crates(&one("src/main.rs", "fn main() -> anyhow::Result<()> {}")).is_empty());
}

#[test]
fn a_library_with_the_command_line_is_found() {
    assert_eq!(command_line(&one("src/lib.rs", "pub mod error;\npub(crate) mod cli;")).len(), 1);
    assert!(command_line(&one("src/lib.rs", "pub mod client; // mod cli;")).is_empty());
    assert!(command_line(&one("src/main.rs", "mod cli;")).is_empty());
}
