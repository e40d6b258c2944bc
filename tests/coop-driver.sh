#!/usr/bin/env bash
# Unpacks a software Vulkan driver that has cooperative matrices beside the system: Mesa's lavapipe from
# trixie-backports (26.1 or later; 8x8x8 with f16 inputs), with the C library and the LLVM it needs.
#   tests/coop-driver.sh [DIR]          DIR: .coop-driver in the repository
# Prints the path of DIR/run; `DIR/run PROGRAM ARGS` runs a program on that driver. Nothing of the system
# changes and no root is needed. About 310 MB and 20 s; a second call finds it there and does nothing.
# Needs Debian (any release): its mirror is taken from the system's own apt configuration.
set -euo pipefail
cd "$(dirname "$0")/.."
driver=$(realpath -m "${1:-.coop-driver}")

if [ -x "$driver/run" ]; then
    echo "$driver/run"
    exit 0
fi

fail() {
    echo "tests/coop-driver.sh: $1" >&2
    exit 1
}
command -v apt-get >/dev/null && [ -e /etc/debian_version ] || fail "needs Debian: there is no apt-get here"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || fail "needs Debian: there is no $keyring (package debian-archive-keyring)"

# The system's mirror: where its own release comes from. Security archives have other paths and no trixie.
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
mirror=$(apt-get -o Debug::NoLocking=1 --print-uris update |
    sed -n "s#^'\(.*\)/dists/$codename/InRelease'.*#\1#p" | head -n 1)
[ -n "$mirror" ] || fail "no source of Debian $codename in apt's configuration"

new=$driver/partial
trap 'rm -rf "$new"' EXIT
rm -rf "$new" # of a run that was killed
mkdir -p "$new"/apt/lists/partial "$new"/apt/archives/partial "$new"/root
: >"$new/apt/status" # nothing is installed there, so every dependency is fetched too
for suite in trixie trixie-backports; do
    echo "deb [signed-by=$keyring] $mirror $suite main"
done >"$new/apt/sources.list"

apt=(apt-get -qq
    -o Dir::State="$new/apt" -o Dir::State::status="$new/apt/status" -o Dir::State::Lists="$new/apt/lists"
    -o Dir::Cache="$new/apt" -o Dir::Cache::archives="$new/apt/archives"
    -o Dir::Etc::SourceList="$new/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o APT::Sandbox::User=root -o APT::Install-Recommends=0 -o Debug::NoLocking=1 -o Acquire::Retries=3)
log=$new/apt/log
{ "${apt[@]}" update && "${apt[@]}" -y --download-only -t trixie-backports install libvulkan1 mesa-vulkan-drivers; } \
    >"$log" 2>&1 </dev/null || { cat "$log" >&2; fail "could not fetch Mesa from $mirror"; }
for package in "$new"/apt/archives/*.deb; do
    dpkg-deb -x "$package" "$new/root" || fail "could not unpack $package"
done

triple=$(basename "$(dirname "$(find "$new/root/usr/lib" -name libvulkan_lvp.so | head -n 1)")")
[ -n "$triple" ] || fail "the packages from $mirror hold no libvulkan_lvp.so"
loader=$(find "$new/root/usr/lib/$triple" -maxdepth 1 -name 'ld-linux*.so.*' -printf '%f\n' | head -n 1)
[ -n "$loader" ] || fail "the packages from $mirror hold no dynamic loader"
# Paths in it are relative to the file itself, so that the folder can be moved.
sed "s#\"library_path\": \"[^\"]*libvulkan_lvp.so\"#\"library_path\": \"./root/usr/lib/$triple/libvulkan_lvp.so\"#" \
    "$new"/root/usr/share/vulkan/icd.d/lvp_icd*.json >"$new/icd.json"
cat >"$new/run" <<RUN
#!/bin/sh
# Runs a program on the driver in this folder, with its C library: the system's may be too old for it.
driver=\$(cd "\$(dirname "\$0")" && pwd)
export VK_DRIVER_FILES="\$driver/icd.json"
unset VK_ICD_FILENAMES
library=\$driver/root/usr/lib/$triple
exec "\$library/$loader" --library-path "\$library" "\$@"
RUN
chmod +x "$new/run"
"$new/run" /bin/true || fail "the unpacked loader does not run a program"

rm -rf "$driver/root"
mv "$new/root" "$new/icd.json" "$driver"
mv "$new/run" "$driver" # last: it says that the rest is complete
echo "$driver/run"
