#!/bin/sh
# Puts the binary of this machine, which packaging/devcontainer/build has laid beside this file, on the PATH.
set -eu
cd "$(dirname "$0")"

binary=./bin/$(uname -m)/livelet
[ -f "$binary" ] || {
    echo "livelet: $(uname -m): this Feature has a binary for: $(cd bin && echo *)" >&2
    exit 1
}
mkdir -p /usr/local/bin
"$binary" install /usr/local/bin/livelet
