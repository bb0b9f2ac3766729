package memory_test

import (
	"testing"

	"github.com/flash-sandbox/flash-sandbox/internal/store"
	"github.com/flash-sandbox/flash-sandbox/internal/store/memory"
	"github.com/flash-sandbox/flash-sandbox/internal/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return memory.New() })
}
