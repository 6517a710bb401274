"""TensorFlow Serving's own gRPC stubs and tensors, and its REST.

    tensorflow_serving_client.py --http HOST:PORT --grpc HOST:PORT --features X.npz
"""

import base64
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc  # noqa: E402
import numpy as np  # noqa: E402
import requests  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, model_management_pb2,
    model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc, regression_pb2)

import checks  # noqa: E402

args = checks.parse_arguments("features")
model, text_model = args.model, args.model + "_qa"
rest = f"http://{args.http}/v1/models/{model}"
rest_text = f"http://{args.http}/v1/models/{text_model}"
channel = grpc.insecure_channel(args.grpc)
prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
models = model_service_pb2_grpc.ModelServiceStub(channel)
rows = checks.read_windows(args.features, count=3)
rows["unique_ids"] = rows["unique_ids"][:, 0]  # a vector, as the graph has it


class must_be_refused:
    """A block in which a call must fail with a status, and with a message that has all of `words`."""

    def __init__(self, code, *words):
        self.code, self.words = code, words

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        assert kind is not None, f"no error, not {self.code}"
        if not isinstance(error, grpc.RpcError):
            return False
        assert error.code() is self.code, error
        for word in self.words:
            assert word in error.details(), error.details()
        print("    refused:", error.code().name, error.details())
        return True


def request(name=model, tensors=rows, version=None, signature="", only=()):
    """Returns a PredictRequest with the tensors in tensor_content, as tf.make_tensor_proto writes them."""
    r = predict_pb2.PredictRequest()
    r.model_spec.name, r.model_spec.signature_name = name, signature
    if version is not None:
        r.model_spec.version.value = version
    for key, value in tensors.items():
        r.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    r.output_filter.extend(only)
    return r


def predict():
    """Predict takes tensors as content and as lists of values, a version, a signature and an output filter"""
    response = prediction.Predict(request())
    want = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
    assert set(want) == {"start_logits", "end_logits", "unique_ids"}, set(want)
    logits = response.outputs["start_logits"]  # as many clients read them
    assert np.array_equal(np.array(logits.float_val, np.float32), want["start_logits"].ravel()), logits
    assert list(response.outputs["unique_ids"].int_val) == rows["unique_ids"].tolist()
    assert want["start_logits"].shape == rows["input_ids"].shape and want["start_logits"].dtype == np.float32
    assert np.array_equal(want["unique_ids"], rows["unique_ids"]) and want["unique_ids"].dtype == np.int32
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (model, 1, "serving_default"), spec

    values = request(version=1, signature="serving_default", only=["end_logits"])
    for key, array in rows.items():
        tensor = values.inputs[key]
        assert tensor.tensor_content
        tensor.ClearField("tensor_content")
        tensor.int_val.extend(array.ravel().tolist())
    got = prediction.Predict(values).outputs
    assert list(got) == ["end_logits"], got
    checks.assert_close(tf.make_ndarray(got["end_logits"]), want["end_logits"])

    # make_tensor_proto sends a constant as one value, which stands for all of the shape.
    masked = prediction.Predict(request(tensors={**rows, "input_mask": np.ones_like(rows["input_mask"])}))
    constant = request()
    constant.inputs["input_mask"].CopyFrom(tf.make_tensor_proto(1, shape=rows["input_mask"].shape, dtype=tf.int32))
    assert list(constant.inputs["input_mask"].int_val) == [1] and not constant.inputs["input_mask"].tensor_content
    got = prediction.Predict(constant).outputs
    checks.assert_close(tf.make_ndarray(got["start_logits"]), tf.make_ndarray(masked.outputs["start_logits"]))

    # A batch above max_batch_size runs in parts, as in TensorFlow Serving.
    many = {name: np.concatenate([array] * 4) for name, array in rows.items()}
    got = prediction.Predict(request(tensors=many)).outputs["start_logits"]
    checks.assert_close(tf.make_ndarray(got), np.concatenate([want["start_logits"]] * 4))


def predict_text():
    """Predict asks the text-in model, with strings"""
    texts = {"QUESTION": [checks.QUESTION.encode()] * 2, "CONTEXT": [checks.CONTEXT.encode()] * 2}
    outputs = {k: tf.make_ndarray(v) for k, v in prediction.Predict(request(text_model, texts)).outputs.items()}
    assert outputs["ANSWER"].tolist() == [checks.ANSWER.encode()] * 2, outputs
    assert outputs["START"].tolist() == [checks.START] * 2 and outputs["END"].tolist() == [checks.END] * 2, outputs
    assert outputs["SCORE"].dtype == np.float32 and (outputs["SCORE"] > 0).all()


def metadata():
    """GetModelMetadata packs the signatures as TensorFlow's own message"""
    r = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    r.model_spec.name = model
    response = prediction.GetModelMetadata(r)
    assert (response.model_spec.name, response.model_spec.version.value) == (model, 1)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert {k: (v.dtype, [d.size for d in v.tensor_shape.dim]) for k, v in signature.inputs.items()} == {
        "input_ids": (tf.int32, [-1, -1]), "input_mask": (tf.int32, [-1, -1]),
        "segment_ids": (tf.int32, [-1, -1]), "unique_ids": (tf.int32, [-1]),
    }, signature.inputs
    assert {k: v.dtype for k, v in signature.outputs.items()} == {
        "start_logits": tf.float32, "end_logits": tf.float32, "unique_ids": tf.int32}
    assert signature.inputs["input_ids"].name == "input_ids:0"
    with must_be_refused(grpc.StatusCode.INVALID_ARGUMENT, "signature_def"):
        prediction.GetModelMetadata(get_model_metadata_pb2.GetModelMetadataRequest(model_spec=r.model_spec))
    with must_be_refused(grpc.StatusCode.INVALID_ARGUMENT, "assets"):
        prediction.GetModelMetadata(get_model_metadata_pb2.GetModelMetadataRequest(model_spec=r.model_spec, metadata_field=["assets"]))


def status():
    """GetModelStatus lists the versions"""
    r = get_model_status_pb2.GetModelStatusRequest()
    r.model_spec.name = model
    version, = models.GetModelStatus(r).model_version_status
    assert version.version == 1 and version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE, version
    assert version.status.error_code == 0 and version.status.error_message == ""
    r.model_spec.version.value = 1
    assert len(models.GetModelStatus(r).model_version_status) == 1
    r.model_spec.version.value = 7
    with must_be_refused(grpc.StatusCode.NOT_FOUND, model):
        models.GetModelStatus(r)
    with must_be_refused(grpc.StatusCode.NOT_FOUND, "another"):
        r.model_spec.name = "another"
        models.GetModelStatus(r)


def refusals():
    """a request that cannot run is refused with TensorFlow Serving's code"""
    code = grpc.StatusCode
    with must_be_refused(code.NOT_FOUND, "Servable not found for request: Latest(another)"):
        prediction.Predict(request("another"))
    with must_be_refused(code.NOT_FOUND, f"Servable not found for request: Specific({model}, 7)"):
        prediction.Predict(request(version=7))
    with must_be_refused(code.INVALID_ARGUMENT, "label"):
        r = request()
        r.model_spec.version_label = "stable"
        prediction.Predict(r)
    with must_be_refused(code.INVALID_ARGUMENT, '"another"', "serving_default"):
        prediction.Predict(request(signature="another"))
    without = {name: array for name, array in rows.items() if name != "input_mask"}
    with must_be_refused(code.INVALID_ARGUMENT, '"input_mask" is missing'):
        prediction.Predict(request(tensors=without))
    with must_be_refused(code.INVALID_ARGUMENT, '"extra"'):
        prediction.Predict(request(tensors={**without, "extra": rows["input_ids"]}))
    with must_be_refused(code.INVALID_ARGUMENT, "inputs"):
        prediction.Predict(request(tensors={**rows, "extra": rows["input_ids"], "more": rows["input_ids"]}))
    with must_be_refused(code.INVALID_ARGUMENT, '"pooled"'):
        prediction.Predict(request(only=["pooled"]))
    with must_be_refused(code.INVALID_ARGUMENT, "input_ids"):
        prediction.Predict(request(tensors={**rows, "input_ids": rows["input_ids"].astype(np.float32)}))
    with must_be_refused(code.INVALID_ARGUMENT, "input_ids", "BYTES"):
        prediction.Predict(request(tensors={**rows, "input_ids": [["a"]] * 3}))
    with must_be_refused(code.INVALID_ARGUMENT, "input_ids", "shape"):
        prediction.Predict(request(tensors={**rows, "input_ids": rows["input_ids"][0]}))
    with must_be_refused(code.INVALID_ARGUMENT, "shape", "elements"):
        r = request()
        r.inputs["input_ids"].tensor_shape.dim[0].size = 4
        prediction.Predict(r)
    with must_be_refused(code.INVALID_ARGUMENT, "30522"):
        prediction.Predict(request(tensors={**rows, "input_ids": np.full_like(rows["input_ids"], 30522)}))
    for call, r in ((prediction.Classify, classification_pb2.ClassificationRequest()), (prediction.Regress, regression_pb2.RegressionRequest()),
                    (prediction.MultiInference, inference_pb2.MultiInferenceRequest())):
        with must_be_refused(code.UNIMPLEMENTED):
            call(r)
    with must_be_refused(code.INVALID_ARGUMENT, "model_config_list"):
        models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())


def post(url, body, want=200):
    response = requests.post(url, **({"data": body} if isinstance(body, str) else {"json": body}), timeout=120)
    assert response.status_code == want, (response.status_code, response.text)
    assert response.headers["Content-Type"] == "application/json"
    if want != 200:
        print("    refused:", want, response.json()["error"])
        return response.json()["error"]
    return response.json()


def rest_predict():
    """REST in rows and in columns returns the logits of gRPC"""
    want = {name: tf.make_ndarray(tensor) for name, tensor in prediction.Predict(request()).outputs.items()}
    instances = [{name: array[i].tolist() for name, array in rows.items()} for i in range(3)]
    columns = {name: array.tolist() for name, array in rows.items()}
    for url in rest, rest + "/versions/1":
        got = post(url + ":predict", {"signature_name": "serving_default", "instances": instances})["predictions"]
        assert [row["unique_ids"] for row in got] == rows["unique_ids"].tolist()
        checks.assert_close(np.array([row["start_logits"] for row in got], np.float32), want["start_logits"])
        got = post(url + ":predict", {"inputs": columns})["outputs"]
        assert set(got) == set(want)
        checks.assert_close(np.array(got["end_logits"], np.float32), want["end_logits"])


def rest_text_in():
    """REST asks the text-in model, with strings and with base64"""
    def encoded(text):
        return {"b64": base64.b64encode(text.encode()).decode()}

    plain = {"QUESTION": checks.QUESTION, "CONTEXT": checks.CONTEXT}
    in_base64 = {name: encoded(text) for name, text in plain.items()}
    for row in post(rest_text + ":predict", {"instances": [plain, in_base64]})["predictions"]:
        assert (row["ANSWER"], row["START"], row["END"]) == (checks.ANSWER, checks.START, checks.END), row
        assert 0 < row["SCORE"] <= 1
    got = post(rest_text + ":predict", {"inputs": {name: [text] for name, text in in_base64.items()}})["outputs"]
    assert (got["ANSWER"], got["START"]) == ([checks.ANSWER], [checks.START]), got


def rest_status_and_metadata():
    """REST returns status and metadata"""
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for url in rest, rest + "/versions/1":
        response = requests.get(url, timeout=60)
        assert response.status_code == 200 and response.json() == {"model_version_status": [available]}, response.text
        about = requests.get(url + "/metadata", timeout=60).json()
        assert about["model_spec"]["name"] == model and about["model_spec"]["version"] == "1", about
        signature = about["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["inputs"]["input_ids"]["dtype"] == "DT_INT32"
        assert [d["size"] for d in signature["inputs"]["input_ids"]["tensor_shape"]["dim"]] == ["-1", "-1"]
    for url in f"http://{args.http}/v1/models/another", rest + "/versions/7":
        response = requests.get(url, timeout=60)
        assert response.status_code == 404 and response.json()["error"], response.text


def rest_refusals():
    """REST refuses a request that cannot run, with the reason"""
    row = {name: array[0].tolist() for name, array in rows.items()}
    assert "Servable not found for request: Latest(another)" in post(f"http://{args.http}/v1/models/another:predict", {"instances": [row]}, 404)
    assert f"Specific({model}, 7)" in post(rest + "/versions/7:predict", {"instances": [row]}, 404)
    assert "label" in post(rest + "/labels/stable:predict", {"instances": [row]}, 400)
    assert "instances" in post(rest + ":predict", {}, 400)
    assert "instances" in post(rest + ":predict", {"instances": [row], "inputs": row}, 400)
    assert "empty" in post(rest + ":predict", {"instances": []}, 400)
    assert "JSON" in post(rest + ":predict", "{'a': 1}", 400)
    assert '"another"' in post(rest + ":predict", {"signature_name": "another", "instances": [row]}, 400)
    assert '"extra"' in post(rest + ":predict", {"instances": [{**row, "extra": [1]}]}, 400)
    assert "input_ids" in post(rest + ":predict", {"instances": [{**row, "input_ids": ["a"]}]}, 400)
    assert "ragged" in post(rest + ":predict", {"inputs": {name: [[1, 2], [3]] for name in row}}, 400)
    assert "base64" in post(rest_text + ":predict", {"instances": [{"QUESTION": {"b64": "*"}, "CONTEXT": "a"}]}, 400)
    for verb in "classify", "regress":
        assert verb in post(f"{rest}:{verb}", {"examples": [{}]}, 501)
    assert requests.get(rest + ":predict", timeout=60).status_code in (404, 405)


checks.run_checks(predict, predict_text, metadata, status, refusals, rest_predict, rest_text_in, rest_status_and_metadata, rest_refusals)
