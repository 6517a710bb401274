package tfbert

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// Mapping says how a model is asked: which inputs of a signature take what of a window, and which outputs
// are the logits. Exporters name them differently, in other types and shapes; all are named here as
// run_squad.py names them.
type Mapping struct {
	Tags      []string `json:"tags"` // of the graph
	Signature string   `json:"signature"`
	// Examples is the one input that takes serialized tf.train.Example messages, whose features Inputs
	// then are; "" if the inputs are tensors.
	Examples string         `json:"examples,omitempty"`
	Inputs   []MappedInput  `json:"inputs"`
	Outputs  []MappedOutput `json:"outputs"`
	Batch    int64          `json:"batch"`  // the one number of windows that the model takes, or -1
	Length   int64          `json:"length"` // the one length of windows that the model takes, or -1
	// Notes say what was chosen or is missing, where the answers depend on it.
	Notes []string `json:"notes,omitempty"`
}

// MappedInput is an input of a signature, or a feature of its examples, that the model is asked by.
type MappedInput struct {
	As   string `json:"as"`    // "input_ids", "input_mask", "segment_ids" or "unique_ids"
	Key  string `json:"key"`   // in the signature or the examples
	Type string `json:"dtype"` // by TensorFlow's name

	dtype  tf.DataType
	column bool // of unique_ids: [batch,1], not [batch]
}

// MappedOutput is an output of a signature that holds logits.
type MappedOutput struct {
	As   string `json:"as"` // "start_logits" or "end_logits"
	Key  string `json:"key"`
	Type string `json:"dtype"`
	// Index is what of the output they are, as in "[...,0]"; "" if they are all of it.
	Index string `json:"index,omitempty"`

	axis int // of an output with both
}

// SignatureError reports that a model does not answer questions by the signature that was asked for, or
// by the default one.
type SignatureError struct {
	Dir  string
	Fits []string // the signatures that do
	Err  error
}

func (e *SignatureError) Error() string {
	text := fmt.Sprintf("%s does not answer questions: %v", e.Dir, e.Err)
	switch len(e.Fits) {
	case 0:
		return text
	case 1:
		return text + "; the signature " + strconv.Quote(e.Fits[0]) + " does"
	}
	return text + "; the signatures " + strings.Join(e.Fits, ", ") + " do"
}

func (e *SignatureError) Unwrap() error { return e.Err }

// ReadMapping returns how [Open] would ask the model in dir, without TensorFlow. It returns a
// [*savedmodel.TagsError] or a [*SignatureError] if the model does not answer questions.
//
// If the options do not name a signature and the model does not have "serving_default", the only one that
// fits is taken. In the same way, if they do not name tags, a graph tagged "serve" and more is taken.
func ReadMapping(dir string, opts *Options) (*Mapping, error) {
	if opts == nil {
		opts = &Options{}
	}
	info, err := savedmodel.Inspect(dir)
	if err != nil {
		return nil, err
	}
	graph, notes, err := chooseGraph(info, opts.Tags)
	if err != nil {
		return nil, err
	}
	m, err := chooseSignature(graph, opts.Signature)
	var wrong *SignatureError
	if errors.As(err, &wrong) {
		wrong.Dir = dir
	}
	if err != nil {
		return nil, err
	}
	m.Notes = append(notes, m.Notes...)
	return m, nil
}

func chooseGraph(info *savedmodel.Info, tags []string) (g *savedmodel.MetaGraph, notes []string, err error) {
	if tags != nil {
		g, err = info.MetaGraph(tags)
		return g, nil, err
	}
	if g, err = info.MetaGraph([]string{savedmodel.ServeTag}); err == nil {
		return g, nil, nil
	}
	var serve []*savedmodel.MetaGraph
	for i := range info.MetaGraphs {
		if g := &info.MetaGraphs[i]; slices.Contains(g.Tags, savedmodel.ServeTag) {
			serve = append(serve, g)
		}
	}
	if len(serve) != 1 {
		return nil, nil, err
	}
	g = serve[0]
	return g, []string{fmt.Sprintf("its graph has the tags {%s}", strings.Join(g.Tags, ","))}, nil
}

// chooseSignature returns the mapping of a signature, or of the default one for "".
func chooseSignature(g *savedmodel.MetaGraph, key string) (*Mapping, error) {
	s, err := g.Signature(cmp.Or(key, savedmodel.DefaultSignature))
	if err == nil {
		var m *Mapping
		if m, err = mapSignature(g, s); err == nil {
			return m, nil
		}
	}
	fits := map[string]*Mapping{}
	for i := range g.Signatures {
		if m, err := mapSignature(g, &g.Signatures[i]); err == nil {
			fits[m.Signature] = m
		}
	}
	keys := slices.Sorted(maps.Keys(fits))
	switch {
	case key == "" && s == nil && len(keys) == 1:
		m := fits[keys[0]]
		m.Notes = append(m.Notes, fmt.Sprintf("it has no signature %q: %q is the only one that answers questions",
			savedmodel.DefaultSignature, m.Signature))
		return m, nil
	case key == "" && s == nil && len(keys) == 0 && len(g.Signatures) == 1:
		_, err = mapSignature(g, &g.Signatures[0])
	case s == nil && len(keys) == 0 && len(g.Signatures) > 0:
		err = fmt.Errorf("%w; none of these does", err)
	}
	return nil, &SignatureError{Fits: keys, Err: err}
}

// inputNames are the names that exporters have for what run_squad.py calls input_ids and so on: those of
// run_squad.py, of Hugging Face, of TensorFlow's official models, of KerasNLP and of NVIDIA's TensorFlow 2
// scripts, which are those of the official models.
var inputNames = map[string]string{
	"input_ids": inputIDs, "input_word_ids": inputIDs, "token_ids": inputIDs,
	"input_mask": inputMask, "attention_mask": inputMask, "padding_mask": inputMask,
	"segment_ids": segmentIDs, "token_type_ids": segmentIDs, "input_type_ids": segmentIDs,
	"unique_ids": uniqueIDs, "unique_id": uniqueIDs,
}

// mapper builds the mapping of a signature and collects what it finds wrong.
type mapper struct {
	*Mapping
	problems []string
}

func (m *mapper) wrong(format string, args ...any) {
	m.problems = append(m.problems, fmt.Sprintf(format, args...))
}

func mapSignature(g *savedmodel.MetaGraph, s *savedmodel.Signature) (*Mapping, error) {
	m := &mapper{Mapping: &Mapping{Tags: g.Tags, Signature: s.Key, Batch: -1, Length: -1}}
	m.inputs(s)
	m.outputs(s)
	m.others(s)
	if len(m.problems) > 0 {
		return nil, fmt.Errorf("signature %q takes %s and returns %s, but %s",
			s.Key, listInfos(s.Inputs), listInfos(s.Outputs), strings.Join(m.problems, "; "))
	}
	return m.Mapping, nil
}

func listInfos(infos []savedmodel.TensorInfo) string {
	list := make([]string, len(infos))
	for i, t := range infos {
		list[i] = t.String()
	}
	return cmp.Or(joinFirst(12, list, ", "), "nothing")
}

// baseName returns a name without what exporters and TensorFlow put around it: "input_ids" for
// "serving_default_input_ids:0" and for "bert/Input-IDs_1".
func baseName(key string) string {
	name := strings.ToLower(strings.ReplaceAll(key, "-", "_"))
	name, _, _ = strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
	name = strings.TrimPrefix(name, "serving_default_")
	if i := strings.LastIndex(name, "_"); i > 0 {
		if _, err := strconv.ParseUint(name[i+1:], 10, 16); err == nil {
			name = name[:i]
		}
	}
	return name
}

// find returns the places of keys by what they are. run_squad.py's own names come before others.
func find(n int, key func(i int) string) map[string]int {
	found := map[string]int{}
	for i := range n {
		as := inputNames[baseName(key(i))]
		if _, twice := found[as]; as != "" && (!twice || key(i) == as) {
			found[as] = i
		}
	}
	return found
}

func (m *mapper) inputs(s *savedmodel.Signature) {
	if in := onlyString(s.Inputs); in != nil {
		m.examples(in)
		return
	}
	found := find(len(s.Inputs), func(i int) string { return s.Inputs[i].Key })
	m.require(found, "input")
	for _, as := range []string{inputIDs, inputMask, segmentIDs, uniqueIDs} {
		i, ok := found[as]
		if !ok {
			continue
		}
		in := &s.Inputs[i]
		if in.Sparse {
			m.wrong("its input %s is sparse", in.Key)
		}
		m.add(as, in.Key, in.DType, in.Shape)
		switch in.DType {
		case tf.Int32, tf.Int64, tf.Float:
		case tf.Bool:
			if as != inputMask {
				m.wrong("its input %s is %v, not whole numbers", in.Key, in.DType)
			}
		default:
			m.wrong("its input %s is %v, not whole numbers", in.Key, in.DType)
		}
	}
}

// others looks at what is neither fed nor fetched: the inputs that tfbert does not know, and the
// placeholders that are no inputs. Only those matter that the logits depend on.
func (m *mapper) others(s *savedmodel.Signature) {
	needed := map[string]bool{}
	for _, mapped := range m.Outputs {
		out, err := s.Output(mapped.Key)
		if err != nil {
			continue // it is one of them
		}
		for _, name := range out.Needs {
			needed[name] = true
		}
	}
	for _, in := range s.Inputs {
		name, _, _ := strings.Cut(in.Name, ":")
		isNeeded := needed[name]
		delete(needed, name)
		switch {
		case m.takes(in.Key) || in.Key == m.Examples:
		case in.Optional:
			m.Notes = append(m.Notes, fmt.Sprintf("its input %s is left at its default", in.Key))
		case isNeeded:
			m.unknown("input", in.Key)
		case len(m.Outputs) > 0:
			m.Notes = append(m.Notes, fmt.Sprintf("its input %s is left out: the logits do not depend on it", in.Key))
		}
	}
	if len(needed) > 0 && m.problems == nil {
		m.wrong("its graph also needs a value for %s, which the signature does not take",
			strings.Join(slices.Sorted(maps.Keys(needed)), ", "))
	}
}

// takes reports whether an input or feature has a place in the mapping.
func (m *mapper) takes(key string) bool {
	return slices.ContainsFunc(m.Inputs, func(in MappedInput) bool { return in.Key == key })
}

// unknown refuses an input or feature that has no place in the mapping.
func (m *mapper) unknown(kind, key string) {
	if as := inputNames[baseName(key)]; as != "" {
		m.wrong("its %s %s could be its %s as well", kind, key, as)
		return
	}
	m.wrong("its %s %s has no default, and is not one that tfbert knows", kind, key)
}

// onlyString returns the one input without a default, if it is a string.
func onlyString(inputs []savedmodel.TensorInfo) *savedmodel.TensorInfo {
	var only *savedmodel.TensorInfo
	for i := range inputs {
		if in := &inputs[i]; !in.Optional {
			if only != nil || in.DType != tf.String {
				return nil
			}
			only = in
		}
	}
	return only
}

// examples maps the features that the model parses from an input.
func (m *mapper) examples(in *savedmodel.TensorInfo) {
	m.Examples = in.Key
	if in.Features == nil {
		m.wrong("its input %s takes text or other bytes, not tf.train.Example messages", in.Key)
		return
	}
	if len(in.Shape) > 1 || in.Shape != nil && len(in.Shape) == 0 {
		m.wrong("its input %s is not of a shape [batch]", in.Key)
	}
	if len(in.Shape) == 1 {
		m.size(&m.Batch, in.Shape[0], in.Key)
	}
	found := find(len(in.Features), func(i int) string { return in.Features[i].Name })
	m.require(found, "feature")
	for _, as := range []string{inputIDs, inputMask, segmentIDs, uniqueIDs} {
		i, ok := found[as]
		if !ok {
			continue
		}
		f := &in.Features[i]
		shape := f.Shape
		if shape != nil {
			shape = append(tf.Shape{-1}, f.Shape...)
		}
		m.add(as, f.Name, f.DType, shape)
		if f.DType != tf.Int64 {
			m.wrong("the feature %s of its examples is %v, not int64", f.Name, f.DType)
		}
	}
	for _, f := range in.Features {
		if f.Required && len(found) > 0 && !m.takes(f.Name) {
			m.unknown("feature", f.Name)
		}
	}
}

// require checks that what no answer can do without was found.
func (m *mapper) require(found map[string]int, kind string) {
	for _, as := range []string{inputIDs, inputMask} {
		if _, ok := found[as]; !ok {
			m.wrong("it has no %s %s (or %s)", kind, as, strings.Join(otherNames(as), ", "))
		}
	}
	if _, ok := found[segmentIDs]; !ok {
		m.Notes = append(m.Notes, "it takes no segment_ids: unless it was trained without them, as DistilBERT is, "+
			"it cannot tell the question from the passage")
	}
}

// otherNames returns the names of an input that are not run_squad.py's.
func otherNames(as string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(inputNames)), func(name string) bool {
		return name == as || inputNames[name] != as
	})
}

// add adds an input. A nil shape is one of unknown rank.
func (m *mapper) add(as, key string, dtype tf.DataType, shape tf.Shape) {
	in := MappedInput{As: as, Key: key, Type: dtype.String(), dtype: dtype}
	switch {
	case shape == nil:
	case as == uniqueIDs:
		in.column = len(shape) == 2
		if len(shape) != 1 && (len(shape) != 2 || shape[1] != 1) {
			m.wrong("its %s is not of a shape [batch]", key)
			break
		}
		m.size(&m.Batch, shape[0], key)
	case len(shape) != 2:
		m.wrong("its %s is not of a shape [batch,length]", key)
	default:
		m.size(&m.Batch, shape[0], key)
		m.size(&m.Length, shape[1], key)
	}
	m.Inputs = append(m.Inputs, in)
}

// largest bounds what a signature claims to take at once.
const largest = 1 << 14

// size settles a dimension that several tensors share.
func (m *mapper) size(to *int64, size int64, key string) {
	switch {
	case size < 0 || size == *to:
	case size == 0 || size > largest:
		m.wrong("its %s is of a size that no BERT has (%d)", key, size)
	case *to >= 0:
		m.wrong("its %s is of another size than its other tensors (%d, not %d)", key, size, *to)
	default:
		*to = size
	}
}

func isLogits(d tf.DataType) bool {
	return d == tf.Float || d == tf.Half || d == tf.Bfloat16 || d == tf.Double
}

func (m *mapper) outputs(s *savedmodel.Signature) {
	named := map[string][]*savedmodel.TensorInfo{}
	var pair, both []*savedmodel.TensorInfo // of logits without a name that says which, and of both
	for i := range s.Outputs {
		out := &s.Outputs[i]
		as, ok := logitsName(out.Key)
		if as != "" {
			named[as] = append(named[as], out)
		}
		switch {
		case !ok || !isLogits(out.DType) || out.Sparse:
		case m.isPart(out.Shape):
			pair = append(pair, out)
		case len(out.Shape) == 3:
			both = append(both, out)
		}
	}
	start, ok1 := m.choose(named[startLogits], startLogits)
	end, ok2 := m.choose(named[endLogits], endLogits)
	switch {
	case !ok1 || !ok2:
	case start != nil && end != nil:
		m.part(startLogits, start)
		m.part(endLogits, end)
	case start == nil && end == nil && len(pair) == 2:
		if !inOrder(pair[0], pair[1]) {
			if !inOrder(pair[1], pair[0]) {
				m.wrong("nothing says which of its outputs %s and %s is start_logits", pair[0].Key, pair[1].Key)
				return
			}
			slices.Reverse(pair)
		}
		m.part(startLogits, pair[0])
		m.part(endLogits, pair[1])
	case start == nil && end == nil:
		m.both(both)
	case start == nil:
		m.wrong("it has no output start_logits")
	default:
		m.wrong("it has no output end_logits")
	}
}

// logitsName returns start_logits or end_logits for a key that says so, or else "". It reports whether a
// key can be that of logits: it cannot if it says that it is of something else.
func logitsName(key string) (as string, ok bool) {
	for _, word := range strings.FieldsFunc(baseName(key), func(r rune) bool { return r == '_' || r == '.' }) {
		switch word {
		case "start":
			as = startLogits
		case "end":
			as = endLogits
		case "prob", "probs", "probability", "probabilities", "softmax", "top", "index", "indices", "mask":
			return "", false
		}
	}
	return as, true
}

// choose returns the one output of those that are named as start or end, or nil if there is none. It
// reports whether there is no more than one.
func (m *mapper) choose(outputs []*savedmodel.TensorInfo, as string) (_ *savedmodel.TensorInfo, ok bool) {
	for _, out := range outputs {
		if baseName(out.Key) == as {
			return out, true
		}
	}
	switch len(outputs) {
	case 0:
		return nil, true
	case 1:
		return outputs[0], true
	}
	fit := slices.DeleteFunc(slices.Clone(outputs), func(out *savedmodel.TensorInfo) bool {
		return !isLogits(out.DType) || out.Shape != nil && len(out.Shape) != 2
	})
	if len(fit) == 1 {
		return fit[0], true
	}
	m.wrong("both %s and %s could be its %s", outputs[0].Key, outputs[1].Key, as)
	return nil, false
}

// isPart reports whether an output of a shape can be the logits of starts or of ends, whatever its name
// is. Where the length is dynamic, a fixed number of columns is that of something else.
func (m *mapper) isPart(shape tf.Shape) bool {
	switch {
	case shape == nil:
		return true
	case len(shape) == 3 && shape[2] == 1:
		shape = shape[:2]
	}
	return len(shape) == 2 && (tf.Shape{m.Batch, m.Length}).Compatible(shape) && (m.Length >= 0 || shape[1] < 0)
}

// part adds an output that is start_logits or end_logits.
func (m *mapper) part(as string, out *savedmodel.TensorInfo) {
	m.Outputs = append(m.Outputs, MappedOutput{As: as, Key: out.Key, Type: out.DType.String()})
	if !isLogits(out.DType) || out.Sparse {
		m.wrong("its output %s is %v, not dense floating-point numbers", out.Key, out.DType)
	}
	switch shape := out.Shape; {
	case shape == nil:
	case len(shape) == 2 || len(shape) == 3 && shape[2] == 1:
		m.size(&m.Batch, shape[0], out.Key)
		m.size(&m.Length, shape[1], out.Key)
	default:
		m.wrong("its output %s is not of a shape [batch,length]", out.Key)
	}
}

// inOrder reports whether outputs are numbered, as output_0 and output_1, or the parts of what was split, as
// unstack:0 and unstack:1. The outputs of a function's call are not: they are in the order of their keys.
func inOrder(first, second *savedmodel.TensorInfo) bool {
	if numbered(first.Key, second.Key) {
		return true
	}
	node, _, _ := strings.Cut(first.Name[strings.LastIndex(first.Name, "/")+1:], ":")
	node = strings.TrimRight(node, "_0123456789")
	return (node == "unstack" || node == "split") && numbered(first.Name, second.Name)
}

// numbered reports whether the second of two names is the first with the next number at its end. A name
// without a number counts as 0.
func numbered(first, second string) bool {
	stem1, n1 := number(first)
	stem2, n2 := number(second)
	return stem1 == stem2 && n2 == n1+1
}

func number(name string) (stem string, n int) {
	stem = strings.TrimRight(name, "0123456789")
	n, _ = strconv.Atoi(name[len(stem):])
	return strings.TrimRight(stem, "_:"), n
}

// both adds the one output that holds start_logits and end_logits.
func (m *mapper) both(outputs []*savedmodel.TensorInfo) {
	type choice struct {
		out  *savedmodel.TensorInfo
		axis int
	}
	var sure, possible []choice
	for _, out := range outputs {
		for axis, size := range out.Shape {
			if size != 2 {
				continue
			}
			rest := slices.Delete(slices.Clone(out.Shape), axis, axis+1)
			want := tf.Shape{m.Batch, m.Length}
			if !want.Compatible(rest) {
				continue
			}
			possible = append(possible, choice{out, axis})
			if (m.Batch >= 0 || rest[0] < 0) && (m.Length >= 0 || rest[1] < 0) {
				sure = append(sure, choice{out, axis})
			}
		}
	}
	if len(sure) == 0 {
		sure = possible
	}
	if len(sure) > 1 { // of several outputs, the one of that name
		named := slices.DeleteFunc(slices.Clone(sure), func(c choice) bool { return baseName(c.out.Key) != "logits" })
		if len(named) > 0 {
			sure = named
		}
	}
	switch {
	case len(sure) == 0:
		m.wrong("it has no outputs start_logits and end_logits, nor one that holds both")
		return
	case len(sure) > 1 && sure[0].out == sure[1].out:
		m.wrong("the shape of its output %s does not say which dimension is that of start and end", sure[0].out.Key)
		return
	case len(sure) > 1:
		m.wrong("both %s and %s could be its logits", sure[0].out.Key, sure[1].out.Key)
		return
	}
	out, axis := sure[0].out, sure[0].axis
	rest := slices.Delete(slices.Clone(out.Shape), axis, axis+1)
	m.size(&m.Batch, rest[0], out.Key)
	m.size(&m.Length, rest[1], out.Key)
	m.Notes = append(m.Notes, fmt.Sprintf("its output %s is taken for start_logits and end_logits by its shape", out.Key))
	for i, as := range []string{startLogits, endLogits} {
		index := fmt.Sprintf([]string{"[%d,...]", "[:,%d,:]", "[...,%d]"}[axis], i)
		m.Outputs = append(m.Outputs,
			MappedOutput{As: as, Key: out.Key, Type: out.DType.String(), Index: index, axis: axis})
	}
}

// String describes the mapping in a few lines.
func (m *Mapping) String() string {
	var b strings.Builder
	line := func(name, text string) { fmt.Fprintf(&b, "%-10s %s\n", name, text) }
	line("signature", fmt.Sprintf("%s, tags {%s}", m.Signature, strings.Join(m.Tags, ",")))
	var inputs, outputs []string
	for _, in := range m.Inputs {
		text := in.As
		if in.As != in.Key {
			text += " from " + in.Key
		}
		inputs = append(inputs, text+" "+in.Type)
	}
	if m.Examples != "" {
		line("examples", fmt.Sprintf("%s takes serialized tf.train.Example messages with these features", m.Examples))
	}
	for _, out := range m.Outputs {
		text := out.As
		if out.As != out.Key {
			text += " from " + out.Key + out.Index
		}
		outputs = append(outputs, text+" "+out.Type)
	}
	line("inputs", strings.Join(inputs, ", "))
	line("outputs", strings.Join(outputs, ", "))
	line("batch", sizeText(m.Batch, "%d, filled up with the last window"))
	line("length", sizeText(m.Length, "%d word pieces"))
	for _, note := range m.Notes {
		line("note", note)
	}
	return b.String()
}

func sizeText(size int64, fixed string) string {
	if size < 0 {
		return "any"
	}
	return fmt.Sprintf(fixed, size)
}
