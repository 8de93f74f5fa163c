# Sourced by .ci/run, .ci/system and .ci/release: steps that say how long they took, and packages.
# shellcheck shell=bash
set -euo pipefail
# nohup ignores HUP, and a shell without job control ignores INT and QUIT of what it starts with `&`: the default again.
[ "${CI_SIGNALS:-}" = default ] || CI_SIGNALS=default exec env --default-signal bash "$PWD/.ci/${0##*/}" "$@"
exec </dev/null
export PATH="$PWD/target/tools/bin:$PATH:/usr/sbin:/sbin"

say() { printf '\n== %s\n' "$*"; }

# step COMMAND [ARG]...: one that fails ends the run; nothing is tried twice.
step() {
    local from=$SECONDS
    say "$*"
    if "$@"; then
        echo "($((SECONDS - from)) s: $*)"
    else
        say "FAILED after $((SECONDS - from)) s: $*"
        exit 1
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# install_packages PACKAGE...: installs those of Debian's packages that are missing.
install_packages() {
    local package missing=()
    for package; do
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "install ${missing[*]}"
    case ${missing[*]} in *:arm64*) as_root dpkg --add-architecture arm64 ;; esac
    as_root apt-get -o DPkg::Lock::Timeout=300 update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends \
        "${missing[@]}"
}

# What packaging/build-static needs on Debian 12.
static_packages=(rustc-web cargo-web rust-web-src musl-tools lld binutils)
static=$PWD/target/static/$(uname -m)-unknown-linux-musl/release/livelet
