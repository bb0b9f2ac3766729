package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
	"github.com/pelletier/go-toml/v2"
)

// Origin says where a value came from.
type Origin string

// The origins, weakest first.
const (
	FromDefault Origin = "default"
	FromFile    Origin = "file"
	FromEnv     Origin = "env"
	FromFlag    Origin = "flag"
)

// FileVariable names the settings file where the flag -config does not.
const FileVariable = "FSB_CONFIG"

// Result is what Load has found.
type Result struct {
	Config   Config
	File     string            // settings file that was read; "" if none
	Check    bool              // -check: print the settings and end
	Version  bool              // -version: print the version and end; nothing else is set
	Warnings []string          // a sentence each, for the log
	origins  map[string]Origin // by variable; those at their default are missing
}

// Origin returns where the value of a setting, named by its variable, came from.
func (r *Result) Origin(variable string) Origin {
	if o, ok := r.origins[variable]; ok {
		return o
	}
	return FromDefault
}

// Load reads the settings from the command line without the program's name,
// from the environment as os.Environ gives it, and from the file that one of
// them names. The error joins all faults, each with the setting's name, or the
// file's line; flag.ErrHelp after -h, which prints the usage to usage. A
// variable set to nothing counts as not set.
func Load(args, environ []string, usage io.Writer) (*Result, error) {
	vars := make(map[string]string, len(environ))
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			vars[name] = value
		}
	}
	r := &Result{
		Config:  Default(os.Geteuid(), func(name string) string { return vars[name] }),
		File:    vars[FileVariable],
		origins: make(map[string]Origin),
	}
	level, err := r.flags(args, usage)
	if err != nil || r.Version {
		return r, err
	}
	faults := []error{r.file(), r.environment(vars)}
	if level != "" {
		if err := r.Config.LogLevel.UnmarshalText([]byte(level)); err != nil {
			faults = append(faults, fmt.Errorf("flag -log-level: %q is not one of debug, info, warn and error", level))
		}
		r.origins["FSB_LOG_LEVEL"] = FromFlag
	}
	r.Config.normalize()
	// A value that can't be read leaves the one below it, so that all other
	// settings are still judged.
	faults = append(faults, r.Config.Validate())
	return r, errors.Join(faults...)
}

// flags parses the command line and returns the log level, if given.
func (r *Result) flags(args []string, usage io.Writer) (level string, err error) {
	fs := flag.NewFlagSet("fsbd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&r.File, "config", r.File, "settings `file` (TOML); default: $"+FileVariable)
	fs.StringVar(&level, "log-level", "", "least severe log `level` written: debug, info, warn or error")
	fs.BoolVar(&r.Check, "check", false, "print the settings with their origin, then end")
	fs.BoolVar(&r.Version, "version", false, "print the version, then end")
	err = fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprint(usage, "fsbd is the Flash Sandbox daemon. Usage: fsbd [flags]\n\n"+
			"All settings are FSB_* variables or keys of the settings file; docs/CONFIG.md lists them.\n\n")
		fs.SetOutput(usage)
		fs.PrintDefaults()
		return "", err
	}
	if err == nil && fs.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q; fsbd takes flags only, see fsbd -h", fs.Arg(0))
	}
	return level, err
}

// file reads the settings file, if there is one.
func (r *Result) file() error {
	if r.File == "" {
		return nil
	}
	data, err := os.ReadFile(r.File)
	if err != nil {
		return fmt.Errorf("settings file: %w", err)
	}
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r.Config); err != nil {
		return r.fileFault(err)
	}
	var present map[string]any
	if err := toml.Unmarshal(data, &present); err != nil {
		return r.fileFault(err)
	}
	for _, s := range settings() {
		if _, ok := present[s.key]; ok {
			r.origins[s.variable] = FromFile
		}
	}
	return nil
}

// fileFault gives each fault its place in the file.
func (r *Result) fileFault(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var keys []string
		for _, s := range settings() {
			keys = append(keys, s.key)
		}
		var faults []error
		for _, e := range unknown.Errors {
			row, col := e.Position()
			key := strings.Join(e.Key(), ".")
			faults = append(faults, fmt.Errorf("%s:%d:%d: unknown setting %q%s", r.File, row, col, key, didYouMean(key, keys)))
		}
		return errors.Join(faults...)
	}
	var e *toml.DecodeError
	if errors.As(err, &e) {
		row, col := e.Position()
		msg := strings.TrimPrefix(e.Error(), "toml: ")
		if key := e.Key(); len(key) > 0 {
			return fmt.Errorf("%s:%d:%d: %s: %s", r.File, row, col, strings.Join(key, "."), msg)
		}
		return fmt.Errorf("%s:%d:%d: %s", r.File, row, col, msg)
	}
	return fmt.Errorf("%s: %w", r.File, err)
}

// environment reads the FSB_* variables.
func (r *Result) environment(vars map[string]string) error {
	known := []string{FileVariable}
	byField := make(map[string]setting)
	for _, s := range settings() {
		known = append(known, s.variable)
		byField[s.field] = s
		if vars[s.variable] != "" {
			r.origins[s.variable] = FromEnv
		}
	}
	var unknown []string
	for name := range vars {
		// FSB_TEST_ variables steer the project's tests.
		if strings.HasPrefix(name, "FSB_") && !strings.HasPrefix(name, "FSB_TEST_") && !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the variable %s is no setting and has no effect%s", name, didYouMean(name, known)))
	}

	err := env.ParseWithOptions(&r.Config, env.Options{Environment: vars})
	var all env.AggregateError
	if !errors.As(err, &all) {
		return err
	}
	var faults []error
	for _, err := range all.Errors {
		var parse env.ParseError
		if !errors.As(err, &parse) {
			faults = append(faults, err)
			continue
		}
		s := byField[parse.Name]
		faults = append(faults, &Fault{s.variable, s.parseProblem(vars[s.variable], parse.Err)})
	}
	return errors.Join(faults...)
}

// setting is one field of Config.
type setting struct {
	field, key, variable string
	index                int
}

// parseProblem says what a value that can't be read should be.
func (s setting) parseProblem(value string, err error) string {
	switch reflect.TypeFor[Config]().Field(s.index).Type.Name() {
	case "Level":
		return fmt.Sprintf("%q is not one of debug, info, warn and error", value)
	case "int64":
		return fmt.Sprintf("%q is not a whole number", value)
	}
	return err.Error()
}

// settings lists the fields of Config in order.
func settings() []setting {
	t := reflect.TypeFor[Config]()
	out := make([]setting, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		out = append(out, setting{f.Name, f.Tag.Get("toml"), f.Tag.Get("env"), i})
	}
	return out
}
