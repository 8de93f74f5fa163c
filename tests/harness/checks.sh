# For the scripts in tests/packages, sourced from the top of the repository: what each of them needs to say PASS or FAIL.
# shellcheck shell=bash

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
static=$PWD/target/static
# LIVELET_BIN names another binary for this machine.
export LIVELET_BIN=${LIVELET_BIN:-$static/$(uname -m)-unknown-linux-musl/release/livelet}
unset LIVELET_LISTEN
# For the other architecture, if it was built.
arm64_binary=$static/aarch64-unknown-linux-musl/release/livelet
scratch=$(mktemp -d /tmp/livelet-package-test.XXXXXX)
chmod 0755 "$scratch"
passed=0
failed=0

clean_up() { :; }
trap 'clean_up; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# check NAME COMMAND [ARG]...: the check passes when the command does. What it printed is shown when it does not.
check() {
    local name=$1
    shift
    if "$@" >"$scratch/output" 2>&1; then
        echo "PASS $name"
        passed=$((passed + 1))
    else
        echo "FAIL $name"
        sed 's/^/     /' "$scratch/output"
        failed=$((failed + 1))
    fi
}

skip() { echo "SKIP $1: $2"; }

# summary: the last command of a script.
summary() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

# equal WHAT ACTUAL EXPECTED
equal() {
    [ "$2" = "$3" ] || {
        printf '%s: %q, not %q\n' "$1" "$2" "$3"
        return 1
    }
}

# until_ok SECONDS COMMAND [ARG]...: again and again, until it succeeds.
until_ok() {
    local deadline=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        [ "$SECONDS" -lt "$deadline" ] || {
            echo "not within the deadline: $*: $said"
            return 1
        }
        sleep 0.05
    done
    echo "$said"
}

ask() { curl --silent --show-error --noproxy '*' --max-time 5 --write-out '%{http_code}' "$@"; }

# answers URL STATUS
answers() { equal "$1" "$(ask --output /dev/null "$1")" "$2"; }
