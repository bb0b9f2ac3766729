// Package script runs the product as users do: real fsbd and fsb programs, real
// sandboxes, one script per promise. It has tests only; the scripts stand in
// testdata/daemon (once) and testdata/backend (on every backend, as $BACKEND).
//
//	go test ./test/script -run 'TestDaemon/^shutdown$' -v
//
// Besides testscript's own commands there are:
//
//	daemon start [NAME=VALUE...]   start fsbd and wait until it is ready; $ADDR, $GRPC_ADDR and
//	                               $FLASH_SANDBOX_ADDR are its addresses, $PID its process
//	daemon start-unprivileged      the same, as a user without rights
//	daemon stop                    SIGTERM; it must end with exit code 0
//	daemon kill                    SIGKILL
//	[!] daemon log REGEXP          what it has logged so far
//	http STATUS METHOD PATH [BODY] send a request with a JSON body; the answer is stdout
//	exits CODE PROGRAM [ARG...]    run a program that ends with that exit code
//	set NAME [REGEXP]              set a variable to the last stdout, or to the first group in it
//	poll PROGRAM [ARG...]          repeat until the exit code is 0, for at most 20 s
//
// $HUB is the registry that stands in for Docker Hub, as host:port, and $LAYOUTS
// the directory with the images it serves, such as $LAYOUTS/busybox. Nothing
// outside the host is asked. [docker] and [gvisor] are conditions: what this host can do.
package script
