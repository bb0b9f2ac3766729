#!/usr/bin/env bash
# Builds small container images for the tests and the demo, from Debian
# packages only: no registry, no chroot, no maintainer scripts.
#
#   build.sh KIND OUT_DIR      writes an OCI image layout to OUT_DIR, anew
#
#   busybox        a shell and the usual small tools; no Python
#   alpine         busybox with musl's loader, a stand-in for Alpine Linux; no Python
#   alpine-python  the same, with Python 3
#   python         busybox with Python 3, `python3` and `python` in PATH
#
# Each image has the users root and user (1000), /workspace owned by user, and
# runs as root unless asked otherwise. The same packages give the same digests.
# Layers and images are kept in $FSB_TEST_CACHE (default: .cache/ in the
# repository), so that a second call with the same inputs only copies files.
#
# Needs apt-get, dpkg-deb, GNU tar, gzip and flock; root only where the package
# lists are missing and have to be fetched.
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

usage() { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
kind=$1 out=$2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${FSB_TEST_CACHE:-$here/../../.cache}
mkdir -p "$cache/images/debs/partial"
cache=$(cd "$cache/images" && pwd)

cmd='["/bin/sh"]'
case $kind in
busybox)       layers=(busybox) ;;
alpine)        layers=(busybox musl) ;;
alpine-python) layers=(busybox musl python) ;;
python)        layers=(busybox python) cmd='["python3"]' ;;
*)             echo "build.sh: there is no image of kind \"$kind\"" >&2; usage ;;
esac

epoch=1735689600 # all times in the images: 2025-01-01
arch=$(dpkg --print-architecture)
case $arch in
armhf) platform='"architecture":"arm","os":"linux","variant":"v7"' ;;
i386)  platform='"architecture":"386","os":"linux"' ;;
*)     platform="\"architecture\":\"$arch\",\"os\":\"linux\"" ;;
esac

# Packages of each layer, and those of their dependencies that a file system
# which is never administered does without.
packages() {
	case $1 in
	busybox) echo busybox-static ;;
	musl)    echo musl ;;
	python)  echo python3 ca-certificates netbase tzdata ;;
	esac
}
unwanted='perl.*|libperl.*|debconf|dpkg|tar|coreutils|openssl|init-system-helpers|gcc-12-base|libpam.*|adduser|passwd'

lists() { compgen -G '/var/lib/apt/lists/*_Packages*' || true; }
if [ -z "$(lists)" ]; then
	apt-get -qq update >&2
fi

exec 9>"$cache/lock"
flock 9

apt() { # resolves as if nothing were installed here
	apt-get -qq -y --no-install-recommends \
		-o Debug::NoLocking=1 -o APT::Sandbox::User=root \
		-o Dir::State::status=/dev/null -o Dir::Cache::archives="$cache/debs" "$@"
}

sha() { sha256sum | cut -c1-64; }
script=$(sha <"${BASH_SOURCE[0]}")

# closure LAYER prints "file checksum" of each package that goes into a layer.
# Resolving takes apt a second, so the answer is kept for as long as the
# package lists are the same files.
closure() {
	local stamp file
	stamp=$( (echo "$script $arch $1"; lists | xargs -r stat -c '%n %s %Y') | sha)
	file=$cache/closure.$stamp
	if [ ! -s "$file" ]; then
		# shellcheck disable=SC2046
		apt --print-uris -o Dir::Cache::archives="$cache/none" install $(packages "$1") |
			awk '$2 ~ /\.deb$/ { print $2, $4 }' | sort |
			grep -Ev "^($unwanted)_" >"$file.tmp"
		mv "$file.tmp" "$file"
	fi
	cat "$file"
}

work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# stale is for packages that can't be downloaded: the mirror may have newer ones
# by now, so the lists are fetched anew, once.
stale() {
	cat "$work/apt.log" >&2
	[ -z "${FSB_IMAGES_UPDATED:-}" ] || exit 1
	apt-get -qq update >&2 || exit 1
	rm -rf "$work"
	FSB_IMAGES_UPDATED=1 exec "$0" "$kind" "$out"
}

skeleton() {
	local r=$1
	mkdir -p "$r"/{bin,sbin,usr/bin,usr/sbin,etc,tmp,root,home/user,proc,sys,dev,run,mnt,opt,srv,workspace,var/tmp,var/log}
	chmod 1777 "$r/tmp" "$r/var/tmp"
	chmod 700 "$r/root"
	printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'user:x:1000:1000:user:/home/user:/bin/sh' \
		'nobody:x:65534:65534:nobody:/nonexistent:/bin/false' >"$r/etc/passwd"
	printf '%s\n' 'root:x:0:' 'user:x:1000:' 'nogroup:x:65534:' >"$r/etc/group"
	# Debian's static busybox is glibc's: without this file its resolver crashes.
	printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' 'services: files' >"$r/etc/nsswitch.conf"
	printf '%s\n' 'ID=fsb-test-busybox' 'NAME="Busybox test image"' 'PRETTY_NAME="Busybox test image"' >"$r/etc/os-release"
}

applets() { # a link for each tool, so that PATH finds it
	local r=$1 a
	"$r/bin/busybox" --list-full | sort | while read -r a; do
		case $a in bin/busybox | linuxrc) continue ;; esac
		mkdir -p "$r/${a%/*}"
		[ -e "$r/$a" ] || ln -s /bin/busybox "$r/$a"
	done
}

finish_musl() {
	local r=$1
	mkdir -p "$r/etc"
	# The loader looks for libraries where an Alpine image has them.
	printf '%s\n' 'ID=fsb-test-alpine' 'NAME="Alpine stand-in"' \
		'PRETTY_NAME="Stand-in for Alpine Linux, made from Debian packages"' >"$r/etc/os-release"
	printf '3.test\n' >"$r/etc/alpine-release"
}

finish_python() {
	local r=$1 py
	ln -s python3 "$r/usr/bin/python"
	mkdir -p "$r/etc/ssl/certs"
	cat "$r"/usr/share/ca-certificates/mozilla/*.crt >"$r/etc/ssl/certs/ca-certificates.crt"
	rm -rf "$r"/usr/share/{ca-certificates,lintian,doc-base,locale,pixmaps,applications,python3/runtime.d,gcc,gdb}
	# Compiled modules, as Debian's maintainer scripts would make them: without
	# them each start of Python compiles what it imports. Unchecked hashes
	# instead of times keep the files the same on each build.
	py=$(basename "$(readlink -f "$r/usr/bin/python3")")
	rm -rf "$r/usr/lib/$py"/{test,idlelib,turtledemo,ensurepip,pydoc_data,lib2to3,config-*}
	PYTHONHASHSEED=0 PYTHONHOME="$r/usr" PYTHONDONTWRITEBYTECODE=1 \
		"$(compgen -G "$r/lib*/*/ld-linux*" | head -1)" --library-path "$(echo "$r"/lib/*-linux-gnu*):$(echo "$r"/usr/lib/*-linux-gnu*)" \
		"$r/usr/bin/$py" -sS -m compileall -q -s "$r" -p / --invalidation-mode unchecked-hash "$r/usr/lib/$py"
}

# layer NAME writes work/NAME.gz and work/NAME.diff (digest of the tar), from the
# cache when the same packages were put together by the same script before.
layer() {
	local name=$1 list key r
	list=$(closure "$name")
	key=$(printf '%s\n' "$script $arch $name" "$list" | sha)
	if [ ! -s "$cache/layer.$key.diff" ]; then
		r=$work/root.$name
		mkdir -p "$r"
		# shellcheck disable=SC2046
		apt --download-only install $(packages "$name") >"$work/apt.log" 2>&1 || stale
		[ "$name" != busybox ] || skeleton "$r"
		while read -r deb _; do
			dpkg-deb --fsys-tarfile "$cache/debs/$deb" | tar -x -C "$r" --no-same-owner -p
		done <<<"$list"
		rm -rf "$r"/usr/share/{doc,man,info,bug,lintian}
		case $name in
		busybox) applets "$r" ;;
		musl)    finish_musl "$r" ;;
		python)  finish_python "$r" ;;
		esac
		archive "$r" >"$work/layer.tar"
		sha <"$work/layer.tar" >"$work/layer.diff"
		gzip -n -6 "$work/layer.tar"
		mv "$work/layer.tar.gz" "$cache/layer.$key.gz"
		mv "$work/layer.diff" "$cache/layer.$key.diff"
		rm -rf "$r"
	fi
	ln -f "$cache/layer.$key.gz" "$work/$name.gz"
	ln -f "$cache/layer.$key.diff" "$work/$name.diff"
}

# archive ROOT writes a tar whose bytes depend on names, modes and contents alone.
archive() {
	local fixed=(--sort=name --mtime="@$epoch" --numeric-owner --format=gnu --hard-dereference -C "$1")
	tar "${fixed[@]}" --owner=0 --group=0 --exclude=./home/user --exclude=./workspace -cf - . >"$work/archive"
	if [ -d "$1/home/user" ]; then
		tar "${fixed[@]}" --owner=1000 --group=1000 -rf "$work/archive" ./home/user ./workspace
	fi
	cat "$work/archive"
	rm "$work/archive"
}

put() { # copies a file into the layout's blobs; prints its digest and size
	local digest
	digest=$(sha <"$1")
	cp "$1" "$image/blobs/sha256/$digest"
	echo "$digest $(stat -c %s "$1")"
}

inputs="$script $arch $kind"
for l in "${layers[@]}"; do inputs+=$'\n'$(closure "$l"); done
image=$cache/$kind.$(sha <<<"$inputs")

if [ ! -s "$image/index.json" ]; then
	final=$image image=$work/image
	mkdir -p "$image/blobs/sha256"
	diffs='' refs=''
	for l in "${layers[@]}"; do
		layer "$l"
		read -r digest size < <(put "$work/$l.gz")
		diffs+=",\"sha256:$(<"$work/$l.diff")\""
		refs+=",{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$digest\",\"size\":$size}"
	done
	when=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
	printf '{"created":"%s",%s,"config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":%s},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
		"$when" "$platform" "$cmd" "${diffs#,}" >"$work/config.json"
	read -r digest size < <(put "$work/config.json")
	printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' \
		"$digest" "$size" "${refs#,}" >"$work/manifest.json"
	read -r digest size < <(put "$work/manifest.json")
	printf '{"imageLayoutVersion":"1.0.0"}' >"$image/oci-layout"
	printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"latest"},"platform":{%s}}]}' \
		"$digest" "$size" "$platform" >"$image/index.json"
	rm -rf "$final"
	mv "$image" "$final"
	image=$final
fi

rm -rf "$out"
mkdir -p "$(dirname "$out")"
cp -a "$image" "$out"
