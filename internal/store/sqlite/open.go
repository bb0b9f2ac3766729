package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// busyTimeout is how long a write waits for another program that has the file
// locked, such as a shell that someone looks into it with.
const busyTimeout = 5 * time.Second

// errDamaged marks damage that SQLite itself doesn't report as an error.
var errDamaged = errors.New("the integrity check failed")

// Open opens the records at path, an absolute or relative file name in a
// directory that exists, and creates them, mode 0600, if they aren't there. A
// file that is damaged is moved aside to path.corrupt-<time> with a line in
// the log, and an empty one takes its place. A file written by a newer release
// is refused and left alone, as is one that can't be written.
func Open(path string, o Options) (*Store, error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s, err := open(path, log)
	if err == nil || !isDamage(err) {
		return s, err
	}
	aside, mvErr := moveAside(path, now())
	if mvErr != nil {
		return nil, fmt.Errorf("%s is damaged (%w) and can't be moved aside: %w", path, err, mvErr)
	}
	log.Error("the records were damaged and have been moved aside; starting with empty ones, sandboxes that run are found again without them",
		"file", path, "moved_to", aside, "err", err)
	s, err = open(path, log)
	if err == nil {
		s.recovered = true
	}
	return s, err
}

func open(path string, log *slog.Logger) (*Store, error) {
	if err := createPrivate(path); err != nil {
		return nil, err
	}
	q := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"journal_mode(WAL)",
		// In WAL mode a commit at NORMAL is one write without fsync, and a
		// kill of the process loses nothing.
		"synchronous(NORMAL)",
	}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	db.SetConnMaxLifetime(0)
	db.SetMaxIdleConns(1)

	s := &Store{db: db, log: log}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = check(ctx, db)
	if err == nil {
		err = migrate(ctx, db)
	}
	if err == nil {
		err = s.prepare(ctx)
	}
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open %s: %w", path, translate(err))
	}
	return s, nil
}

// createPrivate makes sure that the file is there and that only its owner can
// read it: commands and environments stand in it. SQLite gives its side files
// the same mode.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Perm() != 0o600 {
		err = f.Chmod(0o600)
	}
	if err == nil && info.Size() > 0 {
		err = checkMagic(f)
	}
	return errors.Join(err, f.Close())
}

// checkMagic looks for SQLite's first bytes: a file shorter than a page counts
// as empty with SQLite and would be overwritten, whatever is in it.
func checkMagic(r io.Reader) error {
	const magic = "SQLite format 3\x00"
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r, head); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if string(head) != magic {
		return fmt.Errorf("%w: not a SQLite file", errDamaged)
	}
	return nil
}

// check reads the whole file once. Records are few and small, and damage that
// is found now costs less than damage found in the middle of a create.
func check(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", errDamaged, verdict)
	}
	return nil
}

// moveAside renames the file and its side files, and returns the new name.
func moveAside(path string, now time.Time) (string, error) {
	aside := path + ".corrupt-" + now.UTC().Format("20060102T150405.000000000Z")
	for _, suffix := range []string{"-wal", "-shm", ""} {
		err := os.Rename(path+suffix, aside+suffix)
		if err != nil && (suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
			return "", err
		}
	}
	return aside, nil
}
