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
	"github.com/tfbert/go/tf"
)

// OpClass says what an operation can reach beyond its inputs and its session.
type OpClass string

// The classes of operations. The file ops.txt explains the first seven and lists their operations.
const (
	ClassCompute OpClass = "compute"
	ClassFile    OpClass = "file"
	ClassNetwork OpClass = "network"
	ClassPython  OpClass = "python"
	ClassCode    OpClass = "code"
	ClassProcess OpClass = "process"
	ClassOther   OpClass = "other"

	ClassCustom   OpClass = "custom"   // an operation that TensorFlow 2.21 does not have
	ClassFunction OpClass = "function" // a call of one of the model's functions by its name
	// ClassSaver is for an operation of ClassFile that can only restore the variables from the model's own
	// folder, or save them when a program asks.
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

// OpPolicy says which operations a model may hold to be loaded. The zero value allows all.
//
// The policy is not a sandbox. It does not protect from a kernel's errors in memory, from a model that takes
// all memory or never ends, or from those who can change the directory after the check.
type OpPolicy struct {
	Standard bool     // allow only ClassCompute, ClassFunction and ClassSaver
	Also     []string // operations that are allowed, too
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

// String returns the policy as ParseOpPolicy reads it.
func (p OpPolicy) String() string {
	if !p.Standard {
		return "all"
	}
	return strings.Join(append([]string{"standard"}, p.Also...), ",")
}

func (p OpPolicy) allows(u OpUse) bool {
	return !p.Standard || u.Class.standard() || slices.Contains(p.Also, u.Op)
}

// check returns an error if the meta graph with the given tags holds what the policy does not allow.
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
	Tags     []string `json:"tags"`
	Standard bool     `json:"standard"` // whether OpPolicy.Standard allows them all
	Ops      []OpUse  `json:"ops"`      // first those that it does not allow, then by count
}

// OpUse counts the operations of a type.
type OpUse struct {
	Op    string  `json:"op"`
	Class OpClass `json:"class"`
	Count int     `json:"count"`
	// Nodes are their names, except for ClassCompute: "a", or "a in f" in a function f.
	Nodes []string `json:"nodes,omitempty"`
	Why   string   `json:"why,omitempty"` // an operation of savers is not of ClassSaver
}

// Refused returns the operations that a policy does not allow.
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

// quantizedMatMul is oneDNN's product of integers. It trusts that its addend and its bias have the types that it takes.
const quantizedMatMul = "_QuantizedMatMul"

// isSafeProduct reports whether a product of integers is as our exports have it.
func isSafeProduct(n *tfproto.NodeDef) bool {
	dtype := func(name string) tf.DataType { return tf.DataType(n.GetAttr()[name].GetType()) }
	adds := slices.ContainsFunc(n.GetAttr()["fused_ops"].GetList().GetS(),
		func(op []byte) bool { return string(op) == "Add" })
	return dtype("Tbias") == tf.Float && (!adds || dtype("U") == dtype("Tout"))
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
		if n.GetOp() == quantizedMatMul && !isSafeProduct(n) {
			u.Class, u.Why = ClassOther, "a sum with another type writes past the end of the result"
		}
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
