package image

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv/registry"
	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// closedAddr is a loopback address that nothing listens on.
func closedAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	return lis.Addr().String()
}

func wantError(t *testing.T, err error, code flash.Code, reason string, say ...string) {
	t.Helper()
	var fe *flash.Error
	if !errors.As(err, &fe) || fe.Code != code || fe.Reason != reason {
		t.Fatalf("error is %#v (%v), want code %s, reason %q", err, err, code, reason)
	}
	for _, s := range say {
		if !strings.Contains(fe.Message, s) {
			t.Errorf("message %q does not say %q", fe.Message, s)
		}
	}
}

func TestMirrors(t *testing.T) {
	img := testImage(t, map[string]string{"a": "1"})
	other := testImage(t, map[string]string{"a": "2"})
	mirror, second := registry.Start(t), registry.Start(t)
	mirror.Add(t, "library/app:latest", img)
	second.Add(t, "library/app:latest", other)
	second.Add(t, "library/only:latest", other)
	second.Add(t, "prefix/team/app:v1", other)
	s := testStore(t, Config{Mirrors: map[string][]string{
		"docker.io":        {"http://" + closedAddr(t), mirror.URL(), second.URL()},
		"registry.invalid": {second.URL() + "/prefix"},
	}})
	for ref, want := range map[string]string{
		"app": "1", "docker.io/library/app:latest": "1", "only": "2", "registry.invalid/team/app:v1": "2",
	} {
		l := acquire(t, s, ref)
		wantFile(t, filepath.Join(rootfs(t, l), "a"), want)
		l.Release()
	}
	if n := second.Count("GET", "/library/app/"); n != 0 {
		t.Errorf("the second mirror was asked %d times for what the first one has", n)
	}
	_, err := s.Acquire(context.Background(), "nowhere:latest")
	wantError(t, err, flash.Invalid, reasonNotFound, "nowhere:latest", mirror.Addr()+": not found", "refuses connections", "index.docker.io")
	_, err = s.Acquire(context.Background(), "registry.invalid/x")
	wantError(t, err, flash.Invalid, reasonNotFound, "registry.invalid")
	for _, img := range s.List() {
		if img.State == "failed" && img.Error == "" {
			t.Errorf("failed without saying why: %+v", img)
		}
	}
	wantClean(t, s)
}

// What a mirror lacks is not decided by the mirror: while the registry can't be
// asked, the cached image is used.
func TestMirrorLacksCachedImage(t *testing.T) {
	first, second := testImage(t, map[string]string{"a": "1"}), testImage(t, map[string]string{"a": "2"})
	mirror, origin := registry.Start(t), registry.Start(t)
	host := origin.Addr()
	digest := origin.Add(t, "app:v1", first)
	s := testStore(t, Config{TagTTL: time.Nanosecond, Mirrors: map[string][]string{host: {mirror.URL()}}})
	ref := host + "/app:v1"
	acquire(t, s, ref).Release()

	// The registry's own word counts, whatever its mirror says.
	origin.Intercept(registry.Fail(http.StatusNotFound))
	_, err := s.Acquire(context.Background(), ref)
	wantError(t, err, flash.Invalid, reasonNotFound, "was not found (")
	origin.Intercept(registry.Fail(http.StatusTooManyRequests))
	_, err = s.Acquire(context.Background(), host+"/other")
	wantError(t, err, flash.Unavailable, "", mirror.Addr()+": not found", "too many requests")

	if err := origin.Close(); err != nil {
		t.Fatal(err)
	}
	cachedIs := func(t *testing.T) {
		t.Helper()
		l := acquire(t, s, ref)
		defer l.Release()
		if l.Digest() != digest {
			t.Errorf("digest is %s, want %s", l.Digest(), digest)
		}
	}
	t.Run("tag not found", cachedIs)
	mirror.Intercept(registry.Fail(http.StatusForbidden))
	t.Run("tag denied", cachedIs)
	mirror.Add(t, "app:v1", second)
	mirror.Intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			registry.Fail(http.StatusNotFound)(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
	t.Run("layers not found", cachedIs)
	_, err = s.Acquire(context.Background(), host+"/other")
	wantError(t, err, flash.Invalid, reasonNotFound, mirror.Addr()+": not found", "can't be reached", host+": refuses connections")
	wantClean(t, s)
}

func TestMirrorThatBreaksMidway(t *testing.T) {
	img := testImage(t, map[string]string{"a": strings.Repeat("z", 100000)})
	bad, good := registry.Start(t), registry.Start(t)
	bad.Add(t, "library/app:latest", img)
	good.Add(t, "library/app:latest", img)
	bad.Intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			registry.Fail(http.StatusNotFound)(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
	s := testStore(t, Config{Mirrors: map[string][]string{"docker.io": {bad.URL(), good.URL()}}})
	acquire(t, s, "app").Release()
	wantClean(t, s)
}

func TestErrors(t *testing.T) {
	reg := registry.Start(t)
	reg.Add(t, "app:v1", testImage(t, map[string]string{"a": "1"}))
	locked := registry.Start(t, registry.Options{Auth: registry.AuthToken, User: "u", Password: "p"})
	locked.Add(t, "app:v1", testImage(t, map[string]string{"a": "1"}))
	brokenAuth := registry.Start(t, registry.Options{Auth: registry.AuthBroken})
	ill := registry.Start(t)
	ill.Intercept(registry.Fail(http.StatusTeapot))
	busy := registry.Start(t)
	busy.Intercept(registry.Fail(http.StatusTooManyRequests))
	foreign := testImage(t, map[string]string{"a": "1"})
	cfg := configOf(t, foreign)
	cfg.Architecture = "mips"
	foreign, err := mutate.ConfigFile(foreign, cfg)
	if err != nil {
		t.Fatal(err)
	}
	reg.Add(t, "foreign:v1", foreign)
	nul := configOf(t, foreign)
	nul.Architecture, nul.Config.Cmd = "", []string{"a\x00b"}
	withNUL, err := mutate.ConfigFile(foreign, nul)
	if err != nil {
		t.Fatal(err)
	}
	reg.Add(t, "nul:v1", withNUL)
	closed := closedAddr(t)
	useDockerConfig(t, "")
	s := testStore(t, Config{})
	for _, tc := range []struct {
		ref    string
		code   flash.Code
		reason string
		say    string
	}{
		{"", flash.Invalid, "", "is empty"},
		{"UPPER", flash.Invalid, "", "no image reference"},
		{"https://x/y", flash.Invalid, "", "URL"},
		{"a/../b", flash.Invalid, "", "dots"},
		{"a\x00b", flash.Invalid, "", "control character"},
		{reg.Addr() + "/app:v2", flash.Invalid, reasonNotFound, "not found"},
		{reg.Addr() + "/none", flash.Invalid, reasonNotFound, "not found"},
		{reg.Addr() + "/app@sha256:" + strings.Repeat("0", 64), flash.Invalid, reasonNotFound, "not found"},
		{reg.Addr() + "/foreign:v1", flash.Invalid, "", "mips"},
		{reg.Addr() + "/nul:v1", flash.Invalid, "", "NUL byte"},
		{locked.Addr() + "/app:v1", flash.Denied, "", "access denied"},
		{brokenAuth.Addr() + "/app:v1", flash.Unavailable, "", brokenAuth.Addr() + ": answered with status 500"},
		{ill.Addr() + "/app", flash.Unavailable, "", "status 418"},
		{busy.Addr() + "/app", flash.Unavailable, "", "too many requests"},
		{closed + "/app", flash.Unavailable, "", closed + ": refuses connections"},
		{"registry.invalid/app", flash.Unavailable, "", "can't be resolved"},
	} {
		t.Run(tc.ref, func(t *testing.T) {
			_, err := s.Acquire(context.Background(), tc.ref)
			wantError(t, err, tc.code, tc.reason, "image: ", tc.say)
		})
	}
	wantClean(t, s)
}

func TestPlainHTTPOnlyWhereAllowed(t *testing.T) {
	// An address of this host that is not loopback.
	addr := ""
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			addr = n.IP.String()
		}
	}
	if addr == "" {
		t.Fatal("this test needs an IPv4 address besides loopback")
	}
	reg := registry.Start(t, registry.Options{Addr: addr + ":0"})
	reg.Add(t, "app:v1", testImage(t, map[string]string{"a": "1"}))
	_, err = testStore(t, Config{}).Acquire(context.Background(), reg.Addr()+"/app:v1")
	if !errors.Is(err, flash.Unavailable) {
		t.Errorf("a registry without TLS: %v", err)
	}
	if n := len(reg.Requests()); n != 0 {
		t.Errorf("it was asked %d times without TLS", n)
	}
	for _, listed := range []string{addr, reg.Addr()} {
		acquire(t, testStore(t, Config{InsecureRegistries: []string{listed}}), reg.Addr()+"/app:v1").Release()
	}
	if _, err := Open(Config{Dir: t.TempDir(), Mirrors: map[string][]string{"docker.io": {reg.URL()}}}); !errors.Is(err, flash.Invalid) {
		t.Errorf("a mirror without TLS: %v", err)
	}
	// A redirect is held to the same rule.
	from := registry.Start(t)
	from.Add(t, "app:v1", testImage(t, map[string]string{"a": "1"}))
	from.Intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, reg.URL()+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		next.ServeHTTP(w, r)
	})
	reg.Reset()
	if _, err := testStore(t, Config{}).Acquire(context.Background(), from.Addr()+"/app:v1"); err == nil || len(reg.Requests()) != 0 {
		t.Errorf("redirect to a registry without TLS: %v, %d requests", err, len(reg.Requests()))
	}
}

// useDockerConfig lets credentials come from a Docker config file of the test's own.
func useDockerConfig(t *testing.T, config string) {
	t.Helper()
	dir := t.TempDir()
	if config != "" {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("HOME", dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
}

func TestCredentialsFromDockerConfig(t *testing.T) {
	for _, auth := range []registry.Auth{registry.AuthBasic, registry.AuthToken} {
		t.Run(string(auth), func(t *testing.T) {
			reg := registry.Start(t, registry.Options{Auth: auth, User: "me", Password: "s3cret"})
			reg.Add(t, "app:v1", testImage(t, map[string]string{"a": "1"}))
			useDockerConfig(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.Addr(), base64.StdEncoding.EncodeToString([]byte("me:s3cret"))))
			s := testStore(t, Config{})
			acquire(t, s, reg.Addr()+"/app:v1").Release()
			useDockerConfig(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.Addr(), base64.StdEncoding.EncodeToString([]byte("me:wrong"))))
			_, err := s.Acquire(context.Background(), reg.Addr()+"/app:v2")
			wantError(t, err, flash.Denied, "", reg.Addr())
			if strings.Contains(fmt.Sprint(s.List()), "wrong") || strings.Contains(err.Error(), "wrong") {
				t.Error("the password is shown")
			}
		})
	}
}

func TestTagsAreLookedUpAgain(t *testing.T) {
	reg := registry.Start(t)
	first := reg.Add(t, "app:v1", testImage(t, map[string]string{"a": "1"}))
	s := testStore(t, Config{TagTTL: time.Nanosecond})
	ref := reg.Addr() + "/app:v1"
	old := acquire(t, s, ref)
	defer old.Release()
	oldDir := rootfs(t, old)
	reg.Reset()
	same := acquire(t, s, ref)
	same.Release()
	if reg.Count("HEAD", "/manifests/") != 1 || reg.Count("GET", "/manifests/") != 0 {
		t.Errorf("looking a tag up again cost %v", reg.Requests())
	}
	second := reg.Add(t, "app:v1", testImage(t, map[string]string{"a": "2"}))
	moved := acquire(t, s, ref)
	if moved.Digest() != second || old.Digest() != first {
		t.Errorf("digest is %s, want %s", moved.Digest(), second)
	}
	wantFile(t, filepath.Join(rootfs(t, moved), "a"), "2")
	wantFile(t, filepath.Join(oldDir, "a"), "1")
	moved.Release()

	reg.Reset()
	byDigest := acquire(t, s, reg.Addr()+"/app@"+second)
	byDigest.Release()
	n := len(reg.Requests())
	acquire(t, s, reg.Addr()+"/app@"+second).Release()
	if len(reg.Requests()) != n {
		t.Error("a digest was looked up again")
	}
	reg.Intercept(registry.Fail(http.StatusNotFound))
	_, err := s.Acquire(context.Background(), ref)
	wantError(t, err, flash.Invalid, reasonNotFound)
	if err := reg.Close(); err != nil {
		t.Fatal(err)
	}
	cached := acquire(t, s, ref)
	defer cached.Release()
	if cached.Digest() != second {
		t.Errorf("with the registry gone the digest is %s, want %s", cached.Digest(), second)
	}
}

func TestRegistryWithoutDigestHeader(t *testing.T) {
	reg := registry.Start(t)
	reg.Add(t, "app:v1", testImage(t, map[string]string{"a": "1"}))
	reg.Intercept(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(noDigest{w}, r)
	})
	s := testStore(t, Config{TagTTL: time.Nanosecond})
	acquire(t, s, reg.Addr()+"/app:v1").Release()
	second := reg.Add(t, "app:v1", testImage(t, map[string]string{"a": "2"}))
	l := acquire(t, s, reg.Addr()+"/app:v1")
	defer l.Release()
	if l.Digest() != second {
		t.Errorf("digest is %s, want the new one, %s", l.Digest(), second)
	}
}

type noDigest struct{ http.ResponseWriter }

func (w noDigest) WriteHeader(status int) {
	w.Header().Del("Docker-Content-Digest")
	w.ResponseWriter.WriteHeader(status)
}

func TestDownloadsThatGoWrong(t *testing.T) {
	img := testImage(t, map[string]string{"a": strings.Repeat("x", 100000)})
	for _, tc := range []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request, http.Handler)
		code  flash.Code
		say   string
	}{
		{"stalls", registry.Stall(1000), flash.Unavailable, "nothing has arrived for"},
		{"cut", registry.Cut(1000), flash.Unavailable, "can't be pulled now"},
		{"altered", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				w = &altered{ResponseWriter: w}
			}
			next.ServeHTTP(w, r)
		}, flash.Unavailable, "broke off"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := registry.Start(t)
			reg.Add(t, "app:v1", img)
			reg.Intercept(tc.fault)
			cfg := Config{}
			if tc.name == "stalls" {
				cfg.StallTimeout = 300 * time.Millisecond
			}
			s := testStore(t, cfg)
			_, err := s.Acquire(context.Background(), reg.Addr()+"/app:v1")
			wantError(t, err, tc.code, "", tc.say)
			if list := s.List(); len(list) != 1 || list[0].State != "failed" || list[0].Error == "" {
				t.Errorf("list is %+v", list)
			}
			wantClean(t, s)
			reg.Intercept(nil)
			acquire(t, s, reg.Addr()+"/app:v1").Release()
			if list := s.List(); len(list) != 1 || list[0].State != "ready" {
				t.Errorf("after it went well the list is %+v", list)
			}
			wantClean(t, s)
		})
	}
}

// altered changes the bytes of a response and keeps their number.
type altered struct{ http.ResponseWriter }

func (w *altered) Write(p []byte) (int, error) {
	q := append([]byte(nil), p...)
	q[len(q)/2] ^= 1
	return w.ResponseWriter.Write(q)
}

func TestIndexOfPlatforms(t *testing.T) {
	reg := registry.Start(t)
	mine := testImage(t, map[string]string{"a": "mine"})
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: testImage(t, map[string]string{"a": "other"}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "mips"}}},
		mutate.IndexAddendum{Add: testImage(t, map[string]string{"x": "attestation"}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}},
		mutate.IndexAddendum{Add: mine, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: configOf(t, mine).Architecture}}},
	)
	if err := reg.PutIndex("app:v1", index); err != nil {
		t.Fatal(err)
	}
	none := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: mine, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "mips"}}})
	if err := reg.PutIndex("none:v1", none); err != nil {
		t.Fatal(err)
	}
	s := testStore(t, Config{TagTTL: time.Nanosecond})
	l := acquire(t, s, reg.Addr()+"/app:v1")
	defer l.Release()
	want, err := mine.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), l.Digest()); diff != "" {
		t.Error(diff)
	}
	reg.Reset()
	acquire(t, s, reg.Addr()+"/app:v1").Release()
	if n := reg.Count("GET", "/manifests/"); n != 0 {
		t.Errorf("an index that has not moved was fetched %d times", n)
	}
	_, err = s.Acquire(context.Background(), reg.Addr()+"/none:v1")
	wantError(t, err, flash.Invalid, "", "linux/mips")
}
