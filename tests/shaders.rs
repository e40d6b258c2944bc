//! All shader texts without a GPU: the embedded table, the headers, and every variant through naga to each backend.

#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy exempts only test functions")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use exlay::gpu::{Capabilities, Interface, Variant, kernel_stems, parse, source};
use exlay::ops::variants;
use naga::back::pipeline_constants::process_overrides;
use naga::valid::{ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Paths of all files below `folder`, relative to `shaders/`.
fn shader_files(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(root("shaders").join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(shader_files(&format!("{path}/")));
        } else {
            found.insert(path);
        }
    }
    found
}

#[test]
fn every_file_is_embedded_as_it_stands() {
    let files = shader_files("");
    let stems: BTreeSet<&str> = files
        .iter()
        .filter(|path| !path.contains('/'))
        .map(|path| path.strip_suffix(".wgsl").expect("shaders are .wgsl files"))
        .collect();
    assert_eq!(
        kernel_stems().collect::<BTreeSet<_>>(),
        stems,
        "the table in src/gpu/shader.rs and the folder"
    );
    for path in &files {
        let text = std::fs::read_to_string(root("shaders").join(path)).unwrap();
        assert_eq!(source(path), Some(text.as_str()), "{path} is embedded");
    }
}

/// What a kernel does and which oracle it is held against, before anything else.
#[test]
fn kernels_open_with_a_paragraph_that_names_their_oracle() {
    for stem in kernel_stems() {
        let text = source(&format!("{stem}.wgsl")).unwrap();
        let header: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//")).collect();
        assert!(header.len() >= 3, "{stem}: a paragraph");
        let oracle = header
            .iter()
            .find_map(|line| line.trim().strip_prefix("Oracle: "))
            .unwrap_or_else(|| panic!("{stem}: no line `Oracle: reference/….rs.`"));
        let file = &oracle[..oracle.find(".rs").expect("a Rust file") + 3];
        assert!(root("src").join(file).exists(), "{stem}: {file} does not exist");
    }
}

/// Each set of capabilities that a device may have, as far as variants depend on it.
fn capability_sets() -> Vec<(&'static str, Capabilities)> {
    let set = |f16, subgroup, cooperative| Capabilities {
        f16,
        subgroup,
        packed_dot: false,
        fast_f16: f16,
        cooperative,
        shared: 32 << 10,
    };
    let roomy = Capabilities { shared: 48 << 10, ..set(true, Some((32, 32)), Some(16)) };
    vec![
        ("plain", set(false, None, None)),
        ("half precision alone", set(true, None, None)),
        ("subgroups of 4 alone", set(false, Some((4, 4)), None)),
        ("subgroups of 8", set(true, Some((8, 8)), None)),
        ("subgroups of 32", set(true, Some((32, 32)), None)),
        ("subgroups of 8 to 32", set(true, Some((8, 32)), None)),
        ("matrices of 8", set(true, Some((8, 8)), Some(8))),
        ("matrices of 8, subgroups of 32", set(true, Some((32, 32)), Some(8))),
        ("matrices of 16", set(true, Some((32, 32)), Some(16))),
        ("matrices of 16, 48 KiB", roomy),
        ("matrices of 16, subgroups of 64", set(true, Some((64, 64)), Some(16))),
    ]
}

/// Every variant once, with the least that it needs.
fn all_variants() -> Vec<(Variant, Capabilities)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (_, capabilities) in capability_sets() {
        for variant in variants(&capabilities) {
            if seen.insert(variant.key().to_owned()) {
                all.push((variant, capabilities.clone()));
            }
        }
    }
    all
}

fn validate(module: &Module, capabilities: naga::valid::Capabilities, key: &str) -> ModuleInfo {
    Validator::new(ValidationFlags::all(), capabilities)
        .validate(module)
        .unwrap_or_else(|error| panic!("{key}: {error:?}"))
}

/// What naga's validator may let pass on a device with these capabilities.
fn allowed(capabilities: &Capabilities) -> naga::valid::Capabilities {
    use naga::valid::Capabilities as Naga;
    // `unpack2x16float` works on everything but OpenGL.
    let mut allowed = Naga::IMMEDIATES | Naga::SHADER_FLOAT16_IN_FLOAT32;
    allowed.set(Naga::SHADER_FLOAT16, capabilities.f16);
    allowed.set(Naga::SUBGROUP, capabilities.subgroup.is_some());
    allowed.set(Naga::COOPERATIVE_MATRIX, capabilities.cooperative.is_some());
    allowed
}

/// The module with its overrides replaced, and what the validator says of it.
fn finished(variant: &Variant, capabilities: &Capabilities) -> (Module, ModuleInfo) {
    let key = variant.key();
    let text = variant.text().unwrap();
    let module = parse(&text).unwrap_or_else(|error| panic!("{key}: {error}"));
    let info = validate(&module, allowed(capabilities), key);
    let constants = variant.constants().iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let (module, info) = process_overrides(&module, &info, Some((ShaderStage::Compute, "main")), &constants)
        .unwrap_or_else(|error| panic!("{key}: {error:?}"));
    (module.into_owned(), info.into_owned())
}

#[test]
fn every_kernel_has_a_variant_in_the_lowest_tier() {
    for (name, capabilities) in capability_sets() {
        let stems: BTreeSet<&str> = variants(&capabilities).iter().map(Variant::stem).collect();
        let expected: BTreeSet<&str> = kernel_stems()
            .filter(|&stem| !stem.ends_with("_coop") || capabilities.cooperative.is_some())
            .filter(|&stem| !stem.ends_with("_subgroup") || capabilities.subgroup.is_some())
            .collect();
        assert_eq!(stems, expected, "{name}");
    }
}

#[test]
fn every_variant_is_valid_and_fits_the_smallest_device() {
    for (variant, capabilities) in all_variants() {
        let key = variant.key();
        let (module, _) = finished(&variant, &capabilities);
        let [entry] = module.entry_points.as_slice() else { panic!("{key}: one entry point") };
        let lanes: u32 = entry.workgroup_size.iter().product();
        // The least that WebGPU promises and SwiftShader has; wgpu does not check what comes from an override.
        assert!((1..=256).contains(&lanes), "{key}: {lanes} invocations");
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let shared: u32 = module
            .global_variables
            .iter()
            .filter(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup)
            .map(|(_, variable)| layouter[variable.ty].size)
            .sum();
        // What Metal, Direct3D 12 and every Vulkan driver met so far have; Vulkan itself promises half.
        assert!(shared <= capabilities.shared, "{key}: {shared} bytes of workgroup memory");
        let interface = Interface::of(&variant).unwrap();
        assert!(interface.bindings.len() <= 8, "{key}: more storage buffers than WebGPU promises");
        assert!(interface.bindings.iter().any(|binding| binding.writes), "{key}: writes nothing");
        assert!(interface.immediate_bytes <= 128, "{key}: more immediates than Vulkan promises");
    }
}

#[test]
fn every_variant_lowers_to_spirv() {
    let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    let pipeline = naga::back::spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: "main".to_owned(),
    };
    for (variant, capabilities) in all_variants() {
        let (module, info) = finished(&variant, &capabilities);
        let words = naga::back::spv::write_vec(&module, &info, &options, Some(&pipeline))
            .unwrap_or_else(|error| panic!("{}: {error:?}", variant.key()));
        assert!(words.len() > 100, "{}", variant.key());
    }
}

#[test]
fn every_variant_lowers_to_msl() {
    let options =
        naga::back::msl::Options { lang_version: (3, 0), fake_missing_bindings: true, ..Default::default() };
    let pipeline = naga::back::msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, "main".to_owned())),
        ..Default::default()
    };
    for (variant, capabilities) in all_variants() {
        let (module, info) = finished(&variant, &capabilities);
        let (text, translation) = naga::back::msl::write_string(&module, &info, &options, &pipeline)
            .unwrap_or_else(|error| panic!("{}: {error:?}", variant.key()));
        assert!(text.contains("kernel void"), "{}", variant.key());
        assert!(translation.entry_point_names.iter().all(Result::is_ok), "{}", variant.key());
    }
}

/// Direct3D has no cooperative matrices, and naga says so; everything else must lower.
#[test]
fn every_variant_lowers_to_hlsl_but_those_on_matrix_units() {
    let options = naga::back::hlsl::Options {
        shader_model: naga::back::hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        immediates_target: Some(naga::back::hlsl::BindTarget::default()),
        ..Default::default()
    };
    let pipeline =
        naga::back::hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".to_owned())) };
    for (variant, capabilities) in all_variants() {
        let (module, info) = finished(&variant, &capabilities);
        let mut text = String::new();
        let result =
            naga::back::hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None);
        if variant.stem().ends_with("_coop") {
            let Err(error) = result else { panic!("{}: lowers now; drop the exception", variant.key()) };
            assert!(format!("{error:?}").to_lowercase().contains("cooperative"), "{error:?}");
            continue;
        }
        result.unwrap_or_else(|error| panic!("{}: {error:?}", variant.key()));
        assert!(text.contains("numthreads"), "{}", variant.key());
    }
}
