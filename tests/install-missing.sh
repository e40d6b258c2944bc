#!/usr/bin/env bash
# Installs those of the named Debian or Ubuntu packages that are missing; silent when none is.
#   tests/install-missing.sh PACKAGE...
# Elsewhere it only says which programs are expected, since names of packages differ.
set -euo pipefail

if ! command -v apt-get >/dev/null; then
    echo "This is not a Debian or Ubuntu system; please see that you have what these packages hold: $*"
    exit 0
fi

missing=()
for package in "$@"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=(env DEBIAN_FRONTEND=noninteractive)
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Missing packages, and there is no sudo to install them. As root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo "${as_root[@]}")
fi

echo "Installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A third-party source that does not answer need not matter: only the installation decides.
"${as_root[@]}" apt-get -qq update >"$log" 2>&1 || true
if ! "${as_root[@]}" apt-get -qq -y --no-install-recommends install "${missing[@]}" >>"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "Could not install ${missing[*]}; the lines above are apt-get's reason." >&2
    exit 1
fi
