package storetest

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"pgregory.net/rapid"

	flash "github.com/flash-sandbox/flash-sandbox"
)

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
	idType   = reflect.TypeFor[flash.ID]()
)

// draw returns a T drawn field by field through reflection, so that a field
// added to a record is part of the properties from that day on. With full, no
// field is its zero value.
func draw[T any](t *rapid.T, full bool, label string) *T {
	v := new(T)
	fill(t, reflect.ValueOf(v).Elem(), full, label)
	return v
}

func fill(t *rapid.T, v reflect.Value, full bool, label string) {
	switch v.Type() {
	case timeType:
		v.Set(reflect.ValueOf(drawTime(t, full, label)))
		return
	case rawType:
		if full || rapid.Bool().Draw(t, label+" set") {
			data, err := json.Marshal(drawJSON(t, 2, label))
			if err != nil {
				t.Fatal(err)
			}
			if string(data) == "null" {
				data = []byte(`{"n":1}`)
			}
			v.SetBytes(data)
		}
		return
	case idType:
		v.SetString(rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9_-]{12,40}`).Draw(t, label))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), full, label+"."+v.Type().Field(i).Name)
		}
	case reflect.Pointer:
		if full || rapid.Bool().Draw(t, label+" set") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem(), full, label)
		}
	case reflect.Slice:
		if n := length(t, full, label); n >= 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				fill(t, v.Index(i), full, fmt.Sprintf("%s[%d]", label, i))
			}
		}
	case reflect.Map:
		n := length(t, full, label)
		if n < 0 {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for i := range n {
			key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, key, full, fmt.Sprintf("%s key %d", label, i))
			fill(t, val, full, fmt.Sprintf("%s value %d", label, i))
			v.SetMapIndex(key, val)
		}
	case reflect.Interface:
		v.Set(reflect.ValueOf(drawJSON(t, 3, label)))
	case reflect.String:
		v.SetString(drawText(t, full, label))
	case reflect.Bool:
		v.SetBool(full || rapid.Bool().Draw(t, label))
	case reflect.Int, reflect.Int64:
		lo := int64(math.MinInt64)
		if full {
			lo = 1
		}
		v.SetInt(rapid.Int64Range(lo, math.MaxInt64).Draw(t, label))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64Min(1).Draw(t, label))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(math.SmallestNonzeroFloat64, math.MaxFloat64).Draw(t, label))
	default:
		t.Fatalf("%s is a %s: storetest does not know yet how to fill one", label, v.Type())
	}
}

// length draws -1 (leave it nil) to 3, or with full 1 to 3.
func length(t *rapid.T, full bool, label string) int {
	lo := -1
	if full {
		lo = 1
	}
	return rapid.IntRange(lo, 3).Draw(t, label+" length")
}

// drawText draws valid UTF-8, NUL and quotes included.
func drawText(t *rapid.T, full bool, label string) string {
	s := rapid.String().Draw(t, label)
	if full && s == "" {
		s = "x"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

func drawTime(t *rapid.T, full bool, label string) time.Time {
	if !full && rapid.IntRange(0, 4).Draw(t, label+" zero") == 0 {
		return time.Time{}
	}
	sec := rapid.Int64Range(0, 4e9).Draw(t, label+" seconds")
	nsec := rapid.Int64Range(0, 999_999_999).Draw(t, label+" nanoseconds")
	zone := time.FixedZone("", rapid.IntRange(-14*3600, 14*3600).Draw(t, label+" zone"))
	return time.Unix(sec, nsec).In(zone)
}

// drawJSON draws what encoding/json makes of a JSON value.
func drawJSON(t *rapid.T, depth int, label string) any {
	kinds := 4
	if depth > 0 {
		kinds = 6
	}
	switch rapid.IntRange(1, kinds).Draw(t, label+" kind") {
	case 1:
		return rapid.Bool().Draw(t, label)
	case 2:
		return rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64).Draw(t, label)
	case 3, 4:
		return drawText(t, false, label)
	case 5:
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, label+" length") {
			list = append(list, drawJSON(t, depth-1, label))
		}
		return list
	default:
		object := map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, label+" length") {
			object[drawText(t, false, label+" key")] = drawJSON(t, depth-1, label)
		}
		return object
	}
}
