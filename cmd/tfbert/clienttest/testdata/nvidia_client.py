"""The calls of run_squad_triton_client.py, the client in NVIDIA's BERT repository, over the same windows.

    nvidia_client.py --grpc HOST:PORT --features X.npz --logits OUT.npy --batch-size N

It asks for the model's metadata and configuration, then sends batches without waiting for their answers,
at most 20 at once, and reads the logits row by row. It writes them for `tfbert decode`.
"""

import queue

import numpy as np
import tritonclient.grpc as grpc

import checks

MOST_OUTSTANDING = 20

args = checks.parse_arguments("features", "logits", "batch-size")
model, version = args.model, "1"
batch_size = int(args.batch_size)
client = grpc.InferenceServerClient(args.grpc)
rows = checks.read_windows(args.features)
length = rows["input_ids"].shape[1]
logits = np.full((len(rows["input_ids"]), 2, length), np.nan, np.float32)
first_id = int(rows["unique_ids"][0, 0])  # ids ascend by one


def model_is_what_the_client_expects():
    """the metadata and the configuration are as NVIDIA's export script wrote them"""
    metadata, config = client.get_model_metadata(model, version), client.get_model_config(model, version).config
    assert config.platform == "tensorflow_savedmodel" and config.max_batch_size >= batch_size
    assert {t.name: (t.datatype, list(t.shape)) for t in metadata.inputs} == {
        "unique_ids": ("INT32", [-1, 1]), "segment_ids": ("INT32", [-1, length]),
        "input_ids": ("INT32", [-1, length]), "input_mask": ("INT32", [-1, length]),
    }, metadata
    assert {t.name: (t.datatype, list(t.shape)) for t in metadata.outputs} == {
        "start_logits": ("FP32", [-1, length]), "end_logits": ("FP32", [-1, length]),
    }, metadata
    assert list(config.dynamic_batching.preferred_batch_size) == [config.max_batch_size // 2, config.max_batch_size], config
    accelerator, = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "auto_mixed_precision"


def batch(first):
    tensors = []
    for name, array in rows.items():
        array = array[first:first + batch_size]
        tensor = grpc.InferInput(name, array.shape, "INT32")
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def read_answer(completed):
    """Reads one answer: the logits of the rows of a request, which begin at the row in its id."""
    result, error = completed.get(timeout=120)
    assert error is None, error
    first = int(result.get_response().id)
    start, end = result.as_numpy("start_logits"), result.as_numpy("end_logits")
    for i, unique_id in enumerate(rows["unique_ids"][first:first + batch_size, 0]):
        logits[unique_id - first_id] = start[i], end[i]


def every_window_is_answered():
    """the server answers batches of all windows, of which at most 20 wait at once"""
    completed, outstanding = queue.Queue(), 0
    for first in range(0, len(logits), batch_size):
        if outstanding == MOST_OUTSTANDING:
            read_answer(completed)
            outstanding -= 1
        client.async_infer(
            model, batch(first), lambda result, error: completed.put((result, error)),
            request_id=str(first), model_version=version,
            outputs=[grpc.InferRequestedOutput("start_logits"), grpc.InferRequestedOutput("end_logits")])
        outstanding += 1
    for _ in range(outstanding):
        read_answer(completed)
    assert not np.isnan(logits).any()


checks.run_checks(model_is_what_the_client_expects, every_window_is_answered)
np.save(args.logits, logits)
client.close()
