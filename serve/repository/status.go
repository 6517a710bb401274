package repository

// A State is the state of a version of a model.
type State int

const (
	Unknown   State = iota // not loaded yet
	Loading                // for the first time, or after it was unloaded
	Available              // answers requests
	Failed                 // could not be loaded
	Unloaded               // on request, or because its files have gone
)

// String returns the state in a word, for people.
func (s State) String() string {
	return [...]string{"unknown", "loading", "available", "failed", "unloaded"}[s]
}

// A Status is the status of one version of a model.
type Status struct {
	Name    string
	Version int64
	State   State
	Reason  string // for clients: why it is not available, or is older than its files
}

// served is a version as a repository keeps it; it is guarded by the repository's mutex.
type served struct {
	state  State
	reason string
	model  *Model // nil unless it is available
}

func (v *served) status(name string, version int64) Status {
	return Status{Name: name, Version: version, State: v.state, Reason: v.why()}
}

// why returns the reason of a Status.
func (v *served) why() string {
	switch {
	case v.state == Unloaded:
		return "unloaded"
	case v.state == Available && v.reason != "":
		return "it could not be loaded again: " + v.reason
	}
	return v.reason
}
