package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxArchiveNames bounds the entries of an archive of images.
const maxArchiveNames = 1 << 16

// section is where a file lies in an uncompressed tar.
type section struct{ offset, size int64 }

// tarFile is a tar of which single files are read.
type tarFile struct {
	file  *os.File
	names map[string]section
}

// openTar lists the files of an uncompressed tar. Links are followed once, by name.
func openTar(ctx context.Context, file *os.File) (*tarFile, error) {
	t := &tarFile{file: file, names: map[string]section{}}
	links := map[string]string{}
	r := tar.NewReader(file)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("it is no uncompressed tar: %w", err)
		}
		if len(t.names)+len(links) >= maxArchiveNames {
			return nil, fmt.Errorf("it holds more than %d files", maxArchiveNames)
		}
		name := path.Clean(hdr.Name)
		switch hdr.Typeflag {
		case tar.TypeReg:
			off, err := file.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			if off+hdr.Size < off {
				return nil, errors.New("a size in it is out of range")
			}
			t.names[name] = section{off, hdr.Size}
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), hdr.Linkname)
		case tar.TypeLink:
			links[name] = path.Clean(hdr.Linkname)
		}
	}
	for name, target := range links {
		if sec, ok := t.names[target]; ok {
			t.names[name] = sec
		}
	}
	return t, nil
}

func (t *tarFile) open(name string) (io.ReadCloser, error) {
	sec, ok := t.names[path.Clean(name)]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(t.file, sec.offset, sec.size)), nil
}

// openArchive opens the file of an oci-archive: or docker-archive: reference.
func openArchive(ctx context.Context, r reference, f *files) (source, error) {
	file, err := f.open()
	if err != nil {
		f.close()
		return nil, fileError(r, err)
	}
	closer := func() { _ = file.Close(); f.close() }
	t, err := openTar(ctx, file)
	if err != nil {
		closer()
		return nil, fileError(r, err)
	}
	layout := &layoutSource{ref: r, open: t.open, closer: closer}
	if r.transport == ociArchive {
		return layout, nil
	}
	d := &dockerSource{layoutSource: layout}
	if err := d.index(); err != nil {
		closer()
		return nil, err
	}
	return d, nil
}

// dockerSource reads what `docker save` writes. Its layers have no digests of
// their own, so a manifest is made for them.
type dockerSource struct {
	*layoutSource
	desc  descriptor
	raw   []byte
	files map[v1.Hash]string
}

// savedImage is an element of manifest.json.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (d *dockerSource) index() error {
	raw, err := d.read("manifest.json", maxManifestBytes)
	if err != nil {
		return err
	}
	var list []savedImage
	if err := json.Unmarshal(raw, &list); err != nil {
		return broken("manifest.json of %s is malformed", d.ref.path).WithCause(err)
	}
	img, err := pickSaved(list, d.ref)
	if err != nil {
		return err
	}
	if len(img.Layers) > maxLayers {
		return broken("it has more than %d layers", maxLayers)
	}
	d.files = map[v1.Hash]string{}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	if m.Config, err = d.describe(img.Config, types.OCIConfigJSON); err != nil {
		return err
	}
	for _, name := range img.Layers {
		desc, err := d.describe(name, types.OCIUncompressedLayer)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, desc)
	}
	if d.raw, err = json.Marshal(m); err != nil {
		return fmt.Errorf("make manifest: %w", err)
	}
	sum := sha256.Sum256(d.raw)
	d.desc = descriptor{
		digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}, mediaType: m.MediaType, size: int64(len(d.raw)),
	}
	return nil
}

func pickSaved(list []savedImage, r reference) (savedImage, error) {
	var names []string
	for _, img := range list {
		names = append(names, img.RepoTags...)
	}
	if r.tag == "" {
		if len(list) != 1 {
			return savedImage{}, broken("%s holds %d images; add a name, one of %q", r.path, len(list), names)
		}
		return list[0], nil
	}
	for _, img := range list {
		if slices.ContainsFunc(img.RepoTags, func(n string) bool { return n == r.tag || n == r.tag+":latest" || strings.HasSuffix(n, ":"+r.tag) }) {
			return img, nil
		}
	}
	return savedImage{}, notFound("image: %s holds no image named %q, only %q", r.path, r.tag, names)
}

func (d *dockerSource) describe(name string, mt types.MediaType) (v1.Descriptor, error) {
	rc, err := d.open(name)
	if err != nil {
		return v1.Descriptor{}, fileError(d.ref, err)
	}
	defer func() { _ = rc.Close() }()
	hash := sha256.New()
	var head bytes.Buffer
	n, err := io.Copy(hash, io.TeeReader(rc, &prefixWriter{buf: &head, max: 2}))
	if err != nil {
		return v1.Descriptor{}, fileError(d.ref, err)
	}
	if mt == types.OCIUncompressedLayer && bytes.Equal(head.Bytes(), []byte{0x1f, 0x8b}) {
		mt = types.OCILayer
	}
	h := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(hash.Sum(nil))}
	d.files[h] = name
	return v1.Descriptor{MediaType: mt, Digest: h, Size: n}, nil
}

// prefixWriter keeps the first max bytes.
type prefixWriter struct {
	buf *bytes.Buffer
	max int
}

func (w *prefixWriter) Write(p []byte) (int, error) {
	if n := w.max - w.buf.Len(); n > 0 {
		w.buf.Write(p[:min(n, len(p))])
	}
	return len(p), nil
}

func (d *dockerSource) root(context.Context) (descriptor, []byte, error) { return d.desc, d.raw, nil }

func (d *dockerSource) blob(_ context.Context, desc descriptor) (io.ReadCloser, error) {
	rc, err := d.open(d.files[desc.digest])
	if err != nil {
		return nil, fileError(d.ref, err)
	}
	return rc, nil
}
