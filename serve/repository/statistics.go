package repository

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// statistics counts the requests of a servable since it was loaded. The zero value is ready to use.
type statistics struct {
	running atomic.Int64 // requests

	mu sync.Mutex
	s  Snapshot
}

// A Snapshot has the counts of a Servable since it was loaded, and the number of requests that it answers now.
type Snapshot struct {
	Running                        int           // requests
	Last                           time.Time     // the end of the last request; zero if there was none
	Success, Fail                  Total         // requests
	Queue, Input, Compute, Outputs Total         // stages of those that succeeded, all but Queue without cache hits
	Rows                           int           // questions, or rows of tensors, without cache hits
	CacheHit, CacheMiss            Total         // requests whose windows were all in the cache, and others that used it
	Batches                        map[int]Total // by their windows; a model and its text model share them
}

// Executions returns the number of batches.
func (s *Snapshot) Executions() (n int) {
	for _, t := range s.Batches {
		n += t.Count
	}
	return n
}

// A Total is a number of times and their sum.
type Total struct {
	Count int
	Time  time.Duration
}

func (t *Total) add(d time.Duration) { t.Count++; t.Time += d }

func (s *statistics) snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	snapshot := s.s
	snapshot.Batches = maps.Clone(s.s.Batches)
	snapshot.Running = int(s.running.Load())
	return snapshot
}

func (s *statistics) countBatch(windows int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.s.Batches == nil {
		s.s.Batches = map[int]Total{}
	}
	t := s.s.Batches[windows]
	t.add(took)
	s.s.Batches[windows] = t
}

func (s *statistics) countRequest(began time.Time, rows int, seconds Seconds, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Last = time.Now()
	took := time.Since(began)
	if err != nil {
		s.s.Fail.add(took)
		return
	}
	s.s.Success.add(took)
	s.s.Queue.add(duration(seconds.Queue))
	switch c := seconds.cache; {
	case c.misses > 0:
		s.s.CacheMiss.add(c.took)
	case c.hits > 0: // the model did nothing, as Triton counts it
		s.s.CacheHit.add(c.took)
		return
	}
	s.s.Rows += rows
	s.s.Input.add(duration(seconds.Tokenize))
	s.s.Compute.add(duration(seconds.Compute))
	s.s.Outputs.add(duration(seconds.Decode))
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
