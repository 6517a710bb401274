"""Triton's Python client over HTTP: every call that a server of question-answering models supports.

    triton_http.py --http HOST:PORT --features X.npz
"""

import numpy as np
import tritonclient.http as http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

import checks

args = checks.parse_arguments("features")
model, text_model = args.model, args.model + "_qa"
client = http.InferenceServerClient(args.http, concurrency=8)
rows = checks.read_windows(args.features, count=5)
LOGITS = ("start_logits", "end_logits")


def inputs(arrays, binary=True):
    list = []
    for name, array in arrays.items():
        tensor = http.InferInput(name, array.shape, "INT32")
        tensor.set_data_from_numpy(array, binary_data=binary)
        list.append(tensor)
    return list


def outputs(**binary):
    return [http.InferRequestedOutput(name, binary_data=binary) for name, binary in binary.items()]


def texts(questions, contexts, binary=True):
    list = []
    for name, column in ("QUESTION", questions), ("CONTEXT", contexts):
        array = np.array([[text.encode()] for text in column], dtype=object)
        tensor = http.InferInput(name, array.shape, "BYTES")
        tensor.set_data_from_numpy(array, binary_data=binary)
        list.append(tensor)
    return list


def health():
    """the server and its models are live and ready, other models are not"""
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(model) and client.is_model_ready(model, "1") and client.is_model_ready(text_model)
    assert not client.is_model_ready("another") and not client.is_model_ready(model, "2")


def metadata():
    """the metadata of server and models are complete"""
    server = client.get_server_metadata()
    assert server["name"] == "tfbert" and server["version"], server
    assert {"binary_tensor_data", "model_configuration", "model_repository", "statistics"} <= {*server["extensions"]}

    about = client.get_model_metadata(model)
    assert (about["name"], about["versions"], about["platform"]) == (model, ["1"], "tensorflow_savedmodel"), about
    assert about == client.get_model_metadata(model, "1")
    shapes = {t["name"]: (t["datatype"], t["shape"]) for t in about["inputs"]}
    assert shapes == {
        "input_ids": ("INT32", [-1, -1]), "input_mask": ("INT32", [-1, -1]),
        "segment_ids": ("INT32", [-1, -1]), "unique_ids": ("INT32", [-1, 1]),
    }, shapes
    shapes = {t["name"]: (t["datatype"], t["shape"]) for t in about["outputs"]}
    assert shapes == {
        "start_logits": ("FP32", [-1, -1]), "end_logits": ("FP32", [-1, -1]), "unique_ids": ("INT32", [-1, 1]),
    }, shapes

    about = client.get_model_metadata(text_model)
    assert [(t["name"], t["datatype"], t["shape"]) for t in about["inputs"]] == [
        ("QUESTION", "BYTES", [-1, 1]), ("CONTEXT", "BYTES", [-1, 1])], about
    assert [(t["name"], t["datatype"], t["shape"]) for t in about["outputs"]] == [
        ("ANSWER", "BYTES", [-1, 1]), ("SCORE", "FP32", [-1, 1]), ("START", "INT32", [-1, 1]), ("END", "INT32", [-1, 1])], about
    with checks.must_fail(InferenceServerException, "[404]", '"another"'):
        client.get_model_metadata("another")


def configuration():
    """the configuration of a model has numbers as numbers"""
    config = client.get_model_config(model)
    assert (config["name"], config["platform"], config["max_batch_size"]) == (model, "tensorflow_savedmodel", 8), config
    unique_ids = next(t for t in config["input"] if t["name"] == "unique_ids")
    assert (unique_ids["data_type"], unique_ids["dims"], unique_ids["reshape"]) == ("TYPE_INT32", [1], {"shape": []}), unique_ids
    assert config["dynamic_batching"]["priority_levels"] == 2, config
    assert config["instance_group"][0]["count"] == 2, config
    assert client.get_model_config(text_model)["backend"] == "tfbert"


def binary_and_json():
    """tensors as bytes and as JSON, to the server and back, are the same"""
    want = client.infer(model, inputs(rows))
    assert want.get_response()["model_name"] == model and want.get_response()["model_version"] == "1"
    assert "id" not in want.get_response(), "an id that was not given"
    assert want.as_numpy("unique_ids").tolist() == rows["unique_ids"].tolist()
    for binary in True, False:
        got = client.infer(model, inputs(rows, binary), outputs=outputs(start_logits=True, end_logits=False), model_version="1")
        response = got.get_response()
        assert [t["name"] for t in response["outputs"]] == [*LOGITS], response["outputs"]
        assert "data" not in response["outputs"][0] and "parameters" not in response["outputs"][1]
        for name in LOGITS:
            checks.assert_close(got.as_numpy(name), want.as_numpy(name))
    got = client.infer(model, inputs(rows, False), outputs=outputs(end_logits=False, unique_ids=False))
    assert [t["name"] for t in got.get_response()["outputs"]] == ["end_logits", "unique_ids"]
    assert got.as_numpy("start_logits") is None
    assert np.array_equal(got.as_numpy("unique_ids"), rows["unique_ids"])
    checks.assert_close(got.as_numpy("end_logits"), want.as_numpy("end_logits"))


def batches():
    """a row has the same logits in a batch of any size and in any order"""
    want = client.infer(model, inputs(rows))
    for i in range(len(rows["input_ids"])):
        got = client.infer(model, inputs({name: array[i:i + 1] for name, array in rows.items()}))
        for name in LOGITS:
            checks.assert_close(got.as_numpy(name), want.as_numpy(name)[i:i + 1])
    got = client.infer(model, inputs({name: array[::-1].copy() for name, array in rows.items()}))
    assert np.array_equal(got.as_numpy("unique_ids"), rows["unique_ids"][::-1])
    for name in LOGITS:
        checks.assert_close(got.as_numpy(name), want.as_numpy(name)[::-1])


def compression():
    """requests may be compressed by gzip and deflate, and a client may ask for compressed responses"""
    want = client.infer(model, inputs(rows))
    for request in "gzip", "deflate":
        for response in None, "gzip", "deflate":
            for binary in True, False:
                got = client.infer(model, inputs(rows, binary),
                                   request_compression_algorithm=request, response_compression_algorithm=response)
                checks.assert_close(got.as_numpy("start_logits"), want.as_numpy("start_logits"))


def text():
    """questions and passages are text, and offsets count code points"""
    for binary in True, False:
        result = client.infer(text_model, texts([checks.QUESTION], [checks.CONTEXT], binary),
                              outputs=outputs(ANSWER=binary, SCORE=binary, START=binary, END=binary), request_id="text")
        answer = result.as_numpy("ANSWER")
        assert answer.shape == (1, 1), answer.shape
        # The client returns strings of JSON as strings, and binary ones as bytes.
        assert answer[0, 0] == (checks.ANSWER.encode() if binary else checks.ANSWER), answer
        assert (result.as_numpy("START")[0, 0], result.as_numpy("END")[0, 0]) == (checks.START, checks.END)
        assert 0 < result.as_numpy("SCORE")[0, 0] <= 1
        assert result.get_response()["id"] == "text" and result.get_response()["model_name"] == text_model
    both = client.infer(text_model, texts([checks.QUESTION, "How many panes has the lantern?"], [checks.CONTEXT] * 2))
    assert both.as_numpy("ANSWER")[:, 0].tolist() == [checks.ANSWER.encode(), b"twenty-four"], both.as_numpy("ANSWER")
    for i in range(2):
        place = slice(both.as_numpy("START")[i, 0], both.as_numpy("END")[i, 0])
        assert checks.CONTEXT[place].encode() == both.as_numpy("ANSWER")[i, 0]
    with checks.must_fail(InferenceServerException, "[400]", "question 1", "empty"):
        client.infer(text_model, texts([checks.QUESTION, " "], [checks.CONTEXT] * 2))


def ids_and_parameters():
    """ids come back, and the server takes a priority, a timeout and unknown parameters"""
    got = client.infer(model, inputs(rows), request_id="a/\u00e9\"1", priority=1, timeout=30_000_000, parameters={"mine": "yes"})
    assert got.get_response()["id"] == "a/\u00e9\"1", got.get_response()["id"]
    client.infer(model, inputs(rows), priority=2)
    with checks.must_fail(InferenceServerException, "[400]", "priority"):
        client.infer(model, inputs(rows), priority=3)


def asynchronous():
    """each of many requests at once has its own answer"""
    want = client.infer(model, inputs(rows)).as_numpy("start_logits")
    n = len(want)
    waiting = [
        client.async_infer(model, inputs({name: array[i % n:i % n + 1] for name, array in rows.items()}), request_id=str(i))
        for i in range(4 * n)
    ]
    for i, request in enumerate(waiting):
        got = request.get_result()
        assert got.get_response()["id"] == str(i)
        checks.assert_close(got.as_numpy("start_logits"), want[i % n:i % n + 1])


def refusals():
    """a request that cannot run is refused with the reason, and the next one runs"""
    one = {name: array[:1] for name, array in rows.items()}
    without = {name: array for name, array in one.items() if name != "segment_ids"}
    cases = [
        (("[400]", "9 rows", "at most 8"), dict(model_name=model, inputs=inputs({n: np.repeat(a[:1], 9, axis=0) for n, a in rows.items()}))),
        (("[404]", '"another"'), dict(model_name="another", inputs=inputs(one))),
        (("[404]", "version 7"), dict(model_name=model, model_version="7", inputs=inputs(one))),
        (("[400]", '"segment_ids" is missing'), dict(model_name=model, inputs=inputs(without))),
        (("[400]", 'does not have an input "extra"'), dict(model_name=model, inputs=inputs({**without, "extra": one["input_ids"]}))),
        (("[400]", 'does not have an output "pooled"'), dict(model_name=model, inputs=inputs(one), outputs=outputs(pooled=True))),
        (("[400]", "input_mask", "shape"), dict(model_name=model, inputs=inputs({**one, "input_mask": one["input_mask"][:, :-1].copy()}))),
        (("[400]", "rows"), dict(model_name=model, inputs=inputs({**one, "segment_ids": rows["segment_ids"][:2]}))),
        (("[400]", "input_ids", "shape"), dict(model_name=model, inputs=inputs({**one, "input_ids": one["input_ids"][0]}))),
        (("[400]", "input_ids", "-1"), dict(model_name=model, inputs=inputs({**one, "input_ids": -np.ones_like(one["input_ids"])}))),
        (("[400]", "segment_ids", "9"), dict(model_name=model, inputs=inputs({**one, "segment_ids": np.full_like(one["segment_ids"], 9)}))),
        (("[400]", "unique_ids", "shape"), dict(model_name=model, inputs=inputs({**one, "unique_ids": np.zeros((1, 2), np.int32)}))),
        (("[501]", "classification"), dict(model_name=model, inputs=inputs(one), outputs=[http.InferRequestedOutput("start_logits", class_count=3)])),
    ]
    for words, call in cases:
        with checks.must_fail(InferenceServerException, *words):
            client.infer(**call)
    wrong = inputs(one)
    wrong[0] = http.InferInput("input_ids", one["input_ids"].shape, "FP32")
    wrong[0].set_data_from_numpy(one["input_ids"].astype(np.float32))
    with checks.must_fail(InferenceServerException, "[400]", '"input_ids" is FP32', "INT32"):
        client.infer(model, wrong)
    wrong[0].set_data_from_numpy(one["input_ids"].astype(np.float32), binary_data=False)
    with checks.must_fail(InferenceServerException, "[400]", '"input_ids" is FP32', "INT32"):
        client.infer(model, wrong)
    with checks.must_fail(InferenceServerException, "[404]", "shared memory region"):
        wrong[0] = http.InferInput("input_ids", one["input_ids"].shape, "INT32")
        wrong[0].set_shared_memory("region", one["input_ids"].nbytes)
        client.infer(model, wrong)
    client.infer(model, inputs(one))


def not_offered():
    """what Triton has and this server does not have fails cleanly"""
    for call in client.get_cuda_shared_memory_status, client.unregister_cuda_shared_memory:
        with checks.must_fail(InferenceServerException, "[501]", "CUDA shared memory"):
            call()


def settings():
    """the settings of the log and of traces are followed, or refused by name"""
    assert client.get_log_settings()["log_verbose_level"] == 0
    client.update_log_settings({"log_verbose_level": 1})
    assert client.get_log_settings()["log_verbose_level"] == 1
    client.update_log_settings({"log_verbose_level": 0})
    with checks.must_fail(InferenceServerException, "[501]", "log_file"):
        client.update_log_settings({"log_file": "x"})
    client.update_trace_settings(settings={"trace_rate": "5"})
    assert client.get_trace_settings()["trace_rate"] == "5"
    client.update_trace_settings(settings={"trace_rate": None})
    assert client.get_trace_settings()["trace_rate"] == "1"
    with checks.must_fail(InferenceServerException, "[501]", "trace_file"):
        client.update_trace_settings(settings={"trace_file": "x"})


def shared_memory():
    """tensors come from system shared memory and go there"""
    want = client.infer(model, inputs(rows)).as_numpy("start_logits")
    ids = rows["input_ids"]
    handle = shm.create_shared_memory_region("rows", "tfbert-http-rows", ids.nbytes + want.nbytes, create_only=True)
    try:
        shm.set_shared_memory_region(handle, [ids])
        client.register_system_shared_memory("rows", "tfbert-http-rows", ids.nbytes + want.nbytes)
        assert [region["name"] for region in client.get_system_shared_memory_status()] == ["rows"]
        with checks.must_fail(InferenceServerException, "[409]", "already registered"):
            client.register_system_shared_memory("rows", "tfbert-http-rows", 1)
        tensors = [http.InferInput("input_ids", ids.shape, "INT32")]
        tensors[0].set_shared_memory("rows", ids.nbytes)
        tensors += inputs({name: array for name, array in rows.items() if name != "input_ids"})
        wanted = [http.InferRequestedOutput("start_logits"), http.InferRequestedOutput("unique_ids")]
        wanted[0].set_shared_memory("rows", want.nbytes, offset=ids.nbytes)
        result = client.infer(model, tensors, outputs=wanted)
        assert result.get_output("start_logits")["parameters"]["shared_memory_byte_size"] == want.nbytes
        checks.assert_close(shm.get_contents_as_numpy(handle, np.float32, want.shape, offset=ids.nbytes), want)
        np.testing.assert_array_equal(result.as_numpy("unique_ids"), rows["unique_ids"])
        wanted[0].set_shared_memory("rows", want.nbytes, offset=ids.nbytes + 4)
        with checks.must_fail(InferenceServerException, "[400]", "not within shared memory region"):
            client.infer(model, tensors, outputs=wanted)
        client.unregister_system_shared_memory("rows")
        assert [region["name"] for region in client.get_system_shared_memory_status()] == []
    finally:
        shm.destroy_shared_memory_region(handle)
    with checks.must_fail(InferenceServerException, "[400]", "cannot be opened"):
        client.register_system_shared_memory("rows", "tfbert-http-rows", 1)


def statistics():
    """the statistics of a model count its requests, rows, batches and refusals"""
    def now(name):
        stats, = client.get_inference_statistics(name, "1")["model_stats"]
        assert (stats["name"], stats["version"]) == (name, "1")
        return stats

    before, text_before = now(model), now(text_model)
    client.infer(model, inputs(rows))
    with checks.must_fail(InferenceServerException, "[400]"):
        client.infer(model, inputs({**rows, "input_ids": -rows["input_ids"]}))
    after = now(model)
    assert after["inference_count"] == before["inference_count"] + len(rows["input_ids"])
    assert before["execution_count"] < after["execution_count"] <= before["execution_count"] + len(rows["input_ids"])
    assert after["last_inference"] >= before["last_inference"] > 1_700_000_000_000, "milliseconds"
    for key, more in ("success", 1), ("fail", 1), ("queue", 1), ("compute_input", 1), ("compute_infer", 1), ("compute_output", 1), ("cache_hit", 0):
        assert after["inference_stats"][key]["count"] == before["inference_stats"][key]["count"] + more, key
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert after["execution_count"] == sum(batch["compute_infer"]["count"] for batch in after["batch_stats"])
    assert now(text_model)["inference_count"] == text_before["inference_count"]
    client.infer(text_model, texts([checks.QUESTION], [checks.CONTEXT]))
    assert now(text_model)["inference_count"] == text_before["inference_count"] + 1
    assert now(model)["inference_count"] == after["inference_count"]
    assert {m["name"] for m in client.get_inference_statistics()["model_stats"]} == {model, text_model}


checks.run_checks(health, metadata, configuration, binary_and_json, batches, compression, text, ids_and_parameters,
           asynchronous, refusals, not_offered, settings, shared_memory, statistics)
client.close()
