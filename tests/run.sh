#!/usr/bin/env bash
# The test command: installs what a bare Debian or Ubuntu machine with Rust lacks, then checks and tests
# everything; no GPU is needed, since Mesa's lavapipe runs the shaders on the processor. Every step runs, also
# after a failed one, and the last line counts them.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

passed=0
failed=()

# step NAME COMMAND...: runs it, reports and counts its outcome.
step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name: $*"
    if "$@" </dev/null; then
        passed=$((passed + 1))
        echo "== $name: passed in $((SECONDS - start)) s"
    else
        failed+=("$name")
        echo "== $name: FAILED after $((SECONDS - start)) s"
    fi
}

# A closing line that programs can read, and the exit code.
finish() {
    [ ${#failed[@]} -eq 0 ] || printf 'failed: %s\n' "${failed[@]}"
    echo "steps: $passed passed, ${#failed[@]} failed"
    [ ${#failed[@]} -eq 0 ]
    exit
}

if ! command -v cargo >/dev/null; then
    echo "Rust is needed: https://rustup.rs tells how to install it." >&2
    exit 1
fi

packages=(libvulkan1 mesa-vulkan-drivers ca-certificates)
command -v cc >/dev/null || packages+=(gcc libc6-dev)
step "install" bash tests/install-missing.sh "${packages[@]}"
for component in rustfmt clippy; do
    cargo "${component#rust}" --version >/dev/null 2>&1 || step "install $component" rustup component add "$component"
done
[ ${#failed[@]} -eq 0 ] || finish

# Cooperative matrices are tested on a lavapipe that has them. On Debian 12 it is known to be had, so there
# CI fails without it; elsewhere those tests are left out.
# shellcheck disable=SC1091
release=$(. /etc/os-release 2>/dev/null && echo "${ID:-} ${VERSION_ID:-}")
if ! coop_driver=$(bash tests/coop-driver.sh) && [ "${CI:-}" = true ] && [ "$release" = "debian 12" ]; then
    failed+=("driver with cooperative matrices")
fi

step "format" cargo fmt --check
step "clippy" cargo clippy --locked --all-targets -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
step "examples in the documentation" cargo test --locked --doc

run_tests=(cargo test --locked --no-fail-fast)
if cargo nextest --version >/dev/null 2>&1; then
    run_tests=(cargo nextest run --locked --no-fail-fast)
fi
step "tests" "${run_tests[@]}" --tests

if [ -n "$coop_driver" ]; then
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    step "cooperative matrices" env EXLAY_TEST_TIER=coop "CARGO_TARGET_${host}_RUNNER=$coop_driver" \
        "${run_tests[@]}" --test kernels
else
    echo "== cooperative matrices: skipped, no driver here has them (tests/coop-driver.sh says why)"
fi
finish
