package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackageComments: each package says once what it is.
func TestPackageComments(t *testing.T) {
	for _, p := range loadGraph(t) {
		if !p.ours() || len(p.GoFiles) == 0 {
			continue
		}
		var comments []string
		generated := true
		for _, name := range p.GoFiles {
			file := parse(t, filepath.Join(p.Dir, name), parser.PackageClauseOnly|parser.ParseComments)
			generated = generated && ast.IsGenerated(file)
			if doc := file.Doc.Text(); doc != "" {
				comments = append(comments, doc)
			}
		}
		if generated {
			continue
		}
		if len(comments) != 1 {
			t.Errorf("%s has %d package comments, want one", rel(p.ImportPath), len(comments))
			continue
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.Dir) + " "
		}
		if !strings.HasPrefix(comments[0], want) {
			t.Errorf("the package comment of %s does not begin with %q", rel(p.ImportPath), want)
		}
	}
}

// TestNoInit: nothing happens by being imported. What is to be set up is
// called for in main.
func TestNoInit(t *testing.T) {
	for _, p := range loadGraph(t) {
		if !p.ours() {
			continue
		}
		for _, name := range p.GoFiles {
			file := parse(t, filepath.Join(p.Dir, name), parser.SkipObjectResolution|parser.ParseComments)
			if ast.IsGenerated(file) {
				continue
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s has an init function", filepath.Join(rel(p.ImportPath), name))
				}
			}
		}
	}
}

func parse(t *testing.T, path string, mode parser.Mode) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, mode)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// fsbBudget is how large fsb may get, stripped and static: about twice what it
// needs, so that only something large that came in unnoticed breaks it.
const fsbBudget = 16 << 20

// TestClientSize builds fsb as it is released.
func TestClientSize(t *testing.T) {
	out := filepath.Join(t.TempDir(), "fsb")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, module+"/cmd/fsb")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build fsb: %v\n%s", err, text)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("fsb has %.1f MB", float64(info.Size())/1e6)
	if info.Size() > fsbBudget {
		t.Errorf("fsb has %d bytes, its budget is %d", info.Size(), fsbBudget)
	}
}
