package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/flash-sandbox/flash-sandbox/bench/lab"
)

// dockerSDKVersion is the version of Docker's SDK for Python that is measured.
const dockerSDKVersion = "7.2.0"

// dockerSDK is Docker by its SDK for Python. A helper process holds the SDK, so
// that the interpreter's start and the import are not measured; the line that
// goes to it and the one that comes back cost some tens of microseconds.
type dockerSDK struct {
	lab    *lab.Lab
	engine *lab.Engine
	cmd    *exec.Cmd
	stdin  io.WriteCloser

	mu      sync.Mutex
	next    int
	waiting map[int]chan<- sdkAnswer
	broken  error
}

type sdkRequest struct {
	ID       int      `json:"id"`
	Op       string   `json:"op"`
	Image    string   `json:"image,omitempty"`
	Command  []string `json:"command,omitempty"`
	MemoryMB int      `json:"memory_mb,omitempty"`
	Box      string   `json:"box,omitempty"`
}

type sdkAnswer struct {
	ID     int    `json:"id"`
	Box    string `json:"box"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	Code   int    `json:"code"`
	Error  string `json:"error"`
}

// sdkThreads is how many requests the helper serves at a time.
const sdkThreads = 8

func (p *dockerSDK) Open(ctx context.Context) (err error) {
	if p.engine, err = p.lab.Docker(ctx); err != nil {
		return err
	}
	python, err := p.lab.Venv(ctx, "docker-sdk", "docker=="+dockerSDKVersion)
	if err != nil {
		return err
	}
	p.cmd = exec.Command(python, filepath.Join(p.lab.Repository(), "bench", "peers", "docker_sdk.py"), p.engine.Host, strconv.Itoa(sdkThreads))
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p.waiting = map[int]chan<- sdkAnswer{}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	go p.read(stdout)
	_, err = p.call(ctx, sdkRequest{Op: "ping"})
	return err
}

// read hands answers to those who wait for them, until the helper ends.
func (p *dockerSDK) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		var a sdkAnswer
		if err == nil {
			err = json.Unmarshal(line, &a)
		}
		p.mu.Lock()
		if err != nil {
			p.broken = fmt.Errorf("the helper process has ended: %w", err)
			for id, c := range p.waiting {
				c <- sdkAnswer{ID: id, Error: p.broken.Error()}
			}
			clear(p.waiting)
			p.mu.Unlock()
			return
		}
		if c, ok := p.waiting[a.ID]; ok {
			delete(p.waiting, a.ID)
			c <- a
		}
		p.mu.Unlock()
	}
}

func (p *dockerSDK) call(ctx context.Context, r sdkRequest) (sdkAnswer, error) {
	answer := make(chan sdkAnswer, 1)
	p.mu.Lock()
	if p.broken != nil {
		p.mu.Unlock()
		return sdkAnswer{}, p.broken
	}
	p.next++
	r.ID = p.next
	p.waiting[r.ID] = answer
	line, err := json.Marshal(r)
	if err == nil {
		_, err = p.stdin.Write(append(line, '\n'))
	}
	p.mu.Unlock()
	if err != nil {
		return sdkAnswer{}, err
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-ctx.Done():
		return sdkAnswer{}, ctx.Err()
	}
}

// Close ends the helper and leaves containers to the end of the engine.
func (p *dockerSDK) Close(context.Context) error {
	if p.cmd == nil {
		return nil
	}
	_ = p.stdin.Close()
	timer := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	return p.cmd.Wait()
}

func (p *dockerSDK) Create(ctx context.Context, kind lab.Kind) (Box, error) {
	a, err := p.call(ctx, sdkRequest{Op: "create", Image: p.engine.Image(kind), Command: idle, MemoryMB: memoryMB})
	if err != nil {
		return nil, err
	}
	return sdkBox{p, a.Box}, nil
}

type sdkBox struct {
	p  *dockerSDK
	id string
}

func (b sdkBox) Exec(ctx context.Context, argv ...string) (Output, error) {
	a, err := b.p.call(ctx, sdkRequest{Op: "exec", Box: b.id, Command: argv})
	return Output{Stdout: a.Stdout, Stderr: a.Stderr, Code: a.Code}, err
}

func (b sdkBox) Python(ctx context.Context, code string) (Output, error) {
	return b.Exec(ctx, append(python[:len(python):len(python)], code)...)
}

func (b sdkBox) Delete(ctx context.Context) error {
	_, err := b.p.call(ctx, sdkRequest{Op: "delete", Box: b.id})
	return err
}
