"""What the scripts of this folder share: their arguments, their data, and their assertions."""

import argparse

import numpy as np

QUESTION = "Where was the lantern cast?"
# Before the answer stand characters of one code point, two units of UTF-16 and four bytes.
CONTEXT = "\U0001f98a\U0001f4a1 The lantern of the lighthouse was cast in Bergen \U0001f1f3\U0001f1f4 and has twenty-four panes."
ANSWER = "Bergen"
START = CONTEXT.index(ANSWER)
END = START + len(ANSWER)

# The logits of a row depend on its batch, by the rounding of float32.
TOLERANCE = 1e-4


def parse_arguments(*names):
    """Returns the arguments of a script: the addresses of the server, its model, and those in `names`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", metavar="HOST:PORT")
    parser.add_argument("--grpc", metavar="HOST:PORT")
    parser.add_argument("--model", default="minilm-squad")
    for name in names:
        parser.add_argument("--" + name)
    return parser.parse_args()


def run_checks(*checks):
    """Calls the checks in turn and prints what each has confirmed, by its docstring."""
    for check in checks:
        check()
        print("ok:", check.__doc__.strip().splitlines()[0].rstrip("."), flush=True)


class must_fail:
    """A block that must end in an error whose text has all of `words`."""

    def __init__(self, kind, *words):
        self.kind, self.words = kind, words

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        assert kind is not None, f"no error, not one about {self.words}"
        if not issubclass(kind, self.kind):
            return False
        text = str(error)
        for word in self.words:
            assert word in text, f"{word!r} is not in {text!r}"
        assert "\n" not in text and len(text) < 400, f"not a message for people: {text!r}"
        print("    refused:", text)
        return True


def read_windows(path, first=0, count=None):
    """Reads windows from a file of `tfbert features`. unique_ids is a column, as a model of Triton takes it."""
    with np.load(path) as file:
        rows = slice(first, None if count is None else first + count)
        arrays = {name: file[name][rows] for name in ("input_ids", "input_mask", "segment_ids")}
        arrays["unique_ids"] = file["unique_ids"][rows].reshape(-1, 1)
    for name, array in arrays.items():
        assert array.dtype == np.int32, (name, array.dtype)
    return arrays


def assert_close(got, want):
    """Asserts that two arrays of logits of the same windows agree."""
    assert got.dtype == np.float32 and got.shape == want.shape, (got.dtype, got.shape, want.shape)
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)
