#!/usr/bin/env python3
"""Predict SQuAD's dev set with every graph and precision, and print the scores and the differences.

    make quality                        # the bundled model; about an hour on two cores
    make quality QUALITY_FLAGS='--max_seq_length 128'
    python quality.py --checkpoint C --precision bf16,fp16

The script prints a table in Markdown. Its first row is the reference graph in the reference scripts' own
batches; `tfbert compare` compares all other rows with it. These batch by length, as `tfbert predict`
does by default.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    shared = os.environ.get("TFBERT_SHARED", "")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(shared, "data", "dev-v1.1.json"),
                        help="SQuAD 1.1's dev set (default: in $TFBERT_SHARED/data)")
    parser.add_argument("--checkpoint", default=os.path.join(ROOT, "testdata", "models", "minilm-squad"))
    parser.add_argument("--tfbert", default=os.path.join(ROOT, "bin", "tfbert"),
                        help="the command (default: bin/tfbert)")
    parser.add_argument("--precision", default="bf16,int8",
                        help="the precisions to run in addition to fp32, such as bf16,fp16 or '' (default: bf16,int8)")
    parser.add_argument("--max_seq_length", default="384", help="word pieces of a window (default: 384)")
    parser.add_argument("--version_2", action="store_true", help="the data is SQuAD 2.0's")
    args = parser.parse_args()
    if not os.path.isfile(args.data):
        parser.error(f"{args.data} does not exist: name SQuAD 1.1's dev set with --data, or set TFBERT_SHARED")
    args.data, args.checkpoint, args.tfbert = map(os.path.abspath, (args.data, args.checkpoint, args.tfbert))
    with tempfile.TemporaryDirectory(prefix="tfbert-quality-") as work:
        os.chdir(work)

        def tfbert(*command):
            done = subprocess.run([args.tfbert, *command], stdout=subprocess.PIPE, text=True)
            if done.returncode != 0:
                sys.exit(f"quality: tfbert {' '.join(command)} failed")
            return done.stdout

        def export(name, *flags):
            tfbert("export", args.checkpoint, name, *flags)

        def predict(model, *flags):
            tfbert("predict", "--model", model, "--predict_file", args.data, "--output_dir", "out",
                   "--save_logits", "logits.npy", "--max_seq_length", args.max_seq_length,
                   *(["--version_2_with_negative"] if args.version_2 else []), *flags)
            os.rename("logits.npy", "out/logits.npy")

        export("reference")
        predict("reference", "--pad_to_max")
        os.rename("out", "scripts")
        rows = [("reference graph, float32", "reference", [])]
        export("fp32", "--graph", "fused")
        rows.append(("fused graph, float32", "fp32", []))
        for p in filter(None, args.precision.split(",")):
            export(p, "--graph", "fused", "--precision", p)
            if p != "int8":  # which no rewrite makes of a graph
                rows.append((f"rewrite to {p}", "reference", ["--precision", p, "--require_precision"]))
            rows.append((f"fused graph, {p}", p, []))
        table = []
        for name, model, flags in rows:
            predict(model, *flags)
            c = json.loads(tfbert("compare", "scripts", "out", "--predict_file", args.data, "--json"))
            if not table:
                score = c["scores"]["a"]
                table.append(f"| reference graph, float32, `--pad_to_max` | {score['exact_match']:.2f} "
                             f"| {score['f1']:.2f} | – | – | – | – |")
            score = c["scores"]["b"]
            table.append(f"| {name} | {score['exact_match']:.2f} | {score['f1']:.2f} | {c['answers']} "
                         f"| {c['top_five']} | {c['nbest']} | {c['logits']['largest']:.1e} |")
    print(f"{c['questions']} questions\n")
    print("| | EM | F1 | answers changed | top fives changed | n-best lists changed | largest logit change |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(table))


if __name__ == "__main__":
    main()
