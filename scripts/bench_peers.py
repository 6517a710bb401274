#!/usr/bin/env python3
"""Run tfbert and other runtimes in turn on the same work, and print throughputs and ratios.

    make peers                                   # prepares the environment, then runs this script
    python bench_peers.py --data dev-v1.1.json   # in an environment with peers.txt installed

All contestants run the same weights: random ones of BERT-Base's shape, or those of --checkpoint. The
kinds of work are

    batch of B    full windows of 128 tokens, B at a time, for some seconds
    dev set       windows of 384 with a stride of 128, over questions taken evenly from --data, in
                  batches of 8. The reference graph takes them in the reference's order and with its
                  padding; all others take them by length
    tokenizing    all of --data on one core: bare word pieces, and encoding of the pairs

tfbert's time over the dev set is that of its whole predict path, from the file to the answers, with its
model open; in every round, tfbert meets each shape for the first time. The others receive the features,
are warm after the first round, and do not decode.

Each round runs every contestant once, so that other load on the machine affects all of them; a ratio is
the median of the ratios of the rounds. The script compares everyone's logits with those of the reference
graph, to show that the work is the same. With --checkpoint it also prints EM and F1 of the answers.

With --device cuda, tfbert and PyTorch run on the GPU: the reference graph in float32 and the fused
graph in float16 under XLA, compared with PyTorch in both types.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

LENGTH, STRIDE, DEV_BATCH = 384, 128, 8
FULL_LENGTH = 128
SIDES = ("input_ids", "input_mask", "segment_ids")
BASE = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
}
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# ---- the models ----


def make_checkpoint(folder, vocab):
    """Write a TF1 checkpoint of BERT-Base's shape with random weights."""
    import numpy as np
    import tensorflow as tf

    c, random = BASE, np.random.default_rng(1)
    hidden, middle = c["hidden_size"], c["intermediate_size"]
    shapes = {
        "bert/embeddings/word_embeddings": [c["vocab_size"], hidden],
        "bert/embeddings/token_type_embeddings": [c["type_vocab_size"], hidden],
        "bert/embeddings/position_embeddings": [c["max_position_embeddings"], hidden],
        "cls/squad/output_weights": [2, hidden],
        "cls/squad/output_bias": [2],
    }
    norms = ["bert/embeddings/LayerNorm"]
    for n in range(c["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{n}"
        for scope, shape in {
            "attention/self/query": [hidden, hidden], "attention/self/key": [hidden, hidden],
            "attention/self/value": [hidden, hidden], "attention/output/dense": [hidden, hidden],
            "intermediate/dense": [hidden, middle], "output/dense": [middle, hidden],
        }.items():
            shapes[f"{layer}/{scope}/kernel"], shapes[f"{layer}/{scope}/bias"] = shape, shape[1:]
        norms += [f"{layer}/attention/output/LayerNorm", f"{layer}/output/LayerNorm"]
    weights = {name: (0.02 * np.clip(random.standard_normal(shape), -2, 2)).astype(np.float32)
               for name, shape in shapes.items()}
    for scope in norms:
        weights[scope + "/gamma"], weights[scope + "/beta"] = np.ones(hidden, np.float32), np.zeros(hidden, np.float32)
    os.makedirs(folder)
    names = sorted(weights)
    tf.raw_ops.SaveV2(prefix=os.path.join(folder, "model.ckpt"), tensor_names=names, shape_and_slices=[""] * len(names),
                      tensors=[tf.constant(weights[name]) for name in names])
    with open(os.path.join(folder, "bert_config.json"), "w", encoding="utf-8") as f:
        json.dump(c, f)
    shutil.copy(vocab, os.path.join(folder, "vocab.txt"))


def save_weights(model, path):
    """Save the weights of a reference SavedModel under the names of Hugging Face's model."""
    import numpy as np
    import tensorflow as tf

    reader = tf.train.load_checkpoint(os.path.join(model, "variables", "variables"))
    weights = {}
    for name in reader.get_variable_to_shape_map():
        value = reader.get_tensor(name)
        if name.endswith("/kernel"):
            value = value.T
        name = name.replace("cls/squad/output_", "qa_outputs/").replace("qa_outputs/weights", "qa_outputs/weight")
        name = re.sub(r"layer_(\d+)", r"layer/\1", name)
        name = re.sub(r"(_embeddings)$", r"\1/weight", name)
        name = re.sub(r"(kernel|gamma)$", "weight", re.sub(r"beta$", "bias", name))
        weights[name.replace("/", ".")] = value
    np.savez(path, **weights)


def torch_model(work, **options):
    import numpy as np
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    with open(os.path.join(work, "checkpoint", "bert_config.json"), encoding="utf-8") as f:
        config = json.load(f)
    if config["hidden_act"] == "gelu":
        config["hidden_act"] = "gelu_pytorch_tanh"  # modeling.py calls this gelu
    model = BertForQuestionAnswering(BertConfig(**config, layer_norm_eps=1e-12, **options)).eval()
    weights = np.load(os.path.join(work, "weights.npz"))
    model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
    return model


def make_onnx(work):
    """Export for ONNX Runtime in float32 and as dynamic int8, fused by its own optimizer for BERT."""
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    model = torch_model(work, attn_implementation="eager")
    model.config.return_dict = False
    example = torch.ones(2, 16, dtype=torch.long)
    raw, fp32 = os.path.join(work, "raw.onnx"), os.path.join(work, "fp32.onnx")
    names = list(SIDES) + ["start_logits", "end_logits"]
    torch.onnx.export(
        model, kwargs={"input_ids": example, "attention_mask": example, "token_type_ids": example}, f=raw, dynamo=False,
        opset_version=17, input_names=names[:3], output_names=names[3:],
        dynamic_axes={n: {0: "batch", 1: "length"} for n in names},
    )
    fused = optimize_model(raw, model_type="bert", num_heads=model.config.num_attention_heads,
                           hidden_size=model.config.hidden_size, opt_level=0)
    fusions = {k: v for k, v in fused.get_fused_operator_statistics().items() if v}
    print("ONNX Runtime's fusions:", fusions, file=sys.stderr)
    fused.save_model_to_file(fp32)
    quantize_dynamic(fp32, os.path.join(work, "int8.onnx"), weight_type=QuantType.QInt8,
                     extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


# ---- other runtimes, each in a process of its own ----


def tensorflow_peer(work, threads, device):
    """Run the reference graph in TensorFlow's Python, as the reference scripts do."""
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    session = tf.Session(graph=tf.Graph())
    with session.graph.as_default():
        model = tf.saved_model.load(session, ["serve"], os.path.join(work, "reference-fp32"))
    signature = model.signature_def["serving_default"]
    fetches = [signature.outputs[key].name for key in ("start_logits", "end_logits")]

    def predict(unique, *sides):
        feeds = dict(zip(("unique_ids",) + SIDES, (unique,) + sides))
        return session.run(fetches, {signature.inputs[key].name: value for key, value in feeds.items()})

    return predict


def torch_peer(dtype):
    def peer(work, threads, device):
        import torch

        torch.set_num_threads(threads)
        model = torch_model(work).to(device, getattr(torch, dtype))

        def predict(unique, *sides):
            with torch.inference_mode():
                ids, mask, segments = (torch.from_numpy(side).to(device).long() for side in sides)
                out = model(input_ids=ids, attention_mask=mask, token_type_ids=segments)
                return out.start_logits.float().cpu().numpy(), out.end_logits.float().cpu().numpy()

        return predict

    return peer


def onnx_peer(name):
    def peer(work, threads, device):
        import onnxruntime
        import numpy as np

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(os.path.join(work, name + ".onnx"), options,
                                               providers=["CPUExecutionProvider"])

        def predict(unique, *sides):
            return session.run(["start_logits", "end_logits"], {k: v.astype(np.int64) for k, v in zip(SIDES, sides)})

        return predict

    return peer


def limit_peer(dtype):
    """Run only the matrix products of the layers, with their biases, each with weights of its own."""

    def peer(work, threads, device):
        import torch

        torch.set_num_threads(threads)
        with open(os.path.join(work, "checkpoint", "bert_config.json"), encoding="utf-8") as f:
            c = json.load(f)
        hidden, middle = c["hidden_size"], c["intermediate_size"]
        shapes = [(hidden, 3 * hidden), (hidden, hidden), (hidden, middle), (middle, hidden)] * c["num_hidden_layers"]
        layers = [torch.nn.Linear(*shape, dtype=getattr(torch, dtype)) for shape in shapes]

        def predict(unique, ids, mask, segments):
            inputs = {n: torch.randn(ids.size, n, dtype=layers[0].weight.dtype) for n in (hidden, middle)}
            with torch.inference_mode():
                start = time.perf_counter()
                for layer in layers:
                    layer(inputs[layer.in_features])
                predict.seconds = time.perf_counter() - start

        return predict

    return peer


PEERS = {
    "TensorFlow reference graph fp32": tensorflow_peer,
    "PyTorch fp32": torch_peer("float32"),
    "PyTorch bf16": torch_peer("bfloat16"),
    "PyTorch fp16": torch_peer("float16"),
    "ONNX Runtime fp32": onnx_peer("fp32"),
    "ONNX Runtime dynamic int8": onnx_peer("int8"),
    "matrix products alone fp32": limit_peer("float32"),
    "matrix products alone bf16": limit_peer("bfloat16"),
}
REFERENCE = "TensorFlow reference graph fp32"
CONTESTANTS = {
    "cpu": ["tfbert reference fp32", "tfbert fused fp32", "tfbert fused bf16",
            *(name for name in PEERS if not name.endswith("fp16"))],
    "cuda": ["tfbert reference fp32", "tfbert fused fp16", "PyTorch fp32", "PyTorch fp16"],
}


def serve(name, work, threads, device):
    """Do the work that each line of standard input describes, and answer each with a line that has the throughput."""
    import numpy as np

    stdout, sys.stdout = sys.stdout, sys.stderr
    predict = PEERS[name](work, threads, device)

    def full(batch, seconds):
        random = np.random.default_rng(2)
        unique, mask = np.arange(batch, dtype=np.int32), np.ones((batch, FULL_LENGTH), np.int32)
        ids = random.integers(0, BASE["vocab_size"], mask.shape, dtype=np.int32)
        segments = mask * (np.arange(FULL_LENGTH, dtype=np.int32) >= FULL_LENGTH // 3)
        for _ in range(2):
            predict(unique, ids, mask, segments)
        count = spent = 0
        while spent < seconds or count < 3:
            start = time.perf_counter()
            predict(unique, ids, mask, segments)
            spent += getattr(predict, "seconds", time.perf_counter() - start)
            count += 1
        return count * batch / spent

    def dev(logits):
        features = np.load(os.path.join(work, "features.npz"))
        unique, sides = features["unique_ids"], [features[side] for side in SIDES]
        lengths = sides[1].sum(axis=1)
        padded = name == REFERENCE
        order = np.arange(len(unique)) if padded else np.argsort(-lengths, kind="stable")
        result = np.full((len(unique), 2, LENGTH), np.nan, np.float32)
        start = time.perf_counter()
        for i in range(0, len(order), DEV_BATCH):
            rows = order[i : i + DEV_BATCH]
            width = LENGTH if padded else lengths[rows].max()
            for side, values in enumerate(predict(unique[rows], *(s[rows, :width] for s in sides))):
                result[rows, side, :width] = values
        seconds = time.perf_counter() - start
        np.save(logits, result)
        return len(unique) / seconds

    print("ready", file=stdout, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        print({"full": full, "dev": dev}[task.pop("work")](**task), file=stdout, flush=True)


class Peer:
    def __init__(self, name, args):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, "--work_dir", args.work_dir, "--threads", str(args.threads),
             "--device", args.device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench_peers: {' '.join(self.process.args)} failed")
        return line

    def do(self, **task):
        print(json.dumps(task), file=self.process.stdin, flush=True)
        return float(self.answer())


class Tfbert:
    def __init__(self, name, args):
        self.model, self.args = os.path.join(args.work_dir, model_folder(name)), args
        self.flags = ["--use_xla"] if name.endswith("fp16") else []

    def do(self, work, batch=0, seconds=0, logits=""):
        if work == "full":
            out = run([self.args.tfbert, "bench", "--model", self.model, "--max_seq_length", FULL_LENGTH,
                       "--predict_batch_size", batch, "--num_iterations", 3, "--duration", f"{seconds}s",
                       "--format", "json"] + self.flags)
            return json.loads(out)[0]["throughput"]
        data, answers = (os.path.join(self.args.work_dir, name) for name in ("data.json", "out"))
        out = run([self.args.tfbert, "predict", "--model", self.model, "--predict_file", data,
                   "--doc_stride", STRIDE, "--predict_batch_size", DEV_BATCH, "--output_dir", answers,
                   "--save_logits", logits, "--json"] + self.flags)
        report = json.loads(out)
        return report["windows"] / report["seconds"]


def model_folder(name):
    """Return the folder of one of tfbert's models: fused-bf16 for "tfbert fused bf16"."""
    return "-".join(name.split()[1:])


def run(command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench_peers: {' '.join(map(str, command))}:\n{done.stderr}")
    return done.stdout


# ---- the comparison ----


def bf16_units():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return sorted(set(re.findall(r"\b(?:amx_bf16|avx512_bf16|bf16)\b", f.read())))


def prepare(args):
    """Create the models and the data that the contestants share."""
    work = args.work_dir
    step = [sys.executable, __file__, "--work_dir", work, "--step"]
    checkpoint = os.path.join(work, "checkpoint")
    if args.checkpoint:
        os.symlink(os.path.abspath(args.checkpoint), checkpoint)
    else:
        run(step + ["checkpoint", "--vocab", args.vocab])
    for name in CONTESTANTS[args.device]:
        if name.startswith("tfbert"):
            _, graph, precision = name.split()
            run([args.tfbert, "export", checkpoint, os.path.join(work, model_folder(name)),
                 "--graph", graph, "--precision", precision])
    run(step + ["weights"])
    if args.device == "cpu":
        run(step + ["onnx"])
    with open(args.data, encoding="utf-8") as f:
        data = json.load(f)
    total = sum(len(p["qas"]) for article in data["data"] for p in article["paragraphs"])
    every, seen = max(1, total // args.questions), 0
    for article in data["data"]:
        for p in article["paragraphs"]:
            first, seen = seen, seen + len(p["qas"])
            p["qas"] = [qa for i, qa in enumerate(p["qas"]) if (first + i) % every == 0]
        article["paragraphs"] = [p for p in article["paragraphs"] if p["qas"]]
    sample = os.path.join(work, "data.json")
    with open(sample, "w", encoding="utf-8") as f:
        json.dump(data, f)
    run([args.tfbert, "features", "--vocab_file", os.path.join(checkpoint, "vocab.txt"), "--predict_file", sample,
         "--max_seq_length", LENGTH, "--doc_stride", STRIDE, "--out", os.path.join(work, "features.npz")])


def tokenizing(args):
    """Compare with Hugging Face's tokenizers on one core.

    Returns for each kind of work a pair of each round: how much tfbert does per second, and how much they do.
    """
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(os.path.join(args.work_dir, "checkpoint", "vocab.txt"), lowercase=True)
    with open(args.data, encoding="utf-8") as f:
        paragraphs = [p for article in json.load(f)["data"] for p in article["paragraphs"]]
    contexts = [p["context"] for p in paragraphs]
    pairs = [(qa["question"], p["context"]) for p in paragraphs for qa in p["qas"]]
    binary = {}
    for package in ("wordpiece", "squad"):
        binary[package] = os.path.join(args.work_dir, package + ".test")
        run(["go", "test", "-C", ROOT, "-c", "-o", binary[package], "./" + package])
    os.environ["TFBERT_SHARED"] = args.shared

    def ours(package, benchmark):
        out = subprocess.run(
            [binary[package], "-test.run", "^$", "-test.bench", benchmark, "-test.benchtime", "3x", "-test.cpu", "1"],
            cwd=os.path.join(ROOT, package), stdout=subprocess.PIPE, text=True, check=True).stdout
        return re.search(r"\s([\d.e+]+) ns/op", out), re.search(r"\s([\d.e+]+) tokens/s", out)

    rounds = {"word pieces per second": [], "pairs per second": []}
    for _ in range(args.rounds):
        start = time.perf_counter()
        pieces = sum(len(e.ids) for e in tokenizer.encode_batch(contexts, add_special_tokens=False))
        theirs = pieces / (time.perf_counter() - start)
        rounds["word pieces per second"].append((float(ours("wordpiece", "AppendIDs")[1][1]), theirs))
        start = time.perf_counter()
        tokenizer.encode_batch(pairs)
        theirs = len(pairs) / (time.perf_counter() - start)
        rounds["pairs per second"].append((len(pairs) / (float(ours("squad", "DevSet/features")[0][1]) / 1e9), theirs))
    return rounds


def compare(args):
    import numpy as np

    units = bf16_units()
    everybody = [name for name in CONTESTANTS[args.device] if re.search(args.only, name)]
    skipped = [] if units else [name for name in everybody if name.endswith("bf16")]
    everybody = [name for name in everybody if name not in skipped]
    contestants = {name: (Tfbert if name.startswith("tfbert") else Peer)(name, args) for name in everybody}
    works = {f"batch of {b}": (dict(work="full", batch=b, seconds=args.seconds), everybody) for b in (8, 1)}
    # On a CPU, TensorFlow's Python runs the reference graph already.
    dev = [n for n in everybody if (n != "tfbert reference fp32" or args.device != "cpu") and "alone" not in n]
    works["dev set"] = (dict(work="dev"), dev)
    results = {}
    for work, (task, names) in works.items():
        if not re.search(args.work, work):
            continue
        for n in range(args.rounds):
            for name in names:
                if task["work"] == "dev":
                    task["logits"] = os.path.join(args.work_dir, f"logits {name}.npy")
                value = contestants[name].do(**task)
                results.setdefault(work, {}).setdefault(name, []).append(value)
                print(f"{work}, round {n + 1}: {name} {value:.2f}", file=sys.stderr)

    def load(name):
        return np.load(os.path.join(args.work_dir, f"logits {name}.npy"))

    moved, scores, reference_name = {}, {}, REFERENCE if REFERENCE in contestants else everybody[0]
    if args.checkpoint:
        scores = {name: score(args, name) for name in results.get("dev set", {})}
    if reference_name in results.get("dev set", {}):
        mask = np.load(os.path.join(args.work_dir, "features.npz"))["input_mask"].astype(bool)
        reference = load(reference_name).transpose(0, 2, 1)[mask]
        for name in results["dev set"]:
            by = np.abs(load(name).transpose(0, 2, 1)[mask] - reference)
            moved[name] = float(by.max())
            if not by.mean() < 0.25 * reference.std():
                sys.exit(f"bench_peers: {name} runs another model: its logits differ from those of the reference graph "
                         f"by {by.mean()} on average")
    for contestant in contestants.values():
        if isinstance(contestant, Peer):
            contestant.process.stdin.close()
            contestant.process.wait()
    return {"machine": machine(units), "skipped": skipped, "results": results, "moved": moved, "scores": scores,
            "tokenizing": tokenizing(args) if re.search(args.work, "tokenizing") else {}}


def score(args, name):
    """Return EM and F1 of the answers that a contestant's logits lead to."""
    data, out = os.path.join(args.work_dir, "data.json"), os.path.join(args.work_dir, "decoded")
    run([args.tfbert, "decode", "--vocab_file", os.path.join(args.work_dir, "checkpoint", "vocab.txt"),
         "--predict_file", data, "--max_seq_length", LENGTH, "--doc_stride", STRIDE,
         "--logits", os.path.join(args.work_dir, f"logits {name}.npy"), "--output_dir", out])
    return json.loads(run([args.tfbert, "evaluate", data, os.path.join(out, "predictions.json")]))


def machine(units):
    from importlib.metadata import version

    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = re.search(r"model name\s*: (.*)", f.read())
    packages = ("tensorflow-cpu", "torch", "transformers", "onnxruntime", "tokenizers")
    return {"cpu": model[1] if model else platform.machine(), "cpus": len(os.sched_getaffinity(0)),
            "bfloat16_units": units, "packages": {p: version(p) for p in packages}}


def ratio(a, b):
    return statistics.median(x / y for x, y in zip(a, b))


# The goals of docs/performance.md: the work, tfbert's contestant, the other contestant, and the least ratio.
GOALS = [
    ("dev set", "tfbert fused bf16", REFERENCE, 10),
    ("dev set", "tfbert fused fp32", REFERENCE, 2.3),
    ("batch of 8", "tfbert fused bf16", "PyTorch bf16", 1.2),
    ("batch of 1", "tfbert fused bf16", "PyTorch bf16", 1.0),
    ("batch of 8", "tfbert fused bf16", "matrix products alone bf16", 0.85),
    ("batch of 1", "tfbert fused bf16", "matrix products alone bf16", 0.70),
    ("batch of 8", "tfbert fused fp16", "PyTorch fp16", 1.2),
    ("batch of 8", "tfbert fused fp32", "matrix products alone fp32", 0.85),
    ("batch of 1", "tfbert fused fp32", "matrix products alone fp32", 0.70),
]


def report(r):
    m = r["machine"]
    lines = [f"{m['cpu']}, {m['cpus']} CPUs, units for bfloat16: {', '.join(m['bfloat16_units']) or 'none'}; "
             + ", ".join(f"{k} {v}" for k, v in m["packages"].items()), ""]
    if r["skipped"]:
        lines += ["Not run, because this CPU lacks units for bfloat16: " + ", ".join(r["skipped"]), ""]
    for work, results in r["results"].items():
        base = REFERENCE if REFERENCE in results else next(iter(results))
        dev = work == "dev set"
        scored = dev and r["scores"]
        lines += [f"**{work}**, medians of {len(results[base])} rounds", "",
                  f"| | {'windows' if dev else 'sequences'}/s | range | relative to {base} |"
                  + (" largest logit change |" if dev else "") + (" EM | F1 |" if scored else ""),
                  "| --- | --- | --- | --- |" + (" --- |" if dev else "") + (" --- | --- |" if scored else "")]
        for name in sorted(results, key=lambda name: -statistics.median(results[name])):
            v = results[name]
            line = f"| {name} | {statistics.median(v):.2f} | {min(v):.2f} to {max(v):.2f} "
            line += f"| {ratio(v, results[base]):.2f} |"
            if dev:
                line += f" {r['moved'].get(name, float('nan')):.1g} |"
            if scored:
                line += "".join(f" {r['scores'][name][k]:.2f} |" for k in ("exact_match", "f1"))
            lines.append(line)
        lines.append("")
    if r["tokenizing"]:
        lines += ["**tokenizing**, one core", "", "| | tfbert | Hugging Face's tokenizers | ratio |",
                  "| --- | --- | --- | --- |"]
    for what, rounds in r["tokenizing"].items():
        ours, theirs = zip(*rounds)
        lines.append(f"| {what} | {statistics.median(ours):,.0f} | {statistics.median(theirs):,.0f} "
                     f"| {ratio(ours, theirs):.1f} |")
    if r["tokenizing"]:
        lines.append("")
    lines += ["**goals**", "", "| work | contestant | compared with | goal, at least | measured |",
              "| --- | --- | --- | --- | --- |"]
    goals = list(GOALS)
    dev = r["results"].get("dev set", {})
    ours = [name for name in dev if name.startswith("tfbert")]
    theirs = [name for name in dev if not name.startswith("tfbert")]
    if ours and theirs:
        best = [max(names, key=lambda name: statistics.median(dev[name])) for names in (ours, theirs)]
        goals.append(("dev set", *best, 1.2))
    for work, a, b, least in goals:
        results = r["results"].get(work, {})
        if a in results and b in results:
            lines.append(f"| {work} | {a} | {b} | {least} | {ratio(results[a], results[b]):.2f} |")
    return "\n".join(lines)


def main():
    shared = os.environ.get("TFBERT_SHARED", "")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(shared, "data", "dev-v1.1.json"),
                        help="SQuAD 1.1's dev set (default: in $TFBERT_SHARED/data)")
    parser.add_argument("--checkpoint", help="checkpoint to run in place of BERT-Base with random weights")
    parser.add_argument("--tfbert", default=os.path.join(ROOT, "bin", "tfbert"),
                        help="the command (default: bin/tfbert)")
    parser.add_argument("--vocab", default=os.path.join(ROOT, "testdata", "models", "minilm-squad", "vocab.txt"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="duration of a contestant's turn with full windows")
    parser.add_argument("--questions", type=int, default=256, help="number of questions for the dev set's work")
    parser.add_argument("--only", default="", help="regular expression that selects the contestants to run")
    parser.add_argument("--work", default="", help="regular expression that selects the kinds of work to do")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=CONTESTANTS, default="cpu")
    parser.add_argument("--json", help="file to which every figure of every round is written")
    parser.add_argument("--work_dir", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="2", TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1",
                      HF_HUB_OFFLINE="1")
    if args.serve:
        return serve(args.serve, args.work_dir, args.threads, args.device)
    if args.step:
        work = args.work_dir
        steps = {
            "checkpoint": lambda: make_checkpoint(os.path.join(work, "checkpoint"), args.vocab),
            "onnx": lambda: make_onnx(work),
            "weights": lambda: save_weights(os.path.join(work, "reference-fp32"), os.path.join(work, "weights.npz")),
        }
        return steps[args.step]()
    if not os.path.isfile(args.data):
        parser.error(f"{args.data} does not exist: name SQuAD 1.1's dev set with --data, or set TFBERT_SHARED")
    args.shared = os.path.abspath(os.path.dirname(os.path.dirname(args.data)))
    with tempfile.TemporaryDirectory(prefix="tfbert-peers-") as args.work_dir:
        prepare(args)
        result = compare(args)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
    print(report(result))


if __name__ == "__main__":
    main()
