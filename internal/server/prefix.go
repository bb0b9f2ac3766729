package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// parsePrefixes checks base paths and returns them as "/a/b", longest first,
// so that of nested ones the inner one wins.
func parsePrefixes(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		clean := "/" + strings.Trim(strings.TrimSpace(p), "/")
		if clean == "/" {
			continue
		}
		u, err := url.Parse(clean)
		if err != nil || u.Path != clean || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(clean, "?#%") {
			return nil, flash.Errorf(flash.Invalid, "FSB_BASE_PATH: %q is not a path such as /v1/service/sandbox", p)
		}
		for element := range strings.SplitSeq(clean[1:], "/") {
			if element == "" || element == "." || element == ".." {
				return nil, flash.Errorf(flash.Invalid, "FSB_BASE_PATH: %q has an empty element, or one that is \".\" or \"..\"", p)
			}
		}
		if !slices.Contains(out, clean) {
			out = append(out, clean)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out, nil
}

// strip takes a prefix off the paths of requests that have one.
func strip(prefixes []string, next http.Handler) http.Handler {
	if len(prefixes) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, p := range prefixes {
			path, ok := cut(r.URL.Path, p)
			raw, rawOK := cut(r.URL.RawPath, p)
			if !ok || r.URL.RawPath != "" && !rawOK {
				continue
			}
			inner := *r
			u := *r.URL
			u.Path, u.RawPath = path, raw
			inner.URL = &u
			next.ServeHTTP(w, &inner)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// cut takes prefix off path if path is below it.
func cut(path, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	switch {
	case !ok:
		return "", false
	case rest == "":
		return "/", true
	}
	return rest, rest[0] == '/'
}

// route sends procedures to rpc and everything else to rest.
func route(path string, rpc, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(r.URL.Path, path)
		if ok && name != "" && !strings.ContainsAny(name, "/.") {
			rpc.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}
