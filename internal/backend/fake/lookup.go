package fake

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// lookPath finds a program as execvp would in the given environment and
// working directory. The error is a *backend.StartError.
func lookPath(name string, env []string, dir string) (string, error) {
	notFound := &backend.StartError{ExitCode: 127, Message: name + ": not found"}
	if name == "" || strings.ContainsRune(name, 0) {
		return "", notFound
	}
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, "PATH="); ok {
				path = v
			}
		}
		for _, d := range filepath.SplitList(path) {
			candidates = append(candidates, filepath.Join(d, name))
		}
	}
	err := notFound
	for _, c := range candidates {
		if !filepath.IsAbs(c) {
			c = filepath.Join(dir, c)
		}
		fi, serr := os.Stat(c)
		switch {
		case serr != nil:
		case fi.IsDir():
			err = &backend.StartError{ExitCode: 126, Message: name + ": is a directory"}
		case fi.Mode()&0o111 == 0:
			err = &backend.StartError{ExitCode: 126, Message: name + ": permission denied"}
		default:
			return c, nil
		}
	}
	return "", err
}

// credential resolves a user as image configs spell it against the host's
// users. It is nil where the process runs as that user anyway.
func credential(spec string) (*syscall.Credential, error) {
	if spec == "" {
		return nil, nil
	}
	name, group, hasGroup := strings.Cut(spec, ":")
	var cred syscall.Credential
	u, err := user.Lookup(name)
	uid, nerr := strconv.ParseUint(name, 10, 31)
	if err != nil && nerr == nil {
		u, err = user.LookupId(name)
	}
	switch {
	case err == nil:
		cred.Uid, cred.Gid = number(u.Uid), number(u.Gid)
		if ids, gerr := u.GroupIds(); gerr == nil && !hasGroup {
			for _, id := range ids {
				cred.Groups = append(cred.Groups, number(id))
			}
		}
	case nerr == nil:
		cred.Uid = uint32(uid)
	default:
		return nil, flash.Errorf(flash.Invalid, "user: %q does not exist in the machine", name)
	}
	if hasGroup {
		g, err := user.LookupGroup(group)
		gid, nerr := strconv.ParseUint(group, 10, 31)
		switch {
		case err == nil:
			cred.Gid = number(g.Gid)
		case nerr == nil:
			cred.Gid = uint32(gid)
		default:
			return nil, flash.Errorf(flash.Invalid, "user: group %q does not exist in the machine", group)
		}
	}
	if os.Geteuid() != 0 {
		if int(cred.Uid) != os.Geteuid() || int(cred.Gid) != os.Getegid() {
			return nil, flash.Errorf(flash.Invalid, "user: %q can't be taken on: the fake backend does not run as root", spec)
		}
		return nil, nil
	}
	return &cred, nil
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32) // the user database holds numbers
	return uint32(n)
}
