//! ExLlamaV2's own spelling of the flags of `convert` (its `convert.py`, version 0.3.2), so that the
//! command lines of its users work unchanged.
//!
//! Clap knows no flags of two letters behind one dash, so these are rewritten before it sees them. Flags
//! that have no meaning here are taken out, with a line that says so.

use std::ffi::{OsStr, OsString};

/// Spellings to be replaced, with the documented flag.
const RENAMED: [(&str, &str); 22] = [
    ("-cf", "--output"),
    ("-hb", "--head-bits"),
    ("-om", "--output-measurement"),
    ("-nr", "--no-resume"),
    ("-mr", "--measurement-rows"),
    ("-ml", "--measurement-length"),
    ("-ss", "--shard-size"),
    ("--in_dir", "--model"),
    ("--out_dir", "--work-dir"),
    ("--out-dir", "--work-dir"),
    ("--no_resume", "--no-resume"),
    ("--compile_full", "--output"),
    ("--cal_dataset", "--calibration"),
    ("--head_bits", "--head-bits"),
    ("--shard_size", "--shard-size"),
    ("--output_measurement", "--output-measurement"),
    ("--dataset_rows", "--rows"),
    ("--measurement_rows", "--measurement-rows"),
    ("--measurement_length", "--measurement-length"),
    ("--work_dir", "--work-dir"),
    ("--dataset-rows", "--rows"),
    ("--cal-dataset", "--calibration"),
];

/// A flag without meaning here.
struct Dropped {
    spellings: [&'static str; 2],
    has_value: bool,
    reason: &'static str,
}

const ROPE: &str = "RoPE comes from config.json";
const DROPPED: [Dropped; 7] = [
    Dropped {
        spellings: ["-res", "--resume"],
        has_value: false,
        reason: "a job in --work-dir is always resumed",
    },
    Dropped {
        spellings: ["-so", "--status_output"],
        has_value: false,
        reason: "progress goes to stderr, the result to stdout with --json",
    },
    Dropped {
        spellings: ["-hsol", "--hidden_state_offload_layers"],
        has_value: true,
        reason: "exlay decides where the hidden states of the calibration rows are kept",
    },
    Dropped {
        spellings: ["-fst", "--fast_safetensors"],
        has_value: false,
        reason: "files are always memory-mapped",
    },
    Dropped { spellings: ["-rs", "--rope_scale"], has_value: true, reason: ROPE },
    Dropped { spellings: ["-ra", "--rope_alpha"], has_value: true, reason: ROPE },
    Dropped {
        spellings: ["-gr", "--gpu_rows"],
        has_value: true,
        reason: "exlay decides where the hidden states of the calibration rows are kept",
    },
];

/// Flags before the command that take a value.
const GLOBAL_WITH_VALUE: [&str; 4] = ["--adapter", "--tier", "--arithmetic", "--vram"];

/// A command line for clap.
#[derive(Debug)]
pub(crate) struct Rewritten {
    /// The program's name and its arguments.
    pub(crate) args: Vec<OsString>,
    /// A line for each flag that was taken out.
    pub(crate) notes: Vec<String>,
}

/// Rewrites the flags of `exlay convert`; other command lines stay as they are.
pub(crate) fn rewrite(args: Vec<OsString>) -> Rewritten {
    let Some(start) = after_convert(&args) else {
        return Rewritten { args, notes: vec![] };
    };
    let mut kept: Vec<OsString> = args[..start].to_vec();
    let mut notes = vec![];
    let mut rest = args[start..].iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            kept.push(arg.clone());
            kept.extend(rest.cloned());
            break;
        }
        // Both programs take `--flag=value` too.
        let text = arg.to_str().unwrap_or_default();
        let (flag, value) = text.split_once('=').map_or((text, None), |(flag, value)| (flag, Some(value)));
        if let Some(dropped) = DROPPED.iter().find(|dropped| dropped.spellings.contains(&flag)) {
            notes.push(format!("{flag} has no meaning here: {}", dropped.reason));
            if dropped.has_value && value.is_none() {
                rest.next();
            }
        } else if let Some((_, name)) = RENAMED.iter().find(|(spelling, _)| *spelling == flag) {
            kept.push(value.map_or_else(|| OsString::from(name), |value| format!("{name}={value}").into()));
        } else {
            kept.push(arg.clone());
        }
    }
    Rewritten { args: kept, notes }
}

/// The index of the first argument after the command, if that is `convert`.
fn after_convert(args: &[OsString]) -> Option<usize> {
    let mut index = 1;
    loop {
        let arg = args.get(index)?;
        index += 1;
        if arg == "convert" {
            return Some(index);
        }
        if GLOBAL_WITH_VALUE.iter().any(|flag| arg == OsStr::new(flag)) {
            index += 1;
        } else if !arg.as_encoded_bytes().starts_with(b"-") {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> (String, Vec<String>) {
        let result = rewrite(line.split(' ').map(OsString::from).collect());
        let args: Vec<_> = result.args.iter().map(|arg| arg.to_str().unwrap()).collect();
        (args.join(" "), result.notes)
    }

    #[test]
    fn two_letter_flags_become_documented_ones() {
        let line = "exlay convert -i in -o work -cf out -c c.parquet -b 3.0 -hb 6 -ss 100 -om m.json -m m.json \
                    -r 100 -mr 16 -l 2048 -ml 512 -nr";
        let expected = "exlay convert -i in -o work --output out -c c.parquet -b 3.0 --head-bits 6 --shard-size 100 \
                        --output-measurement m.json -m m.json -r 100 --measurement-rows 16 -l 2048 \
                        --measurement-length 512 --no-resume";
        assert_eq!(rewritten(line), (expected.to_string(), vec![]));
    }

    #[test]
    fn long_flags_with_underscores_become_documented_ones() {
        let line = "exlay convert --in_dir in --out_dir work --compile_full=out --cal_dataset c --head_bits 6 \
                    --dataset_rows 9 --no_resume";
        let expected = "exlay convert --model in --work-dir work --output=out --calibration c --head-bits 6 --rows 9 \
                        --no-resume";
        assert_eq!(rewritten(line), (expected.to_string(), vec![]));
    }

    #[test]
    fn flags_without_meaning_are_taken_out_with_their_values_and_a_line() {
        let (line, notes) =
            rewritten("exlay convert -res -hsol 8 -rs 2.0 --rope_alpha=1 -fst -so -gr 4 -b 3");
        assert_eq!(line, "exlay convert -b 3");
        assert_eq!(notes.len(), 7);
        assert_eq!(notes[2], "-rs has no meaning here: RoPE comes from config.json");
    }

    #[test]
    fn other_commands_and_what_follows_two_dashes_stay() {
        for line in [
            "exlay generate -m dir -p -hb",
            "exlay convert -- -hb",
            "exlay --adapter convert generate -hb",
            "exlay",
            "exlay --json",
        ] {
            assert_eq!(rewritten(line), (line.to_string(), vec![]));
        }
        let (line, _) = rewritten("exlay --json --adapter 0 convert -hb 6");
        assert_eq!(line, "exlay --json --adapter 0 convert --head-bits 6");
    }
}
