package repository

import (
	"context"

	"github.com/tfbert/go/squad"
)

type nothing struct{}

func (nothing) Predict(context.Context, []squad.Feature) ([]squad.RawResult, error) { return nil, nil }
