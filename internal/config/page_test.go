package config_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flash-sandbox/flash-sandbox/internal/config"
)

var update = flag.Bool("update", false, "write docs/CONFIG.md anew")

const pagePath = "../../docs/CONFIG.md"

const pageHead = `# Settings of fsbd

Generated from the comments in internal/config/config.go: change those, then run
` + "`go test ./internal/config -update`" + `.

fsbd needs no settings. What is given is taken in this order, later ones win: defaults, the settings file, ` + "`FSB_*`" + `
variables, flags. A variable set to nothing counts as not set. ` + "`fsbd -check`" + ` prints all values with their origin, or
all faults.

The settings file is TOML; its keys are the variables' names in lower case without ` + "`FSB_`" + `, and unknown keys are
errors. ` + "`fsbd -config FILE`" + ` or ` + "`FSB_CONFIG=FILE`" + ` names it. Lists are arrays in the file and separated by commas in
variables.

` + "```toml" + `
http_addr = "0.0.0.0:8080"
base_path = ["/v1/service/sandbox"]
registry_mirrors = ["docker.io=http://127.0.0.1:5000"]
image_disk_budget = "50GiB"
drain_timeout = "30s"
` + "```" + `

Flags: ` + "`-config FILE`, `-log-level LEVEL`, `-check`, `-version`" + `.
`

// TestPage holds docs/CONFIG.md to the code.
func TestPage(t *testing.T) {
	got := page(t)
	if *update {
		if err := os.WriteFile(pagePath, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("docs/CONFIG.md is out of date, run go test ./internal/config -update (-page +code):\n%s", diff)
	}
}

// TestPageExample: the example in the page is one that works.
func TestPageExample(t *testing.T) {
	_, rest, _ := strings.Cut(pageHead, "```toml\n")
	example, _, _ := strings.Cut(rest, "```")
	file := write(t, example)
	if _, err := config.Load([]string{"-config", file}, []string{"HOME=/h"}, os.Stderr); err != nil {
		t.Error(err)
	}
}

func page(t *testing.T) string {
	t.Helper()
	comments := fieldComments(t)
	c := config.Default(0, noEnv)
	v := reflect.ValueOf(c)
	var b strings.Builder
	b.WriteString(pageHead)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, variable := f.Tag.Get("toml"), f.Tag.Get("env")
		if variable != "FSB_"+strings.ToUpper(key) {
			t.Errorf("%s: the variable %q and the key %q don't match", f.Name, variable, key)
		}
		comment := comments[f.Name]
		if comment == "" {
			t.Errorf("%s has no comment", f.Name)
		}
		fmt.Fprintf(&b, "\n## %s\n%s\n\nKey `%s`, %s. Default: %s\n", variable, comment, key, kind(f.Type), defaultText(v.Field(i).Interface()))
	}
	return b.String()
}

func kind(t reflect.Type) string {
	switch t.Name() {
	case "Bytes":
		return "size"
	case "Duration":
		return "duration"
	case "Level", "string":
		return "text"
	case "int64":
		return "number"
	}
	return "list"
}

func defaultText(v any) string {
	s := fmt.Sprint(v)
	switch v := v.(type) {
	case []string:
		s = strings.Join(v, ",")
	case slog.Level:
		s = strings.ToLower(v.String())
	}
	if s == "" {
		return "empty."
	}
	return "`" + s + "`."
}

// fieldComments returns the comments of Config's fields by name.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := make(map[string]string)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "Config" {
			return true
		}
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			comments[f.Names[0].Name] = strings.TrimSpace(f.Doc.Text())
		}
		return false
	})
	return comments
}
