package gvisor

import (
	"errors"
	"io"
	"io/fs"
	"os"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/moby/sys/user"
)

// account is a user as the sandbox's kernel knows one.
type account struct {
	UID  uint32
	GID  uint32
	Gids []uint32 `json:",omitempty"` // additional groups
}

// resolveUser turns a user as an image config spells it into numbers, by the
// image's own passwd and group files. Links in the image lead nowhere outside
// of it.
func resolveUser(rootfs, spec string) (account, error) {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return account{}, err
	}
	defer root.Close() //nolint:errcheck // only read
	open := func(name string) (io.ReadCloser, error) {
		f, err := root.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return f, err
	}
	var in [2]io.Reader // nil: the image has no such file
	for i, name := range []string{"etc/passwd", "etc/group"} {
		f, err := open(name)
		if err != nil {
			return account{}, flash.Errorf(flash.Invalid, "image: /%s can't be read", name).WithCause(err)
		}
		if f != nil {
			defer f.Close()
			in[i] = f
		}
	}
	u, err := user.GetExecUser(spec, &user.ExecUser{}, in[0], in[1])
	if err != nil {
		return account{}, flash.Errorf(flash.Invalid, "user: %q is not in the image: %v", spec, err)
	}
	a := account{UID: uint32(u.Uid), GID: uint32(u.Gid)}
	for _, g := range u.Sgids {
		a.Gids = append(a.Gids, uint32(g))
	}
	return a, nil
}
