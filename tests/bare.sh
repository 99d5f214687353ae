#!/bin/bash
# bare: ./run on a machine that has nothing.
#
#   tests/bare.sh [COMMAND...]   as root, with mmdebstrap; the COMMANDs of ./run, each with its words:
#                                demo, then "demo --ha", then test
#
# A machine on which somebody works has every package already, so one that ./run forgets is missed
# only elsewhere. Here is that elsewhere: a fresh Debian of this machine's release in a folder, with
# what brings a clone there and nothing else, and HEAD cloned into a path with a space. It takes the
# packages from where this machine's apt does, and leaves nothing behind.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
clone="srv/another folder/clone"

# Its mounts and processes end with it. A root that was changed by chroot would have no namespaces of
# users, in which some tests run.
inside() # BARE COMMAND [WORD...]
{
    # shellcheck disable=SC2016 # the inner shell expands these.
    unshare --mount --pid --fork --kill-child bash -euc '
        mount --bind "$1" "$1"
        mount -t proc proc "$1/proc"
        mount --rbind /sys "$1/sys"
        mount --rbind /dev "$1/dev"
        cd -- "$1"
        pivot_root . .
        umount -l .
        cd -- "/$2"
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
            TRILANE_DEMO_PORT_BASE="${TRILANE_DEMO_PORT_BASE:-0}" ./run "${@:3}"' \
        bash "$1" "$clone" "${@:2}"
}

make() # BARE
{
    local source
    local -a sources=()
    for source in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
        [[ ! -s $source ]] || sources+=("$source")
    done
    # shellcheck source=/dev/null
    mmdebstrap --quiet --variant=minbase --include=git,ca-certificates \
        "$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")" "$1" "${sources[@]}"
    cp -- /etc/resolv.conf /etc/hosts "$1/etc/"
    apt-config dump | grep -E '^Acquire::(Check|http)' >"$1/etc/apt/apt.conf.d/00machine" || true
    git clone --quiet -- "$root" "$1/$clone"
}

((EUID == 0)) || { echo "tests/bare.sh makes a root file system: it takes root" >&2 && exit 3; }
command -v mmdebstrap >/dev/null || { echo "apt-get install mmdebstrap" >&2 && exit 3; }
(($# > 0)) || set -- demo "demo --ha" test
bare=$(mktemp -d)
trap 'rm -rf --one-file-system -- "$bare"' EXIT
chmod 755 -- "$bare"
make "$bare"
for command in "$@"; do
    echo "--- ./run $command" >&2
    read -ra words <<<"$command"
    inside "$bare" "${words[@]}"
done
