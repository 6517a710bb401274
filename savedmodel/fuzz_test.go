package savedmodel

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/internal/tfproto"
)

// FuzzMetaGraph holds that any saved_model.pb is described or refused.
func FuzzMetaGraph(f *testing.F) {
	tensor := &tfproto.TensorInfo{Encoding: &tfproto.TensorInfo_Name{Name: "x:0"}, Dtype: 1,
		TensorShape: &tfproto.TensorShapeProto{Dim: []*tfproto.TensorShapeProto_Dim{{Size: -1}, {Size: 384}}}}
	sparse := &tfproto.TensorInfo{Encoding: &tfproto.TensorInfo_CooSparse_{
		CooSparse: &tfproto.TensorInfo_CooSparse{ValuesTensorName: "values:0"}}}
	asset, err := proto.Marshal(&tfproto.AssetFileDef{TensorInfo: tensor, Filename: "vocab.txt"})
	if err != nil {
		f.Fatal(err)
	}
	collection := &tfproto.CollectionDef{Kind: &tfproto.CollectionDef_AnyList_{
		AnyList: &tfproto.CollectionDef_AnyList{Value: []*tfproto.Any{{Value: asset}, {Value: []byte("?")}}}}}
	for _, meta := range []*tfproto.MetaGraphDef{
		nil,
		{MetaInfoDef: &tfproto.MetaGraphDef_MetaInfoDef{Tags: []string{"serve"}, TensorflowVersion: "1.14.0"}},
		{
			SignatureDef: map[string]*tfproto.SignatureDef{"serving_default": {
				Inputs:  map[string]*tfproto.TensorInfo{"x": tensor, "none": nil},
				Outputs: map[string]*tfproto.TensorInfo{"y": sparse}}},
			CollectionDef: map[string]*tfproto.CollectionDef{"saved_model_assets": collection},
		},
		{
			SignatureDef: map[string]*tfproto.SignatureDef{"serve": {Inputs: map[string]*tfproto.TensorInfo{"x": tensor}}},
			GraphDef: &tfproto.GraphDef{Node: []*tfproto.NodeDef{
				{Name: "y", Op: "Identity", Input: []string{"x"}}, {Name: "c", Op: "Const"},
				{Name: "p", Op: "ParseExample", Input: []string{"y", "c", "c", "c"}, Attr: map[string]*tfproto.AttrValue{
					"Ndense": {Value: &tfproto.AttrValue_I{I: 1}}, "Nsparse": {Value: &tfproto.AttrValue_I{I: -1}}}},
				{Name: "q", Op: "ParseExampleV2", Input: []string{"y"}},
			}},
		},
		{GraphDef: &tfproto.GraphDef{Node: []*tfproto.NodeDef{{Name: "a", Op: "NoOp"}},
			Library: &tfproto.FunctionDefLibrary{Function: []*tfproto.FunctionDef{{NodeDef: []*tfproto.NodeDef{{Op: "Add"}}}}}}},
	} {
		b, err := proto.Marshal(&tfproto.SavedModel{SavedModelSchemaVersion: 1, MetaGraphs: []*tfproto.MetaGraphDef{meta}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte("saved_model"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		whole := &tfproto.SavedModel{}
		wholeErr := proto.Unmarshal(data, whole)
		path := filepath.Join(dir, GraphFile)
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var model *tfproto.SavedModel
		bounded.Run(t, 200*len(data), 10*time.Second, func() {
			model, err = parseSavedModel(file, int64(len(data)), withoutAttrs)
		})
		if err != nil {
			return
		}
		for i, m := range whole.GetMetaGraphs() {
			if wholeErr == nil && !reflect.DeepEqual(metaGraph(m), metaGraph(model.MetaGraphs[i])) {
				t.Fatalf("meta graph %d: %v, not %v", i, metaGraph(model.MetaGraphs[i]), metaGraph(m))
			}
		}
		if wholeErr == nil {
			model = whole // with the attributes that features looks at
		}
		for _, m := range model.MetaGraphs {
			g := metaGraph(m)
			if _, err := json.Marshal(g); err != nil {
				t.Fatal(err)
			}
			for _, s := range g.Signatures {
				found, err := g.Signature(s.Key)
				if err != nil || found.Key != s.Key {
					t.Fatalf("signature %q is not found: %v", s.Key, err)
				}
				for _, in := range s.Inputs {
					if _, err := s.Input(in.Key); err != nil {
						t.Fatal(err)
					}
					features(m, in.Name)
				}
			}
		}
	})
}
