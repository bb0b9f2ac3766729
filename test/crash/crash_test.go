package crash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/client"
	"github.com/flash-sandbox/flash-sandbox/internal/testenv"
)

const (
	workers  = 3
	patience = time.Minute
	longest  = 2500 * time.Millisecond // until a kill
	keep     = 3                       // sandboxes that go on into the next round
)

func TestGVisor(t *testing.T) {
	testenv.Require(t, testenv.GVisor)
	run(t, "gvisor", "off")
}

func TestDocker(t *testing.T) {
	testenv.Require(t, testenv.Docker)
	run(t, "docker", testenv.DockerHost())
}

// fate is what the test knows of a sandbox.
type fate int

const (
	asked    fate = iota // the create has not been answered
	made                 // it must be there
	deleting             // the delete has not been answered
	deleted              // it must not be there
)

// ledger is what the test has asked for and been promised.
type ledger struct {
	mu     sync.Mutex
	fates  map[flash.ID]fate
	marks  map[flash.ID]bool            // sandboxes that hold a file with their id
	frozen map[flash.ID]bool            // sandboxes with a snapshot or resume under way
	snaps  map[flash.ID]*flash.Snapshot // snapshots that were promised
}

func newLedger() *ledger {
	return &ledger{
		fates: map[flash.ID]fate{}, marks: map[flash.ID]bool{},
		frozen: map[flash.ID]bool{}, snaps: map[flash.ID]*flash.Snapshot{},
	}
}

func (l *ledger) set(id flash.ID, f fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fates[id] = f
}

// with returns the ids of a fate.
func (l *ledger) with(wanted ...fate) []flash.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []flash.ID
	for id, f := range l.fates {
		if slices.Contains(wanted, f) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func run(t *testing.T, kind, dockerHost string) {
	rounds, seed := number(t, "FSB_CRASH_ROUNDS", 5), number(t, "FSB_CRASH_SEED", int(time.Now().UnixNano()))
	t.Logf("FSB_CRASH_SEED=%d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	data, err := os.MkdirTemp("", "fsb-c-") // short: sockets are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() { // else there may be mounts in it, and there is something to look at
			if err := os.RemoveAll(data); err != nil {
				t.Error(err)
			}
		}
	})
	before := testenv.Take(testenv.Options{Marks: []string{data, filepath.Base(data), "crash-" + kind}})
	d := newDaemon(t, data, dockerHost)
	l := newLedger()
	d.start(t)
	t.Cleanup(func() {
		if t.Failed() && d.client != nil {
			t.Logf("log of fsbd, which ran on %s:\n%s", data, d.log)
			deleteAll(d.client) // what nobody knows of stays, to be looked at
			_ = d.end(t, syscall.SIGTERM)
		}
	})
	warm(t, d.client, kind) // the image's first use takes long, and has its own tests
	for round := range rounds {
		after := time.Duration(random.Int64N(int64(longest)))
		stop := make(chan struct{})
		var working sync.WaitGroup
		for w := range workers {
			name := fmt.Sprintf("crash-%s-%d-%d", kind, round, w)
			dice := rand.New(rand.NewPCG(uint64(seed), uint64(round*workers+w+1)))
			working.Go(func() { l.work(t, d.client, kind, name, dice, stop) })
		}
		time.Sleep(after)
		close(stop)
		if err := d.end(t, syscall.SIGKILL); err == nil {
			t.Fatal("fsbd ended well after SIGKILL")
		}
		working.Wait()
		open := len(l.with(asked)) + len(l.with(deleting))
		took := d.start(t)
		settled := l.check(t, d.client, data)
		t.Logf("round %d: killed after %s with %d creates and deletes open, ready again in %s; %d sandboxes live, %d of the open ones among them; %d snapshots",
			round, after.Round(time.Millisecond), open, took.Round(time.Millisecond), len(l.with(made)), settled, len(l.snaps))
		if t.Failed() {
			return
		}
		for _, id := range l.with(made)[min(keep, len(l.with(made))):] {
			l.remove(t, d.client, id)
		}
	}
	l.restore(t, d.client, kind)
	for _, id := range l.with(made) {
		l.remove(t, d.client, id)
	}
	l.removeSnapshots(t, d.client)
	l.check(t, d.client, data)
	if err := d.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("fsbd ends with %v after SIGTERM\n%s", err, d.log)
	}
	testenv.Check(t, before)
}

func deleteAll(c *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, _ := c.List(ctx)
	for _, sb := range list {
		_ = c.Delete(ctx, sb.ID, flash.DeleteOptions{})
	}
}

// warm lets the daemon fetch the image.
func warm(t *testing.T, c *client.Client, kind string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sb, err := c.Create(ctx, options(kind, ""))
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if err := c.Delete(ctx, sb.ID, flash.DeleteOptions{}); err != nil {
		t.Fatalf("delete: %v", err)
	}
}

func options(kind string, id flash.ID) flash.CreateOptions {
	return flash.CreateOptions{ID: id, Type: kind, Image: "busybox:latest", Command: []string{"sleep", "1000000"}, MemoryMB: 128, CPUCores: 1}
}

// work makes, uses and removes sandboxes until fsbd is gone.
func (l *ledger) work(t *testing.T, c *client.Client, kind, name string, dice *rand.Rand, stop <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// bad reports an error that the kill does not explain.
	bad := func(what string, err error) {
		select {
		case <-stop:
		default:
			// The signal may have been sent just before stop is seen closed.
			time.Sleep(100 * time.Millisecond)
			select {
			case <-stop:
			default:
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	for i := 0; ; i++ {
		id := flash.ID(fmt.Sprintf("%s-%dx", name, i)) // no id is part of another
		l.set(id, asked)
		if _, err := c.Create(ctx, options(kind, id)); err != nil {
			bad("create "+string(id), err)
			return
		}
		l.set(id, made)
		if _, err := c.Exec(ctx, id, flash.ExecOptions{Command: []string{"sh", "-c", "echo $0 > /mark", string(id)}}); err != nil {
			bad("exec in "+string(id), err)
			return
		}
		l.mu.Lock()
		l.marks[id] = true
		l.mu.Unlock()
		for range dice.IntN(4) {
			r, err := c.Exec(ctx, id, flash.ExecOptions{Command: []string{"cat", "/mark"}})
			if err != nil {
				bad("exec in "+string(id), err)
				return
			}
			if got := strings.TrimSpace(string(r.Stdout)); got != string(id) {
				t.Errorf("%s says that it is %q", id, got)
			}
		}
		if dice.IntN(3) == 0 {
			if err := l.snapshot(ctx, c, id); err != nil {
				bad("snapshot of "+string(id), err)
				return
			}
		}
		if dice.IntN(3) > 0 {
			l.set(id, deleting)
			if err := c.Delete(ctx, id, flash.DeleteOptions{}); err != nil {
				bad("delete "+string(id), err)
				return
			}
			l.set(id, deleted)
		}
	}
}

// snapshot takes one, which pauses the sandbox, and wakes it.
func (l *ledger) snapshot(ctx context.Context, c *client.Client, id flash.ID) error {
	l.mu.Lock()
	l.frozen[id] = true
	l.mu.Unlock()
	sn, err := c.Snapshot(ctx, id)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.snaps[sn.ID] = sn
	l.mu.Unlock()
	if err := c.Resume(ctx, id); err != nil {
		return err
	}
	l.mu.Lock()
	delete(l.frozen, id)
	l.mu.Unlock()
	return nil
}

// restore makes a sandbox of a snapshot that has outlived restarts.
func (l *ledger) restore(t *testing.T, c *client.Client, kind string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, sn := range l.snaps {
		id := flash.ID("crash-" + kind + "-restored")
		l.set(id, made)
		if _, err := c.Create(ctx, flash.CreateOptions{ID: id, Type: kind, SnapshotPath: sn.SnapshotPath, MemFilePath: sn.MemFilePath}); err != nil {
			t.Errorf("restore %s: %v", sn.ID, err)
			return
		}
		r, err := c.Exec(ctx, id, flash.ExecOptions{Command: []string{"cat", "/mark"}})
		if err != nil || string(r.Stdout) != string(sn.SandboxID)+"\n" {
			t.Errorf("what was restored from a snapshot of %s says %+v, %v", sn.SandboxID, r, err)
		}
		return
	}
	t.Log("no snapshot was taken in this run")
}

func (l *ledger) removeSnapshots(t *testing.T, c *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for id := range l.snaps {
		if err := c.DeleteSnapshot(ctx, id); err != nil {
			t.Errorf("delete snapshot %s: %v", id, err)
		}
		delete(l.snaps, id)
	}
}

func (l *ledger) remove(t *testing.T, c *client.Client, id flash.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l.set(id, deleting)
	if err := c.Delete(ctx, id, flash.DeleteOptions{}); err != nil {
		t.Errorf("delete %s: %v", id, err)
	}
	l.set(id, deleted)
}

// check compares what was promised, what the daemon says and what is on the
// host. It settles what was open and returns how much of it lives.
func (l *ledger) check(t *testing.T, c *client.Client, data string) (alive int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, id := range l.with(asked, deleting) {
		sb, err := c.Get(ctx, id)
		switch {
		case errors.Is(err, flash.NotFound):
			l.set(id, deleted)
		case err != nil:
			t.Errorf("get %s: %v", id, err)
		case sb.State != flash.Running && !l.frozen[id]:
			t.Errorf("%s was being made or removed when fsbd was killed, and is %s now: want it to run or to be gone", id, sb.State)
		default:
			l.set(id, made)
			alive++
		}
	}
	for _, id := range l.with(made) {
		sb, err := c.Get(ctx, id)
		if err == nil && l.frozen[id] && sb.State == flash.Paused {
			err = c.Resume(ctx, id)
		} else if err == nil && sb.State != flash.Running {
			err = errors.New("it does not run")
		}
		delete(l.frozen, id)
		if err != nil {
			t.Errorf("%s was promised, get says %+v, %v", id, sb, err)
			continue
		}
		r, err := c.Exec(ctx, id, flash.ExecOptions{Command: []string{"sh", "-c", "cat /mark; hostname"}})
		if err != nil {
			t.Errorf("exec in %s after the restart: %v", id, err)
			continue
		}
		if l.marks[id] && !strings.HasPrefix(string(r.Stdout), string(id)+"\n") {
			t.Errorf("%s has lost its file: %q %q", id, r.Stdout, r.Stderr)
		}
		if len(testenv.Take(testenv.Options{Marks: []string{string(id)}}).Items) == 0 {
			t.Errorf("%s runs, but nothing on the host shows it: the leak check is blind", id)
		}
	}
	l.checkList(ctx, t, c)
	l.checkSnapshots(ctx, t, c, data)
	l.checkHost(t, data)
	return alive
}

// checkList compares the daemon's list with what has been promised.
func (l *ledger) checkList(ctx context.Context, t *testing.T, c *client.Client) {
	t.Helper()
	list, err := c.List(ctx)
	if err != nil {
		t.Errorf("list: %v", err)
		return
	}
	var ids []flash.ID
	for _, sb := range list {
		ids = append(ids, sb.ID)
	}
	slices.Sort(ids)
	if wanted := l.with(made); !slices.Equal(ids, wanted) {
		t.Errorf("list has %v, want %v", ids, wanted)
	}
}

// checkSnapshots compares snapshots promised, listed and stored. One that was
// being taken may have been finished; it is then kept as if promised.
func (l *ledger) checkSnapshots(ctx context.Context, t *testing.T, c *client.Client, data string) {
	t.Helper()
	list, err := c.Snapshots(ctx)
	if err != nil {
		t.Errorf("snapshots: %v", err)
		return
	}
	listed := map[string]bool{}
	for _, sn := range list {
		listed[string(sn.ID)] = true
		if _, err := os.Stat(sn.SnapshotPath); err != nil {
			t.Errorf("snapshot %s is listed: %v", sn.ID, err)
		}
		l.snaps[sn.ID] = sn
	}
	for id := range l.snaps {
		if !listed[string(id)] {
			t.Errorf("snapshot %s was promised and is not listed", id)
		}
	}
	stored, err := os.ReadDir(filepath.Join(data, "snapshots"))
	if err != nil {
		t.Error(err)
	}
	for _, e := range stored {
		if !listed[e.Name()] {
			t.Errorf("%s is stored and no snapshot", e.Name())
		}
	}
}

// checkHost looks for anything of the sandboxes that are gone: on the host,
// and in the data directory.
func (l *ledger) checkHost(t *testing.T, data string) {
	t.Helper()
	gone := l.with(deleted)
	if len(gone) == 0 {
		return
	}
	marks := make([]string, len(gone))
	for i, id := range gone {
		marks[i] = string(id)
	}
	of := func(name string) bool {
		return slices.ContainsFunc(marks, func(id string) bool { return strings.Contains(name, id) })
	}
	var left []string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		left = testenv.Take(testenv.Options{Marks: marks}).Items
		left = slices.DeleteFunc(left, func(item string) bool {
			// A snapshot may outlive its sandbox as an image of the engine.
			return len(l.snaps) > 0 && strings.HasPrefix(item, "engine-image ")
		})
		err := filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
			if err == nil && of(e.Name()) {
				left = append(left, "file "+path)
			}
			if err == nil && e.IsDir() && e.Name() == "images" {
				return fs.SkipDir
			}
			return nil //nolint:nilerr // files go while we walk
		})
		if err != nil {
			t.Error(err)
		}
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	if len(left) > 0 {
		t.Errorf("left of sandboxes that are gone:\n+ %s", strings.Join(left, "\n+ "))
	}
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
