package savedmodel

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

// Names inside a SavedModel directory.
const (
	GraphFile       = "saved_model.pb"
	VariablesPrefix = "variables/variables" // a checkpoint's prefix
	ExtraAssetsDir  = "assets.extra"        // for files of the model's users, which TensorFlow does not read
)

// The tag of the meta graph and the key of the signature that servers use by default.
const (
	ServeTag         = "serve"
	DefaultSignature = "serving_default"
)

// Info is what a SavedModel directory holds.
type Info struct {
	Dir        string      `json:"dir"`
	Size       int64       `json:"size"` // bytes of all files
	MetaGraphs []MetaGraph `json:"meta_graphs"`
}

// MetaGraph is one graph of a SavedModel, chosen by its tags.
type MetaGraph struct {
	Tags              []string       `json:"tags"`
	TensorFlowVersion string         `json:"tensorflow_version"`
	Signatures        []Signature    `json:"signatures"` // by key
	Assets            []string       `json:"assets,omitempty"`
	Ops               map[string]int `json:"ops"` // operations of each type, also in functions
	Functions         int            `json:"functions,omitempty"`
}

// Signature is a function of a meta graph: named inputs and outputs bound to its tensors.
type Signature struct {
	Key     string       `json:"key"`
	Method  string       `json:"method"`
	Inputs  []TensorInfo `json:"inputs"`  // by key
	Outputs []TensorInfo `json:"outputs"` // by key
}

// TensorInfo binds an input or output of a signature to a tensor of the graph.
type TensorInfo struct {
	Key   string      `json:"key"`
	Name  string      `json:"name"` // "start_logits:0"; for sparse tensors, of their values
	DType tf.DataType `json:"-"`
	Shape tf.Shape    `json:"shape"` // nil if not even its rank is known
	// Sparse reports that it is sparse, ragged or otherwise of several tensors, of which Name is at most one.
	Sparse bool `json:"sparse,omitempty"`
	// Optional reports that the graph has a default for an input.
	Optional bool `json:"optional,omitempty"`
	// Features are those that the graph parses from an input, if it takes serialized tf.train.Example
	// messages.
	Features []Feature `json:"features,omitempty"`
	// Needs names the operations that a run has to feed for an output: those of the inputs that it depends
	// on and that do not have a default, and placeholders that the signature leaves out.
	Needs []string `json:"-"`
}

// MarshalJSON writes the data type by name.
func (t TensorInfo) MarshalJSON() ([]byte, error) {
	type plain TensorInfo // without this method
	return json.Marshal(struct {
		plain
		DType string `json:"dtype"`
	}{plain(t), t.DType.String()})
}

// String returns the tensor as "input_ids int32 [?,384]".
func (t TensorInfo) String() string {
	return fmt.Sprintf("%s %v %s", t.Key, t.DType, shapeString(t.Shape))
}

func shapeString(s tf.Shape) string {
	if s == nil {
		return "(unknown rank)"
	}
	return s.String()
}

// Inspect reads the SavedModel that path leads to, as Find says, without TensorFlow.
func Inspect(path string) (*Info, error) {
	dir, _, err := Find(path)
	if err != nil {
		return nil, err
	}
	model, err := readSavedModel(dir, withoutAttrs)
	if err != nil {
		return nil, err
	}
	info := describe(dir, model)
	if err := info.addFeatures(); err != nil {
		return nil, err
	}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		member, err := d.Info()
		if err == nil {
			info.Size += member.Size()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", dir, err)
	}
	return info, nil
}

// describe returns the description of a SavedModel, without the size of its files.
func describe(dir string, model *tfproto.SavedModel) *Info {
	info := &Info{Dir: dir}
	for _, m := range model.MetaGraphs {
		info.MetaGraphs = append(info.MetaGraphs, metaGraph(m))
	}
	return info
}

// MetaGraph returns the first meta graph with exactly the given tags, which is the one that TensorFlow loads.
func (i *Info) MetaGraph(tags []string) (*MetaGraph, error) {
	want := set(tags) // as TensorFlow compares them
	var have [][]string
	for n := range i.MetaGraphs {
		m := &i.MetaGraphs[n]
		if maps.Equal(set(m.Tags), want) {
			return m, nil
		}
		have = append(have, m.Tags)
	}
	return nil, &TagsError{Dir: i.Dir, Tags: tags, Have: have}
}

// TagsError reports that a SavedModel does not have a meta graph with the tags that were asked for.
type TagsError struct {
	Dir  string
	Tags []string
	Have [][]string // the tags of each of its meta graphs
}

func (e *TagsError) Error() string {
	var have []string
	for _, tags := range e.Have {
		have = append(have, "{"+strings.Join(tags, ",")+"}")
	}
	return fmt.Sprintf("%s does not have a meta graph with the tags {%s}, only %s",
		e.Dir, strings.Join(e.Tags, ","), strings.Join(have, " "))
}

// Signature returns the signature with a key.
func (m *MetaGraph) Signature(key string) (*Signature, error) {
	n, found := slices.BinarySearchFunc(m.Signatures, key, func(s Signature, key string) int {
		return cmp.Compare(s.Key, key)
	})
	if !found {
		var have []string
		for _, s := range m.Signatures {
			have = append(have, s.Key)
		}
		return nil, fmt.Errorf("no signature %q, only %s", key, list(have))
	}
	return &m.Signatures[n], nil
}

// Input returns the input with a key.
func (s *Signature) Input(key string) (TensorInfo, error) { return find(s.Inputs, "input", s.Key, key) }

// Output returns the output with a key.
func (s *Signature) Output(key string) (TensorInfo, error) {
	return find(s.Outputs, "output", s.Key, key)
}

func find(infos []TensorInfo, kind, signature, key string) (TensorInfo, error) {
	var have []string
	for _, t := range infos {
		if t.Key == key {
			return t, nil
		}
		have = append(have, t.Key)
	}
	return TensorInfo{}, fmt.Errorf("signature %q has no %s %q, only %s", signature, kind, key, list(have))
}

// list joins names for a message.
func list(keys []string) string { return cmp.Or(strings.Join(keys, ", "), "(none)") }

func readSavedModel(dir string, p parts) (*tfproto.SavedModel, error) {
	f, size, err := file.Open(filepath.Join(dir, GraphFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseSavedModel(f, size, p)
}

// parseSavedModel reads parts of a SavedModel of a size.
func parseSavedModel(f *os.File, size int64, p parts) (*tfproto.SavedModel, error) {
	model := &tfproto.SavedModel{}
	data, err := p.read(f, size)
	var pathError *fs.PathError
	switch {
	case errors.As(err, &pathError):
		return nil, err
	case err == nil:
		err = proto.Unmarshal(data, model)
	}
	if err == nil && len(model.MetaGraphs) == 0 {
		err = errors.New("it has no meta graph")
	}
	if err != nil {
		if kind := file.KindOf(f, size); kind != "" && kind != file.SavedModel {
			return nil, &file.KindError{Path: f.Name(), Kind: kind}
		}
		return nil, fmt.Errorf("%s is damaged or not a SavedModel: %w", f.Name(), err)
	}
	return model, nil
}

func metaGraph(m *tfproto.MetaGraphDef) MetaGraph {
	g := MetaGraph{
		Tags:              m.GetMetaInfoDef().GetTags(),
		TensorFlowVersion: m.GetMetaInfoDef().GetTensorflowVersion(),
		Signatures:        []Signature{},
		Ops:               map[string]int{},
		Functions:         len(m.GetGraphDef().GetLibrary().GetFunction()),
	}
	nodes := map[string]*tfproto.NodeDef{}
	for _, n := range m.GetGraphDef().GetNode() {
		nodes[n.GetName()] = n
	}
	left := 4 * maxNodes // to follow: a file may claim any number of outputs
	for _, key := range slices.Sorted(maps.Keys(m.SignatureDef)) {
		s := m.SignatureDef[key]
		inputs := tensorInfos(s.GetInputs())
		for i := range inputs {
			inputs[i].Optional = nodes[nodeOf(inputs[i].Name)].GetOp() == "PlaceholderWithDefault"
		}
		outputs := tensorInfos(s.GetOutputs())
		for i := range outputs {
			outputs[i].Needs = needs(s.GetOutputs()[outputs[i].Key], inputs, nodes, &left)
		}
		g.Signatures = append(g.Signatures, Signature{Key: key, Method: s.GetMethodName(), Inputs: inputs, Outputs: outputs})
	}
	for _, a := range assets(m) {
		g.Assets = append(g.Assets, a.GetFilename())
	}
	for _, n := range m.GetGraphDef().GetNode() {
		g.Ops[n.GetOp()]++
	}
	for _, f := range m.GetGraphDef().GetLibrary().GetFunction() {
		for _, n := range f.GetNodeDef() {
			g.Ops[n.GetOp()]++
		}
	}
	return g
}

// needs returns the operations that have to be fed for an output. It follows no more nodes than are left.
func needs(output *tfproto.TensorInfo, inputs []TensorInfo, nodes map[string]*tfproto.NodeDef, left *int) []string {
	fed := map[string]bool{}
	for _, in := range inputs {
		fed[nodeOf(in.Name)] = true
	}
	seen := map[string]bool{}
	var found []string
	for rest := tensorNames(output); len(rest) > 0; {
		name := nodeOf(rest[len(rest)-1])
		rest = rest[:len(rest)-1]
		n := nodes[name]
		if *left--; *left < 0 {
			return nil
		}
		if n == nil || seen[name] {
			continue
		}
		seen[name] = true
		switch op := n.GetOp(); {
		case op == "PlaceholderWithDefault":
		case fed[name] || op == "Placeholder" || op == "PlaceholderV2":
			found = append(found, name)
		default:
			rest = append(rest, n.GetInput()...)
		}
	}
	slices.Sort(found)
	return found
}

// assets returns the definitions of the assets. TensorFlow 1 kept them in a collection.
func assets(m *tfproto.MetaGraphDef) []*tfproto.AssetFileDef {
	if len(m.AssetFileDef) > 0 {
		return m.AssetFileDef
	}
	var defs []*tfproto.AssetFileDef
	for _, a := range m.CollectionDef["saved_model_assets"].GetAnyList().GetValue() {
		def := &tfproto.AssetFileDef{}
		if proto.Unmarshal(a.GetValue(), def) == nil && def.GetFilename() != "" {
			defs = append(defs, def)
		}
	}
	return defs
}

func tensorInfos(infos map[string]*tfproto.TensorInfo) []TensorInfo {
	sorted := []TensorInfo{} // not nil, so that it is a list in JSON, too
	for _, key := range slices.Sorted(maps.Keys(infos)) {
		t := infos[key]
		name := t.GetName()
		if sparse := t.GetCooSparse(); sparse != nil {
			name = sparse.GetValuesTensorName()
		}
		sorted = append(sorted, TensorInfo{
			Key: key, Name: name, DType: tf.DataType(t.GetDtype()), Shape: shapeOf(t.GetTensorShape()),
			Sparse: t.GetCooSparse() != nil || t.GetCompositeTensor() != nil,
		})
	}
	return sorted
}

func shapeOf(p *tfproto.TensorShapeProto) tf.Shape {
	if p == nil || p.GetUnknownRank() {
		return nil
	}
	shape := tf.Shape{}
	for _, d := range p.GetDim() {
		shape = append(shape, d.GetSize())
	}
	return shape
}
