// Package corpus answers the questions of corpora that are larger than one run of a program, or than one machine. It
// knows no engine: a loop, an array of jobs, a queue or a data-flow engine calls it, and the files are the same
// whoever does.
//
//	plan, err := corpus.MakePlan(ctx, inputs, corpus.DefaultChunk)
//	...
//	w := &corpus.Worker{Dir: dir, Plan: plan, Fingerprint: fingerprint, Answer: answerer.AnswerAll}
//	for _, chunk := range plan.Chunks {
//		if _, err := w.Do(ctx, chunk); err != nil {
//			return err
//		}
//	}
//	summary, err := corpus.Merge(ctx, dir, plan, corpus.JSONL("answers.jsonl"))
//
// # What is guaranteed
//
// A [Chunk] is a number of questions that stand side by side in one input. Its batches depend on nothing else. A
// worker writes the answers of a chunk under a temporary name, syncs and renames them, and writes a [Record] last. A
// chunk with a record is done: it is not done again, and a chunk without one has no effect. So any worker may be
// killed at any time, any chunk may be done twice, also at once, and nothing is lost or counted twice.
//
// A record has the fingerprint of all that the answers depend on. Work under another fingerprint is an error, so that a
// corpus never mixes the answers of two models.
//
// A line that is not a question is a dead letter: its record says where it is and what is wrong, and the others are
// answered. A model that fails, fails the chunk.
package corpus
