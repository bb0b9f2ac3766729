package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// The kinds of members. null leaves every one of them as it is, which is
// "not given". Each describes itself for /openapi.json.
type (
	text      string
	integer   int64   // whole numbers, also written as 512.0 or 5.12e2
	number    float64 // finite ones
	argv      []string
	stringMap map[string]string
	object    map[string]any // any JSON object, kept as it is
	// later is a member that later clients send and this version can't honour.
	// Only an empty value is taken.
	later struct{}
	// ignored is a member whose content changes nothing.
	ignored struct{}
)

// errLater is what a later member says of a value that is not empty.
var errLater = errors.New("is not supported by this version")

func (t *text) read(raw []byte) error {
	if null(raw) {
		return nil
	}
	if raw[0] != '"' {
		return errors.New("is " + kindOf(raw) + "; give a string")
	}
	return json.Unmarshal(raw, (*string)(t))
}

func (i *integer) read(raw []byte) error {
	if null(raw) {
		return nil
	}
	if kindOf(raw) != "a number" {
		return errors.New("is " + kindOf(raw) + "; give a whole number such as 512")
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err == nil {
		*i = integer(n)
		return nil
	}
	f, ferr := strconv.ParseFloat(string(raw), 64)
	switch {
	case ferr != nil, errors.Is(err, strconv.ErrRange), math.Abs(f) >= 1<<63:
		return errors.New("is out of range")
	case f != math.Trunc(f):
		return errors.New("is " + strconv.FormatFloat(f, 'g', -1, 64) + "; give a whole number")
	}
	*i = integer(f)
	return nil
}

func (n *number) read(raw []byte) error {
	if null(raw) {
		return nil
	}
	if kindOf(raw) != "a number" {
		return errors.New("is " + kindOf(raw) + "; give a number such as 0.5")
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return errors.New("is out of range")
	}
	*n = number(f)
	return nil
}

// read takes a list as it is and a string as a shell's script, as published
// clients mean it.
func (a *argv) read(raw []byte) error {
	switch {
	case null(raw):
		return nil
	case raw[0] == '"':
		var script string
		if err := json.Unmarshal(raw, &script); err != nil {
			return err
		}
		if script != "" {
			*a = shell(script)
		}
		return nil
	case raw[0] != '[':
		return errors.New("is " + kindOf(raw) + `; give a list of strings such as ["echo", "hi"], or one string for a shell`)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	out := make(argv, len(list))
	for i, e := range list {
		if e[0] != '"' {
			return errors.New("element " + strconv.Itoa(i) + " is " + kindOf(e) + "; give strings only")
		}
		if err := json.Unmarshal(e, &out[i]); err != nil {
			return err
		}
	}
	*a = out
	return nil
}

func shell(script string) []string { return []string{"sh", "-c", script} }

func (m *stringMap) read(raw []byte) error {
	if null(raw) {
		return nil
	}
	if raw[0] != '{' {
		return errors.New("is " + kindOf(raw) + `; give an object of strings such as {"NAME": "value"}`)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return err
	}
	out := make(stringMap, len(members))
	for k, v := range members {
		if v[0] != '"' {
			return errors.New("the value of " + clip(k) + " is " + kindOf(v) + "; give a string")
		}
		var s string
		if err := json.Unmarshal(v, &s); err != nil {
			return err
		}
		out[k] = s
	}
	*m = out
	return nil
}

// read keeps numbers as they were written, however long.
func (o *object) read(raw []byte) error {
	if null(raw) {
		return nil
	}
	if raw[0] != '{' {
		return errors.New("is " + kindOf(raw) + "; give an object")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return d.Decode((*map[string]any)(o))
}

func (*later) read(raw []byte) error {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return errLater // a number beyond all bounds
	}
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		if len(v) == 0 {
			return nil
		}
	case map[string]any:
		if len(v) == 0 {
			return nil
		}
	default:
		if reflect.ValueOf(v).IsZero() {
			return nil
		}
	}
	return errLater
}

func (*ignored) read([]byte) error { return nil }

func null(raw []byte) bool { return raw[0] == 'n' }

// The descriptions, for [huma.SchemaProvider].

func (text) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: huma.TypeString} }

func (integer) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeInteger, Format: "int64"}
}

func (number) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeNumber, Format: "double"}
}

func (argv) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{
		{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}},
		{Type: huma.TypeString, Description: "Run by sh -c."},
	}}
}

func (stringMap) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: &huma.Schema{Type: huma.TypeString}}
}

func (object) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

func (later) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "Not supported by this version: only an empty value is taken."}
}

func (ignored) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "Ignored."}
}
