package savedmodel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

// loadSession loads the meta graph with exactly the given tags into a session. TensorFlow's own loader cannot place a
// graph, so on a device the steps of the loader are taken here: import the graph, restore its variables, initialize.
func loadSession(dir string, tags []string, device string, config []byte) (*tf.Session, error) {
	if device == "" {
		return tf.LoadSession(dir, tags, &tf.SessionOptions{Config: config})
	}
	device = "/" + shortDevice(device)
	g, err := tf.NewGraph()
	if err != nil {
		return nil, err
	}
	meta, err := importGraph(g, dir, tags, device)
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	session, err := tf.NewSession(g, &tf.SessionOptions{Config: config, OwnGraph: true})
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	if err = hasDevice(session, device); err == nil {
		err = initialize(session, dir, meta)
	}
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return session, nil
}

// importGraph imports the graph of a SavedModel and returns what else its meta graph has.
func importGraph(g *tf.Graph, dir string, tags []string, device string) (*tfproto.MetaGraphDef, error) {
	f, size, err := file.Open(filepath.Join(dir, GraphFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	model, err := io.ReadAll(io.LimitReader(f, size)) // TensorFlow holds it at once as well
	if err != nil {
		return nil, err
	}
	want := set(tags)
	var meta *tfproto.MetaGraphDef
	err = fields(model, func(num protowire.Number, value []byte) error {
		if num != 2 || meta != nil { // SavedModel.meta_graphs
			return nil
		}
		var graph []byte
		rest := &tfproto.MetaGraphDef{}
		err := fields(value, func(num protowire.Number, part []byte) error {
			if num == 2 { // MetaGraphDef.graph_def
				graph = part
				return nil
			}
			field := protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), part)
			return proto.UnmarshalOptions{Merge: true}.Unmarshal(field, rest)
		})
		if err != nil || !maps.Equal(set(rest.GetMetaInfoDef().GetTags()), want) {
			return err
		}
		meta = rest
		return g.Import(graph, &tf.ImportOptions{Device: device})
	})
	if err == nil && meta == nil {
		err = &TagsError{Dir: dir, Tags: tags}
	}
	return meta, err
}

// shortDevice returns the short form of a device's name, such as CPU:0 of /job:localhost/replica:0/task:0/device:CPU:0.
func shortDevice(name string) string {
	name = name[strings.LastIndex(name, "/")+1:]
	return strings.ToUpper(strings.TrimPrefix(name, "device:"))
}

// hasDevice returns an error if a session does not have a device. TensorFlow would use another one without a word.
func hasDevice(s *tf.Session, device string) error {
	devices, err := s.Devices()
	if err != nil {
		return err
	}
	var have []string
	for _, d := range devices {
		have = append(have, "/"+shortDevice(d.Name))
	}
	if !slices.Contains(have, device) {
		return &DeviceError{Device: device, Have: have}
	}
	return nil
}

// DeviceError reports that TensorFlow does not have a device that was asked for.
type DeviceError struct {
	Device string
	Have   []string // such as "/CPU:0"
}

func (e *DeviceError) Error() string {
	return fmt.Sprintf("there is no device %s: TensorFlow has %s", e.Device, list(e.Have))
}

// initialize restores the variables of a graph and runs its initialization.
func initialize(s *tf.Session, dir string, meta *tfproto.MetaGraphDef) (err error) {
	var feeds []tf.Feed
	defer func() {
		for _, f := range feeds {
			err = errors.Join(err, f.Tensor.Close())
		}
	}()
	feed := func(tensor, value string) error {
		output, err := s.Graph().Output(tensor)
		if err != nil {
			return err
		}
		t, err := tf.NewTensor(nil, []string{value})
		if err == nil {
			feeds = append(feeds, tf.Feed{Output: output, Tensor: t})
		}
		return err
	}
	run := func(name string) error {
		op, ok := s.Graph().Operation(strings.TrimSuffix(name, ":0"))
		if !ok {
			return fmt.Errorf("%s is damaged: the graph does not have its operation %q", dir, name)
		}
		_, _, err := s.Run(context.Background(), feeds, nil, &tf.RunOptions{Targets: []*tf.Operation{op}})
		return err
	}
	for _, a := range assets(meta) {
		if err := feed(a.GetTensorInfo().GetName(), filepath.Join(dir, "assets", a.GetFilename())); err != nil {
			return err
		}
	}
	prefix := filepath.Join(dir, VariablesPrefix)
	if _, err := os.Stat(prefix + ".index"); err == nil {
		if err := feed(meta.GetSaverDef().GetFilenameTensorName(), prefix); err != nil {
			return err
		}
		if err := run(meta.GetSaverDef().GetRestoreOpName()); err != nil {
			return fmt.Errorf("restore the variables of %s: %w", dir, err)
		}
		last := len(feeds) - 1
		if err := feeds[last].Tensor.Close(); err != nil {
			return err
		}
		feeds = slices.Delete(feeds, last, last+1)
	}
	if op := initOp(meta); op != "" {
		if err := run(op); err != nil {
			return fmt.Errorf("initialize %s: %w", dir, err)
		}
	}
	return nil
}

// initOp returns the operation that initializes a graph, in the order in which TensorFlow looks for it; "" if none
// does.
func initOp(meta *tfproto.MetaGraphDef) string {
	if init := meta.GetSignatureDef()["__saved_model_init_op"].GetOutputs()["__saved_model_init_op"]; init != nil {
		return init.GetName()
	}
	for _, key := range []string{"saved_model_main_op", "legacy_init_op"} {
		if ops := meta.GetCollectionDef()[key].GetNodeList().GetValue(); len(ops) > 0 {
			return ops[0]
		}
	}
	return ""
}
