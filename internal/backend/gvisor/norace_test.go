//go:build !race

package gvisor

import "testing"

// executable is what launchers execute in tests: this program.
func executable(testing.TB) string { return "" }

func removeExecutable() {}
