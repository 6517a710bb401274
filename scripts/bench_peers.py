#!/usr/bin/env python3
"""Run tfbert and other runtimes in turn on the same work, and print throughputs and ratios.

    make peers                                   # prepares the environment, then runs this script
    make peers PEERS_FLAGS=--quick               # the bundled model, in less than ten minutes on two cores
    python bench_peers.py --data dev-v1.1.json   # in an environment with peers.txt installed

All contestants run the same weights: random ones of BERT-Base's shape, or those of --checkpoint. The
kinds of work are

    batch of B    full windows of 128 tokens, B at a time, for some seconds
    dev set       windows of 384 with a stride of 128, over questions taken evenly from --data, in
                  batches of 8. The reference graph takes them in the reference's order and with its
                  padding; all others take them by length
    tokenizing    all of --data on one core: bare word pieces, and encoding of the pairs

Every contestant runs in a process of its own, with its model open. Its first turn at each work does not
count. tfbert's time over the dev set is that of its whole predict path, from the file to the answers.
The others receive the features and do not decode.

Other work on the machine disturbs such measurements. Therefore the turns are short and many: in each
round every contestant has one turn, in an order drawn by --seed. A ratio is the median of the ratios of
the rounds, and its spread is their quartiles. The time of the processors stands beside the time of the
clock, because other work disturbs it less. The script also reads how much of the processors other work
took, and what the hypervisor withheld ("steal"). It prints a warning if that was much.

The script compares everyone's logits with those of the reference graph, to show that the work is the
same. With --checkpoint it also prints EM and F1 of the answers, and how many of them differ from those
of the reference graph.

OpenVINO's int8 is the post-training quantization of NNCF, with its defaults for transformers. It is
calibrated on windows of --calibrate.

With --device cuda, tfbert and PyTorch run on the GPU: the reference graph in float32 and the fused
graph in float16 under XLA, compared with PyTorch in both types.
"""

import argparse
import functools
import json
import os
import platform
import random
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
BUNDLED = os.path.join(ROOT, "testdata", "models", "minilm-squad")
RANDOM = "random"


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
    """Export to ONNX, for OpenVINO and for ONNX Runtime."""
    import torch

    model = torch_model(work, attn_implementation="eager")
    model.config.return_dict = False
    example = torch.ones(2, 16, dtype=torch.long)
    names = list(SIDES) + ["start_logits", "end_logits"]
    torch.onnx.export(
        model, kwargs={"input_ids": example, "attention_mask": example, "token_type_ids": example},
        f=os.path.join(work, "raw.onnx"), dynamo=False, opset_version=17, input_names=names[:3], output_names=names[3:],
        dynamic_axes={n: {0: "batch", 1: "length"} for n in names},
    )


def make_onnx_runtime(work):
    """Fuse the ONNX model by ONNX Runtime's own optimizer for BERT, in float32 and as dynamic int8."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    with open(os.path.join(work, "checkpoint", "bert_config.json"), encoding="utf-8") as f:
        c = json.load(f)
    fp32 = os.path.join(work, "fp32.onnx")
    fused = optimize_model(os.path.join(work, "raw.onnx"), model_type="bert", num_heads=c["num_attention_heads"],
                           hidden_size=c["hidden_size"], opt_level=0)
    fusions = {k: v for k, v in fused.get_fused_operator_statistics().items() if v}
    print("ONNX Runtime's fusions:", fusions, file=sys.stderr)
    fused.save_model_to_file(fp32)
    quantize_dynamic(fp32, os.path.join(work, "int8.onnx"), weight_type=QuantType.QInt8,
                     extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


def make_openvino_int8(work):
    """Quantize the ONNX model by NNCF, with its defaults for transformers, on the windows of calibration.npz."""
    import nncf
    import numpy as np
    import openvino

    features = np.load(os.path.join(work, "calibration.npz"))
    windows = [{side: features[side][i : i + 1, : features["input_mask"][i].sum()].astype(np.int64) for side in SIDES}
               for i in range(len(features["input_ids"]))]
    model = nncf.quantize(openvino.convert_model(os.path.join(work, "raw.onnx")), nncf.Dataset(windows),
                          model_type=nncf.ModelType.TRANSFORMER, subset_size=len(windows))
    openvino.save_model(model, os.path.join(work, "int8.xml"), compress_to_fp16=False)


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


def openvino_peer(name, precision=None):
    """Run with a type for what is not int8. Without one, OpenVINO chooses: bfloat16 where the CPU has units for it."""

    def peer(work, threads, device):
        import numpy as np
        import openvino

        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        if precision:
            options["INFERENCE_PRECISION_HINT"] = precision
        model = openvino.Core().compile_model(os.path.join(work, name), "CPU", options)

        def predict(unique, *sides):
            result = model({k: v.astype(np.int64) for k, v in zip(SIDES, sides)})
            return [result[key] for key in ("start_logits", "end_logits")]

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

        @functools.cache
        def inputs(rows):
            return {n: torch.randn(rows, n, dtype=layers[0].weight.dtype) for n in (hidden, middle)}

        def predict(unique, ids, mask, segments):
            with torch.inference_mode():
                for layer in layers:
                    layer(inputs(ids.size)[layer.in_features])

        return predict

    return peer


PEERS = {
    "TensorFlow reference graph fp32": tensorflow_peer,
    "PyTorch fp32": torch_peer("float32"),
    "PyTorch bf16": torch_peer("bfloat16"),
    "PyTorch fp16": torch_peer("float16"),
    "ONNX Runtime fp32": onnx_peer("fp32"),
    "ONNX Runtime dynamic int8": onnx_peer("int8"),
    "OpenVINO fp32": openvino_peer("raw.onnx", "f32"),
    "OpenVINO bf16": openvino_peer("raw.onnx", "bf16"),
    "OpenVINO int8": openvino_peer("int8.xml"),
    "matrix products alone fp32": limit_peer("float32"),
    "matrix products alone bf16": limit_peer("bfloat16"),
}
REFERENCE = "TensorFlow reference graph fp32"
CONTESTANTS = {
    "cpu": ["tfbert reference fp32", "tfbert fused fp32", "tfbert fused bf16", "tfbert fused int8",
            *(name for name in PEERS if not name.endswith("fp16"))],
    "cuda": ["tfbert reference fp32", "tfbert fused fp16", "PyTorch fp32", "PyTorch fp16"],
}


def serve(name, folder, threads, device):
    """Do the work that each line of standard input describes, and answer each with a line of what it took.

    tfbert's side is scripts/peer.
    """
    import numpy as np

    stdout, sys.stdout = sys.stdout, sys.stderr
    predict = PEERS[name](folder, threads, device)

    def full(batch, length, seconds):
        """Run batches of full windows. The first one does not count: between two turns, others use the caches."""
        with open(os.path.join(folder, "checkpoint", "bert_config.json"), encoding="utf-8") as f:
            vocabulary = json.load(f)["vocab_size"]
        unique, mask = np.arange(batch, dtype=np.int32), np.ones((batch, length), np.int32)
        ids = np.random.default_rng(2).integers(0, vocabulary, mask.shape, dtype=np.int32)
        segments = mask * (np.arange(length, dtype=np.int32) >= length // 3)
        predict(unique, ids, mask, segments)
        start, cpu, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < seconds or count < 2:
            predict(unique, ids, mask, segments)
            count += 1
        return count * batch, time.perf_counter() - start, time.process_time() - cpu

    def dev(batch, length, logits, **_):
        features = np.load(os.path.join(folder, "features.npz"))
        unique, sides = features["unique_ids"], [features[side] for side in SIDES]
        lengths = sides[1].sum(axis=1)
        padded = name == REFERENCE
        order = np.arange(len(unique)) if padded else np.argsort(-lengths, kind="stable")
        result = np.full((len(unique), 2, length), np.nan, np.float32)
        start, cpu = time.perf_counter(), time.process_time()
        for i in range(0, len(order), batch):
            rows = order[i : i + batch]
            width = length if padded else lengths[rows].max()
            for side, values in enumerate(predict(unique[rows], *(s[rows, :width] for s in sides))):
                result[rows, side, :width] = values
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        if logits:
            np.save(logits, result)
        return len(unique), seconds, cpu

    print("ready", file=stdout, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        items, seconds, cpu = {"full": full, "dev": dev}[task.pop("work")](**task)
        print(json.dumps({"items": items, "seconds": seconds, "cpu": cpu}), file=stdout, flush=True)


class Contestant:
    """A process that does work in turns."""

    def __init__(self, name, args):
        if name.startswith("tfbert"):
            command = [os.path.join(args.work_dir, "peer"), "-model", os.path.join(args.work_dir, model_folder(name))]
            command += ["-xla"] if name.endswith("fp16") else []
        else:
            command = [sys.executable, __file__, "--serve", name, "--work_dir", args.work_dir,
                       "--threads", str(args.threads), "--device", args.device]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench_peers: {' '.join(self.process.args)} failed")
        return line

    def do(self, task):
        """Return what a turn took, and which shares of the processors others had meanwhile."""
        before, own = processors(), self.cpu()
        print(json.dumps(task), file=self.process.stdin, flush=True)
        turn = json.loads(self.answer())
        total, busy, steal = (b - a for a, b in zip(before, processors()))
        own = self.cpu() - own
        turn["others"] = max(0, busy - own) / max(total, 1)
        turn["steal"] = steal / max(total, 1)
        return turn

    def cpu(self):
        """Return the time that the process has had of the processors, in ticks."""
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def processors():
    """Return all time of the processors since the start of the machine, what was work, and what the hypervisor took."""
    with open("/proc/stat", encoding="utf-8") as f:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, f.readline().split()[1:9])
    busy = user + nice + system + irq + softirq
    return busy + idle + iowait + steal, busy, steal


def model_folder(name):
    """Return the folder of one of tfbert's models: fused-bf16 for "tfbert fused bf16"."""
    return "-".join(name.split()[1:])


def run(command, check=True):
    """Return what a command prints, and what it says if it fails, which ends the script unless check is false."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0 and check:
        sys.exit(f"bench_peers: {' '.join(map(str, command))}:\n{done.stderr}")
    return done.stdout, done.stderr if done.returncode != 0 else ""


# ---- the comparison ----


def bf16_units():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return sorted(set(re.findall(r"\b(?:amx_bf16|avx512_bf16|bf16)\b", f.read())))


def prepare(args):
    """Create the models and the data that the contestants share.

    Return the contestants, and why others are left out.
    """
    work = args.work_dir
    step = [sys.executable, __file__, "--work_dir", work, "--step"]
    checkpoint = os.path.join(work, "checkpoint")
    if args.checkpoint == RANDOM:
        run(step + ["checkpoint", "--vocab", args.vocab])
    else:
        os.symlink(os.path.abspath(args.checkpoint), checkpoint)
    names, skipped = [], {}
    for name in CONTESTANTS[args.device]:
        if not re.search(args.only, name):
            continue
        if name.endswith("bf16") and not bf16_units():
            skipped[name] = "this CPU lacks units for bfloat16"
            continue
        if name.startswith("tfbert"):
            _, graph, precision = name.split()
            command = [args.tfbert, "export", checkpoint, os.path.join(work, model_folder(name)),
                       "--graph", graph, "--precision", precision]
            refused = run(command, check=precision != "int8")[1]
            if refused:
                skipped[name] = refused.strip().splitlines()[0]
                continue
        names.append(name)
    reference = os.path.join(work, "reference-fp32")
    if not os.path.isdir(reference):  # its variables are the weights of all others
        run([args.tfbert, "export", checkpoint, reference])
    run(step + ["weights"])
    sample(args, os.path.join(work, "data.json"))
    features(args, os.path.join(work, "data.json"), "features.npz")
    openvino = [name for name in names if name.startswith("OpenVINO")]
    onnx_runtime = [name for name in names if name.startswith("ONNX Runtime")]
    if openvino or onnx_runtime:
        run(step + ["onnx"])
    if onnx_runtime:
        run(step + ["onnx-runtime"])
    if "OpenVINO int8" in openvino:
        features(args, args.calibrate, "calibration.npz")
        run(step + ["openvino-int8"])
    run(["go", "build", "-C", ROOT, "-o", os.path.join(work, "peer"), "./scripts/peer"])
    return names, skipped


def sample(args, path):
    """Write the questions of the dev set's work."""
    with open(args.data, encoding="utf-8") as f:
        data = json.load(f)
    total = sum(len(p["qas"]) for article in data["data"] for p in article["paragraphs"])
    every, seen = max(1, total // args.questions), 0
    for article in data["data"]:
        for p in article["paragraphs"]:
            first, seen = seen, seen + len(p["qas"])
            p["qas"] = [qa for i, qa in enumerate(p["qas"]) if (first + i) % every == 0]
        article["paragraphs"] = [p for p in article["paragraphs"] if p["qas"]]
    with open(path, "w", encoding="utf-8") as f:
        json.dump(data, f)


def features(args, data, name):
    run([args.tfbert, "features", "--vocab_file", os.path.join(args.work_dir, "checkpoint", "vocab.txt"),
         "--predict_file", data, "--max_seq_length", LENGTH, "--doc_stride", STRIDE,
         "--out", os.path.join(args.work_dir, name)])


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


def compare(args, everybody):
    import numpy as np

    contestants = {name: Contestant(name, args) for name in everybody}
    full = {"work": "full", "length": FULL_LENGTH, "seconds": args.seconds}
    dev = {"work": "dev", "length": LENGTH, "stride": STRIDE, "batch": DEV_BATCH, "logits": "",
           "data": os.path.join(args.work_dir, "data.json"), "out": os.path.join(args.work_dir, "out")}
    works = {f"batch of {b}": ({**full, "batch": b}, everybody) for b in (8, 1)}
    # On a CPU, TensorFlow's Python runs the reference graph already.
    works["dev set"] = (dev, [n for n in everybody
                              if (n != "tfbert reference fp32" or args.device != "cpu") and "alone" not in n])
    shuffled, results = random.Random(args.seed), {}
    for work, (task, names) in works.items():
        if not re.search(args.work, work):
            continue
        for name in names:
            first = {**task, "logits": logits_file(args, name)} if task is dev else task
            contestants[name].do(first)
        for n in range(args.rounds):
            for name in shuffled.sample(names, len(names)):
                turn = contestants[name].do(task)
                results.setdefault(work, {}).setdefault(name, []).append(turn)
                print(f"{work}, round {n + 1}: {name} {turn['items'] / turn['seconds']:.2f}", file=sys.stderr)
    for contestant in contestants.values():
        contestant.close()

    moved, reference_name = {}, REFERENCE if REFERENCE in contestants else everybody[0]
    if reference_name in results.get("dev set", {}):
        mask = np.load(os.path.join(args.work_dir, "features.npz"))["input_mask"].astype(bool)
        reference = np.load(logits_file(args, reference_name)).transpose(0, 2, 1)[mask]
        for name in results["dev set"]:
            by = np.abs(np.load(logits_file(args, name)).transpose(0, 2, 1)[mask] - reference)
            moved[name] = float(by.max())
            if not by.mean() < 0.25 * reference.std():
                sys.exit(f"bench_peers: {name} runs another model: its logits differ from those of the reference graph "
                         f"by {by.mean()} on average")
    scores = {}
    if args.checkpoint != RANDOM:
        answers = {name: decode(args, name) for name in results.get("dev set", {})}
        for name, (score, theirs) in answers.items():
            same = answers[reference_name][1] if reference_name in answers else theirs
            scores[name] = {**score, "questions": len(theirs),
                            "changed": sum(theirs[key] != answer for key, answer in same.items())}
    return {"machine": machine(bf16_units()), "results": results, "moved": moved, "scores": scores,
            "tokenizing": tokenizing(args) if re.search(args.work, "tokenizing") else {}}


def logits_file(args, name):
    return os.path.join(args.work_dir, f"logits {name}.npy")


def decode(args, name):
    """Return EM and F1 of the answers that a contestant's logits lead to, and the answers."""
    data, out = os.path.join(args.work_dir, "data.json"), os.path.join(args.work_dir, "decoded")
    predictions = os.path.join(out, "predictions.json")
    run([args.tfbert, "decode", "--vocab_file", os.path.join(args.work_dir, "checkpoint", "vocab.txt"),
         "--predict_file", data, "--max_seq_length", LENGTH, "--doc_stride", STRIDE,
         "--logits", logits_file(args, name), "--output_dir", out])
    with open(predictions, encoding="utf-8") as f:
        return json.loads(run([args.tfbert, "evaluate", data, predictions])[0]), json.load(f)


def machine(units):
    from importlib.metadata import version

    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = re.search(r"model name\s*: (.*)", f.read())
    packages = ("tensorflow-cpu", "torch", "transformers", "onnxruntime", "openvino", "nncf", "tokenizers")
    return {"cpu": model[1] if model else platform.machine(), "cpus": len(os.sched_getaffinity(0)),
            "bfloat16_units": units, "packages": {p: version(p) for p in packages}}


def rates(turns):
    return [turn["items"] / turn["seconds"] for turn in turns]


def costs(turns):
    """Return the seconds of the processors for one window."""
    return [turn["cpu"] / turn["items"] for turn in turns]


def spread(values, digits=2):
    """Write the median and the quartiles."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({first:.{digits}f} to {third:.{digits}f})"


def ratios(a, b):
    """Return the ratios of the rounds."""
    return [x / y for x, y in zip(a, b)]


# The goals of docs/performance.md: the work, tfbert's contestant, the other contestant, and the least ratio.
GOALS = [
    ("dev set", "tfbert fused int8", REFERENCE, 15),
    ("dev set", "tfbert fused int8", "ONNX Runtime dynamic int8", 1.5),
    ("batch of 8", "tfbert fused int8", "OpenVINO int8", 1.0),
    ("batch of 1", "tfbert fused int8", "OpenVINO int8", 0.8),
    ("batch of 8", "tfbert fused int8", "tfbert fused fp32", 2),
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

# The shares of the processors above which other work, or the hypervisor, disturbs a turn too much.
MOST_OTHERS, MOST_STEAL = 0.05, 0.02


def report(r):
    m = r["machine"]
    lines = [f"{m['cpu']}, {m['cpus']} CPUs, units for bfloat16: {', '.join(m['bfloat16_units']) or 'none'}; "
             + ", ".join(f"{k} {v}" for k, v in m["packages"].items()), ""]
    lines += [f"Not run: {name} ({why})" for name, why in r["skipped"].items()]
    lines += [""] if r["skipped"] else []
    lines += disturbance([turn for work in r["results"].values() for turns in work.values() for turn in turns])
    for work, results in r["results"].items():
        lines += table(work, results, r["moved"], r["scores"])
    if r["tokenizing"]:
        lines += ["**tokenizing**, one core", "", "| | tfbert | Hugging Face's tokenizers | ratio |",
                  "| --- | --- | --- | --- |"]
        for what, rounds in r["tokenizing"].items():
            ours, theirs = zip(*rounds)
            lines.append(f"| {what} | {statistics.median(ours):,.0f} | {statistics.median(theirs):,.0f} "
                         f"| {spread(ratios(ours, theirs), 1)} |")
        lines.append("")
    return "\n".join(lines + goals(r["results"]))


def disturbance(turns):
    """Say how much of the processors this benchmark did not have, and warn if it was much."""
    if not turns:
        return []
    lines, much = [], False
    for what, key, most in ("Other work", "others", MOST_OTHERS), ("The hypervisor", "steal", MOST_STEAL):
        shares = [turn[key] for turn in turns]
        middle = statistics.median(shares)
        lines.append(f"{what} took {middle:.0%} of the processors in the median turn, {max(shares):.0%} in the worst.")
        much = much or middle > most or sum(share > 2 * most for share in shares) > len(shares) / 4
    if much:
        lines.append("**Warning: the machine was busy.** Trust the ratios, by their quartiles, and the seconds of the "
                     "processors. The throughputs are those of a quiet machine only where a turn was not disturbed.")
    return [" ".join(lines), ""]


def table(work, results, moved, scores):
    base = REFERENCE if REFERENCE in results else next(iter(results))
    dev = work == "dev set"
    head = ["", f"{'windows' if dev else 'sequences'}/s (quartiles)", f"relative to {base} (quartiles)",
            "processor seconds each", "the same, relative"]
    if dev:
        head.append("largest logit change")
    if dev and scores:
        head += ["EM", "F1", f"of {scores[base]['questions']} answers, changed"]
    rows = [f"**{work}**, medians of {len(results[base])} rounds", "", f"| {' | '.join(head)} |",
            f"|{' --- |' * len(head)}"]
    for name in sorted(results, key=lambda name: -statistics.median(rates(results[name]))):
        turns = results[name]
        row = [name, spread(rates(turns)), spread(ratios(rates(turns), rates(results[base]))),
               f"{statistics.median(costs(turns)):.3f}", spread(ratios(costs(results[base]), costs(turns)))]
        if dev:
            row.append(f"{moved.get(name, float('nan')):.1g}")
        if dev and scores:
            row += [f"{scores[name]['exact_match']:.2f}", f"{scores[name]['f1']:.2f}", str(scores[name]["changed"])]
        rows.append(f"| {' | '.join(row)} |")
    return rows + [""]


def goals(results):
    rows = ["**goals**", "", "| work | contestant | compared with | goal, at least | measured (quartiles) "
            "| in processor seconds |", "| --- | --- | --- | --- | --- | --- |"]
    wanted = list(GOALS)
    dev = results.get("dev set", {})
    ours, theirs = ([name for name in dev if name.startswith("tfbert") == own] for own in (True, False))
    if ours and theirs:
        best = [max(names, key=lambda name: statistics.median(rates(dev[name]))) for names in (ours, theirs)]
        wanted.append(("dev set", *best, 1.2))
    for work, a, b, least in wanted:
        turns = results.get(work, {})
        if a in turns and b in turns:
            rows.append(f"| {work} | {a} | {b} | {least} | {spread(ratios(rates(turns[a]), rates(turns[b])))} "
                        f"| {spread(ratios(costs(turns[b]), costs(turns[a])))} |")
    return rows


# What --quick sets, unless a flag says otherwise.
QUICK = {"checkpoint": BUNDLED, "rounds": 7, "seconds": 0.5, "questions": 32, "work": "batch|dev"}


def main():
    shared = os.environ.get("TFBERT_SHARED", "")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true",
                        help="the bundled model, short turns and a small slice of the dev set: " +
                        ", ".join(f"--{k} {os.path.relpath(v, ROOT) if v == BUNDLED else v}" for k, v in QUICK.items()))
    parser.add_argument("--data", default=os.path.join(shared, "data", "dev-v1.1.json"),
                        help="SQuAD 1.1's dev set (default: in $TFBERT_SHARED/data)")
    parser.add_argument("--checkpoint", default=RANDOM,
                        help=f"checkpoint to run, or {RANDOM!r} for BERT-Base with random weights (default: {RANDOM})")
    parser.add_argument("--calibrate", default=os.path.join(ROOT, "testdata", "golden", "mini", "mini-v1.1.json"),
                        help="SQuAD file on which OpenVINO's int8 is calibrated (default: the mini set)")
    parser.add_argument("--tfbert", default=os.path.join(ROOT, "bin", "tfbert"),
                        help="the command (default: bin/tfbert)")
    parser.add_argument("--vocab", default=os.path.join(BUNDLED, "vocab.txt"))
    parser.add_argument("--rounds", type=int, default=9,
                        help="turns that each contestant has at each work (default: 9)")
    parser.add_argument("--seconds", type=float, default=2,
                        help="duration of a turn with full windows, at least (default: 2)")
    parser.add_argument("--questions", type=int, default=64,
                        help="number of questions for the dev set's work (default: 64)")
    parser.add_argument("--seed", type=int, default=1, help="draws the order of the turns (default: 1)")
    parser.add_argument("--only", default="", help="regular expression that selects the contestants to run")
    parser.add_argument("--work", default="", help="regular expression that selects the kinds of work to do")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=CONTESTANTS, default="cpu")
    parser.add_argument("--json", help="file to which every figure of every round is written")
    parser.add_argument("--work_dir", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(**QUICK)
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
            "onnx-runtime": lambda: make_onnx_runtime(work),
            "openvino-int8": lambda: make_openvino_int8(work),
            "weights": lambda: save_weights(os.path.join(work, "reference-fp32"), os.path.join(work, "weights.npz")),
        }
        return steps[args.step]()
    if not os.path.isfile(args.data):
        parser.error(f"{args.data} does not exist: name SQuAD 1.1's dev set with --data, or set TFBERT_SHARED")
    args.shared = os.path.abspath(os.path.dirname(os.path.dirname(args.data)))
    with tempfile.TemporaryDirectory(prefix="tfbert-peers-") as args.work_dir:
        names, skipped = prepare(args)
        result = {**compare(args, names), "skipped": skipped}
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
    print(report(result))


if __name__ == "__main__":
    main()
