#!/usr/bin/env python3
"""Export a BERT SQuAD checkpoint with TensorFlow's own Python API.

This is an independent check of `tfbert export --graph reference`. It builds the inference graph of
modeling.py and run_squad.py (19.03) in Python with tf.compat.v1. The two SavedModels have the same
signature, and their logits agree bit for bit for the same batch on the same machine.

    python export_reference.py CHECKPOINT_DIR MODEL_DIR [--max_seq_length N]
    python export_reference.py --run MODEL_DIR FEATURES.npz LOGITS.npy [--batch_size 8]

The second form runs a SavedModel over the arrays that `tfbert features --out FEATURES.npz` writes,
and saves float32 logits [features, 2, length], as `tfbert predict --save_logits` does.

The script needs tensorflow-cpu 2.15 or later, and was tested with 2.21.0.
"""

import argparse
import json
import math
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow.compat.v1 as tf

SIGNATURE = "serving_default"
INPUTS = ("unique_ids", "input_ids", "input_mask", "segment_ids")


class Bert:
    """The graph of a BERT with a SQuAD head. Its variables have the names of those in the checkpoint."""

    def __init__(self, config, length):
        self.config = config
        self.length = length
        self.variables = []

    def variable(self, name, shape):
        v = tf.get_variable(
            name, shape, tf.float32, initializer=tf.zeros_initializer(), use_resource=True
        )
        self.variables.append(v)
        return v

    def dims(self, ids):
        """Return the batch size and the sequence length, as numbers if the graph knows them."""
        dynamic = tf.shape(ids)
        return [d if d is not None else dynamic[i] for i, d in enumerate(ids.shape.as_list())]

    def dense(self, x, width, name):
        with tf.variable_scope(name):
            kernel = self.variable("kernel", [x.shape.as_list()[-1], width])
            bias = self.variable("bias", [width])
            return tf.nn.bias_add(tf.matmul(x, kernel), bias)

    def layer_norm(self, x):
        with tf.variable_scope("LayerNorm"):
            width = x.shape.as_list()[-1]
            beta = self.variable("beta", [width])
            gamma = self.variable("gamma", [width])
            mean, variance = tf.nn.moments(x, [x.shape.rank - 1], keep_dims=True)
            return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-12)

    def activation(self, x):
        name = self.config.get("hidden_act", "gelu")
        if name == "gelu":
            cube = tf.pow(x, 3)
            return x * (0.5 * (1.0 + tf.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * cube))))
        return {"relu": tf.nn.relu, "tanh": tf.tanh, "linear": lambda y: y}[name](x)

    def embeddings(self, ids, segments):
        c, hidden = self.config, self.config["hidden_size"]
        with tf.variable_scope("embeddings"):
            batch, length = self.dims(ids)
            words = self.variable("word_embeddings", [c["vocab_size"], hidden])
            x = tf.reshape(tf.gather(words, tf.reshape(ids, [-1])), [batch, length, hidden])
            types = self.variable("token_type_embeddings", [c["type_vocab_size"], hidden])
            one_hot = tf.one_hot(tf.reshape(segments, [-1]), depth=c["type_vocab_size"])
            x += tf.reshape(tf.matmul(one_hot, types), [batch, length, hidden])
            positions = self.variable(
                "position_embeddings", [c["max_position_embeddings"], hidden]
            )
            x += tf.reshape(tf.slice(positions, [0, 0], [length, -1]), [1, length, hidden])
            return self.layer_norm(x)

    def attention(self, x, mask, batch, length):
        heads = self.config["num_attention_heads"]
        hidden = self.config["hidden_size"]
        size = hidden // heads

        def split(y):
            return tf.transpose(tf.reshape(y, [batch, length, heads, size]), [0, 2, 1, 3])

        with tf.variable_scope("self"):
            query = self.dense(x, hidden, "query")
            key = self.dense(x, hidden, "key")
            value = self.dense(x, hidden, "value")
            scores = tf.matmul(split(query), split(key), transpose_b=True)
            scores = tf.multiply(scores, 1.0 / math.sqrt(float(size)))
            scores += (1.0 - tf.expand_dims(mask, axis=[1])) * -10000.0
            context = tf.matmul(tf.nn.softmax(scores), split(value))
            return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, hidden])

    def encoder(self, x, input_mask):
        c, hidden = self.config, self.config["hidden_size"]
        with tf.variable_scope("encoder"):
            batch, length = self.dims(input_mask)
            to_mask = tf.cast(tf.reshape(input_mask, [batch, 1, length]), tf.float32)
            mask = tf.ones([batch, length, 1], tf.float32) * to_mask
            x = tf.reshape(x, [-1, hidden])
            for n in range(c["num_hidden_layers"]):
                with tf.variable_scope("layer_%d" % n):
                    with tf.variable_scope("attention"):
                        attention = self.attention(x, mask, batch, length)
                        with tf.variable_scope("output"):
                            attention = self.layer_norm(self.dense(attention, hidden, "dense") + x)
                    with tf.variable_scope("intermediate"):
                        middle = self.activation(
                            self.dense(attention, c["intermediate_size"], "dense")
                        )
                    with tf.variable_scope("output"):
                        x = self.layer_norm(self.dense(middle, hidden, "dense") + attention)
            return tf.reshape(x, [batch, length, hidden])

    def build(self):
        shape = [None, self.length]
        inputs = {"unique_ids": tf.placeholder(tf.int32, [None], name="unique_ids")}
        for name in INPUTS[1:]:
            inputs[name] = tf.placeholder(tf.int32, shape, name=name)
        with tf.variable_scope("bert"):
            x = self.embeddings(inputs["input_ids"], inputs["segment_ids"])
            x = self.encoder(x, inputs["input_mask"])
        batch, length = self.dims(inputs["input_ids"])
        weights = self.variable("cls/squad/output_weights", [2, self.config["hidden_size"]])
        bias = self.variable("cls/squad/output_bias", [2])
        logits = tf.matmul(
            tf.reshape(x, [-1, self.config["hidden_size"]]), weights, transpose_b=True
        )
        logits = tf.reshape(tf.nn.bias_add(logits, bias), [batch, length, 2])
        start, end = tf.unstack(tf.transpose(logits, [2, 0, 1]), axis=0, name="unstack")
        outputs = {
            "unique_ids": tf.identity(inputs["unique_ids"]),
            "start_logits": start,
            "end_logits": end,
        }
        return inputs, outputs


def export(checkpoint_dir, model_dir, length):
    with open(os.path.join(checkpoint_dir, "bert_config.json"), encoding="utf-8") as f:
        config = json.load(f)
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(checkpoint_dir) or checkpoint_dir)
    with tf.Graph().as_default(), tf.Session() as session:
        bert = Bert(config, length)
        inputs, outputs = bert.build()
        for v in bert.variables:
            v.load(reader.get_tensor(v.op.name).astype(np.float32), session)
        tf.saved_model.simple_save(session, model_dir, inputs, outputs)


def run(model_dir, features_file, logits_file, batch_size):
    features = np.load(features_file)
    with tf.Graph().as_default(), tf.Session() as session:
        meta = tf.saved_model.load(session, ["serve"], model_dir)
        signature = meta.signature_def[SIGNATURE]
        feeds = {key: signature.inputs[key].name for key in INPUTS}
        fetches = [signature.outputs[key].name for key in ("start_logits", "end_logits")]
        parts = []
        for i in range(0, len(features["unique_ids"]), batch_size):
            batch = {feeds[key]: features[key][i : i + batch_size] for key in INPUTS}
            parts.append(np.stack(session.run(fetches, batch), axis=1))
    np.save(logits_file, np.concatenate(parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", action="store_true", help="run a SavedModel over features")
    parser.add_argument("--max_seq_length", type=int, help="static length (default: dynamic)")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("paths", nargs="+")
    args = parser.parse_args()
    tf.disable_eager_execution()
    if args.run:
        if len(args.paths) != 3:
            parser.error("the arguments of --run are MODEL_DIR FEATURES.npz LOGITS.npy")
        run(*args.paths, args.batch_size)
    else:
        if len(args.paths) != 2:
            parser.error("the arguments are CHECKPOINT_DIR MODEL_DIR")
        export(*args.paths, args.max_seq_length)


if __name__ == "__main__":
    main()
