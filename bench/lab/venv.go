package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Venv returns the interpreter of a virtual environment below .cache/venvs of
// the repository that holds the given packages, pinned; it is made, or made
// again, if it does not.
func (l *Lab) Venv(ctx context.Context, name string, requirements ...string) (string, error) {
	if _, err := exec.LookPath("python3"); err != nil {
		return "", errors.New("python3 is not installed")
	}
	dir := filepath.Join(l.repo, ".cache/venvs", name)
	python, stamp := filepath.Join(dir, "bin/python"), filepath.Join(dir, "bench-requirements")
	want := strings.Join(requirements, "\n")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		if _, err := os.Stat(python); err == nil {
			return python, nil
		}
	}
	l.Logf("installing %s for Python", strings.Join(requirements, ", "))
	if _, err := l.run(ctx, "python3", "-m", "venv", "--clear", dir); err != nil {
		return "", err
	}
	if _, err := l.run(ctx, python, append([]string{"-m", "pip", "install", "-q"}, requirements...)...); err != nil {
		return "", err
	}
	return python, os.WriteFile(stamp, []byte(want), 0o600)
}
