package repository

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"sync"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

const (
	mostInstances = 64
	mostBatches   = 1024 // batches of one instance
)

// A placement says where the instances of a model run.
type placement struct {
	devices []string // of one instance each; "" is the loader's choice
	atOnce  int      // batches that run at once, on all together; 0 if it is not configured
}

// placementOf returns what the instance groups of a configuration ask for. A group of KIND_GPU is an instance for
// each of its gpus, and one of KIND_CPU is count instances. Any other is no instance of its own: it lets count
// batches run at once.
func placementOf(c *pb.ModelConfig) (placement, error) {
	var p placement
	elsewhere := false
	cpus := 0
	for _, g := range c.GetInstanceGroup() {
		count := int(max(1, g.GetCount()))
		switch {
		case g.GetCount() < 0 || count > mostBatches:
			return p, fmt.Errorf("instance_group has the count %d: it must be from 1 to %d", g.GetCount(), mostBatches)
		case len(p.devices)+len(g.GetGpus()) > mostInstances ||
			g.GetKind() == pb.ModelInstanceGroup_KIND_CPU && len(p.devices)+count > mostInstances:
			return p, fmt.Errorf("instance_group asks for more than %d instances", mostInstances)
		case g.GetKind() == pb.ModelInstanceGroup_KIND_CPU:
			for range count {
				p.devices = append(p.devices, fmt.Sprintf("/CPU:%d", cpus))
				cpus++
			}
			p.atOnce += count
		case g.GetKind() == pb.ModelInstanceGroup_KIND_GPU && len(g.GetGpus()) > 0:
			for _, gpu := range g.GetGpus() {
				device := fmt.Sprintf("/GPU:%d", gpu)
				if gpu < 0 || slices.Contains(p.devices, device) {
					return p, fmt.Errorf("instance_group has the GPU %d: each must be named once", gpu)
				}
				p.devices = append(p.devices, device)
			}
			p.atOnce += count * len(g.GetGpus())
		default:
			elsewhere = true
			p.atOnce += count
		}
	}
	if elsewhere || len(p.devices) == 0 {
		p.devices = append(p.devices, "")
	}
	return p, nil
}

// instances are the copies of a model, each on a device of its own. As a squad.Predictor they are one model, which
// runs a batch on the copy that has the least to do.
//
// If a copy fails and another one does not with the same batch, the fault is the copy's: clients see none of it, and
// after mostFaults of them one after another the copy is taken out until the model is loaded again.
type instances struct {
	log *slog.Logger

	mu   sync.Mutex
	list []*instance
}

type instance struct {
	device  string
	backend *Backend
	running int
	faults  int // its own, one after another
	out     bool
}

const mostFaults = 3

// load loads a model onto each device.
func (all *instances) load(ctx context.Context, load Loader, s Source, devices []string) error {
	for _, s.Device = range devices {
		b, err := load(ctx, s)
		if err != nil {
			return err
		}
		all.list = append(all.list, &instance{device: s.Device, backend: b})
	}
	return nil
}

// backend returns the instances as one model.
func (all *instances) backend() *Backend {
	b := *all.list[0].backend
	b.Close = all.close
	if n := len(all.list); n > 1 {
		b.Predictor = all
		b.Bytes *= int64(n)
		b.Description += fmt.Sprintf(", %d instances", n)
	}
	return &b
}

func (all *instances) close() error {
	var err error
	for _, i := range all.list {
		err = errors.Join(err, i.backend.Close())
	}
	return err
}

// working returns the number of instances that have not been taken out.
func (all *instances) working() int {
	all.mu.Lock()
	defer all.mu.Unlock()
	n := 0
	for _, i := range all.list {
		if !i.out {
			n++
		}
	}
	return n
}

// Predict implements squad.Predictor.
func (all *instances) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	first := all.take(nil)
	results, err := all.run(ctx, first, features)
	if err == nil || ctx.Err() != nil {
		return results, err
	}
	other := all.take(first)
	if other == nil {
		return nil, err
	}
	results, again := all.run(ctx, other, features)
	if again != nil {
		return nil, err // no copy can run it
	}
	all.blame(first, err)
	return results, nil
}

// take returns the instance that has the least to do, other than one; nil if there is none.
func (all *instances) take(other *instance) *instance {
	all.mu.Lock()
	defer all.mu.Unlock()
	var best *instance
	least := math.MaxInt
	for _, i := range all.list {
		if i != other && !i.out && i.running < least {
			best, least = i, i.running
		}
	}
	if best != nil {
		best.running++
	}
	return best
}

// run runs a batch on an instance that take returned.
func (all *instances) run(
	ctx context.Context, i *instance, features []squad.Feature,
) (results []squad.RawResult, err error) {
	defer func() {
		if v := recover(); v != nil {
			results, err = nil, &batch.PanicError{Value: v, Stack: debug.Stack()}
		}
		all.mu.Lock()
		defer all.mu.Unlock()
		i.running--
		if err == nil {
			i.faults = 0
		}
	}()
	return i.backend.Predictor.Predict(ctx, features)
}

// blame counts a fault of an instance, and takes it out if it has too many and is not the last.
func (all *instances) blame(i *instance, err error) {
	all.mu.Lock()
	i.faults++
	others := slices.ContainsFunc(all.list, func(j *instance) bool { return j != i && !j.out })
	takenOut := i.faults >= mostFaults && others && !i.out
	i.out = i.out || takenOut
	all.mu.Unlock()
	if takenOut {
		all.log.Error("an instance failed repeatedly and is taken out until the model is loaded again",
			"device", i.device, "error", err)
		return
	}
	all.log.Warn("an instance failed where another one did not", "device", i.device, "error", err)
}
