package repository

// A State is that of a version of a model.
type State int

const (
	Unknown   State = iota // it has not been loaded yet
	Loading                // for the first time, or again after it was unloaded
	Available              // it answers requests
	Failed                 // it could not be loaded
	Unloaded               // on request, or because its files have gone
)

// String returns the state in a word, for people.
func (s State) String() string {
	return [...]string{"unknown", "loading", "available", "failed", "unloaded"}[s]
}

// A Status is that of one version of a model.
type Status struct {
	Name    string
	Version int64
	State   State
	Reason  string // why it is not available, or is older than its files; for clients
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

// why says in the words of clients why a version does not answer, or is older than its files.
func (v *served) why() string {
	switch {
	case v.state == Unloaded:
		return "unloaded"
	case v.state == Available && v.reason != "":
		return "it could not be loaded again: " + v.reason
	}
	return v.reason
}
