package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"unicode/utf8"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// member is a value that reads itself from the JSON of one member. The text of
// its error continues the member's name, as in "memory_mb: is a string".
type member interface {
	read(raw []byte) error
}

// readBody reads a request's body into the struct that into points at, whose
// fields are members. An empty body is an empty object.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return bodyError(r, err)
	}
	return decode(data, into)
}

// skipBody reads what a request without a body may carry all the same, up to
// its end: only then does net/http notice a client that leaves.
func skipBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, MaxBody)); err != nil {
		return bodyError(r, err)
	}
	return nil
}

func bodyError(r *http.Request, err error) error {
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return &flash.Error{Code: flash.Invalid, Reason: api.ReasonTooLarge, Message: "the body is longer than 4 MiB", Err: err}
	case r.Context().Err() != nil:
		return r.Context().Err()
	}
	return flash.Errorf(flash.Invalid, "the body could not be read to its end").WithCause(err)
}

func decode(data []byte, into any) error {
	data = bytes.Trim(data, " \t\r\n")
	if len(data) == 0 {
		return nil
	}
	if !utf8.Valid(data) {
		return flash.Errorf(flash.Invalid, "the body is not valid UTF-8")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return syntaxError(data, err)
	}
	v := reflect.ValueOf(into).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		raw, ok := members[name]
		if !ok {
			continue
		}
		if err := v.Field(i).Addr().Interface().(member).read(raw); err != nil {
			code := flash.Invalid
			if errors.Is(err, errLater) {
				code = flash.Unsupported
			}
			return flash.Errorf(code, "%s: %s", name, err.Error())
		}
	}
	return nil
}

// syntaxError explains why a body is no JSON object, and names the member
// where that can be told.
func syntaxError(data []byte, err error) error {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return flash.Errorf(flash.Invalid, "the body is %s; give a JSON object", kindOf(data))
	}
	what := "is not JSON: " + syntax.Error()
	if at := int(syntax.Offset) - 1; at >= 0 && at < len(data) {
		for _, word := range []string{"NaN", "Infinity"} {
			if bytes.HasPrefix(data[at:], []byte(word)) {
				what = word + " is not a JSON number"
			}
		}
	}
	if name := memberAt(data); name != "" {
		return flash.Errorf(flash.Invalid, "%s: %s", name, what)
	}
	return flash.Errorf(flash.Invalid, "the body: %s", what)
}

// memberAt returns the name of the top-level member in which data stops being
// JSON, "" if it can't be told.
func memberAt(data []byte) string {
	d := json.NewDecoder(bytes.NewReader(data))
	depth, name, wantName := 0, "", false
	for {
		t, err := d.Token()
		if err != nil {
			if len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
				return ""
			}
			return name
		}
		if delim, ok := t.(json.Delim); ok {
			switch delim {
			case '{', '[':
				depth++
				wantName = depth == 1
				continue
			default:
				depth--
			}
		} else if s, ok := t.(string); ok && depth == 1 && wantName {
			name, wantName = s, false
			continue
		}
		if depth == 1 {
			wantName = true
		}
	}
}

// kindOf says what a piece of JSON is.
func kindOf(raw []byte) string {
	if len(raw) == 0 {
		return "empty"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}
