// Command leakcheck compares what Flash Sandbox has on this host before and
// after something: processes, mounts, cgroups, network namespaces, sockets,
// temporary files, containers.
//
//	leakcheck before FILE [MARK...]   write down what there is
//	leakcheck after FILE              print what is new; exit status 1 if anything is
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

func main() {
	leaked, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "leakcheck:", err)
		os.Exit(2)
	}
	for _, item := range leaked {
		fmt.Println("+", item)
	}
	if len(leaked) > 0 {
		os.Exit(1)
	}
}

func run(args []string) ([]string, error) {
	switch {
	case len(args) >= 2 && args[0] == "before":
		data, err := json.MarshalIndent(testenv.Take(testenv.Options{Marks: args[2:]}), "", "  ")
		if err != nil {
			return nil, err
		}
		return nil, os.WriteFile(args[1], data, 0o600)
	case len(args) == 2 && args[0] == "after":
		data, err := os.ReadFile(args[1])
		if err != nil {
			return nil, err
		}
		var before testenv.Snapshot
		if err := json.Unmarshal(data, &before); err != nil {
			return nil, err
		}
		return before.Settle(10 * time.Second), nil
	}
	return nil, fmt.Errorf("usage: leakcheck before FILE [MARK...] | leakcheck after FILE")
}
