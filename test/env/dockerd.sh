#!/usr/bin/env bash
# A private Docker engine for tests, apart from any other on the machine.
#
#   dockerd.sh start DIR [dockerd flags...]   starts it, waits until it answers,
#                                             prints unix://DIR/d.sock
#   dockerd.sh stop DIR                       stops it and removes what it left
#   dockerd.sh restart DIR [dockerd flags...] the same, but images and containers
#                                             stay (data and bridge are kept)
#   dockerd.sh kill DIR                       SIGKILL, as a crash: everything
#                                             stays as it was; then start or stop
#
# DIR holds everything of the engine: data, exec-root, socket, pid file, log.
# DIR/bridge and DIR/subnet name its network. stop keeps only DIR/d.log. DIR
# must be short (at most 60 characters), as it becomes part of socket paths.
#
# Flags go to dockerd as they are, for example
#   --registry-mirror=http://127.0.0.1:5000 --insecure-registry=127.0.0.1:5000
#   --add-runtime runsc=/path/to/wrapper
#
# Several engines may run side by side: each has a bridge, a subnet and a cgroup
# of its own. (A second dockerd with --bridge=none would delete the docker0 of
# the first.) Rules that all engines of a machine share are removed when the
# last private engine stops, if they were not there before the first.
#
# Needs root, dockerd with containerd and runc, ip, iptables, flock and curl.
set -euo pipefail

shared=${FSB_DOCKERD_STATE:-/var/tmp/fsb-dockerd} # what engines of this script share

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
die() { echo "dockerd.sh: $*" >&2; exit 1; }
[ $# -ge 2 ] || usage
cmd=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd -P)
shift 2
[ ${#dir} -le 60 ] || die "DIR is ${#dir} characters long, at most 60 are allowed: $dir"
name=fsb$(printf %s "$dir" | cksum | cut -d' ' -f1 | xargs printf '%08x')
cgroup=/$name

alive() { [ -s "$dir/d.pid" ] && kill -0 "$(cat "$dir/d.pid")" 2>/dev/null; }

# wait_gone PID TENTHS waits until the process has ended.
wait_gone() {
	local i
	for ((i = 0; i < $2; i++)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.1
	done
	return 1
}

# own_processes lists pids of containerd, shims and other helpers of this
# engine, which all have its exec-root in their command line.
own_processes() {
	local p line
	for p in /proc/[0-9]*; do
		line=$(tr '\0' ' ' 2>/dev/null <"$p/cmdline") || continue
		case $line in
		*" $dir/exec"* | *"=$dir/exec"*)
			[ "${p#/proc/}" = "$$" ] || echo "${p#/proc/}"
			;;
		esac
	done
}

own_cgroups() { find /sys/fs/cgroup -depth -type d \( -path "*$cgroup/*" -o -path "*$cgroup" \) 2>/dev/null || true; }

# kill_containers kills what is left in the engine's cgroup.
kill_containers() {
	local g p
	for g in $(own_cgroups); do
		if [ -e "$g/freezer.state" ]; then echo THAWED 2>/dev/null >"$g/freezer.state" || true; fi
		while read -r p; do kill -9 "$p" 2>/dev/null || true; done < <(cat "$g/cgroup.procs" 2>/dev/null)
	done
}

# delete_rules TABLE PATTERN deletes every rule that matches.
delete_rules() {
	local rule
	iptables -w -t "$1" -S 2>/dev/null | { grep -E -- "$2" || true; } | while read -r rule; do
		# shellcheck disable=SC2086 # the rule is a list of words
		iptables -w -t "$1" ${rule/#-A/-D} 2>/dev/null || true
	done
}

# delete_shared_chains removes what every dockerd adds and none removes.
delete_shared_chains() {
	local chain table
	for table in filter nat; do
		delete_rules $table '-j DOCKER(-USER|-ISOLATION-STAGE-1|-FORWARD|-BRIDGE|-CT|-INTERNAL)?$'
		for chain in DOCKER DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER-FORWARD DOCKER-BRIDGE DOCKER-CT DOCKER-INTERNAL; do
			iptables -w -t $table -F $chain 2>/dev/null || true
		done
		for chain in DOCKER DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER-FORWARD DOCKER-BRIDGE DOCKER-CT DOCKER-INTERNAL; do
			iptables -w -t $table -X $chain 2>/dev/null || true
		done
	done
}

lock() {
	local e
	mkdir -p "$shared/engines"
	exec 9>"$shared/lock"
	flock 9
	for e in "$shared"/engines/*; do # of a machine that was restarted since
		[ ! -e "$e" ] || ip link show "${e##*/}" >/dev/null 2>&1 || rm -f "$e"
	done
}
unlock() { exec 9>&-; }

# other_engines is true while some dockerd that is not this one runs.
other_engines() {
	local p
	[ -n "$(find "$shared/engines" -mindepth 1 -print -quit)" ] && return 0
	for p in /proc/[0-9]*/comm; do [ "$(cat "$p" 2>/dev/null)" = dockerd ] && return 0; done
	return 1
}

# make_bridge makes the engine's bridge with the first subnet that is free.
make_bridge() {
	local i net used
	ip link show "$name" >/dev/null 2>&1 && return 0
	used=$(ip -4 route show; ip -4 addr show)
	for ((i = 0; i < 256; i++)); do
		net=10.213.$(((i * 37 + $$) % 256))
		case $used in *"$net."*) continue ;; esac
		ip link add "$name" type bridge
		ip addr add "$net.1/24" dev "$name"
		ip link set "$name" up
		echo "$net.0/24" >"$dir/subnet"
		return 0
	done
	die "no free subnet below 10.213.0.0/16"
}

start() {
	alive && die "an engine runs there already (pid $(cat "$dir/d.pid"))"
	command -v dockerd >/dev/null || die "dockerd is not installed (Debian: apt-get install docker.io)"
	rm -f "$dir/d.pid" "$dir/d.sock"
	lock
	if ! other_engines; then
		rm -rf "$shared/pristine"
		if ! iptables -w -S DOCKER >/dev/null 2>&1; then
			mkdir "$shared/pristine"
			cat /proc/sys/net/ipv4/ip_forward >"$shared/pristine/ip_forward"
			iptables -w -S FORWARD 2>/dev/null | head -1 | cut -d' ' -f3 >"$shared/pristine/forward"
		fi
	fi
	make_bridge
	echo "$name" >"$dir/bridge"
	echo "$dir" >"$shared/engines/$name"
	# The lock is held until the engine answers: two that set up the shared
	# chains of iptables at the same time trip over each other.
	mkdir -p "$dir/data" "$dir/exec"
	setsid dockerd -H "unix://$dir/d.sock" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/d.pid" \
		--bridge "$name" --cgroup-parent "$cgroup" --containerd-namespace "$name" --containerd-plugins-namespace "p-$name" \
		--shutdown-timeout 2 "$@" >>"$dir/d.log" 2>&1 </dev/null 9>&- &
	local pid=$! i
	for ((i = 0; i < 300; i++)); do
		if curl -sf -m 2 --unix-socket "$dir/d.sock" http://docker/_ping >/dev/null 2>&1; then
			unlock
			echo "unix://$dir/d.sock"
			return 0
		fi
		kill -0 $pid 2>/dev/null || break
		sleep 0.1
	done
	unlock
	tail -5 "$dir/d.log" >&2
	stop
	die "dockerd does not answer; its log is $dir/d.log"
}

# end_engine stops dockerd: by TERM, which stops its containers too, else by KILL.
end_engine() {
	local pid
	alive || return 0
	pid=$(cat "$dir/d.pid")
	[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 0
	kill -CONT "$pid" 2>/dev/null || true
	kill -TERM "$pid" 2>/dev/null || true
	wait_gone "$pid" 200 || kill -9 "$pid" 2>/dev/null || true
	wait_gone "$pid" 50 || die "dockerd $pid can't be killed"
}

stop() {
	local p m g i
	end_engine
	kill_containers
	for p in $(own_processes); do kill -CONT "$p" 2>/dev/null || true; kill -TERM "$p" 2>/dev/null || true; done
	for ((i = 0; i < 30; i++)); do [ -n "$(own_processes)" ] || break; sleep 0.1; done
	for p in $(own_processes); do kill -9 "$p" 2>/dev/null || true; done
	kill_containers
	# Inner mounts come after outer ones in mountinfo.
	for m in $(awk -v d="$dir/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | tac); do
		umount -l "$m" 2>/dev/null || true
	done
	for ((i = 0; i < 30; i++)); do
		for g in $(own_cgroups); do rmdir "$g" 2>/dev/null || true; done
		[ -n "$(own_cgroups)" ] || break
		sleep 0.1
	done
	lock
	for m in filter nat; do delete_rules $m "(^| )$name( |$)"; done
	if [ -s "$dir/subnet" ]; then delete_rules nat "$(sed 's/\./\\./g' "$dir/subnet")"; fi
	ip link del "$name" 2>/dev/null || true
	rm -f "$shared/engines/$name"
	if ! other_engines && [ -d "$shared/pristine" ]; then
		delete_shared_chains
		p=$(cat "$shared/pristine/forward")
		[ -z "$p" ] || iptables -w -P FORWARD "$p"
		cat "$shared/pristine/ip_forward" >/proc/sys/net/ipv4/ip_forward
		rm -rf "$shared/pristine"
		rmdir /run/docker/plugins /run/docker /run/containerd/s /run/containerd 2>/dev/null || true
	fi
	unlock
	find "$dir" -mindepth 1 -maxdepth 1 ! -name d.log -exec rm -rf --one-file-system {} +
}

case $cmd in
start) start "$@" ;;
stop) stop ;;
restart)
	end_engine
	start "$@"
	;;
kill)
	alive || die "no engine runs there"
	pid=$(cat "$dir/d.pid")
	kill -9 "$pid"
	wait_gone "$pid" 50 || die "dockerd $pid can't be killed"
	;;
*) usage ;;
esac
