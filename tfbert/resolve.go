package tfbert

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/tfbert/go/checkpoint"
)

// A resolution says which of a checkpoint's variables are the weights of a model, by modeling.py's names.
type resolution struct {
	keys        map[string]string // in the checkpoint
	turned      map[string]bool   // stored [in,out] where modeling.py has [out,in]
	notes       []string          // what is not as modeling.py has it
	huggingFace bool              // the names are those of the TensorFlow classes of transformers
}

// A found is a variable of a checkpoint with its name, which is its key but in an object-based checkpoint.
type found struct {
	key, name string
	part      part
	checkpoint.Variable
}

// longestName is a length that no name of a weight has.
const longestName = 1 << 10

// resolve finds the weights of a BERT among variables.
func (s *source) resolve(head string) error {
	// A graph that cannot be read leaves the keys, which name the variables of some checkpoints well enough.
	names, _ := s.FullNames()
	var all []found
	for _, v := range s.Variables() {
		f := found{key: v.Name, Variable: v}
		f.name = strings.TrimSuffix(v.Name, "/.ATTRIBUTES/VARIABLE_VALUE")
		if full := names[v.Name]; full != "" {
			f.name = strings.TrimSuffix(full, ":0")
		}
		if len(f.name) <= longestName && v.Kind != checkpoint.Bookkeeping {
			f.part = parsePart(f.name)
		}
		if v.Kind == checkpoint.Slot && f.part.state == "" {
			f.part = part{} // an optimizer's, under the name of its weight
		}
		all = append(all, f)
	}
	r := &resolution{keys: map[string]string{}, turned: map[string]bool{}}
	at, err := s.findEncoder(r, all)
	if err != nil {
		return err
	}
	if err := s.checkEncoder(r, at.scope, all); err != nil {
		return err
	}
	if at.state != "" { // the head is an average too
		all = slices.DeleteFunc(all, func(f found) bool { return !strings.HasSuffix(f.name, "/"+at.state) })
		for i := range all {
			all[i].name, all[i].Kind = strings.TrimSuffix(all[i].name, "/"+at.state), checkpoint.Weight
		}
	}
	if err := s.findHead(r, head, all); err != nil {
		return err
	}
	s.resolved = r
	return nil
}

// A place is where a checkpoint may have a whole encoder: below a scope, its weights or one kind of their state.
type place struct{ scope, state string }

// averages are names of the state that is a weight too: its moving average, which some save alone.
var averages = regexp.MustCompile(`(?i)(average|ema)(_\d+)?$`)

// findEncoder maps the weights of the encoder and returns where they stand.
func (s *source) findEncoder(r *resolution, all []found) (at place, err error) {
	wanted := s.config.weights()
	wanted = wanted[:len(wanted)-2] // without the head
	places := map[place]map[string]found{}
	for _, f := range all {
		if f.part.name == "" || f.part.state != "" && !averages.MatchString(f.part.state) {
			continue
		}
		p := place{f.part.scope, f.part.state}
		if places[p] == nil {
			places[p] = map[string]found{}
		}
		places[p][f.part.name] = f
	}
	missing := func(p place) (names []string) {
		for _, w := range wanted {
			if _, ok := places[p][strings.TrimPrefix(w.name, bertScope)]; !ok {
				names = append(names, w.name)
			}
		}
		return names
	}
	var complete []place
	for p := range places {
		if len(places[p]) >= len(wanted) && len(missing(p)) == 0 {
			complete = append(complete, p)
		}
	}
	slices.SortFunc(complete, func(a, b place) int { return strings.Compare(a.scope+a.state, b.scope+b.state) })
	complete = slices.DeleteFunc(complete, func(p place) bool {
		return slices.ContainsFunc(complete, func(q place) bool { return q != p && p.stateOf(q) })
	})
	switch {
	case len(complete) > 1:
		var scopes []string
		for _, p := range complete {
			scopes = append(scopes, path.Join(p.scope, "encoder"))
		}
		return at, s.errorf("holds several models (%s): save the one to run alone", strings.Join(scopes, ", "))
	case len(complete) == 0:
		return at, s.noEncoder(all, places, missing)
	}
	p := complete[0]
	if family := familyOf(slices.Collect(maps.Values(places[p]))); family != "" {
		return at, s.otherFamily(family)
	}
	example := ""
	for _, w := range wanted {
		f := places[p][strings.TrimPrefix(w.name, bertScope)]
		r.keys[w.name] = f.key
		if example == "" && f.name != w.name {
			example = fmt.Sprintf("%s is %s", w.name, f.name)
		}
		if huggingFaceName.MatchString(f.name) {
			r.huggingFace = true
		}
	}
	if example != "" && !s.pytorch { // whose names are what transformers always has
		r.notes = append(r.notes, "names are mapped: "+example)
	}
	if p.state != "" {
		r.notes = append(r.notes, fmt.Sprintf("the weights are averages (%s)", p.state))
	}
	return p, nil
}

// huggingFaceName matches names of the TensorFlow classes of transformers.
var huggingFaceName = regexp.MustCompile(`^tf_bert|/layer_\._|_embeddings/weight$`)

// stateOf reports whether what stands at p is likely state of the weights at q: averages of them, or what an
// optimizer keeps below a scope of its own.
func (p place) stateOf(q place) bool {
	if p.scope == q.scope {
		return p.state != "" && q.state == ""
	}
	return q.state == "" && (q.scope == "" || strings.HasSuffix(p.scope, "/"+q.scope))
}

// bertScope is what modeling.py's names of the encoder begin with.
const bertScope = "bert/"

// checkEncoder returns an error that lists the weights of another shape or type than the configuration asks for, the
// layers that it does not ask for, and what is no part of a BERT.
func (s *source) checkEncoder(r *resolution, scope string, all []found) error {
	var wrong, foreign []string
	wanted := s.config.weights()
	for _, w := range wanted[:len(wanted)-2] {
		v, _ := s.Variable(r.keys[w.name])
		wrong = append(wrong, w.misfits(v)...)
	}
	// The scripts restore what the graph asks for, and would run a model without its last layers or its adapters.
	for _, f := range all {
		below, inScope := f.name, true
		if scope != "" {
			below, inScope = strings.CutPrefix(f.name, scope+"/")
		}
		changes := changesWeight.MatchString(f.name)
		switch {
		case !inScope || f.Kind == checkpoint.Bookkeeping || !isFloat(f.DType):
		case f.part.isWeight(scope) && layerOf.MatchString(below) && r.keys[bertScope+f.part.name] == "":
			wrong = append(wrong, fmt.Sprintf("%s is not of the configuration's %d layers", f.name, s.config.NumHiddenLayers))
		case f.part.name != "" && !changes:
		case encoderName.MatchString(below) && (f.Kind == checkpoint.Weight || changes):
			foreign = append(foreign, f.name)
		}
	}
	if len(wrong) > 0 {
		return s.mismatch(atMost(wrong, "; "))
	}
	if len(foreign) > 0 {
		return s.errorf("holds variables that a BERT does not have, such as those of an adapter, "+
			"and would compute something else without them: %s", atMost(foreign, ", "))
	}
	return nil
}

// isWeight reports whether a part is a weight, not its state, of the model in a scope.
func (p part) isWeight(scope string) bool { return p.name != "" && p.state == "" && p.scope == scope }

// encoderName matches what stands in an encoder, by the name below its scope.
var encoderName = regexp.MustCompile(`^(encoder|transformer)/|^embeddings`)

// changesWeight matches variables below a weight that are not its state: they are added to it.
var changesWeight = regexp.MustCompile(`(?i)(lora|adapter)`)

// misfits says why a variable cannot be a weight.
func (w weight) misfits(v checkpoint.Variable) []string {
	switch {
	case !w.holds(v.Shape):
		return []string{fmt.Sprintf("%s has shape %v, the configuration asks for %v", w.name, v.Shape, []int64(w.shape))}
	case !isFloat(v.DType):
		return []string{fmt.Sprintf("%s is of type %v, not a floating-point one", w.name, v.DType)}
	}
	return nil
}

// holds reports whether a variable of a shape has the elements of a weight in the weight's order. Keras's attention
// layers have their kernels as [in, heads, size] or [heads, size, out].
func (w weight) holds(shape []int64) bool {
	if w.shape.Compatible(shape) {
		return true
	}
	n, of := int64(1), int64(1)
	for _, d := range shape {
		n *= d
	}
	for _, d := range w.shape {
		of *= d
	}
	return strings.Contains(w.name, "/attention/") && len(shape) == len(w.shape)+1 && n == of &&
		(shape[0] == w.shape[0] || shape[len(shape)-1] == w.shape[len(w.shape)-1] || len(w.shape) == 1)
}

// A headPair is two variables that fit the layer which answers questions.
type headPair struct{ weights, bias found }

// findHead maps the layer that answers questions: that of run_squad.py, or else the only one that can be it.
func (s *source) findHead(r *resolution, named string, all []found) error {
	pretraining := slices.ContainsFunc(all, func(f found) bool { return strings.Contains(f.name, "cls/predictions/") })
	hidden := int64(s.config.HiddenSize)
	biases := newBiases(all)
	var pairs []headPair
	var others []string // layers on top of the encoder that are no such head
	for _, f := range all {
		if f.Kind != checkpoint.Weight || f.part.name != "" || !isFloat(f.DType) || len(f.Shape) != 2 {
			continue
		}
		bias, ok := biases.of(f.name)
		switch {
		case ok && fitsHead(f.Shape, hidden) && (!isNextSentence(f.name, pretraining) || f.isNamed(named)):
			pairs = append(pairs, headPair{f, bias})
		case slices.Contains(f.Shape, hidden) && !strings.Contains(f.name, "cls/"):
			others = append(others, fmt.Sprintf("%s %v", f.name, f.Shape))
		}
	}
	pair, err := s.chooseHead(pairs, named)
	if err != nil {
		return err
	}
	if pair == nil {
		return s.noHead(pretraining, others)
	}
	r.keys[headWeights], r.keys[headBias] = pair.weights.key, pair.bias.key
	r.turned[headWeights] = pair.weights.Shape[0] != 2
	if w := pair.weights; w.name != headWeights {
		r.notes = append(r.notes, fmt.Sprintf("the head is %s %v with %s", w.name, w.Shape, pair.bias.name))
	}
	return nil
}

func fitsHead(shape []int64, hidden int64) bool {
	return slices.Equal(shape, []int64{2, hidden}) || slices.Equal(shape, []int64{hidden, 2})
}

// isNextSentence reports whether a matrix is the head by which a BERT was pre-trained to tell what sentence is next:
// it has the shape of the one that answers questions.
func isNextSentence(name string, pretraining bool) bool {
	return strings.Contains(name, "seq_relationship") ||
		pretraining && strings.HasSuffix(name, "predictions/transform/logits/kernel")
}

// isNamed reports whether a person's name for a head means a matrix.
func (f found) isNamed(head string) bool {
	return head != "" && (head == f.name || head == f.key || head == path.Dir(f.name))
}

const (
	headWeights = "cls/squad/output_weights"
	headBias    = "cls/squad/output_bias"
)

func (s *source) chooseHead(pairs []headPair, named string) (*headPair, error) {
	// What an optimizer or an average keeps of a head stands below a scope of its own.
	own := map[string]bool{}
	for _, p := range pairs {
		own[p.weights.name] = true
	}
	pairs = slices.DeleteFunc(pairs, func(p headPair) bool {
		for _, below, ok := strings.Cut(p.weights.name, "/"); ok; _, below, ok = strings.Cut(below, "/") {
			if own[below] {
				return true
			}
		}
		return false
	})
	var names []string
	for i, p := range pairs {
		ours := p.weights.name == headWeights || strings.HasSuffix(p.weights.name, "/"+headWeights)
		if p.weights.isNamed(named) || named == "" && ours {
			return &pairs[i], nil
		}
		names = append(names, p.weights.name)
	}
	switch {
	case named != "" && len(pairs) == 0:
		return nil, s.errorf("has no head %q: a matrix [2,%d] or [%[3]d,2] with a bias [2]", named, s.config.HiddenSize)
	case named != "":
		return nil, s.errorf("has no head %q: it has %s", named, strings.Join(names, ", "))
	case len(pairs) > 1:
		return nil, &HeadError{Checkpoint: s.name, Heads: names}
	case len(pairs) == 1:
		return &pairs[0], nil
	}
	return nil, nil
}

// biases are the vectors [2] of a checkpoint.
type biases struct {
	byName  map[string]found
	byScope map[string][]found
}

func newBiases(all []found) biases {
	b := biases{map[string]found{}, map[string][]found{}}
	for _, f := range all {
		if f.Kind == checkpoint.Weight && isFloat(f.DType) && slices.Equal(f.Shape, []int64{2}) {
			b.byName[f.name] = f
			b.byScope[path.Dir(f.name)] = append(b.byScope[path.Dir(f.name)], f)
		}
	}
	return b
}

// of returns the bias that stands beside a matrix. Several heads may stand side by side: start_weights and start_bias.
func (b biases) of(matrix string) (bias found, ok bool) {
	if beside := b.byScope[path.Dir(matrix)]; len(beside) == 1 {
		return beside[0], true
	}
	bias, ok = b.byName[biasName.Replace(matrix)]
	return bias, ok
}

var biasName = strings.NewReplacer("weights", "bias", "weight", "bias", "kernel", "bias")

func (s *source) noHead(pretraining bool, others []string) error {
	// A head of the right name that does not fit tells more about the configuration than about the checkpoint.
	var wrong []string
	for _, w := range s.config.weights()[len(s.config.weights())-2:] {
		if v, ok := s.Variable(w.name); ok {
			wrong = append(wrong, w.misfits(v)...)
		} else {
			wrong = append(wrong, w.name+" is missing")
		}
	}
	_, hasWeights := s.Variable(headWeights)
	_, hasBias := s.Variable(headBias)
	if hasWeights || hasBias {
		return s.mismatch(atMost(wrong, "; "))
	}
	what := "it was not fine-tuned on SQuAD"
	switch {
	case pretraining:
		what = "it was pre-trained, but not fine-tuned on SQuAD"
	case len(others) > 0:
		what += fmt.Sprintf(", but has other layers (%s)", atMost(others, ", "))
	}
	return s.errorf("has no question-answering head: %s", what)
}

// noEncoder returns the error of a checkpoint without a whole encoder.
func (s *source) noEncoder(all []found, places map[place]map[string]found, missing func(place) []string) error {
	if family := familyOf(all); family != "" {
		return s.otherFamily(family)
	}
	// The place where most is: the scope of a model that the configuration does not describe.
	var best place
	for p := range places {
		more := len(places[p]) - len(places[best])
		if p.state == "" && (more > 0 || more == 0 && p.scope < best.scope) {
			best = p
		}
	}
	if len(places[best]) > 5 { // more than embeddings
		lacking := missing(best)
		for i, name := range lacking {
			lacking[i] = name + " is missing"
		}
		return s.mismatch(atMost(lacking, "; "))
	}
	var names []string
	for _, f := range all {
		if f.Kind == checkpoint.Weight {
			names = append(names, f.name)
		}
	}
	if s.ObjectBased() {
		return s.errorf("is an object-based one of TensorFlow 2, and its graph of objects does not name "+
			"the weights of a BERT; it holds %s", atMost(names, ", "))
	}
	if len(names) == 0 {
		return s.errorf("holds no weights")
	}
	return s.errorf("holds no BERT; it holds %s", atMost(names, ", "))
}

// families are models that are like a BERT or stand beside one, and are not run.
var families = []struct {
	name  string
	match *regexp.Regexp
}{
	{"ALBERT", regexp.MustCompile(`/group_\d+/inner_group_\d|embedding_hidden_mapping_in|(^|/)albert/`)},
	{"ELECTRA", regexp.MustCompile(`(^|/)(electra|generator|discriminator_predictions|generator_predictions)(/|$)`)},
	{"RoBERTa", regexp.MustCompile(`(^|/)(tf_)?(xlm_)?roberta(_[^/]*)?/|(^|/)roberta`)},
	{"DistilBERT", regexp.MustCompile(`(^|/)(tf_)?distil_?bert(_[^/]*)?/`)},
	{"MobileBERT", regexp.MustCompile(`(^|/)mobilebert/|/bottleneck/input/`)},
	{"XLNet", regexp.MustCompile(`rel_attn/|(^|/)transformer/r_w_bias|word_embedding/lookup_table`)},
	{"GPT-2", regexp.MustCompile(`(^|/)model/h\d+/attn/|(^|/)wte$`)},
	{"T5", regexp.MustCompile(`encoder/block_\d+/layer_\d+/SelfAttention`)},
	{"keras-bert", regexp.MustCompile(`Encoder-\d+-MultiHeadSelfAttention`)},
}

// familyOf returns the name of the family that the names look like, with one of the names, or "".
func familyOf(all []found) string {
	slices.SortFunc(all, func(a, b found) int { return strings.Compare(a.name, b.name) })
	for _, family := range families {
		for _, f := range all {
			if len(f.name) <= longestName && f.Kind == checkpoint.Weight && family.match.MatchString(f.name) {
				return fmt.Sprintf("%s (it holds %s)", family.name, f.name)
			}
		}
	}
	return ""
}

func (s *source) otherFamily(family string) error {
	return s.errorf("looks like one of %s, which tfbert does not run: it runs BERT", family)
}

// errorf returns an error about the checkpoint.
func (s *source) errorf(format string, args ...any) error {
	return fmt.Errorf("the checkpoint %s "+format, append([]any{s.name}, args...)...)
}

// atMost joins the first few of a list for one line.
func atMost(list []string, separator string) string { return joinFirst(8, list, separator) }

// joinFirst joins the first of a list, and says how many more there are.
func joinFirst(most int, list []string, separator string) string {
	if n := len(list); n > most {
		list = append(slices.Clone(list[:most]), fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(list, separator)
}
