package flash

import "slices"

// State is where a sandbox stands. The wire shows its string as it is; the
// words "running", "paused" and "stopped" are what published clients know.
type State string

// The states.
const (
	Creating State = "creating" // recorded, being made
	Running  State = "running"  // takes commands
	Paused   State = "paused"   // frozen, by a snapshot or a stop that keeps it; Resume wakes it
	Stopping State = "stopping" // being removed
	Stopped  State = "stopped"  // its command has ended or it died; kept with cause and exit code until deleted
	Failed   State = "failed"   // could not be made or was lost; kept with its cause until deleted
)

// transitions is the whole state table; ARCHITECTURE.md draws it.
var transitions = map[State][]State{
	Creating: {Running, Stopped, Failed, Stopping},
	Running:  {Paused, Stopping, Stopped, Failed},
	Paused:   {Running, Stopping, Stopped, Failed},
	Stopped:  {Stopping},
	Failed:   {Stopping},
	Stopping: {},
}

// States lists every state.
var States = []State{Creating, Running, Paused, Stopping, Stopped, Failed}

// To checks a move from s to next. The error is [Conflict].
func (s State) To(next State) error {
	if slices.Contains(transitions[s], next) {
		return nil
	}
	return Errorf(Conflict, "a sandbox that is %s can't become %s", s, next)
}

// Live reports whether a machine stands behind the state.
func (s State) Live() bool { return s == Running || s == Paused || s == Creating }

// Cause is the typed reason why a sandbox or a process ended.
type Cause string

// The causes.
const (
	CauseExited      Cause = "exited"       // ended by itself, with its exit code
	CauseSignal      Cause = "signal"       // killed by a signal nobody here sent
	CauseOOM         Cause = "oom"          // killed for passing its memory limit
	CauseTimeout     Cause = "timeout"      // killed at its deadline
	CauseCancelled   Cause = "cancelled"    // killed because its caller left or asked for it
	CauseSandboxGone Cause = "sandbox_gone" // the sandbox ended under it
	CauseBackendLost Cause = "backend_lost" // the backend no longer knows the machine
	CauseDaemonCrash Cause = "daemon_crash" // the daemon died before the sandbox was made
	CauseStartFailed Cause = "start_failed" // the backend could not make it
	CauseUnknown     Cause = "unknown"      // ended while nobody watched; the exit code is not known
)

// Ending says how a sandbox or a process ended.
type Ending struct {
	Cause    Cause  `json:"cause"`
	ExitCode int    `json:"exit_code"`         // 128+n for signal n; -1 when not known
	Message  string `json:"message,omitempty"` // one sentence
}
