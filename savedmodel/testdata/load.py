"""Load a SavedModel of x -> y in every way that Python's TensorFlow has, and print the results.

    python load.py MODEL_DIR CHECKPOINT_PREFIX

Prints a JSON object; the graph's Saver writes the variables to CHECKPOINT_PREFIX.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

model_dir, prefix = sys.argv[1:]
x = np.array([[1, 2], [3, 4]], np.float32)
result = {}

v1 = tf.compat.v1
with tf.Graph().as_default(), v1.Session() as session:
    meta = v1.saved_model.load(session, ["serve"], model_dir)
    signature = meta.signature_def["serving_default"]
    result["method"] = signature.method_name
    result["v1"] = session.run(signature.outputs["y"].name, {signature.inputs["x"].name: x}).tolist()
    result["variables"] = sorted(v.name for v in v1.global_variables())
    result["trainable"] = sorted(v.name for v in v1.trainable_variables())
    v1.train.Saver(saver_def=meta.saver_def).save(session, prefix, write_meta_graph=False)
    session.run([v.initializer for v in v1.global_variables()])
    result["initialized"] = session.run(v1.global_variables()[0]).tolist()

loaded = tf.saved_model.load(model_dir)
f = loaded.signatures["serving_default"]
result["v2"] = f(x=tf.constant(x))["y"].numpy().tolist()
result["input_spec"] = repr(f.structured_input_signature[1]["x"])
json.dump(result, sys.stdout)
