package image

import (
	"net"
	"net/url"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/google/go-containerregistry/pkg/name"
)

// mirror is asked for images in place of the registry they are named after.
type mirror struct {
	host   string
	prefix string // of repositories, "" or "path/"
	http   bool   // speak plain HTTP
}

// ParseMirrors reads a list such as
//
//	docker.io=http://127.0.0.1:5000,ghcr.io=https://mirror.example/ghcr
//
// of registries and base URLs to ask before them. A registry may come several
// times: its mirrors are asked in order. A URL alone is a mirror of docker.io.
// The error is flash.Invalid; it does not name the setting that s came from.
func ParseMirrors(s string) (map[string][]string, error) {
	mirrors := map[string][]string{}
	for _, item := range strings.Split(s, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		host, addr, ok := strings.Cut(item, "=")
		if !ok || strings.Contains(host, "://") {
			host, addr = "docker.io", item
		}
		if host = strings.TrimSpace(host); host == "" {
			return nil, flash.Errorf(flash.Invalid, "mirror %q names no registry before the '='; write docker.io=https://mirror.example", item)
		}
		if _, err := parseMirrorURL(strings.TrimSpace(addr)); err != nil {
			return nil, err
		}
		mirrors[host] = append(mirrors[host], strings.TrimSpace(addr))
	}
	return mirrors, nil
}

func parseMirrorURL(addr string) (mirror, error) {
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return mirror{}, flash.Errorf(flash.Invalid, "mirror %q is no address such as https://mirror.example or http://127.0.0.1:5000", addr)
	}
	m := mirror{host: u.Host, prefix: strings.Trim(u.Path, "/"), http: u.Scheme == "http"}
	if m.prefix != "" {
		m.prefix += "/"
	}
	return m, nil
}

// parseMirrorURLs checks mirrors as configured and keys them as references do.
func parseMirrorURLs(in map[string][]string, mayUseHTTP func(host string) bool) (map[string][]mirror, error) {
	out := map[string][]mirror{}
	for host, addrs := range in {
		reg, err := name.NewRegistry(host)
		if err != nil {
			return nil, flash.Errorf(flash.Invalid, "mirror of %q: that is no registry's host name", host)
		}
		for _, addr := range addrs {
			m, err := parseMirrorURL(addr)
			if err != nil {
				return nil, err
			}
			if m.http && !mayUseHTTP(m.host) {
				return nil, flash.Errorf(flash.Invalid,
					"mirror %q would be spoken to without TLS; use https, or list %s among the insecure registries", addr, m.host)
			}
			out[reg.RegistryStr()] = append(out[reg.RegistryStr()], m)
		}
	}
	return out, nil
}

// mayUseHTTP reports whether a host may be spoken to without TLS.
func (s *Store) mayUseHTTP(host string) bool {
	if s.insecure[host] {
		return true
	}
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	if s.insecure[bare] || bare == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(bare, "[]"))
	return ip != nil && ip.IsLoopback()
}
