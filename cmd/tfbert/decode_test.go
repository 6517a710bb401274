package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestComputed(t *testing.T) {
	nan := float32(math.NaN())
	row := []float32{1, 2, nan, 4, nan, nan}
	for tokens, want := range []int{4, 4, 4, 4, 4, 5, 6} { // a token without a logit stays, to be found
		assert.Len(t, computed(row, tokens), want, "%d tokens", tokens)
	}
	assert.Len(t, computed([]float32{nan, nan, nan}, 2), 2)
	assert.Len(t, computed([]float32{1, 2, 3}, 2), 3)
}
