// Package sqlite is the store.Store of a daemon that is to be restarted: one
// SQLite file, readable with any SQLite tool while the daemon runs.
//
// It is not where truth about machines lives: a file that turns out damaged is
// moved aside and an empty one takes its place, because the manager finds what
// runs by asking the backends.
//
//	st, err := sqlite.Open(filepath.Join(dataDir, "fsbd.db"), sqlite.Options{Log: log})
//	if err != nil { ... }
//	defer st.Close()
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/store"
)

// Options for Open. The zero value is fine.
type Options struct {
	Log *slog.Logger     // nil: nothing is logged
	Now func() time.Time // names files that are moved aside; nil: time.Now
}

// Store keeps records in one SQLite file. Writes are quick (well below a
// millisecond on a local disk) and survive a kill of the process; only a crash
// of the machine itself may lose the last of them, and then only whole writes.
type Store struct {
	log  *slog.Logger
	db   *sql.DB // one connection: SQLite has one writer, and reads are rare
	stmt statements

	recovered bool
}

// Recovered reports whether Open found the file damaged and began a new one,
// so that machines may run that no record knows.
func (s *Store) Recovered() bool { return s.recovered }

type statements struct {
	insertSandbox, updateSandbox, deleteSandbox, sandboxRev, sandboxes *sql.Stmt
	insertSnapshot, deleteSnapshot, snapshots                          *sql.Stmt
	insertGrave, graves, dropGraves                                    *sql.Stmt
}

var _ store.Store = (*Store)(nil)

func (s *Store) prepare(ctx context.Context) error {
	var errs []error
	p := func(query string) *sql.Stmt {
		st, err := s.db.PrepareContext(ctx, query)
		errs = append(errs, err)
		return st
	}
	s.stmt = statements{
		insertSandbox: p(`INSERT INTO sandboxes (id, rev, state, backend, created_at, record) VALUES (?, 1, ?, ?, ?, ?)`),
		updateSandbox: p(`UPDATE sandboxes SET rev = rev + 1, state = ?, backend = ?, record = ? WHERE id = ? AND rev = ?`),
		deleteSandbox: p(`DELETE FROM sandboxes WHERE id = ?`),
		sandboxRev:    p(`SELECT rev FROM sandboxes WHERE id = ?`),
		sandboxes:     p(`SELECT id, rev, record FROM sandboxes ORDER BY seq`),

		insertSnapshot: p(`INSERT INTO snapshots (id, sandbox_id, created_at, record) VALUES (?, ?, ?, ?)`),
		deleteSnapshot: p(`DELETE FROM snapshots WHERE id = ?`),
		snapshots:      p(`SELECT id, record FROM snapshots ORDER BY seq`),

		insertGrave: p(`INSERT OR REPLACE INTO graves (id, at, reason) VALUES (?, ?, ?)`),
		graves:      p(`SELECT id, at, reason FROM graves ORDER BY at, id`),
		dropGraves:  p(`DELETE FROM graves WHERE at < ?`),
	}
	return errors.Join(errs...)
}

// exec runs one writing statement. A call whose context has ended does
// nothing; one that has begun is finished, so that the caller always knows
// which of the two it was.
func (s *Store) exec(ctx context.Context, st *sql.Stmt, args ...any) (rows int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, flash.AsError(err)
	}
	res, err := st.ExecContext(context.WithoutCancel(ctx), args...)
	if err != nil {
		return 0, translate(err)
	}
	return res.RowsAffected()
}

// InsertSandbox implements store.Store.
func (s *Store) InsertSandbox(ctx context.Context, sb *store.Sandbox) error {
	data, err := store.EncodeSandbox(sb)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, s.stmt.insertSandbox, string(sb.ID), string(sb.State), sb.Backend, spell(sb.CreatedAt), string(data))
	if isTaken(err) {
		return store.ErrExists("sandbox", sb.ID)
	}
	if err != nil {
		return err
	}
	sb.Rev = 1
	return nil
}

// UpdateSandbox implements store.Store.
func (s *Store) UpdateSandbox(ctx context.Context, sb *store.Sandbox) error {
	data, err := store.EncodeSandbox(sb)
	if err != nil {
		return err
	}
	n, err := s.exec(ctx, s.stmt.updateSandbox, string(sb.State), sb.Backend, string(data), string(sb.ID), sb.Rev)
	if err != nil {
		return err
	}
	if n == 1 {
		sb.Rev++
		return nil
	}
	var rev int64
	err = s.stmt.sandboxRev.QueryRowContext(context.WithoutCancel(ctx), string(sb.ID)).Scan(&rev)
	if errors.Is(err, sql.ErrNoRows) {
		return flash.SandboxNotFound(sb.ID, "")
	}
	if err != nil {
		return translate(err)
	}
	return store.ErrConflict(sb.ID, sb.Rev, rev)
}

// DeleteSandbox implements store.Store.
func (s *Store) DeleteSandbox(ctx context.Context, id flash.ID) error {
	_, err := s.exec(ctx, s.stmt.deleteSandbox, string(id))
	return err
}

// Sandboxes implements store.Store. A record that can't be read is logged and
// left out: it must not keep the daemon from starting.
func (s *Store) Sandboxes(ctx context.Context) ([]*store.Sandbox, error) {
	var out []*store.Sandbox
	err := s.query(ctx, s.stmt.sandboxes, func(rows *sql.Rows) error {
		var id, data string
		var rev int64
		if err := rows.Scan(&id, &rev, &data); err != nil {
			return err
		}
		sb, err := store.DecodeSandbox([]byte(data), rev)
		if err != nil || string(sb.ID) != id {
			s.log.Error("a sandbox record can't be read and is passed over", "sandbox", id, "err", err)
			return nil
		}
		out = append(out, sb)
		return nil
	})
	store.SortSandboxes(out)
	return out, err
}

// InsertSnapshot implements store.Store.
func (s *Store) InsertSnapshot(ctx context.Context, sn *store.Snapshot) error {
	data, err := store.EncodeSnapshot(sn)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, s.stmt.insertSnapshot, string(sn.ID), string(sn.SandboxID), spell(sn.CreatedAt), string(data))
	if isTaken(err) {
		return store.ErrExists("snapshot", sn.ID)
	}
	return err
}

// DeleteSnapshot implements store.Store.
func (s *Store) DeleteSnapshot(ctx context.Context, id flash.ID) error {
	_, err := s.exec(ctx, s.stmt.deleteSnapshot, string(id))
	return err
}

// Snapshots implements store.Store. A record that can't be read is logged and
// left out.
func (s *Store) Snapshots(ctx context.Context) ([]*store.Snapshot, error) {
	var out []*store.Snapshot
	err := s.query(ctx, s.stmt.snapshots, func(rows *sql.Rows) error {
		var id, data string
		if err := rows.Scan(&id, &data); err != nil {
			return err
		}
		sn, err := store.DecodeSnapshot([]byte(data))
		if err != nil || string(sn.ID) != id {
			s.log.Error("a snapshot record can't be read and is passed over", "snapshot", id, "err", err)
			return nil
		}
		out = append(out, sn)
		return nil
	})
	store.SortSnapshots(out)
	return out, err
}

// InsertGrave implements store.Store.
func (s *Store) InsertGrave(ctx context.Context, g store.Grave) error {
	_, err := s.exec(ctx, s.stmt.insertGrave, string(g.ID), g.At.UnixNano(), g.Reason)
	return err
}

// Graves implements store.Store.
func (s *Store) Graves(ctx context.Context) ([]store.Grave, error) {
	var out []store.Grave
	err := s.query(ctx, s.stmt.graves, func(rows *sql.Rows) error {
		var g store.Grave
		var at int64
		if err := rows.Scan(&g.ID, &at, &g.Reason); err != nil {
			return err
		}
		g.At = time.Unix(0, at).UTC()
		out = append(out, g)
		return nil
	})
	return out, err
}

// DropGraves implements store.Store.
func (s *Store) DropGraves(ctx context.Context, before time.Time) error {
	_, err := s.exec(ctx, s.stmt.dropGraves, before.UnixNano())
	return err
}

// Close implements store.Store.
func (s *Store) Close() error { return s.db.Close() }

func (s *Store) query(ctx context.Context, st *sql.Stmt, each func(*sql.Rows) error) error {
	rows, err := st.QueryContext(ctx)
	if err != nil {
		return translate(err)
	}
	defer rows.Close() //nolint:errcheck // Err below has what matters
	for rows.Next() {
		if err := each(rows); err != nil {
			return translate(err)
		}
	}
	return translate(rows.Err())
}

// spell writes a time for people who look into the file.
func spell(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
