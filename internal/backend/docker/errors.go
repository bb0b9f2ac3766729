package docker

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	cerrdefs "github.com/containerd/errdefs"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/internal/backend"
)

// This file alone knows the texts of the engine and of OCI runtimes.

// asUnavailable turns err into flash.Unavailable, if it isn't already fit to show.
func asUnavailable(doing string, err error) *flash.Error {
	var e *flash.Error
	if errors.As(err, &e) {
		return e
	}
	return flash.Errorf(flash.Unavailable, "could not %s", doing).WithCause(err)
}

// notDialed reports that a call can't have reached the engine.
func notDialed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func isNotFound(err error) bool { return cerrdefs.IsNotFound(err) }

// isConflict covers 409, which older engines also send as 500 with a text.
func isConflict(err error) bool { return cerrdefs.IsConflict(err) }

// nameTaken reports whether a container of that name is there already.
func nameTaken(err error) bool {
	return isConflict(err) && strings.Contains(err.Error(), "already in use")
}

// alreadyPaused and notPaused recognise a pause or unpause that had nothing to do.
func alreadyPaused(err error) bool {
	return err != nil && strings.Contains(err.Error(), "already paused")
}

func notPaused(err error) bool {
	return err != nil && strings.Contains(err.Error(), "is not paused")
}

func notRunning(err error) bool {
	return err != nil && strings.Contains(err.Error(), "is not running")
}

// initMissing reports that the engine could not find its docker-init.
func initMissing(err error) bool {
	return err != nil && strings.Contains(err.Error(), "docker-init")
}

// start failures, as runc, runsc and the engine word them.
var (
	missing = regexp.MustCompile(`executable file not found|no such file or directory|: not found|error finding executable|exec .* failed: No such file`)
	refused = regexp.MustCompile(`permission denied|is a directory|exec format error|not executable`)
	noUser  = regexp.MustCompile(`unable to find (user|group) ([^:]*):|no matching entries in passwd file|no matching entries in group file|couldn't get UID from user|invalid (user|group)`)
	badDir  = regexp.MustCompile(`initial working directory|chdir to cwd \("([^"]*)"\)|Cannot mkdir: |working directory.* is not|mkdir .*: not a directory`)
	// badImage is what a program for another processor, or one without its
	// interpreter, gives.
	badImage = regexp.MustCompile(`exec format error`)
)

// startError translates why a container could not be started.
func startError(args []string, user, dir string, err error) error {
	if known := new(flash.Error); errors.As(err, &known) {
		return err
	}
	text := err.Error()
	switch {
	case noUser.MatchString(text):
		return flash.Errorf(flash.Invalid, "user: %q is not in the image's /etc/passwd or /etc/group", user).WithCause(err)
	case badDir.MatchString(text):
		return flash.Errorf(flash.Invalid, "working directory: %q is not a folder in the image", dir).WithCause(err)
	case badImage.MatchString(text):
		return flash.Errorf(flash.Invalid, "command: %s: is not made for this processor, or is no program", args[0]).WithCause(err)
	case strings.Contains(text, "exec:") || strings.Contains(text, "starting container") || strings.Contains(text, "executable"):
		switch {
		case refused.MatchString(text):
			return notExecutable(args[0]).WithCause(err)
		case missing.MatchString(text):
			return notInImage(args[0]).WithCause(err)
		}
	case strings.Contains(text, "No space left") || strings.Contains(text, "no space left"):
		return flash.Errorf(flash.Exhausted, "the Docker engine's disk is full").WithCause(err)
	case strings.Contains(text, "max depth exceeded"):
		return flash.Errorf(flash.Exhausted, "the image has more layers than the Docker engine can stack; it was snapshotted and restored too many times").WithCause(err)
	}
	return wrap("start container", err)
}

func notInImage(program string) *flash.Error {
	return flash.Errorf(flash.Invalid, "command: %s: not found in the image", program)
}

func notExecutable(program string) *flash.Error {
	return flash.Errorf(flash.Invalid, "command: %s: is not executable in the image", program)
}

// createError translates a refused create.
func createError(id flash.ID, err error) error {
	text := err.Error()
	switch {
	case nameTaken(err):
		return flash.Errorf(flash.Exists, "a container for sandbox %s exists already", id).WithCause(err)
	case strings.Contains(text, "no space left"):
		return flash.Errorf(flash.Exhausted, "the Docker engine's disk is full").WithCause(err)
	case strings.Contains(text, "max depth exceeded"):
		return flash.Errorf(flash.Exhausted, "the image has more layers than the Docker engine can stack; it was snapshotted and restored too many times").WithCause(err)
	case strings.Contains(text, "inimum memory limit"):
		return flash.Errorf(flash.Invalid, "memory_mb: is less than the Docker engine takes").WithCause(err)
	}
	return startError([]string{""}, "", "", err)
}

// execRefusal recognises the one line the engine sends in place of output when
// a process could not be started.
var execRefusal = regexp.MustCompile(`^(OCI runtime exec failed|unable to find user|unable to find group|exec failed|failed to create|Error response|cannot exec|error )`)

// stopped is what runtimes say of a container whose end the engine has not seen yet.
var stopped = regexp.MustCompile(`in state stopped|stopped container|container .*not running|container does not exist`)

// execStartError translates such a line.
func execStartError(id flash.ID, program, user, dir, text string) error {
	text = strings.TrimSpace(text)
	switch {
	case stopped.MatchString(text):
		return endedError(id)
	case noUser.MatchString(text):
		return flash.Errorf(flash.Invalid, "user: %q is not in the sandbox's /etc/passwd or /etc/group", user)
	case badDir.MatchString(text):
		return flash.Errorf(flash.Invalid, "working directory: %q is not a folder in the sandbox", dir)
	case badImage.MatchString(text):
		return &backend.StartError{ExitCode: 126, Message: program + ": is not made for this processor, or is no program"}
	case strings.Contains(text, "is a directory"):
		return &backend.StartError{ExitCode: 126, Message: program + ": is a directory"}
	case refused.MatchString(text):
		return &backend.StartError{ExitCode: 126, Message: program + ": permission denied"}
	case missing.MatchString(text):
		return &backend.StartError{ExitCode: 127, Message: program + ": not found"}
	case text == "":
		return fmt.Errorf("docker: the engine could not start %q and does not say why", program)
	}
	return fmt.Errorf("docker: the engine could not start %q: %s", program, text)
}

func pausedError(id flash.ID) *flash.Error {
	return flash.Errorf(flash.Conflict, "sandbox %s is paused", id).
		WithRemediation("resume it first: POST /sandboxes/%s/resume", id)
}

func endedError(id flash.ID) *flash.Error {
	return flash.Errorf(flash.Conflict, "sandbox %s has ended", id).
		WithRemediation("delete it and create a new one")
}

func gone(id flash.ID) *flash.Error {
	return flash.SandboxNotFound(id, "the Docker engine has no container of it")
}
