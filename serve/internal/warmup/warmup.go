// Package warmup runs the requests that a model brings along before it is available: Triton's model_warmup in its
// config.pbtxt, and TensorFlow Serving's tf_serving_warmup_requests in its assets.extra.
package warmup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/file"
	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/tensor"
	"github.com/tfbert/go/serve/repository"
)

// Run runs the requests of a model.
func Run(ctx context.Context, s repository.Source, m *repository.Model) error {
	tensors, text := m.Servables()[0], m.Servables()[1]
	if err := samples(ctx, s, tensors); err != nil {
		return err
	}
	return records(ctx, s, tensors, text)
}

const (
	mostRuns     = 1000 // of a sample
	mostElements = 1 << 20
)

// errorf returns an error that names what is wrong with the model, for its clients and for the log.
func errorf(what string, err error) error {
	return &repository.Error{
		Code: codes.FailedPrecondition, Message: what + ": " + repository.AsError(err).Message,
		Cause: fmt.Errorf("%s: %w", what, err),
	}
}

// samples runs those of the configuration.
func samples(ctx context.Context, s repository.Source, m *repository.Servable) error {
	config := &pb.ModelConfig{}
	message, err := m.Config().Marshal()
	if err == nil {
		err = proto.Unmarshal(message, config)
	}
	if err != nil {
		return err
	}
	for _, sample := range config.GetModelWarmup() {
		call, err := sampleCall(s, m, sample)
		for i := uint32(0); err == nil && i < max(1, sample.GetCount()); i++ {
			err = m.WarmUp(ctx, call)
		}
		if err != nil {
			return errorf(fmt.Sprintf("model_warmup %q", sample.GetName()), err)
		}
	}
	return nil
}

// sampleCall returns a sample as a call.
func sampleCall(s repository.Source, m *repository.Servable, sample *pb.ModelWarmup) (*repository.Call, error) {
	rows := int64(sample.GetBatchSize())
	switch most := int64(m.Config().MaxBatchSize); {
	case rows < 1 || rows > max(1, most):
		return nil, repository.Invalidf("batch_size is %d: it must be from 1 to %d", rows, max(1, most))
	case sample.GetCount() > mostRuns:
		return nil, repository.Invalidf("count is %d: it must be at most %d", sample.GetCount(), mostRuns)
	case most == 0:
		rows = 0 // the shapes have the batch
	}
	call := &repository.Call{}
	for _, name := range slices.Sorted(maps.Keys(sample.GetInputs())) {
		at := slices.IndexFunc(m.Inputs(), func(info repository.TensorInfo) bool { return info.Name == name })
		if at < 0 {
			return nil, repository.Invalidf("the model does not have an input %q", name)
		}
		t, err := sampleTensor(s, m, &m.Inputs()[at], sample.GetInputs()[name])
		if err != nil {
			return nil, err
		}
		if rows*int64(len(t.Int32s)) > mostElements {
			return nil, repository.Invalidf("input %q has more than %d elements", name, mostElements)
		}
		if rows > 0 { // each row is the same
			t.Shape = append([]int64{rows}, t.Shape...)
			t.Int32s = slices.Repeat(t.Int32s, int(rows))
		}
		call.Inputs = append(call.Inputs, *t)
	}
	return call, nil
}

// sampleTensor returns an input of a sample without the batch.
func sampleTensor(
	s repository.Source, m *repository.Servable, info *repository.TensorInfo, in *pb.ModelWarmup_Input,
) (*repository.Tensor, error) {
	t := &repository.Tensor{Name: info.Name, Type: info.Type, Shape: in.GetDims()}
	types := map[pb.DataType]string{
		pb.DataType_TYPE_INT32: repository.Int32, pb.DataType_TYPE_INT64: repository.Int64,
	}
	if types[in.GetDataType()] != info.Type {
		return nil, repository.Invalidf("input %q is %v: the model takes %s", info.Name, in.GetDataType(), info.Type)
	}
	n := int64(1)
	for _, d := range in.GetDims() {
		if d < 1 || d > mostElements || n*d > mostElements {
			return nil, repository.Invalidf("input %q has the dims %v: they must be positive, with at most %d elements",
				info.Name, in.GetDims(), mostElements)
		}
		n *= d
	}
	switch x := in.GetInputDataType().(type) {
	case *pb.ModelWarmup_Input_ZeroData:
		t.Int32s = make([]int32, n)
	case *pb.ModelWarmup_Input_RandomData:
		t.Int32s = random(m, info, int(n))
	case *pb.ModelWarmup_Input_InputDataFile:
		if s.ModelDir == "" || !filepath.IsLocal(x.InputDataFile) {
			return nil, repository.Invalidf("input %q has the file %q: it must be a name within the model's warmup folder",
				info.Name, x.InputDataFile)
		}
		data, err := file.Read(filepath.Join(s.ModelDir, "warmup", x.InputDataFile), 8*mostElements)
		if err == nil {
			err = tensor.ReadBinary(t, data)
		}
		if err != nil {
			return nil, err
		}
	default:
		return nil, repository.Invalidf("input %q needs zero_data, random_data or input_data_file", info.Name)
	}
	return t, nil
}

// random returns numbers that a model may get as an input. Others than ids of its vocabulary would make it fail.
func random(m *repository.Servable, info *repository.TensorInfo, n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		switch cmp.Or(info.As, info.Name) {
		case "input_ids":
			list[i] = rand.Int32N(int32(m.Backend().Tokenizer.Vocab.Len()))
		case "segment_ids":
			list[i] = rand.Int32N(int32(max(1, m.Backend().Segments)))
		case "input_mask":
			list[i] = 1
		}
	}
	return list
}

const (
	mostRecords     = 1000 // TensorFlow Serving's limit
	mostRecordBytes = 8 << 20
)

// records runs those of TensorFlow Serving's file.
func records(ctx context.Context, s repository.Source, tensors, text *repository.Servable) (err error) {
	const name = "tf_serving_warmup_requests"
	f, _, err := file.Open(filepath.Join(s.Dir, "assets.extra", name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errorf(name, err)
	}
	defer f.Close()
	r := newRecordReader(f, mostRecordBytes)
	for n := 0; ; n++ {
		record, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && n == mostRecords {
			err = repository.Invalidf("there may be at most %d", mostRecords)
		}
		if err == nil {
			err = runRecord(ctx, record, tensors, text)
		}
		if err != nil {
			return errorf(fmt.Sprintf("%s: record %d", name, n), err)
		}
	}
}

// runRecord runs a PredictionLog.
func runRecord(ctx context.Context, record []byte, tensors, text *repository.Servable) error {
	log := &pb.PredictionLog{}
	if err := proto.Unmarshal(record, log); err != nil {
		return repository.Invalidf("it is not a PredictionLog")
	}
	request := log.GetPredictLog().GetRequest()
	if request == nil {
		return repository.Invalidf("it does not have a predict_log: other requests are not served")
	}
	m := tensors
	if request.GetInputs()["QUESTION"] != nil {
		m = text
	}
	call := &repository.Call{}
	for name, p := range request.GetInputs() {
		t, err := tensor.FromProto(name, p)
		if err != nil {
			return err
		}
		call.Inputs = append(call.Inputs, t)
	}
	return m.WarmUp(ctx, call)
}
