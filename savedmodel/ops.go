package savedmodel

import (
	"cmp"
	_ "embed" // ops.txt
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tfbert/go/internal/escape"
	"github.com/tfbert/go/internal/tfproto"
)

// OpClass says what an operation can reach beyond the tensors that it is given and the session that
// it runs in.
type OpClass string

// The classes of operations; ops.txt explains those that it gives to the operations of TensorFlow.
const (
	ClassCompute OpClass = "compute"
	ClassFile    OpClass = "file"
	ClassNetwork OpClass = "network"
	ClassPython  OpClass = "python"
	ClassCode    OpClass = "code"
	ClassProcess OpClass = "process"
	ClassOther   OpClass = "other"

	// ClassCustom is that of an operation which TensorFlow 2.21 does not have.
	ClassCustom OpClass = "custom"
	// ClassFunction is that of a call of one of the model's functions by its name.
	ClassFunction OpClass = "function"
	// ClassSaver is that of an operation which would be ClassFile, but can only restore the variables
	// from the model's own folder or save them when a program asks.
	ClassSaver OpClass = "saver"
)

// standard reports whether OpPolicy.Standard allows a class.
func (c OpClass) standard() bool { return c == ClassCompute || c == ClassFunction || c == ClassSaver }

//go:embed ops.txt
var opTable string

var opClasses = sync.OnceValue(func() map[string]OpClass {
	classes := map[string]OpClass{}
	for line := range strings.Lines(opTable) {
		if class, op, ok := strings.Cut(strings.TrimSpace(line), " "); ok && class != "#" {
			classes[op] = OpClass(class)
		}
	}
	return classes
})

// OpPolicy says which operations a model may hold to be loaded; the zero value allows all.
//
// A SavedModel is a program: TensorFlow runs whatever operations it holds, some of them while it is
// loaded. The policy is not a sandbox. It does not protect from a kernel's errors in memory, nor from a
// model that takes all of it or never ends, nor from who can change the directory after the check.
type OpPolicy struct {
	// Standard allows only what is known to compute with the tensors fed and the session's state, and
	// the saver of the model's variables: see ClassCompute, ClassFunction and ClassSaver.
	Standard bool
	// Also names operations that are allowed beside those.
	Also []string
}

// ParseOpPolicy reads a policy: "all", "standard", or "standard,DecodeProtoV2,MyOp".
func ParseOpPolicy(s string) (OpPolicy, error) {
	names := strings.Split(s, ",")
	switch {
	case s == "all":
		return OpPolicy{}, nil
	case names[0] != "standard" || slices.Contains(names, ""):
		return OpPolicy{}, fmt.Errorf("the allowed operations are all, standard or standard,NAME,..., not %q", s)
	}
	return OpPolicy{Standard: true, Also: names[1:]}, nil
}

// String writes the policy as ParseOpPolicy reads it.
func (p OpPolicy) String() string {
	if !p.Standard {
		return "all"
	}
	return strings.Join(append([]string{"standard"}, p.Also...), ",")
}

func (p OpPolicy) allows(u OpUse) bool {
	return !p.Standard || u.Class.standard() || slices.Contains(p.Also, u.Op)
}

// check refuses a model whose meta graph of the given tags holds what the policy does not allow.
func (p OpPolicy) check(dir string, model *tfproto.SavedModel, tags []string) error {
	if !p.Standard {
		return nil
	}
	for _, m := range model.MetaGraphs {
		if !maps.Equal(set(m.GetMetaInfoDef().GetTags()), set(tags)) {
			continue
		}
		r, err := opReport(m)
		if err != nil {
			return fmt.Errorf("read the operations of %s: %w", dir, err)
		}
		if refused := r.Refused(p); len(refused) > 0 {
			return &RefusedOpsError{Dir: dir, Policy: p, Refused: refused}
		}
	}
	return nil
}

// RefusedOpsError reports that a model holds operations that a policy does not allow.
type RefusedOpsError struct {
	Dir     string // of the model
	Policy  OpPolicy
	Refused []OpUse
}

func (e *RefusedOpsError) Error() string {
	u := e.Refused[0]
	text := fmt.Sprintf("%s holds operations that the policy %q refuses: %s (%s) at %s",
		e.Dir, e.Policy, escape.Name(u.Op), u.Class, escape.Name(u.Nodes[0]))
	if u.Why != "" {
		text += ", " + u.Why
	}
	if more := len(e.Refused) - 1; more > 0 {
		text += fmt.Sprintf(", and %d more types", more)
	}
	return text
}

func set(list []string) map[string]bool {
	s := map[string]bool{}
	for _, e := range list {
		s[e] = true
	}
	return s
}

// OpReport lists the operations of a meta graph and of its functions.
type OpReport struct {
	Tags []string `json:"tags"`
	// Standard reports whether OpPolicy.Standard allows them all.
	Standard bool    `json:"standard"`
	Ops      []OpUse `json:"ops"` // what it does not allow first, and then by count
}

// OpUse counts the operations of a type.
type OpUse struct {
	Op    string  `json:"op"`
	Class OpClass `json:"class"`
	Count int     `json:"count"`
	// Nodes names them, except for ClassCompute: "a", or "a in f" in a function f.
	Nodes []string `json:"nodes,omitempty"`
	// Why says why an operation that savers have is not ClassSaver: "as a runs for a signature ...".
	Why string `json:"why,omitempty"`
}

// Refused returns what a policy does not allow.
func (r *OpReport) Refused(p OpPolicy) []OpUse {
	var refused []OpUse
	for _, u := range r.Ops {
		if !p.allows(u) {
			refused = append(refused, u)
		}
	}
	return refused
}

// Ops lists the operations of a SavedModel's meta graphs, without TensorFlow.
func Ops(path string) ([]OpReport, error) {
	dir, _, err := Find(path)
	if err != nil {
		return nil, err
	}
	model, err := readSavedModel(dir, withoutTensors)
	if err != nil {
		return nil, err
	}
	var reports []OpReport
	for _, m := range model.MetaGraphs {
		r, err := opReport(m)
		if err != nil {
			return nil, fmt.Errorf("read the operations of %s: %w", dir, err)
		}
		reports = append(reports, r)
	}
	return reports, nil
}

func opReport(m *tfproto.MetaGraphDef) (OpReport, error) {
	g, err := newOpGraph(m)
	if err != nil {
		return OpReport{}, err
	}
	why := g.notSaver()
	uses := map[string]*OpUse{}
	count := func(n *tfproto.NodeDef, function string) {
		u := uses[n.GetOp()]
		if u == nil {
			u = &OpUse{Op: n.GetOp(), Class: g.class(n.GetOp())}
			if _, ok := saverOps[u.Op]; ok && why == "" {
				u.Class = ClassSaver
			} else if ok {
				u.Why = why
			}
			uses[u.Op] = u
		}
		u.Count++
		switch {
		case u.Class == ClassCompute:
		case function == "":
			u.Nodes = append(u.Nodes, n.GetName())
		default:
			u.Nodes = append(u.Nodes, n.GetName()+" in "+function)
		}
	}
	for _, n := range m.GetGraphDef().GetNode() {
		count(n, "")
	}
	for _, f := range m.GetGraphDef().GetLibrary().GetFunction() {
		for _, n := range f.GetNodeDef() {
			count(n, f.GetSignature().GetName())
		}
	}
	r := OpReport{Tags: m.GetMetaInfoDef().GetTags(), Standard: true, Ops: []OpUse{}}
	for _, u := range uses {
		r.Ops = append(r.Ops, *u)
		r.Standard = r.Standard && u.Class.standard()
	}
	rank := func(u OpUse) int {
		switch {
		case !u.Class.standard():
			return 0
		case u.Class == ClassSaver:
			return 1
		}
		return 2
	}
	slices.SortFunc(r.Ops, func(a, b OpUse) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Op, b.Op))
	})
	return r, nil
}
