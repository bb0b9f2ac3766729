package main

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"

	"github.com/flash-sandbox/flash-sandbox/internal/config"
)

// newLogger returns the daemon's one logger.
func newLogger(c config.Config, w io.Writer) *slog.Logger {
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: c.LogLevel}))
	}
	color := false
	if f, ok := w.(*os.File); ok {
		fi, err := f.Stat()
		color = err == nil && fi.Mode()&os.ModeCharDevice != 0
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{Level: c.LogLevel, TimeFormat: time.RFC3339, NoColor: !color}))
}
