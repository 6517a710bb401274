"""Makes the checkpoints of this folder with TensorFlow's own writer (TF 2.21, Python 3.11).

    python make.py

types      one variable of every supported type, one of every rank up to 2, in one data file
sharded    four variables in three data files
partition  a partitioned variable, which is refused
many       only its digests (many.sha256): 6,000 variables, whose index takes more than one block
"""
import hashlib
import os
import tempfile

import numpy as np
import tensorflow as tf

here = os.path.dirname(os.path.abspath(__file__))


def save(prefix, tensors, slices=None):
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[(slices or {}).get(n, "") for n in names],
        tensors=[tensors[n] for n in names],
    )


def merge(prefix, parts):
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=prefix, delete_old_dirs=False)


floats = np.array([0, -0.0, 1, -1.5, 65504, 6e-8, np.inf, -np.inf, 1 / 3], np.float64)
ints = np.array([0, 1, -1, 127, -128], np.int64)
types = {
    "scalar": tf.constant(3.5, tf.float32),
    "empty": tf.zeros([0, 3], tf.float32),
    "matrix": tf.constant([[1, 2, 3], [4, 5, 6]], tf.float32),
    "global_step": tf.constant(5474, tf.int64),
    "bool": tf.constant([True, False]),
    "string": tf.constant(["a", "bc"]),
}
for t in (tf.float16, tf.bfloat16, tf.float32, tf.float64):
    types["float/" + t.name] = tf.cast(tf.constant(floats), t)
for t in (tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64):
    types["int/" + t.name] = tf.cast(tf.constant(ints), t)
save(os.path.join(here, "types"), types)

with tempfile.TemporaryDirectory() as tmp:
    parts = []
    for i, tensors in enumerate([
            {"a": tf.constant([1.0, 2.0]), "w/adam_m": tf.constant([0.5, 0.25])},
            {"b": tf.constant([3.0])},
            {"w": tf.constant([4.0, 5.0])},
    ]):
        parts.append(os.path.join(tmp, f"part{i}"))
        save(parts[-1], tensors)
    merge(os.path.join(here, "sharded"), parts)

save(os.path.join(here, "partition"), {"p": tf.constant([[1.0, 2.0]])}, {"p": "2 2 0,1:0,2"})

with tempfile.TemporaryDirectory() as tmp:
    prefix = os.path.join(tmp, "many")
    save(prefix, {
        f"model/layer_{i}/" + "x" * (i % 50) + "/weight": tf.constant([i, -i], tf.float32)
        for i in range(6000)
    })
    with open(os.path.join(here, "many.sha256"), "w") as out:
        for suffix in (".data-00000-of-00001", ".index"):
            with open(prefix + suffix, "rb") as f:
                out.write(f"{hashlib.sha256(f.read()).hexdigest()}  many{suffix}\n")
            print(suffix, os.path.getsize(prefix + suffix))
