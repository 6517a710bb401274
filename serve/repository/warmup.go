package repository

import (
	"cmp"
	"context"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// WarmUp registers f to be called with each model before it is available, for example to run Servable.WarmUp. If it
// returns an error, the model is not loaded. Call it before Start.
func (r *Repository) WarmUp(f func(context.Context, Source, *Model) error) { r.warmUp = f }

// WarmUp runs a call on each of the model's instances. It does not go through the queue and is not counted.
func (s *Servable) WarmUp(ctx context.Context, c *Call) error {
	inputs, err := s.byName(c.Inputs)
	if err != nil {
		return err
	}
	rows, err := s.rows(inputs)
	if err != nil {
		return err
	}
	if rows < 1 || rows > s.limits.Windows {
		return Invalidf("the batch has %d rows: there may be 1 to %d", rows, s.limits.Windows)
	}
	features, err := s.warmUpFeatures(ctx, inputs, rows)
	if err != nil {
		return err
	}
	most := cmp.Or(s.tensors.config.MaxBatchSize, batch.DefaultSize)
	for from := 0; from < len(features); from += most {
		part := features[from:min(from+most, len(features))]
		for i := range part {
			part[i].UniqueID = int32(i)
		}
		for _, i := range s.instances.list {
			if _, err := i.backend.Predictor.Predict(ctx, part); err != nil {
				return err
			}
		}
	}
	return nil
}

// warmUpFeatures returns checked inputs as the model takes them.
func (s *Servable) warmUpFeatures(
	ctx context.Context, inputs map[string]*Tensor, rows int,
) (features []squad.Feature, err error) {
	if s != s.text {
		as := make(map[string]*Tensor, len(inputs))
		for _, info := range s.backend.Inputs {
			as[info.as()] = inputs[info.Name]
		}
		features, _, err = s.features(as, rows)
		return features, err
	}
	for row := range rows {
		docs, err := s.tokenize(ctx, &Question{
			Text: inputs[questionInput].Strings[row], Documents: []string{inputs[contextInput].Strings[row]},
		})
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			features = append(features, d.windows.Features...)
		}
	}
	return features, nil
}
