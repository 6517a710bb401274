"""Triton's Python client over gRPC: every call that a server of question-answering models supports.

    triton_grpc.py --grpc HOST:PORT --http HOST:PORT --features X.npz
"""

import queue

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.grpc import service_pb2
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

import checks

args = checks.parse_arguments("features")
model, text_model = args.model, args.model + "_qa"
client = grpc.InferenceServerClient(args.grpc)
rows = checks.read_windows(args.features, count=5)
LOGITS = ("start_logits", "end_logits")


def inputs(arrays):
    list = []
    for name, array in arrays.items():
        tensor = grpc.InferInput(name, array.shape, "INT32")
        tensor.set_data_from_numpy(array)
        list.append(tensor)
    return list


def row(i):
    return inputs({name: array[i:i + 1] for name, array in rows.items()})


def outputs(*names):
    return [grpc.InferRequestedOutput(name) for name in names]


def texts(questions, contexts):
    list = []
    for name, column in ("QUESTION", questions), ("CONTEXT", contexts):
        array = np.array([[text.encode()] for text in column], dtype=object)
        tensor = grpc.InferInput(name, array.shape, "BYTES")
        tensor.set_data_from_numpy(array)
        list.append(tensor)
    return list


def health():
    """the server and its models are live and ready, other models are not"""
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(model) and client.is_model_ready(model, "1") and client.is_model_ready(text_model)
    assert not client.is_model_ready("another") and not client.is_model_ready(model, "2")
    with checks.must_fail(InferenceServerException, "INVALID_ARGUMENT", '"one"'):
        client.is_model_ready(model, "one")


def metadata():
    """the metadata of server and models are as over HTTP"""
    web = http.InferenceServerClient(args.http)
    assert client.get_server_metadata(as_json=True) == web.get_server_metadata()
    for name in model, text_model:
        about, want = client.get_model_metadata(name, as_json=True), web.get_model_metadata(name)
        for tensor in about["inputs"] + about["outputs"]:
            tensor["shape"] = [int(n) for n in tensor["shape"]]  # JSON made of protobuf has strings for 64 bits
        assert about == want, (about, want)
    with checks.must_fail(InferenceServerException, "NOT_FOUND", '"another"'):
        client.get_model_metadata("another")
    with checks.must_fail(InferenceServerException, "NOT_FOUND", "version 2"):
        client.get_model_metadata(model, "2")
    web.close()


def configuration():
    """the configuration of a model is complete"""
    config = client.get_model_config(model).config
    assert (config.name, config.platform, config.max_batch_size) == (model, "tensorflow_savedmodel", 8)
    unique_ids = next(t for t in config.input if t.name == "unique_ids")
    assert list(unique_ids.dims) == [1] and unique_ids.HasField("reshape") and list(unique_ids.reshape.shape) == []
    assert config.dynamic_batching.priority_levels == 2
    assert client.get_model_config(text_model).config.backend == "tfbert"


def tensors():
    """tensors are as over HTTP, all or those that are named, in any batch"""
    want = client.infer(model, inputs(rows))
    response = want.get_response()
    assert (response.model_name, response.model_version, response.id) == (model, "1", "")
    assert np.array_equal(want.as_numpy("unique_ids"), rows["unique_ids"])
    web = http.InferenceServerClient(args.http)
    list = []
    for name, array in rows.items():
        list.append(http.InferInput(name, array.shape, "INT32"))
        list[-1].set_data_from_numpy(array)
    over_http = web.infer(model, list)
    web.close()
    for name in LOGITS:
        checks.assert_close(want.as_numpy(name), over_http.as_numpy(name))
    got = client.infer(model, inputs(rows), model_version="1", outputs=outputs("end_logits", "start_logits"))
    assert [t.name for t in got.get_response().outputs] == ["end_logits", "start_logits"]
    assert got.as_numpy("unique_ids") is None
    for i in range(len(rows["input_ids"])):
        got = client.infer(model, row(i))
        for name in LOGITS:
            checks.assert_close(got.as_numpy(name), want.as_numpy(name)[i:i + 1])


def typed_contents():
    """tensors may be in the typed contents, as other clients send them"""
    request = service_pb2.ModelInferRequest(model_name=model, id="typed")
    for name, array in rows.items():
        tensor = request.inputs.add(name=name, datatype="INT32", shape=array.shape)
        tensor.contents.int_contents.extend(array.ravel().tolist())
    got = grpc.InferResult(client._client_stub.ModelInfer(request))
    checks.assert_close(got.as_numpy("start_logits"), client.infer(model, inputs(rows)).as_numpy("start_logits"))

    request = service_pb2.ModelInferRequest(model_name=text_model)
    for name, text in ("QUESTION", checks.QUESTION), ("CONTEXT", checks.CONTEXT):
        request.inputs.add(name=name, datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(text.encode())
    assert grpc.InferResult(client._client_stub.ModelInfer(request)).as_numpy("ANSWER")[0, 0] == checks.ANSWER.encode()


def compression():
    """messages may be compressed by gzip and deflate"""
    want = client.infer(model, inputs(rows)).as_numpy("start_logits")
    for algorithm in "gzip", "deflate":
        checks.assert_close(client.infer(model, inputs(rows), compression_algorithm=algorithm).as_numpy("start_logits"), want)


def text():
    """questions and passages are text, and offsets count code points"""
    result = client.infer(text_model, texts([checks.QUESTION, "How many panes has the lantern?"], [checks.CONTEXT] * 2))
    assert result.as_numpy("ANSWER").tolist() == [[checks.ANSWER.encode()], [b"twenty-four"]]
    assert (result.as_numpy("START")[0, 0], result.as_numpy("END")[0, 0]) == (checks.START, checks.END)
    score = result.as_numpy("SCORE")
    assert score.dtype == np.float32 and score.shape == (2, 1) and (0 < score).all() and (score <= 1).all()
    with checks.must_fail(InferenceServerException, "INVALID_ARGUMENT", "not valid UTF-8"):
        bad = texts([checks.QUESTION], [checks.CONTEXT])
        bad[1].set_data_from_numpy(np.array([[b"\xff\xfe"]], dtype=object))
        client.infer(text_model, bad)


def ids_and_parameters():
    """ids come back, and the server takes a priority, a timeout and unknown parameters"""
    got = client.infer(model, inputs(rows), request_id="a/\u00e9\"1", priority=1, timeout=30_000_000, parameters={"mine": "yes"})
    assert got.get_response().id == "a/\u00e9\"1"
    with checks.must_fail(InferenceServerException, "INVALID_ARGUMENT", "priority"):
        client.infer(model, inputs(rows), priority=3)


def asynchronous():
    """each of many requests at once has its own answer"""
    want = client.infer(model, inputs(rows)).as_numpy("start_logits")
    done = queue.Queue()
    n = len(want)
    for i in range(6 * n):
        client.async_infer(model, row(i % n), lambda result, error, i=i: done.put((i, result, error)), request_id=str(i))
    seen = set()
    for _ in range(6 * n):
        i, result, error = done.get(timeout=60)
        assert error is None, error
        assert result.get_response().id == str(i)
        checks.assert_close(result.as_numpy("start_logits"), want[i % n:i % n + 1])
        seen.add(i)
    assert len(seen) == 6 * n


def impatience():
    """a request that may not wait is refused if others are before it, which have their answers"""
    done = queue.Queue()
    for _ in range(50):  # they may all have been answered by then
        for i in range(8):
            client.async_infer(model, row(i % 2), lambda result, error: done.put(error))
        try:
            client.infer(model, inputs(rows), priority=2, timeout=1)
            refused = None
        except InferenceServerException as error:
            refused = error
        for i in range(8):
            error = done.get(timeout=60)
            assert error is None, error
        if refused is not None:
            with checks.must_fail(InferenceServerException, "DEADLINE_EXCEEDED"):
                raise refused
            return
    assert False, "no request was refused"


def stream():
    """a stream answers in order, with the ids, and goes on after a bad request"""
    want = client.infer(model, inputs(rows)).as_numpy("start_logits")
    done = queue.Queue()
    client.start_stream(callback=lambda result, error: done.put((result, error)), compression_algorithm="gzip")
    n, bad = 12, 5
    for i in range(n):
        name = "another" if i == bad else model
        client.async_stream_infer(name, row(i % len(want)), request_id=str(i))
    for i in range(n):
        result, error = done.get(timeout=60)
        if i == bad:
            assert result is None and 'there is no model "another"' in error.message(), (result, error)
            continue
        assert error is None, error
        assert result.get_response().id == str(i), (result.get_response().id, i)
        assert result.get_response().parameters["triton_final_response"].bool_param
        checks.assert_close(result.as_numpy("start_logits"), want[i % len(want)][None])
    client.stop_stream()
    assert done.empty()


def refusals():
    """a request that cannot run is refused with the reason, and the next one runs"""
    one = {name: array[:1] for name, array in rows.items()}
    without = {name: array for name, array in one.items() if name != "segment_ids"}
    cases = [
        (("INVALID_ARGUMENT", "9 rows", "at most 8"), dict(model_name=model, inputs=inputs({n: np.repeat(a[:1], 9, axis=0) for n, a in rows.items()}))),
        (("NOT_FOUND", '"another"'), dict(model_name="another", inputs=inputs(one))),
        (("NOT_FOUND", "version 7"), dict(model_name=model, model_version="7", inputs=inputs(one))),
        (("INVALID_ARGUMENT", '"segment_ids" is missing'), dict(model_name=model, inputs=inputs(without))),
        (("INVALID_ARGUMENT", 'does not have an input "extra"'), dict(model_name=model, inputs=inputs({**without, "extra": one["input_ids"]}))),
        (("INVALID_ARGUMENT", 'does not have an output "pooled"'), dict(model_name=model, inputs=inputs(one), outputs=outputs("pooled"))),
        (("INVALID_ARGUMENT", "input_mask", "shape"), dict(model_name=model, inputs=inputs({**one, "input_mask": one["input_mask"][:, :-1].copy()}))),
        (("INVALID_ARGUMENT", "input_ids", "shape"), dict(model_name=model, inputs=inputs({**one, "input_ids": one["input_ids"][0]}))),
        (("INVALID_ARGUMENT", "input_ids", "-1"), dict(model_name=model, inputs=inputs({**one, "input_ids": -np.ones_like(one["input_ids"])}))),
        (("UNIMPLEMENTED", "classification"), dict(model_name=model, inputs=inputs(one), outputs=[grpc.InferRequestedOutput("start_logits", class_count=3)])),
    ]
    for words, call in cases:
        with checks.must_fail(InferenceServerException, *words):
            client.infer(**call)
    wrong = inputs(one)
    wrong[0] = grpc.InferInput("input_ids", one["input_ids"].shape, "INT64")
    wrong[0].set_data_from_numpy(one["input_ids"].astype(np.int64))
    with checks.must_fail(InferenceServerException, "INVALID_ARGUMENT", '"input_ids" is INT64', "INT32"):
        client.infer(model, wrong)
    wrong[0] = grpc.InferInput("input_ids", one["input_ids"].shape, "INT32")
    wrong[0].set_shared_memory("region", one["input_ids"].nbytes)
    with checks.must_fail(InferenceServerException, "NOT_FOUND", "shared memory region"):
        client.infer(model, wrong)
    client.infer(model, inputs(one))


def not_offered():
    """what Triton has and this server does not have fails cleanly"""
    for call in client.get_cuda_shared_memory_status, client.unregister_cuda_shared_memory:
        with checks.must_fail(InferenceServerException, "UNIMPLEMENTED", "CUDA shared memory"):
            call()


def settings():
    """the settings of the log and of traces are followed, or refused by name"""
    assert client.get_log_settings().settings["log_verbose_level"].uint32_param == 0
    client.update_log_settings({"log_verbose_level": 1})
    assert client.get_log_settings().settings["log_verbose_level"].uint32_param == 1
    client.update_log_settings({"log_verbose_level": 0})
    with checks.must_fail(InferenceServerException, "UNIMPLEMENTED", "log_file"):
        client.update_log_settings({"log_file": "x"})
    client.update_trace_settings(settings={"trace_rate": "5"})
    assert client.get_trace_settings().settings["trace_rate"].value[0] == "5"
    client.update_trace_settings(settings={"trace_rate": None})
    assert client.get_trace_settings().settings["trace_rate"].value[0] == "1"
    with checks.must_fail(InferenceServerException, "UNIMPLEMENTED", "trace_file"):
        client.update_trace_settings(settings={"trace_file": "x"})


def shared_memory():
    """tensors come from system shared memory and go there"""
    want = client.infer(model, inputs(rows)).as_numpy("start_logits")
    ids = rows["input_ids"]
    handle = shm.create_shared_memory_region("rows", "tfbert-grpc-rows", ids.nbytes + want.nbytes, create_only=True)
    try:
        shm.set_shared_memory_region(handle, [ids])
        client.register_system_shared_memory("rows", "tfbert-grpc-rows", ids.nbytes + want.nbytes)
        assert list(client.get_system_shared_memory_status().regions) == ["rows"]
        with checks.must_fail(InferenceServerException, "ALREADY_EXISTS", "already registered"):
            client.register_system_shared_memory("rows", "tfbert-grpc-rows", 1)
        tensors = [grpc.InferInput("input_ids", ids.shape, "INT32")]
        tensors[0].set_shared_memory("rows", ids.nbytes)
        tensors += inputs({name: array for name, array in rows.items() if name != "input_ids"})
        wanted = [grpc.InferRequestedOutput("start_logits"), grpc.InferRequestedOutput("unique_ids")]
        wanted[0].set_shared_memory("rows", want.nbytes, offset=ids.nbytes)
        result = client.infer(model, tensors, outputs=wanted)
        assert result.get_output("start_logits").parameters["shared_memory_byte_size"].int64_param == want.nbytes
        checks.assert_close(shm.get_contents_as_numpy(handle, np.float32, want.shape, offset=ids.nbytes), want)
        np.testing.assert_array_equal(result.as_numpy("unique_ids"), rows["unique_ids"])
        wanted[0].set_shared_memory("rows", want.nbytes, offset=ids.nbytes + 4)
        with checks.must_fail(InferenceServerException, "INVALID_ARGUMENT", "not within shared memory region"):
            client.infer(model, tensors, outputs=wanted)
        client.unregister_system_shared_memory("rows")
        assert list(client.get_system_shared_memory_status().regions) == []
    finally:
        shm.destroy_shared_memory_region(handle)
    with checks.must_fail(InferenceServerException, "INVALID_ARGUMENT", "cannot be opened"):
        client.register_system_shared_memory("rows", "tfbert-grpc-rows", 1)


def statistics():
    """the statistics of a model count its requests, rows, batches and refusals"""
    def now(name):
        stats, = client.get_inference_statistics(name, "1").model_stats
        assert (stats.name, stats.version) == (name, "1")
        return stats

    before = now(model)
    client.infer(model, inputs(rows))
    with checks.must_fail(InferenceServerException):
        client.infer(model, inputs({**rows, "input_ids": -rows["input_ids"]}))
    after = now(model)
    assert after.inference_count == before.inference_count + len(rows["input_ids"])
    assert before.execution_count < after.execution_count <= before.execution_count + len(rows["input_ids"])
    for key, more in ("success", 1), ("fail", 1), ("queue", 1), ("compute_input", 1), ("compute_infer", 1), ("compute_output", 1), ("cache_hit", 0):
        assert getattr(after.inference_stats, key).count == getattr(before.inference_stats, key).count + more, key
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.execution_count == sum(batch.compute_infer.count for batch in after.batch_stats)
    assert {m.name for m in client.get_inference_statistics().model_stats} == {model, text_model}


checks.run_checks(health, metadata, configuration, tensors, typed_contents, compression, text, ids_and_parameters,
           asynchronous, impatience, stream, refusals, not_offered, settings, shared_memory, statistics)
client.close()
