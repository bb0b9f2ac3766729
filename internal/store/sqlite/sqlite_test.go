package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/flash-sandbox/flash-sandbox/internal/store"
	"github.com/flash-sandbox/flash-sandbox/internal/store/sqlite"
	"github.com/flash-sandbox/flash-sandbox/internal/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, filepath.Join(t.TempDir(), "fsbd.db"), sqlite.Options{})
	})
}

func open(t testing.TB, path string, o sqlite.Options) *sqlite.Store {
	t.Helper()
	st, err := sqlite.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}
