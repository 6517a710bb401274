package intake

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBudget(t *testing.T) {
	const large = 1 << 20
	b := NewBudget(88<<20, 2*large) // 66 MiB for large requests: two of 1 MiB
	ctx := t.Context()
	take := func(size int) func() {
		t.Helper()
		give, err := b.Take(ctx, size)
		require.NoError(t, err)
		return give
	}
	first, second := take(large), take(large)
	assert.EqualValues(t, 64<<20, b.Used())
	order := make(chan int, 2)
	var third func()
	go func() { third = take(large); order <- 3 }()
	for b.Waiting() < large {
		time.Sleep(time.Millisecond)
	}
	go func() { take(large / 2)(); order <- 4 }()
	for b.Waiting() <= large {
		time.Sleep(time.Millisecond)
	}
	_, err := b.Take(ctx, large)
	require.ErrorContains(t, err, "requests of more than 2097152 bytes wait for memory")
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err = b.Take(short, large/4)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	take(2 << 10)() // a small one does not wait
	take(10)()
	first()
	first() // counts once
	assert.Equal(t, 3, <-order, "the one that came first")
	third()
	assert.Equal(t, 4, <-order)
	second()
	take(1 << 30)() // more than there is takes everything
	assert.Zero(t, b.Used())
	assert.Zero(t, b.Waiting())
}
