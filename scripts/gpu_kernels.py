#!/usr/bin/env python3
"""Check that every operation of exported models has a kernel for GPUs in its type. This needs no GPU.

    tfbert export CHECKPOINT reference && tfbert export CHECKPOINT fused --graph fused --precision fp16
    python3 scripts/gpu_kernels.py --lib LIBTENSORFLOW_CC reference fused
    python3 scripts/gpu_kernels.py --lib LIBTENSORFLOW_CC --half reference   # products and activations in float16

LIBTENSORFLOW_CC is that of a GPU build, such as `tfbert lib install --gpu` installs, which also loads without a GPU.
An operation without a kernel runs on the CPU, and its tensors are copied to it and back. The exit status is 1 if there
is one.
"""

import argparse
import collections
import ctypes
import pathlib
import sys

TYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 9: "int64", 10: "bool",
    14: "bfloat16", 19: "float16", 20: "resource", 21: "variant", 22: "uint32", 23: "uint64",
}
FLOAT, HALF = 1, 19

# What the rewrite to float16 turns into it, of the operations of a BERT: its allow list, and what lies between.
REWRITTEN = {
    "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "_FusedMatMul", "BiasAdd", "Add", "AddV2",
    "Mul", "Sub", "Softmax", "Tanh", "Erf", "Transpose", "Reshape", "StridedSlice", "Unpack", "Pack", "Split", "ConcatV2",
    "Identity", "ExpandDims", "Squeeze",
}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    """The fields of a message in protobuf's wire format: number, and an integer or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            if key & 7 == 2:
                size, at = varint(data, at)
            else:
                size = {1: 8, 5: 4}[key & 7]
            value, at = data[at:at + size], at + size
        yield key >> 3, value


def every(data, number):
    return [value for n, value in fields(data) if n == number]


def first(data, number, default=b""):
    return next((value for n, value in fields(data) if n == number), default)


def text(data, number):
    return bytes(first(data, number)).decode()


def mapping(data, number):
    """A map field with strings as keys."""
    return {text(entry, 1): first(entry, 2) for entry in every(data, number)}


def types_of(value):
    """The types that an AttrValue is: one, or those of a list."""
    found = every(value, 6)
    for listed in every(value, 1):
        for types in every(listed, 6):
            if isinstance(types, int):
                found.append(types)
                continue
            at = 0
            while at < len(types):
                dtype, at = varint(types, at)
                found.append(dtype)
    return found


class Library:
    """The operations and kernels of a TensorFlow library, by its C API."""

    class Buffer(ctypes.Structure):
        _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("free", ctypes.c_void_p)]

    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.TF_NewStatus.restype = ctypes.c_void_p
        for function in self.c.TF_GetRegisteredKernelsForOp, self.c.TF_GetAllOpList:
            function.restype = ctypes.POINTER(self.Buffer)
        self.c.TF_GetRegisteredKernelsForOp.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
        self.status = self.c.TF_NewStatus()
        # Attributes that have their default value may be left out of a graph.
        self.defaults = {
            text(op, 1): {text(a, 1): types_of(first(a, 3)) for a in every(op, 4)}
            for op in every(self.bytes(self.c.TF_GetAllOpList()), 1)
        }
        self.known = {}

    def bytes(self, buffer):
        return memoryview(ctypes.string_at(buffer.contents.data, buffer.contents.length)) if buffer else memoryview(b"")

    def kernels(self, op, device):
        """The constraints of each kernel for the device: types by attribute."""
        if op not in self.known:
            self.known[op] = every(self.bytes(self.c.TF_GetRegisteredKernelsForOp(op.encode(), self.status)), 1)
        return [
            {text(c, 1): types_of(first(c, 2)) for c in every(kernel, 3)}
            for kernel in self.known[op] if text(kernel, 2) in (device, "DEFAULT") and not text(kernel, 5)
        ]


def read_model(path, tag):
    """The nodes by name, the functions by name, and the names of the tensors that signatures return."""
    for meta in every(memoryview((pathlib.Path(path) / "saved_model.pb").read_bytes()), 2):
        if tag in [bytes(t).decode() for t in every(first(meta, 1), 4)]:
            break
    else:
        sys.exit(f"gpu_kernels: {path} has no graph with the tag {tag}")
    graph = first(meta, 2)
    functions = {text(first(f, 1), 1): every(f, 3) for f in every(first(graph, 2), 1)}
    outputs = [
        text(info, 1) for key, signature in mapping(meta, 5).items() if not key.startswith("__")
        for info in mapping(signature, 2).values()
    ]
    return {text(n, 1): n for n in every(graph, 1)}, functions, outputs


def running(path, tag):
    """The nodes that a prediction runs."""
    nodes, functions, outputs = read_model(path, tag)
    todo, seen, found = list(outputs), set(), []
    while todo:
        name = todo.pop().lstrip("^").split(":")[0]
        if name not in seen:
            seen.add(name)
            found.append(nodes[name])
            todo += [bytes(i).decode() for i in every(nodes[name], 3)]
    for node in found:  # which grows
        called = {text(node, 2)} | {text(first(a, 10), 1) for a in mapping(node, 5).values() if every(a, 10)}
        for name in called & functions.keys():
            found += functions.pop(name)
    return found


def lacking(library, nodes, device, half):
    """The operations without a kernel, with their types, and how many there are of each."""
    missing, checked = collections.Counter(), 0
    for node in nodes:
        op = text(node, 2)
        if op in ("Placeholder", "NoOp") or op not in library.defaults:
            continue
        types = dict(library.defaults[op])
        types.update({key: found for key, value in mapping(node, 5).items() if (found := types_of(value))})
        if half and op in REWRITTEN:
            types = {key: [HALF if t == FLOAT else t for t in found] for key, found in types.items()}
        checked += 1
        if not any(
            all(set(types.get(key, [])) <= set(allowed) for key, allowed in kernel.items() if allowed)
            for kernel in library.kernels(op, device)
        ):
            named = ", ".join(f"{k}={'/'.join(TYPES.get(t, str(t)) for t in v)}" for k, v in sorted(types.items()) if v)
            missing[f"{op} {named}".strip()] += 1
    return missing, checked


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder of a SavedModel")
    parser.add_argument("--lib", required=True, help="libtensorflow_cc.so.2 of a GPU build")
    parser.add_argument("--device", default="GPU", help="kind of device (default GPU)")
    parser.add_argument("--half", action="store_true", help="check as the rewrite to float16 leaves the graph")
    parser.add_argument("--tag", default="serve", help="tag of the graph (default serve)")
    args = parser.parse_args()
    library = Library(args.lib)
    if not library.kernels("MatMul", args.device):
        sys.exit(f"gpu_kernels: {args.lib} is not a build for {args.device}: it has no kernel of MatMul")
    failed = False
    for model in args.models:
        missing, checked = lacking(library, running(model, args.tag), args.device, args.half)
        print(f"{model}: {checked} operations, {sum(missing.values())} without a kernel for {args.device}")
        for what, n in sorted(missing.items()):
            print(f"  {n} x {what}")
        failed = failed or bool(missing)
    sys.exit(failed)


if __name__ == "__main__":
    main()
