package sqlite

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations lead from one schema to the next: the file's user_version counts
// how many of them it has had. Entries are only ever appended.
//
// Columns beside the record are what statements and people look for; the
// record holds everything.
var migrations = []string{
	`
CREATE TABLE sandboxes (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT,
	id         TEXT NOT NULL UNIQUE,
	rev        INTEGER NOT NULL,
	state      TEXT NOT NULL,
	backend    TEXT NOT NULL,
	created_at TEXT NOT NULL,
	record     TEXT NOT NULL
);
CREATE TABLE snapshots (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT,
	id         TEXT NOT NULL UNIQUE,
	sandbox_id TEXT NOT NULL,
	created_at TEXT NOT NULL,
	record     TEXT NOT NULL
);
CREATE TABLE graves (
	id     TEXT PRIMARY KEY,
	at     INTEGER NOT NULL,
	reason TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX graves_at ON graves (at);
`,
}

// migrate brings the file to the newest schema. Each step is all or nothing.
func migrate(ctx context.Context, db *sql.DB) error {
	var version int
	if err := db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("the file has schema %d and was written by a newer release of fsbd, this one knows schemas up to %d: run the newer release, or set another FSB_DATA_DIR",
			version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		if err := step(ctx, db, version); err != nil {
			return err
		}
	}
	return nil
}

func step(ctx context.Context, db *sql.DB, from int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, migrations[from]); err != nil {
		return fmt.Errorf("schema %d: %w", from+1, err)
	}
	// A pragma takes no parameters.
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, from+1)); err != nil {
		return err
	}
	return tx.Commit()
}
