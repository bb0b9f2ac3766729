package config

import (
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"text/tabwriter"
)

// Print writes all settings with their values and where these came from.
// Passwords in URLs are shown as ***.
func (r *Result) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if _, err := fmt.Fprintln(tw, "SETTING\tVALUE\tORIGIN"); err != nil {
		return err
	}
	v := reflect.ValueOf(r.Config)
	for _, s := range settings() {
		value := Redact(show(v.Field(s.index).Interface()))
		if value == "" {
			value = `""`
		}
		if _, err := fmt.Fprintf(tw, "%s\t%s\t%s\n", s.variable, value, r.Origin(s.variable)); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// show spells a value as its variable would.
func show(v any) string {
	switch v := v.(type) {
	case []string:
		return strings.Join(v, ",")
	case slog.Level:
		return strings.ToLower(v.String())
	}
	return fmt.Sprint(v)
}

var userinfo = regexp.MustCompile(`://([^/@:\s]*):[^/@\s]*@`)

// Redact replaces the passwords of all URLs in s by ***.
func Redact(s string) string { return userinfo.ReplaceAllString(s, "://$1:***@") }
