package wordpiece

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// paragraphs returns the passages of SQuAD 1.1's dev set.
func paragraphs(t testing.TB) []string {
	data, err := os.ReadFile(testenv.Shared(t, "data", "dev-v1.1.json"))
	require.NoError(t, err)
	var set struct {
		Data []struct {
			Paragraphs []struct{ Context string }
		}
	}
	require.NoError(t, json.Unmarshal(data, &set))
	var texts []string
	for _, article := range set.Data {
		for _, p := range article.Paragraphs {
			texts = append(texts, p.Context)
		}
	}
	return texts
}

func BenchmarkAppendIDs(b *testing.B) {
	tok := Tokenizer{Vocab: modelVocab(b)}
	texts := paragraphs(b)
	size := 0
	for _, text := range texts {
		size += len(text)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	ids := make([]int32, 0, 4096)
	tokens := 0
	for b.Loop() {
		tokens = 0
		for _, text := range texts {
			ids = tok.AppendIDs(ids[:0], text)
			tokens += len(ids)
		}
	}
	b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

func BenchmarkReadVocab(b *testing.B) {
	data, err := os.ReadFile(filepath.Join(testenv.Model(b), "vocab.txt"))
	require.NoError(b, err)
	var v *Vocab
	for b.Loop() {
		v, err = ReadVocab(bytes.NewReader(data))
	}
	require.NoError(b, err)
	b.ReportMetric(float64(len(v.trie)), "cells")
}
