// Package flash is the domain of Flash Sandbox: what a sandbox is, which states
// it goes through, what users may ask of it, and which errors they may get.
//
// It holds values and rules only. It does no I/O and imports nothing but the
// standard library, so that every other package may import it: the manager
// implements [Service], the transports (REST, RPC) and the Go client are
// adapters to it.
//
//	var svc flash.Service = manager.New(...)
//	sb, err := svc.Create(ctx, flash.CreateOptions{Image: "alpine:latest", Command: []string{"sleep", "600"}, MemoryMB: 256})
//	if errors.Is(err, flash.NotFound) { ... }
package flash
