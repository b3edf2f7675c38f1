#!/usr/bin/env bash
# Installs what digrap-bench needs and this machine lacks: a C compiler and OpenBLAS (system packages), the
# ONNX Runtime library (cache folder) and the easy-VQA set (data folder). With the argument `tests` also the browser that
# the tests of pages open, without which the others run; with `browser` it has to be there. Safe to interrupt and to run
# again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/digrap-bench
data=${XDG_DATA_HOME:-$HOME/.local/share}/digrap-bench
runtime=onnxruntime-1.31.1

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$1" >&2
    printf 'hint: %s\n' "$2" >&2
    exit 2
}

links() { echo 'int main(void) { return 0; }' | cc -x c - "$@" -o /dev/null 2>/dev/null; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        return 1
    fi
}

install_debian() {
    local advice="as root: apt-get update && apt-get install -y $*"
    command -v apt-get >/dev/null || fail "missing system packages (Debian names): $*" "install them with this system's package manager"
    say "installing $*"
    as_root true || fail "missing system packages: $*" "$advice"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null 2>&1 ||
        { as_root apt-get update -qq </dev/null >&2 &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2; } ||
        fail "could not install: $*" "$advice"
}

system_packages() {
    command -v cargo >/dev/null || fail "cargo is not on the PATH" "install Rust (rustup), then open a new shell"
    if [ "$(uname -s)" = Darwin ]; then
        command -v cc >/dev/null || fail "no C compiler" "xcode-select --install"
        # The build script of openblas-src asks brew for both.
        command -v brew >/dev/null && brew --prefix --installed openblas libomp >/dev/null 2>&1 ||
            fail "OpenBLAS is missing" "brew install openblas libomp"
        return
    fi
    local missing=()
    links || missing+=(gcc libc6-dev)
    links -lopenblas || missing+=(libopenblas-dev)
    [ ${#missing[@]} = 0 ] || install_debian "${missing[@]}"
    links -lopenblas || fail "a program linked with OpenBLAS does not build" "check that \`cc\` finds libopenblas.so"
}

# Whether there is a browser where tests/chromium.rs looks for it: DIGRAP_CHROMIUM alone where that is set.
has_browser() {
    local program
    if [ -n "${DIGRAP_CHROMIUM:-}" ]; then
        command -v "$DIGRAP_CHROMIUM" >/dev/null
        return
    fi
    for program in chromium chromium-browser google-chrome google-chrome-stable \
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" "/Applications/Chromium.app/Contents/MacOS/Chromium"; do
        command -v "$program" >/dev/null && return
    done
    return 1
}

browser() {
    has_browser && return
    [ -z "${DIGRAP_CHROMIUM:-}" ] ||
        fail "DIGRAP_CHROMIUM names no program: $DIGRAP_CHROMIUM" "set it to a Chromium or Google Chrome, or unset it"
    [ "$(uname -s)" != Darwin ] ||
        fail "there is no Chromium or Google Chrome, in which tests open pages" "install one, or set DIGRAP_CHROMIUM to the program"
    install_debian chromium
}

find_python() {
    local program
    for program in python3 python; do
        if command -v "$program" >/dev/null; then
            python=$program
            break
        fi
    done
    [ -n "${python:-}" ] || fail "python3 is not on the PATH" "install Python 3 with pip (Debian: apt-get install python3-pip)"
    for pip in "$python -m pip" pip3 pip; do
        $pip --version >/dev/null 2>&1 && return
    done
    fail "pip is missing" "install it (Debian: apt-get install python3-pip)"
}

if command -v sha256sum >/dev/null; then sums=(sha256sum); else sums=(shasum -a 256); fi

# True if every file of folder $1 is as it was unpacked.
intact() { [ -f "$1/SHA256SUMS" ] && (cd "$1" && "${sums[@]}" --check --status SHA256SUMS >/dev/null 2>&1); }

# unpack FOLDER FUNCTION: lets FUNCTION fill an empty folder, which then takes the name FOLDER in one step, so that
# FOLDER is either whole or absent.
unpack() {
    local parent partial
    parent=$(dirname "$1")
    mkdir -p "$parent" || fail "cannot create $parent" "set XDG_CACHE_HOME and XDG_DATA_HOME to folders you may write to"
    find "$parent" -maxdepth 1 -name '.partial-*' -mmin +60 -exec rm -rf {} +
    partial=$(mktemp -d "$parent/.partial-XXXXXX")
    # shellcheck disable=SC2064  # the folder's name is wanted as it is now
    trap "rm -rf '$partial'" EXIT
    mkdir "$partial/new" "$partial/wheel"
    "$2" "$partial/wheel" "$partial/new"
    (cd "$partial/new" && find . -type f -exec "${sums[@]}" {} + >"$partial/sums")
    mv "$partial/sums" "$partial/new/SHA256SUMS"
    if [ -e "$1" ]; then mv "$1" "$partial/old"; fi
    # Unlike mv, a plain rename fails, instead of moving into it, where another set-up has just made the folder.
    "$python" -c 'import os, sys; os.rename(*sys.argv[1:])' "$partial/new" "$1" 2>/dev/null || intact "$1" ||
        fail "cannot create $1" "check its permissions, then run the command again"
    rm -rf "$partial"
    trap - EXIT
}

download() {
    $pip download --quiet --no-input --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --dest "$1" -r "$2" "${@:3}" </dev/null >&2 ||
        fail "could not download the package pinned in ${2##*/}" "check the network and pip's settings, then run the command again"
}

onnxruntime_files() {
    local platform
    case "$(uname -s)-$(uname -m)" in
        Linux-x86_64) platform=manylinux_2_28_x86_64 ;;
        Linux-aarch64) platform=manylinux_2_28_aarch64 ;;
        Darwin-arm64) platform=macosx_14_0_arm64 ;;
        *) fail "no pinned ONNX Runtime for $(uname -s) on $(uname -m)" "set ORT_DYLIB_PATH to a libonnxruntime of version 1.24 or later" ;;
    esac
    download "$1" "$here/onnxruntime.txt" --python-version 3.12 --implementation cp --platform "$platform"
    "$python" -m zipfile -e "$1"/*.whl "$1"
    mv "$1"/onnxruntime/capi/libonnxruntime* "$1/onnxruntime/LICENSE" "$1/onnxruntime/ThirdPartyNotices.txt" "$2"
}

easy_vqa_files() {
    download "$1" "$here/easy-vqa.txt"
    "$python" -m zipfile -e "$1"/*.whl "$1"
    mv "$1/easy_vqa/data/train" "$1/easy_vqa/data/test" "$1"/easy_vqa-*.dist-info/LICENSE "$2"
}

ensure() {
    intact "$1" && return
    find_python
    say "downloading $3 to $1"
    unpack "$1" "$2"
}

system_packages
case "${1:-}" in
    browser) browser ;;
    tests) (browser) || say "without a browser the tests that open pages fail, and say what to do" ;;
esac
[ -n "${ORT_DYLIB_PATH:-}" ] || ensure "$cache/$runtime" onnxruntime_files "ONNX Runtime 1.31.1 (24 MB)"
ensure "$data/datasets/easy-vqa" easy_vqa_files "easy-VQA (3 MB)"
