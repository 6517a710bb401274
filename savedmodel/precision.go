package savedmodel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/cpu"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

// PrecisionReport says in which types the operations of a model really run.
type PrecisionReport struct {
	Devices []string  `json:"devices"` // that operations run on: "CPU:0"
	Ops     []OpCount `json:"ops"`
	// Clusters counts what XLA compiles. Ops are then those of the same graph in a session without XLA, because
	// TensorFlow does not tell what is in a cluster. XLA fuses these operations and keeps their types.
	Clusters int `json:"xla_clusters,omitempty"`
	// Unread reports whether such a session failed. Ops are then only those outside of the clusters.
	Unread bool `json:"xla_unread,omitempty"`

	gpu    bool  // among the session's devices
	unread error // why Unread
}

// OpCount counts operations of one kind, type and device.
type OpCount struct {
	Kind   string `json:"kind"` // MatMul, Softmax, LayerNorm or Cast
	Op     string `json:"op"`   // TensorFlow's name after its rewrites
	Type   string `json:"type"` // of a Cast, "from>to"
	Device string `json:"device"`
	Count  int    `json:"count"`
}

// The kinds of operations that a report counts. A layer norm that is not one operation is
// counted by its Rsqrt.
const (
	matMul    = "MatMul"
	softmax   = "Softmax"
	layerNorm = "LayerNorm"
	cast      = "Cast"
)

// Precision runs the function on tensors, or without any on two rows of zeros, and reports what TensorFlow ran
// after placement and every rewrite. It takes memory for a few copies of the graph with its constants. If XLA
// compiles parts of the graph, it also loads the model once more, without XLA, so its files must still be there.
func (f *Func) Precision(ctx context.Context, in ...*tf.Tensor) (_ *PrecisionReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read the precision: %w", err)
		}
	}()
	if len(in) == 0 {
		in, err = f.zeros()
		defer tf.CloseAll(in)
		if err != nil {
			return nil, err
		}
	}
	r, err := f.precision(ctx, in)
	if err != nil || r.Clusters == 0 {
		return r, err
	}
	plain, err := f.withoutXLA(ctx, in)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.readClusters(plain, err)
	return r, nil
}

// readClusters takes the operations of the same graph without XLA, or the reason why there are none.
func (r *PrecisionReport) readClusters(plain *PrecisionReport, err error) {
	switch {
	case err != nil:
		r.Unread, r.unread = true, err
	case plain.Clusters > 0:
		r.Unread, r.unread = true, errors.New("TF_XLA_FLAGS turns XLA on for every session")
	default:
		r.Ops = plain.Ops
	}
}

// precision runs the function and counts the operations.
func (f *Func) precision(ctx context.Context, in []*tf.Tensor) (*PrecisionReport, error) {
	out, metadata, err := f.RunWith(ctx, &tf.RunOptions{PartitionGraphs: true}, in...)
	if err != nil {
		return nil, err
	}
	tf.CloseAll(out)
	graphs, err := metadata.PartitionGraphs()
	if err != nil {
		return nil, err
	}
	r, err := countOps(graphs)
	if err != nil {
		return nil, err
	}
	devices, err := f.model.session.Devices()
	if err != nil {
		return nil, err
	}
	r.gpu = slices.ContainsFunc(devices, func(d tf.Device) bool { return d.Type == "GPU" })
	return r, nil
}

// withoutXLA returns the report of the same function in a session that differs only by being without XLA.
func (f *Func) withoutXLA(ctx context.Context, in []*tf.Tensor) (_ *PrecisionReport, err error) {
	off, err := proto.Marshal(&tfproto.ConfigProto{GraphOptions: &tfproto.GraphOptions{
		OptimizerOptions: &tfproto.OptimizerOptions{GlobalJitLevel: tfproto.OptimizerOptions_OFF},
	}})
	if err != nil {
		return nil, err
	}
	m := &Model{meta: f.model.meta, config: slices.Concat(f.model.config, off)} // the last of its values counts
	if m.session, err = loadSession(f.model.dir, f.model.tags, f.model.device, m.config); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	plain := &Func{model: m, inputs: f.inputs, outputs: f.outputs}
	for _, ends := range []struct {
		infos   []TensorInfo
		outputs *[]tf.Output
	}{{f.inputs, &plain.feeds}, {f.outputs, &plain.fetches}} {
		for _, info := range ends.infos {
			output, err := m.session.Graph().Output(info.Name)
			if err != nil {
				return nil, err
			}
			*ends.outputs = append(*ends.outputs, output)
		}
	}
	return plain.precision(ctx, in)
}

// zeros returns inputs of two rows.
func (f *Func) zeros() (in []*tf.Tensor, err error) {
	for _, info := range f.inputs {
		shape := slices.Clone(info.Shape)
		for i, size := range shape {
			if size < 1 {
				shape[i] = 2 // oneDNN has other kernels for one row, which real runs do not use
			}
		}
		n, _ := shape.NumElements()
		t, err := tf.NewTensorFromBytes(info.DType, shape, make([]byte, int(n)*info.DType.Size()))
		if err != nil {
			return in, fmt.Errorf("input %q: %w", info.Key, err)
		}
		in = append(in, t)
	}
	return in, nil
}

// countOps counts the operations of serialized GraphDefs.
func countOps(graphs [][]byte) (*PrecisionReport, error) {
	r := &PrecisionReport{}
	counts := map[OpCount]int{}
	for _, graph := range graphs {
		err := fields(graph, func(num protowire.Number, node []byte) error {
			if num != 1 { // GraphDef.node
				return nil
			}
			n, err := parseNode(node)
			if err != nil {
				return err
			}
			_, device, _ := strings.Cut(n.device, "/device:")
			if device != "" && !slices.Contains(r.Devices, device) {
				r.Devices = append(r.Devices, device)
			}
			if n.op == "XlaLaunch" || n.op == "_XlaRun" {
				r.Clusters++
			}
			if kind := kindOf(n.op); kind != "" {
				counts[OpCount{Kind: kind, Op: n.op, Type: n.dtype(kind), Device: device}]++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for c, n := range counts {
		c.Count = n
		r.Ops = append(r.Ops, c)
	}
	slices.Sort(r.Devices)
	kinds := []string{matMul, softmax, layerNorm, cast}
	slices.SortFunc(r.Ops, func(a, b OpCount) int {
		return cmp.Or(
			cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)), cmp.Compare(b.Count, a.Count),
			cmp.Compare(a.Op, b.Op), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Device, b.Device))
	})
	return r, nil
}

// kindOf returns the kind of an operation, or "" if it has none. oneDNN's operations have up to four
// prefixes: _MklNativeFusedMatMul.
func kindOf(op string) string {
	for _, prefix := range []string{"_", "Mkl", "Native", "Fused", "Quantized", "Batch"} {
		op = strings.TrimPrefix(op, prefix)
	}
	switch op {
	case "MatMul", "MatMulV2", "MatMulV3", "Einsum":
		return matMul
	case "Softmax":
		return softmax
	case "LayerNorm", "Rsqrt":
		return layerNorm
	case "Cast":
		return cast
	}
	return ""
}

// graphNode is what is read of a NodeDef.
type graphNode struct {
	op, device string
	types      map[string]tf.DataType // attributes that are types
}

func (n *graphNode) dtype(kind string) string {
	if kind == cast {
		return n.types["SrcT"].String() + ">" + n.types["DstT"].String()
	}
	if t, ok := n.types["T2"]; ok { // the weights of a product of integers
		return t.String()
	}
	return n.types["T"].String()
}

// parseNode reads a NodeDef on the wire, because unmarshalling would copy the constants.
func parseNode(node []byte) (*graphNode, error) {
	n := &graphNode{types: map[string]tf.DataType{}}
	err := fields(node, func(num protowire.Number, value []byte) error {
		switch num {
		case 2: // NodeDef.op
			n.op = string(value)
		case 4: // NodeDef.device
			n.device = string(value)
		case 5: // NodeDef.attr, an entry of a map
			var key string
			return fields(value, func(num protowire.Number, value []byte) error {
				switch num {
				case 1:
					key = string(value)
				case 2:
					if dtype, ok := typeOf(value); ok {
						n.types[key] = dtype
					}
				}
				return nil
			})
		}
		return nil
	})
	return n, err
}

// typeOf reads AttrValue.type.
func typeOf(value []byte) (tf.DataType, bool) {
	num, typ, n := protowire.ConsumeTag(value)
	if n < 0 || num != 6 || typ != protowire.VarintType {
		return 0, false
	}
	v, n := protowire.ConsumeVarint(value[n:])
	return tf.DataType(v), n > 0
}

// fields calls f for every length-delimited field of a message.
func fields(message []byte, f func(num protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(num, typ, message[n:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		if typ == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message[n:])
			if err := f(num, value); err != nil {
				return err
			}
		}
		message = message[n+size:]
	}
	return nil
}

// count returns the number of operations of a kind, and of those that run in a type.
func (r *PrecisionReport) count(kind string, dtype tf.DataType) (all, ofType int) {
	for _, c := range r.Ops {
		if c.Kind == kind {
			all += c.Count
			if c.Type == dtype.String() {
				ofType += c.Count
			}
		}
	}
	return all, ofType
}

// String returns the report as one line: "MatMul 72 bfloat16, 1 float32; ...; 26 casts on CPU:0".
func (r *PrecisionReport) String() string {
	var parts []string
	for _, kind := range []string{matMul, softmax, layerNorm} {
		types := map[string]int{}
		for _, c := range r.Ops {
			if c.Kind == kind {
				types[c.Type] += c.Count
			}
		}
		var counts []string
		for _, name := range sortedByCount(types) {
			counts = append(counts, strconv.Itoa(types[name])+" "+name)
		}
		if counts != nil {
			parts = append(parts, kind+" "+strings.Join(counts, ", "))
		}
	}
	casts, _ := r.count(cast, tf.Float)
	parts = append(parts, plural(casts, "cast"))
	if r.Clusters > 0 {
		clusters := plural(r.Clusters, "XLA cluster")
		if r.Unread {
			clusters += " without a count"
		} else {
			clusters += ", counted before XLA"
		}
		parts = append(parts, clusters)
	}
	return strings.Join(parts, "; ") + "; on " + strings.Join(r.Devices, ", ")
}

func plural(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func sortedByCount(counts map[string]int) []string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	return names
}

// Require returns a [*PrecisionError] if no matrix product runs in the precision p.
func (r *PrecisionReport) Require(p Precision) error {
	dtype := map[Precision]tf.DataType{FP32: tf.Float, FP16: tf.Half, BF16: tf.Bfloat16, INT8: tf.Qint8}[p]
	if _, n := r.count(matMul, dtype); n > 0 {
		return nil
	}
	return &PrecisionError{Precision: p, Unread: r.Unread, Reason: r.reason(p)}
}

// PrecisionError reports that no matrix product runs in a precision.
type PrecisionError struct {
	Precision Precision
	Unread    bool   // whether XLA compiled operations that cannot be read
	Reason    string // as far as it can be known
}

func (e *PrecisionError) Error() string {
	return fmt.Sprintf("no matrix product runs in %v: %s", e.Precision, e.Reason)
}

func (r *PrecisionReport) reason(p Precision) string {
	if r.Unread {
		return fmt.Sprintf("XLA has compiled operations that cannot be read: %v", r.unread)
	}
	switch p {
	case FP16:
		if !r.gpu {
			return "the rewrite to fp16 is for GPUs, and TensorFlow sees none here"
		}
		return "nothing in the graph was converted; the rewrite to fp16 needs a GPU of compute capability 7.0"
	case BF16:
		switch {
		case os.Getenv("TF_ENABLE_ONEDNN_OPTS") == "0":
			return "TF_ENABLE_ONEDNN_OPTS=0 turns oneDNN off, which the rewrite to bf16 needs"
		case runtime.GOARCH != "amd64":
			return "the rewrite to bf16 needs oneDNN, and libraries for " + runtime.GOARCH + " are built without it"
		case !cpu.This().Has("avx512f"):
			return "the rewrite to bf16 needs a CPU with AVX-512, AMX or AVX-NE-CONVERT, " +
				"and this one does not have any of them"
		}
	case INT8:
		return "a model is in int8 only if it was exported so"
	}
	return "nothing in the graph was converted"
}
