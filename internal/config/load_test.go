package config_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flash-sandbox/flash-sandbox/internal/config"
)

func noEnv(string) string { return "" }

// write puts a settings file into a directory of the test's own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fsbd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNothingGiven(t *testing.T) {
	r, err := config.Load(nil, []string{"HOME=/home/u"}, io.Discard)
	if err != nil {
		t.Fatalf("a daemon without settings must start: %v", err)
	}
	want := config.Default(os.Geteuid(), func(string) string { return "/home/u" })
	want.DataDir = r.Config.DataDir // has a test of its own
	if diff := cmp.Diff(want, r.Config); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if len(r.Warnings) != 0 || r.Check || r.Version || r.File != "" {
		t.Errorf("got %+v, want nothing set", r)
	}
}

func TestDefaultDataDir(t *testing.T) {
	for _, test := range []struct {
		name string
		uid  int
		env  map[string]string
		want string
	}{
		{"root", 0, map[string]string{"XDG_DATA_HOME": "/x", "HOME": "/root"}, "/var/lib/flash-sandbox"},
		{"xdg", 1000, map[string]string{"XDG_DATA_HOME": "/x", "HOME": "/home/u"}, "/x/flash-sandbox"},
		{"relative xdg counts for nothing", 1000, map[string]string{"XDG_DATA_HOME": "x", "HOME": "/home/u"}, "/home/u/.local/share/flash-sandbox"},
		{"home", 1000, map[string]string{"HOME": "/home/u"}, "/home/u/.local/share/flash-sandbox"},
		{"none", 1000, nil, ""},
	} {
		c := config.Default(test.uid, func(name string) string { return test.env[name] })
		if c.DataDir != test.want {
			t.Errorf("%s: data dir %q, want %q", test.name, c.DataDir, test.want)
		}
		if err := c.Validate(); (err == nil) != (test.want != "") {
			t.Errorf("%s: Validate: %v", test.name, err)
		}
	}
}

// TestOrder: each layer wins over those below it and leaves the rest alone.
func TestOrder(t *testing.T) {
	file := write(t, `
http_addr = "127.0.0.1:1001"
grpc_addr = "127.0.0.1:1002"
log_level = "warn"
log_format = "json"
base_path = ["from/file/"]
output_limit = "1MiB"
`)
	environ := []string{"HOME=/home/u", "FSB_GRPC_ADDR=127.0.0.1:2002", "FSB_LOG_LEVEL=error", "FSB_HTTP_ADDR="}
	r, err := config.Load([]string{"-config", file, "-log-level=debug"}, environ, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	c := r.Config
	if c.HTTPAddr != "127.0.0.1:1001" || c.GRPCAddr != "127.0.0.1:2002" || c.LogLevel != slog.LevelDebug ||
		c.LogFormat != "json" || c.OutputLimit != 1<<20 || c.PidsLimit != 1024 || !slices.Equal(c.BasePath, []string{"/from/file"}) {
		t.Errorf("settings: %+v", c)
	}
	for name, want := range map[string]config.Origin{
		"FSB_HTTP_ADDR": config.FromFile, "FSB_GRPC_ADDR": config.FromEnv, "FSB_LOG_LEVEL": config.FromFlag,
		"FSB_LOG_FORMAT": config.FromFile, "FSB_PIDS_LIMIT": config.FromDefault,
	} {
		if got := r.Origin(name); got != want {
			t.Errorf("origin of %s = %s, want %s", name, got, want)
		}
	}
	if r.File != file {
		t.Errorf("file %q, want %q", r.File, file)
	}
}

func TestFileByVariable(t *testing.T) {
	file := write(t, `pids_limit = 7`)
	other := write(t, `pids_limit = 8`)
	r, err := config.Load(nil, []string{"HOME=/h", "FSB_CONFIG=" + file}, io.Discard)
	if err != nil || r.Config.PidsLimit != 7 || len(r.Warnings) != 0 {
		t.Errorf("by variable: %+v, %v", r, err)
	}
	r, err = config.Load([]string{"-config", other}, []string{"HOME=/h", "FSB_CONFIG=" + file}, io.Discard)
	if err != nil || r.Config.PidsLimit != 8 {
		t.Errorf("the flag must win over the variable: %+v, %v", r, err)
	}
}

// TestEveryVariable sets each setting through its variable and through the
// file, and expects the same value.
func TestEveryVariable(t *testing.T) {
	environ := []string{
		"FSB_HTTP_ADDR=:1", "FSB_GRPC_ADDR=[::1]:2", "FSB_BASE_PATH=/v1/a/, b,,/", "FSB_DATA_DIR=/srv/./fsb/",
		"FSB_DOCKER_HOST=unix:///run/d.sock", "FSB_DOCKER_RUNTIMES=runsc, kata", "FSB_IMAGE_DIRS=/a/, /b",
		"FSB_REGISTRY_MIRRORS=docker.io=http://127.0.0.1:5000,https://m.example", "FSB_INSECURE_REGISTRIES=r.example:5000,[::2]:80",
		"FSB_IMAGE_DISK_BUDGET=1.5GiB", "FSB_OUTPUT_LIMIT=64KiB", "FSB_DEFAULT_MEMORY_MB=128", "FSB_PIDS_LIMIT=0",
		"FSB_LOG_LEVEL=error", "FSB_LOG_FORMAT=json", "FSB_DRAIN_TIMEOUT=1m",
	}
	want := config.Config{
		HTTPAddr: ":1", GRPCAddr: "[::1]:2", BasePath: []string{"/v1/a", "/b"}, DataDir: "/srv/fsb",
		DockerHost: "unix:///run/d.sock", DockerRuntimes: []string{"runsc", "kata"}, ImageDirs: []string{"/a", "/b"},
		RegistryMirrors:    []string{"docker.io=http://127.0.0.1:5000", "https://m.example"},
		InsecureRegistries: []string{"r.example:5000", "[::2]:80"},
		ImageDiskBudget:    3 << 29, OutputLimit: 64 << 10, DefaultMemoryMB: 128, PidsLimit: 0,
		LogLevel: slog.LevelError, LogFormat: "json", DrainTimeout: config.Duration{Duration: time.Minute},
	}
	r, err := config.Load(nil, environ, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, r.Config); diff != "" {
		t.Errorf("by variables (-want +got):\n%s", diff)
	}
	file := write(t, `
http_addr = ":1"
grpc_addr = "[::1]:2"
base_path = ["/v1/a/", "b", "/"]
data_dir = "/srv/./fsb/"
docker_host = "unix:///run/d.sock"
docker_runtimes = ["runsc", "kata"]
image_dirs = ["/a/", "/b"]
registry_mirrors = ["docker.io=http://127.0.0.1:5000", "https://m.example"]
insecure_registries = ["r.example:5000", "[::2]:80"]
image_disk_budget = "1.5GiB"
output_limit = "64KiB"
default_memory_mb = 128
pids_limit = 0
log_level = "error"
log_format = "json"
drain_timeout = "1m"
`)
	r, err = config.Load([]string{"-config", file}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, r.Config); diff != "" {
		t.Errorf("by file (-want +got):\n%s", diff)
	}
}

func TestFileFaults(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"unknown key", "pids_limit = 1\nhttp_adr = \"x\"\n", `FILE:2:1: unknown setting "http_adr"; did you mean http_addr?`},
		{"unknown table", "[docker]\nhost = 1\n", `FILE:1:2: unknown setting "docker"`},
		{"wrong type", "\n\nhttp_addr = 8080\n", "FILE:3:13: http_addr: "},
		{"bad size", "output_limit = \"12 parsecs\"\n", `FILE:1:16: output_limit: "12 parsecs" is not a size`},
		{"bad duration", "drain_timeout = \"soon\"\n", `FILE:1:17: drain_timeout: "soon" is not a duration`},
		{"bad level", "log_level = \"loud\"\n", `FILE:1:13: log_level: `},
		{"not TOML", "a = = b\n", "FILE:1:5: "},
		{"list as text", "base_path = \"/a,/b\"\n", "FILE:1:13: base_path: "},
		{"number for a duration", "drain_timeout = 10\n", `FILE: "10" is not a duration`},
		{"negative size", "output_limit = -1\n", "FSB_OUTPUT_LIMIT: is -1"},
		{"fault of value", "pids_limit = -1\n", "FSB_PIDS_LIMIT: is -1"},
	} {
		file := write(t, test.text)
		_, err := config.Load([]string{"-config", file}, []string{"HOME=/h"}, io.Discard)
		if err == nil {
			t.Errorf("%s: accepted", test.name)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), file, "FILE"); !strings.Contains(got, test.want) {
			t.Errorf("%s: error %q, want it to hold %q", test.name, got, test.want)
		}
	}
	if _, err := config.Load([]string{"-config", "/no/such/file"}, nil, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

// TestAllFaultsAtOnce: whoever sets up a daemon wants to be told once.
func TestAllFaultsAtOnce(t *testing.T) {
	environ := []string{
		"FSB_HTTP_ADDR=8080", "FSB_BASE_PATH=/a//b,/a/../b,/a?b", "FSB_DATA_DIR=data", "FSB_DOCKER_HOST=/run/docker.sock",
		"FSB_DOCKER_RUNTIMES=runsc,run sc,runsc", "FSB_IMAGE_DIRS=images", "FSB_REGISTRY_MIRRORS=ftp://x,=http://y",
		"FSB_INSECURE_REGISTRIES=http://r", "FSB_IMAGE_DISK_BUDGET=-1", "FSB_OUTPUT_LIMIT=1B", "FSB_DEFAULT_MEMORY_MB=lots",
		"FSB_PIDS_LIMIT=-5", "FSB_LOG_LEVEL=loud", "FSB_LOG_FORMAT=xml", "FSB_DRAIN_TIMEOUT=0s", "FSB_GRPC_ADDR=localhost:99999",
	}
	_, err := config.Load(nil, environ, io.Discard)
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+": ") }) {
			t.Errorf("no fault begins with %s", name)
		}
	}
	if want := 20; len(lines) != want {
		t.Errorf("%d faults, want %d:\n%s", len(lines), want, err)
	}
}

func TestSameAddressTwice(t *testing.T) {
	_, err := config.Load(nil, []string{"HOME=/h", "FSB_HTTP_ADDR=:8080", "FSB_GRPC_ADDR=:8080"}, io.Discard)
	var f *config.Fault
	if !errors.As(err, &f) || f.Setting != "FSB_GRPC_ADDR" {
		t.Errorf("error %v, want a fault of FSB_GRPC_ADDR", err)
	}
	if _, err := config.Load(nil, []string{"HOME=/h", "FSB_HTTP_ADDR=:0", "FSB_GRPC_ADDR=:0"}, io.Discard); err != nil {
		t.Errorf("two free ports: %v", err)
	}
}

func TestUnknownVariables(t *testing.T) {
	r, err := config.Load(nil, []string{"HOME=/h", "FSB_HTTP_ADR=:1", "FSB_WHATEVER_ELSE=1", "FSB_TEST_REQUIRE=docker", "FSBX=1"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"the variable FSB_HTTP_ADR is no setting and has no effect; did you mean FSB_HTTP_ADDR?",
		"the variable FSB_WHATEVER_ELSE is no setting and has no effect",
	}
	if diff := cmp.Diff(want, r.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestFlags(t *testing.T) {
	r, err := config.Load([]string{"-check"}, []string{"HOME=/h"}, io.Discard)
	if err != nil || !r.Check {
		t.Errorf("-check: %+v, %v", r, err)
	}
	r, err = config.Load([]string{"-version", "-config", "/no/such/file"}, []string{"FSB_PIDS_LIMIT=x"}, io.Discard)
	if err != nil || !r.Version {
		t.Errorf("-version must work whatever the settings are: %+v, %v", r, err)
	}
	for _, args := range [][]string{{"-nope"}, {"serve"}, {"-log-level", "loud"}, {"-config"}} {
		if _, err := config.Load(args, []string{"HOME=/h"}, io.Discard); err == nil {
			t.Errorf("%q accepted", args)
		}
	}
	var usage bytes.Buffer
	_, err = config.Load([]string{"-h"}, nil, &usage)
	if !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
	for _, name := range []string{"-config", "-log-level", "-check", "-version"} {
		if !strings.Contains(usage.String(), name) {
			t.Errorf("the usage lacks %s:\n%s", name, usage.String())
		}
	}
}

func TestPrint(t *testing.T) {
	r, err := config.Load([]string{"-log-level=debug"}, []string{
		"FSB_DATA_DIR=/srv/fsb", "FSB_REGISTRY_MIRRORS=docker.io=https://me:secret@m.example/x,http://n.example",
		"FSB_DRAIN_TIMEOUT=90s",
	}, io.Discard)
	if err == nil {
		t.Error("credentials in a mirror's URL are accepted")
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"SETTING ", "FSB_HTTP_ADDR            127.0.0.1:8080", "docker.io=https://me:***@m.example/x,http://n.example",
		"FSB_IMAGE_DISK_BUDGET    20GiB", "1m30s", "FSB_LOG_LEVEL            debug", "flag\n", "env\n", "default\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("a password is shown:\n%s", out.String())
	}
}

func TestSecretsInFaultsAreHidden(t *testing.T) {
	_, err := config.Load(nil, []string{
		"HOME=/h", "FSB_REGISTRY_MIRRORS=ftp://me:secret@m", "FSB_DOCKER_HOST=http://me:secret@d:1",
	}, io.Discard)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v, want two faults without the password", err)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]config.Bytes{
		"0": 0, "4096": 4096, "1B": 1, "1K": 1024, "1kb": 1000, "2 MiB": 2 << 20, "1.5G": 3 << 29, "3TB": 3e12, "1tib": 1 << 40,
	} {
		var b config.Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q = %d, %v; want %d", text, b, err, want)
		}
		var again config.Bytes
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%d is written as %q, which reads as %d, %v", b, b.String(), again, err)
		}
	}
	for _, text := range []string{"", "GiB", "x", "-1", "1e3", "0x10", "NaN", "Inf", "1 2", "9999999999TiB", "1PiBB", "1_000"} {
		var b config.Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q accepted as %d", text, b)
		}
	}
}
