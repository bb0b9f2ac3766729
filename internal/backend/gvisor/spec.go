package gvisor

import (
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// capabilities is what root inside a sandbox may do: Docker's default set.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// capabilitiesOf returns the sets that a process of the user starts with.
// Others than root have none in effect, as after execve.
func capabilitiesOf(uid uint32) *specs.LinuxCapabilities {
	c := &specs.LinuxCapabilities{Bounding: capabilities}
	if uid == 0 {
		c.Effective, c.Permitted = capabilities, capabilities
	}
	return c
}

// annotationUpper names a tar archive whose content lies over the image.
const annotationUpper = "dev.gvisor.tar.rootfs.upper"

// ociSpec describes the machine of r, whose directory is dir, to gVisor.
func ociSpec(r *record, dir string) *specs.Spec {
	user := specs.User{UID: r.User.UID, GID: r.User.GID, AdditionalGids: r.User.Gids}
	s := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: r.Rootfs},
		Hostname: r.Hostname,
		Process: &specs.Process{
			Args: r.Args, Env: r.Env, Cwd: r.Dir, User: user,
			Capabilities: capabilitiesOf(user.UID), NoNewPrivileges: true,
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			// Processes are counted, and their number limited, by the sentry's own cgroups.
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: r.Cgroup,
			Resources:   &specs.LinuxResources{},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
			},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
		Annotations: map[string]string{annotationUpper: filepath.Join(dir, upperFile)},
	}
	if r.OwnTmp {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "bind", Source: filepath.Join(dir, tmpDir), Options: []string{"rw"}})
	}
	res := s.Linux.Resources
	if r.MemoryBytes > 0 {
		res.Memory = &specs.LinuxMemory{Limit: &r.MemoryBytes}
	}
	if n := hostPids(r.Pids); n > 0 {
		res.Pids = &specs.LinuxPids{Limit: n}
	}
	if r.CPUs > 0 {
		quota, period := startQuota(r.CPUs)
		res.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	return s
}

// hostPids is the limit on host processes and threads for a sandbox that may
// have pids of its own. The sentry holds the sandbox to its limit, gently: a
// fork fails. This one keeps the sentry itself in bounds, which has threads of
// its own and a host process or thread for each one inside; a sandbox that
// reaches it may die of it. It also holds where root inside has gone to the
// lengths of a user namespace to lift the other.
func hostPids(pids int64) int64 {
	if pids <= 0 {
		return 0
	}
	return 4*pids + 512
}

// startQuota is the CPU quota, in whole cores and at least two, under which a
// sentry starts. gVisor shows as many CPUs inside; and a start under the
// smaller quota that holds later would take several times as long.
func startQuota(cpus float64) (quota int64, period uint64) {
	period = 100_000
	cores := int64(cpus)
	if float64(cores) < cpus {
		cores++
	}
	return max(cores, 2) * int64(period), period
}
