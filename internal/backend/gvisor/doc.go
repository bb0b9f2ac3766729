// Package gvisor makes machines with gVisor, whose user-space kernel takes the
// system calls of a sandbox instead of the host's. gVisor is linked in: no
// runsc is needed on the host, and no other package imports it.
//
// It needs root, cgroups (v1, v2 or both) with the memory, cpu and pids
// controllers, and amd64 or arm64. It makes no network: a machine has its
// loopback interface and nothing else.
//
// gVisor starts its processes by executing the running program again under
// other names, so a program that uses this package (test binaries included)
// begins with
//
//	func main() {
//		gvisor.RunIfReexec()
//		...
//	}
//
// and then
//
//	b, err := gvisor.New(gvisor.Config{StateDir: "/var/lib/fsb/gvisor", Logger: log})
//
// Below StateDir each machine has a directory with all that is known of it.
// The directory is made before anything else of the machine and removed after
// everything else, so that what a crash leaves behind is found by List.
//
// A machine is three host processes at most: the sentry (the kernel and the
// sandbox in it), its gofer (which hands it the files of the image) and,
// while it starts, a launcher. None of them is a child of this process for
// longer than the launcher lives. Commands, signals and counters go through
// the sentry's control socket, by rpc.go, without further processes.
package gvisor
