package tf

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
)

// RunMetadata is what a run recorded about itself.
type RunMetadata struct{ raw []byte }

// Bytes returns the serialized RunMetadata.
func (m *RunMetadata) Bytes() []byte { return slices.Clone(m.raw) }

// PartitionGraphs returns the serialized GraphDefs that really ran on each device, after placement and every
// rewrite, if [RunOptions].PartitionGraphs was set. They are parts of the metadata and must not be changed.
func (m *RunMetadata) PartitionGraphs() ([][]byte, error) {
	const partitionGraphs = 3 // RunMetadata.partition_graphs
	var graphs [][]byte
	for b := m.raw; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, fmt.Errorf("run metadata: %w", protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(num, typ, b[n:])
		if size < 0 {
			return nil, fmt.Errorf("run metadata: %w", protowire.ParseError(size))
		}
		if num == partitionGraphs && typ == protowire.BytesType {
			graph, _ := protowire.ConsumeBytes(b[n:])
			graphs = append(graphs, graph)
		}
		b = b[n+size:]
	}
	return graphs, nil
}

// NodeStats is how long one operation took on one device.
type NodeStats struct {
	Device, Node, Label string
	Start               time.Time
	Duration            time.Duration
}

// Nodes returns the time of every operation that ran, if [RunOptions].Trace was set.
func (m *RunMetadata) Nodes() ([]NodeStats, error) {
	p, err := m.decode()
	if err != nil {
		return nil, err
	}
	var stats []NodeStats
	for _, d := range p.GetStepStats().GetDevStats() {
		for _, n := range d.NodeStats {
			stats = append(stats, NodeStats{
				Device: d.Device, Node: n.NodeName, Label: n.TimelineLabel,
				Start:    time.UnixMicro(n.AllStartMicros),
				Duration: time.Duration(n.AllEndRelMicros) * time.Microsecond,
			})
		}
	}
	return stats, nil
}

func (m *RunMetadata) decode() (*tfproto.RunMetadata, error) {
	p := &tfproto.RunMetadata{}
	if err := proto.Unmarshal(m.raw, p); err != nil {
		return nil, fmt.Errorf("run metadata: %w", err)
	}
	return p, nil
}
