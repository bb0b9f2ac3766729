package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
)

// authorize answers the token service and turns away whoever has not proved
// who they are. It reports whether the request may go on.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) bool {
	user, password, basic := r.BasicAuth()
	known := basic && user == s.opts.User && password == s.opts.Password
	switch s.opts.Auth {
	case AuthNone:
		return true
	case AuthBasic:
		if known {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	case AuthToken, AuthBroken:
		if r.URL.Path == "/token" {
			s.serveToken(w, known)
			return false
		}
		if s.opts.Auth == AuthToken && r.Header.Get("Authorization") == "Bearer "+s.token() {
			return true
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, s.URL()))
	}
	writeError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

func (s *Server) serveToken(w http.ResponseWriter, known bool) {
	switch {
	case s.opts.Auth == AuthBroken:
		http.Error(w, "the token service is out of order", http.StatusInternalServerError)
	case !known:
		writeError(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"token": s.token(), "expires_in": 300})
	}
}

func (s *Server) token() string {
	sum := sha256.Sum256([]byte(s.opts.User + "\x00" + s.opts.Password))
	return hex.EncodeToString(sum[:])
}

func writeError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}
