#!/usr/bin/env bash
# Makes the Python environments that the clients are tested in.
#
#   venvs.sh [NAME...]     NAME: 0.1.1, 0.1.7 (the published clients) or sdk
#                          (the one in sdk/python); none means all
#
# Prints "NAME PYTHON" for each. They are kept below $FSB_TEST_CACHE/venvs
# (default: .cache/ in the repository) and made anew when what goes into them
# changes. Needs Python 3.10 or later with venv (Debian: python3-venv), as
# $FSB_TEST_PYTHON (default: python3), and a package index.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
python=${FSB_TEST_PYTHON:-python3}
venvs=${FSB_TEST_CACHE:-$root/.cache}/venvs
mkdir -p "$venvs"
venvs=$(cd "$venvs" && pwd -P)

die() { echo "venvs.sh: $*" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "$python is older than 3.10"

exec 9>"$venvs/lock"
flock 9
[ $# -gt 0 ] || set -- 0.1.1 0.1.7 sdk
for name; do
	case $name in
	0.1.1) packages=(flash-sandbox==0.1.1 pytest) ;;
	0.1.7) packages=(flash-sandbox==0.1.7 aiohttp pytest) ;;
	sdk)   packages=(-e "$root/sdk/python[dev]") ;;
	*)     die "there is no environment \"$name\"" ;;
	esac
	dir=$venvs/$name
	stamp=$({ "$python" -VV; echo "${packages[@]}"; cat "$here/constraints.txt"
		[ "$name" != sdk ] || cat "$root/sdk/python/pyproject.toml"; } | sha256sum)
	if [ "$(cat "$dir/stamp" 2>/dev/null)" != "$stamp" ]; then
		echo "venvs.sh: making $name" >&2
		rm -rf "$dir"
		"$python" -m venv "$dir" >&2 || die "$python can't make environments (Debian: apt-get install python3-venv)"
		"$dir/bin/python" -m pip install -q --disable-pip-version-check -c "$here/constraints.txt" "${packages[@]}" >&2 9>&- ||
			die "can't install ${packages[*]}"
		echo "$stamp" >"$dir/stamp"
	fi
	echo "$name $dir/bin/python"
done
