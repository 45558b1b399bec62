# shellcheck shell=bash
# Virtual environments and Debian packages, made when they are missing or out of date, one line
# said for each. Sourced by tools/demo.sh and tools/test.sh, with the checkout as the current
# directory; PYTHON is the interpreter to make them with (python3).

# The distribution's own Python where it is new enough: every user can read it, so that workers can
# have user ids of their own.
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    if /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        PYTHON=/usr/bin/python3
    fi
fi
ROOT=$(pwd -P)

# What they and all that they start leave behind, as logs and caches, stays in the checkout.
mkdir -p "$ROOT/.tmp"
export TMPDIR=$ROOT/.tmp XDG_CACHE_HOME=$ROOT/.tmp/cache

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# One script at a time makes things; the lock is on the checkout's folder itself and leaves no file.
lock() {
    exec 9<"$ROOT"
    if ! flock --nonblock 9; then
        say 'Waiting for another run of tools/ in this checkout to have installed what it needs'
        flock 9
    fi
}

unlock() {
    exec 9<&-
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo --non-interactive "$@"
    fi
}

can_be_root() {
    ((EUID == 0)) || sudo --non-interactive true 2>/dev/null
}

installed() {
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# missing PACKAGE...: those that are not installed, one a line
missing() {
    local package
    for package; do
        installed "$package" || printf '%s\n' "$package"
    done
}

# debian_packages WHAT-FOR PACKAGE...: have them installed, without starting any service of theirs
debian_packages() {
    local what=$1 wanted
    shift
    wanted=$(missing "$@")
    [[ -n $wanted ]] || return 0
    wanted=${wanted//$'\n'/ }
    if ! command -v apt-get >/dev/null; then
        die "Please install $what: on Debian the packages are $wanted"
    fi
    can_be_root || die "Please install $what: sudo apt-get install --no-install-recommends $wanted"
    say "Installing $what from Debian: $wanted"
    # A lock on apt-get's own file: another checkout may be at the same, which apt-get update
    # does not wait for.
    (
        exec 8<"$(command -v apt-get)"
        flock 8
        # shellcheck disable=SC2046
        install_quietly $(missing "$@")
    ) 9<&- || die "Debian's packages could not be installed: $wanted"
}

# In a subshell of debian_packages only: sets a trap on its end. Not under `set -e` (its caller asks
# for its result), so each step says what follows from its failing.
install_quietly() {
    (($#)) || return 0
    local policy=/usr/sbin/policy-rc.d log enabled
    if [[ ! -e $policy ]]; then
        # Debian starts a service as soon as it is installed, unless this program forbids it (101).
        trap 'as_root rm -f '"$policy" EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null || return
        as_root chmod 755 "$policy" || return
    fi
    enabled=$(enabled_units)
    if ! log=$(
        exec 2>&1
        as_root apt-get update --quiet &&
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get -o DPkg::Lock::Timeout=600 install --quiet --yes --no-install-recommends "$@"
    ); then
        printf '%s\n' "$log" >&2
        return 1
    fi
    # Nor are they to start at the next boot.
    command -v systemctl >/dev/null || return 0
    comm -13 <(printf '%s\n' "$enabled") <(enabled_units) | while read -r unit; do
        as_root systemctl --quiet disable "$unit" || return
    done
}

# The systemd services that start at boot
enabled_units() {
    find /etc/systemd/system -path '*.wants/*' '(' -name '*.service' -o -name '*.socket' ')' \
        -printf '%f\n' 2>/dev/null | sort
}

check_python() {
    command -v "$PYTHON" >/dev/null || die "Please install Python 3.11 or newer: $PYTHON is not there"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Please use Python 3.11 or newer: PYTHON=python3.11 $0"
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        debian_packages "Python's venv module" "$(venv_package)"
}

# Debian's package of the interpreter's venv module
venv_package() {
    if [[ $(readlink -f "$(command -v "$PYTHON")") == "$(readlink -f /usr/bin/python3)" ]]; then
        say python3-venv
    else
        "$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    fi
}

# make_venv NAME PURPOSE STAMP INPUT... -- PIP-ARGUMENT...: have a virtual environment into which
# pip installed the arguments after the input files were last changed. A venv keeps one stamp for
# each way it is used.
make_venv() {
    local name=$1 purpose=$2 stamp=$1/.installed-$3 inputs=() state
    shift 3
    while [[ $1 != -- ]]; do
        inputs+=("$1")
        shift
    done
    shift
    state=$(
        printf '%s\n' "$ROOT" "$@"
        cat "${inputs[@]}"
    )
    state=$(sha256sum <<<"$state")
    if usable "$name" && [[ -f $stamp && $(<"$stamp") == "$state" ]]; then
        return
    fi
    check_python
    say "Installing $purpose into $name"
    if ! usable "$name"; then
        "$PYTHON" -m venv --clear "$name"
    fi
    "$name/bin/python" -m pip install -qq --disable-pip-version-check --no-input "$@"
    printf '%s\n' "$state" >"$stamp"
}

# A venv that was made elsewhere and moved, or whose Python has gone, is made anew.
usable() {
    grep -qF "$ROOT/$1/bin/python" "$1/bin/pip" 2>/dev/null && "$1/bin/python" -c 'import pip' 2>/dev/null
}

# project_venv EXTRA...: the project itself, editable, with the extras that are wanted too
project_venv() {
    local wanted=. purpose=Qinling stamp=base
    if (($#)); then
        printf -v stamp '%s-' "$@"
        printf -v wanted '%s,' "$@"
        stamp=${stamp%-} wanted=".[${wanted%,}]"
        purpose="Qinling with its requirements for: $*"
    fi
    make_venv .venv "$purpose" "$stamp" constraints.txt setup.cfg pyproject.toml \
        -- -c constraints.txt -e "$wanted"
}
