package docker_test

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// archive is an OCI layout on disk that can be written as docker save would.
type archive struct {
	dir, ref, digest string
	manifest         struct {
		Config descriptor
		Layers []descriptor
	}
	config backend.ImageConfig
}

type descriptor struct{ Digest string }

var _ backend.ArchiveImage = (*archive)(nil)

// buildImage builds one of the test images below dir.
func buildImage(dir, kind string) (*archive, error) {
	out := filepath.Join(dir, kind)
	cmd := exec.Command("../../../test/images/build.sh", kind, out)
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build image %s: %w\n%s", kind, err, b)
	}
	return readImage(out, kind)
}

// readImage reads an OCI layout with one image.
func readImage(dir, kind string) (*archive, error) {
	a := &archive{dir: dir, ref: "test/" + kind}
	var index struct{ Manifests []descriptor }
	if err := readJSON(filepath.Join(dir, "index.json"), &index); err != nil {
		return nil, err
	}
	a.digest = index.Manifests[0].Digest
	if err := readJSON(a.blob(a.digest), &a.manifest); err != nil {
		return nil, err
	}
	var config struct{ Config backend.ImageConfig }
	err := readJSON(a.blob(a.manifest.Config.Digest), &config)
	a.config = config.Config
	return a, err
}

func readJSON(file string, to any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

func (a *archive) blob(digest string) string {
	return filepath.Join(a.dir, "blobs", strings.Replace(digest, ":", "/", 1))
}

func (a *archive) Reference() string           { return a.ref }
func (a *archive) Digest() string              { return a.digest }
func (a *archive) Config() backend.ImageConfig { return a.config }
func (a *archive) ConfigDigest() string        { return a.manifest.Config.Digest }

func (a *archive) WriteArchive(ctx context.Context, w io.Writer, tag string) error {
	tw := tar.NewWriter(w)
	config := strings.TrimPrefix(a.ConfigDigest(), "sha256:") + ".json"
	if err := addFile(tw, config, a.blob(a.ConfigDigest())); err != nil {
		return err
	}
	var layers []string
	for _, l := range a.manifest.Layers {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		name := strings.TrimPrefix(l.Digest, "sha256:") + "/layer.tar"
		if err := addFile(tw, name, a.blob(l.Digest)); err != nil {
			return err
		}
		layers = append(layers, name)
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": config, "RepoTags": []string{tag}, "Layers": layers}})
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(manifest))}); err != nil {
		return err
	}
	if _, err := tw.Write(manifest); err != nil {
		return err
	}
	return tw.Close()
}

func addFile(tw *tar.Writer, name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: st.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
