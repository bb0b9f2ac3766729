package sqlite

import (
	"context"
	"errors"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// primary returns SQLite's primary result code in err's chain, or 0.
func primary(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// isTaken reports whether an insert met a row with the same key.
func isTaken(err error) bool { return primary(err) == lib.SQLITE_CONSTRAINT }

// isDamage reports whether err means that the file's content can't be used.
func isDamage(err error) bool {
	switch primary(err) {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return true
	}
	return errors.Is(err, errDamaged)
}

// translate gives what users can act on a code and a sentence. Everything
// else stays as it is and counts as internal.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return flash.AsError(err)
	}
	// database/sql has no exported value for this one.
	if err.Error() == "sql: database is closed" || err.Error() == "sql: statement is closed" {
		return store.ErrClosed()
	}
	switch primary(err) {
	case lib.SQLITE_FULL:
		return flash.Errorf(flash.Exhausted, "the disk of the daemon's data directory is full").WithCause(err).
			WithRemediation("Free some space below FSB_DATA_DIR, then repeat the request.")
	case lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_CANTOPEN:
		return flash.Errorf(flash.Unavailable, "the daemon's data directory can't be written").WithCause(err).
			WithRemediation("Make FSB_DATA_DIR writable for the user fsbd runs as.")
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return flash.Errorf(flash.Unavailable, "the daemon's records are locked by another program").WithCause(err).
			WithRemediation("End the program that holds the file open, then repeat the request.")
	}
	return err
}
