package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	flash "github.com/flash-sandbox/flash-sandbox"
)

// EncodeSandbox returns s as implementations keep it: JSON, without the
// revision, with times in UTC. Text that is not UTF-8 can't be kept unharmed
// and is flash.Invalid, as is Metadata that JSON can't express.
func EncodeSandbox(s *Sandbox) ([]byte, error) {
	if err := s.checkText(); err != nil {
		return nil, err
	}
	c := s.normalized()
	c.Rev = 0
	return encode(c)
}

// DecodeSandbox is the inverse of EncodeSandbox. Numbers in Metadata come back
// as float64.
func DecodeSandbox(data []byte, rev int64) (*Sandbox, error) {
	s := new(Sandbox)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	s.Rev = rev
	return s, nil
}

// EncodeSnapshot is EncodeSandbox for snapshots. The revision of the source's
// record is kept.
func EncodeSnapshot(s *Snapshot) ([]byte, error) {
	if err := s.Sandbox.checkText(); err != nil {
		return nil, err
	}
	c := *s
	c.CreatedAt = utc(c.CreatedAt)
	c.Saved.Data = rawOrNil(c.Saved.Data)
	c.Sandbox = c.Sandbox.normalized()
	return encode(c)
}

// DecodeSnapshot is the inverse of EncodeSnapshot.
func DecodeSnapshot(data []byte) (*Snapshot, error) {
	s := new(Snapshot)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	// A nil RawMessage is written as null and read back as the text "null".
	s.Saved.Data = rawOrNil(s.Saved.Data)
	return s, nil
}

// normalized returns a shallow copy that encoding/json can write.
func (s *Sandbox) normalized() Sandbox {
	c := *s
	c.CreatedAt, c.ReadyAt = utc(c.CreatedAt), utc(c.ReadyAt)
	if c.Handle != nil {
		h := *c.Handle
		h.Data = rawOrNil(h.Data)
		c.Handle = &h
	}
	return c
}

// utc drops the zone, which could be one that RFC 3339 can't spell.
func utc(t time.Time) time.Time { return t.UTC() }

func rawOrNil(m json.RawMessage) json.RawMessage {
	if len(m) == 0 || string(m) == "null" {
		return nil
	}
	return m
}

func encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, flash.Errorf(flash.Invalid, "metadata: can't be kept as JSON").WithCause(err)
	}
	return data, nil
}

// checkText refuses what users may have chosen and encoding/json would damage.
func (s *Sandbox) checkText() error {
	for i, a := range s.Command {
		if !utf8.ValidString(a) {
			return notText(fmt.Sprintf("command: element %d", i))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Env)) {
		if !utf8.ValidString(k) || !utf8.ValidString(s.Env[k]) {
			return notText(fmt.Sprintf("env: the variable %q", k))
		}
	}
	for i, a := range s.Args {
		if !utf8.ValidString(a) {
			return notText(fmt.Sprintf("command: argument %d, counted with the image's entrypoint,", i))
		}
	}
	for _, e := range s.FullEnv {
		if !utf8.ValidString(e) {
			return notText(fmt.Sprintf("env: the image's variable %q", e))
		}
	}
	for _, f := range []struct{ name, value string }{
		{"image", s.Image}, {"working directory of the image", s.Dir}, {"user of the image", s.User},
	} {
		if !utf8.ValidString(f.value) {
			return notText(f.name + ": it")
		}
	}
	return nil
}

func notText(what string) error {
	return flash.Errorf(flash.Invalid, "%s is not valid UTF-8", what)
}
