package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size. In settings it is a number with or without a unit: "20GiB",
// "512 MiB", "1.5G", "4096". KiB, MiB, GiB, TiB and their short forms K, M, G,
// T count in 1024; KB, MB, GB, TB in 1000.
type Bytes int64

var units = []struct {
	name   string
	factor float64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3},
	{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1},
}

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	number, factor := s, 1.0
	for _, u := range units {
		if len(s) > len(u.name) && strings.EqualFold(s[len(s)-len(u.name):], u.name) {
			number, factor = strings.TrimSpace(s[:len(s)-len(u.name)]), u.factor
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(n) || strings.ContainsAny(number, "xXpP_eE") {
		return fmt.Errorf("%q is not a size; give a number with a unit, such as 20GiB or 512MiB", s)
	}
	n *= factor
	if n < 0 {
		return fmt.Errorf("%q is negative", s)
	}
	if n >= math.MaxInt64 {
		return fmt.Errorf("%q is too large", s)
	}
	*b = Bytes(n)
	return nil
}

// String writes the size with the largest unit that divides it.
func (b Bytes) String() string {
	if b != 0 {
		for _, u := range units[:4] {
			if f := Bytes(u.factor); b%f == 0 {
				return strconv.FormatInt(int64(b/f), 10) + u.name
			}
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Duration is a time.Duration that settings spell as "10s" or "1m30s". It is a
// struct so that a bare number in the settings file is an error and not taken
// for nanoseconds.
type Duration struct{ time.Duration }

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%q is not a duration; give a number with a unit, such as 10s or 1m30s", text)
	}
	d.Duration = v
	return nil
}
