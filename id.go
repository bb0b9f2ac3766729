package flash

import (
	"crypto/rand"
	"strings"
)

// ID names a sandbox or a snapshot. Generated ids carry a prefix ("sb-",
// "sn-") and are lower case, DNS-safe and unguessable (130 random bits).
// An ID that passed [ParseID] is safe as a single path element.
type ID string

// MaxIDLength is the longest id a caller may choose, in bytes. It leaves room
// for suffixes in host names (63 bytes at most).
const MaxIDLength = 56

// NewSandboxID returns a fresh sandbox id.
func NewSandboxID() ID { return ID("sb-" + strings.ToLower(rand.Text())) }

// NewSnapshotID returns a fresh snapshot id.
func NewSnapshotID() ID { return ID("sn-" + strings.ToLower(rand.Text())) }

// ParseID checks an id that came from outside: 1 to [MaxIDLength] characters
// of [A-Za-z0-9_-], beginning with a letter or digit. The error is
// [Invalid] and names the rule. Nothing may build a path from an id before
// this check.
func ParseID(s string) (ID, error) {
	if s == "" {
		return "", Errorf(Invalid, "id: is empty")
	}
	if len(s) > MaxIDLength {
		return "", Errorf(Invalid, "id: is %d characters long, at most %d are allowed", len(s), MaxIDLength)
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '-' && c != '_') {
			return "", Errorf(Invalid, "id: may hold only letters, digits, '-' and '_', and begins with a letter or digit")
		}
	}
	return ID(s), nil
}

func (id ID) String() string { return string(id) }
