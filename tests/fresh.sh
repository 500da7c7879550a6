#!/usr/bin/env bash
# A command of the README on a bare machine: fresh.sh SUITE TARGET [COMMAND...]
# SUITE: a Debian, bookworm (Python 3.11) or trixie (3.13). TARGET: demo or test; the root has what the README asks for
# before `make TARGET`, and no more. COMMAND: another one to run there, in place of `make TARGET`.
# The last commit is cloned into the root. Needs root, debootstrap and git. Roots are kept, a gigabyte each, in $FRESH.
set -euo pipefail
# mounts in a namespace of their own end with this process, however it ends
[ "${FRESH_APART:-}" ] || exec env FRESH_APART=1 unshare --mount --propagation private "$0" "$@"
{ # read whole before it runs, so that the file may change meanwhile
suite=$1 target=$2
shift 2
[ $# -gt 0 ] || set -- make "$target"
project=$(cd "$(dirname "$0")/.." && pwd)
place=${FRESH:-/var/tmp/bfthw-fresh}

lines=2
[ "$target" != demo ] || lines=1
packages=$(sed -n 's/^apt-get install //p' "$project/README.md" | head -n $lines | xargs)
root=$place/$suite-$(echo "$packages" | cksum | cut -d' ' -f1)
mkdir -p "$place/pip"
exec 9>"$root.lock"
flock -n 9 || { echo "$root is in use"; exit 1; }
if [ ! -e "$root/made" ]; then
  echo "$suite with $packages ..."
  ! grep -F " $root/" /proc/mounts || { echo "$root: something is mounted there"; exit 1; }
  rm -rf "$root"
  mirror=$(grep -rohE '^[^#]*[a-z]+://[^ ]+/debian/?( |$)' /etc/apt/sources.list* | grep -oEm1 '[a-z]+://[^ ]+')
  debootstrap --variant=minbase --include="${packages// /,}" "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -n 3 "$root.log"; exit 1; }
  touch "$root/made"
fi

bound() { # a file or folder of this machine, by the same name in the root or by that of $2
  local to=$root${2:-$1}
  if [ -d "$1" ]; then mkdir -p "$to"; else mkdir -p "${to%/*}"; touch "$to"; fi
  mount --rbind "$1" "$to"
}
mount -t proc proc "$root/proc"
bound /dev
bound "$place/pip" /var/cache/pip
home=/home/fresh # with nothing mounted inside, as it goes away
rm -rf "${root:?}$home"
mkdir -p "$root$home"
trap 'rm -rf "${root:?}$home"' EXIT
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"

# pip as it is set up here, with every path that its settings name
set_up=(HOME=$home LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
set_up+=(TERM="${TERM:-dumb}" PIP_CACHE_DIR=/var/cache/pip)
settings=
for file in /etc/xdg/pip/pip.conf /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
  [ -f "$file" ] || continue
  to=$root${file/#$HOME/$home}
  mkdir -p "${to%/*}"
  cp "$file" "$to"
  settings+=$(<"$file")$'\n'
done
while IFS= read -r -d '' variable; do
  case $variable in
    PIP_*=* | *_proxy=* | *_PROXY=* | SSL_CERT_FILE=* | REQUESTS_CA_BUNDLE=*)
      set_up+=("$variable")
      settings+=${variable#*=}$'\n'
      ;;
  esac
done < <(env -0)
for path in $(grep -oE '(^|[ =]|file://)/[^ ]+' <<<"$settings" | sed -E 's,^(file://|[ =]),,' | sort -u); do
  # of a local index its folder, which the pages lead out of
  [ "${path##*/}" != simple ] || path=${path%/*}
  [ ! -e "$path" ] || bound "$path"
done

git clone -q "$project" "$root$home/project"
begin=$(date +%s) status=0
chroot "$root" env -i "${set_up[@]}" sh -c 'cd ~/project && exec "$@"' - "$@" </dev/null || status=$?
echo "$suite, $*: exit status $status after $((($(date +%s) - begin) / 60)) min $((($(date +%s) - begin) % 60)) s"
exit $status
}
