"""Triton's clients list, unload and load models, with the admin token if the server asks for one.

    triton_repository.py --http HOST:PORT --grpc HOST:PORT [--token T]
"""

import json

import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

import checks

args = checks.parse_arguments("token")
model, text_model = args.model, args.model + "_qa"
headers = {"authorization": "Bearer " + args.token} if args.token else {}
over_http = http.InferenceServerClient(args.http, network_timeout=300)
over_grpc = grpc.InferenceServerClient(args.grpc)


def index(client):
    entries = client.get_model_repository_index(headers=headers)
    if client is over_grpc:
        return {m.name: (m.version, m.state, m.reason) for m in entries.models}
    return {m["name"]: (m["version"], m["state"], m.get("reason", "")) for m in entries}


def token():
    """the server lists, loads and unloads models only for a client with the admin token"""
    for client, status in (over_http, "[401]"), (over_grpc, "UNAUTHENTICATED"):
        for wrong in {}, {"authorization": "Bearer " + args.token[:-1]}, {"authorization": args.token}:
            with checks.must_fail(InferenceServerException, status, "admin token"):
                client.get_model_repository_index(headers=wrong)
            with checks.must_fail(InferenceServerException, status, "admin token"):
                client.unload_model(model, headers=wrong)
            with checks.must_fail(InferenceServerException, status, "admin token"):
                client.load_model(model, headers=wrong)
        assert client.is_model_ready(model)


def reload():
    """a model is listed, unloaded and loaded again, over HTTP and gRPC"""
    ready = {model: ("1", "READY", ""), text_model: ("1", "READY", "")}
    for client, other in (over_http, over_grpc), (over_grpc, over_http):
        assert index(client) == ready, index(client)
        client.unload_model(model, headers=headers)
        assert not client.is_model_ready(model) and not client.is_model_ready(text_model)
        assert client.is_server_ready(), "a server is ready without a model that was unloaded"
        assert index(other) == {model: ("1", "UNAVAILABLE", "unloaded")}, index(other)
        with checks.must_fail(InferenceServerException, "not available: unloaded"):
            client.get_model_metadata(model)
        with checks.must_fail(InferenceServerException, "not available: unloaded"):
            other.get_model_config(model)
        client.load_model(model, headers=headers)
        assert other.is_model_ready(model) and other.is_model_ready(text_model)
        client.load_model(model, headers=headers)  # again, while it is loaded
        assert index(other) == ready, index(other)


def override():
    """a load may bring a configuration, which holds until the next load"""
    def batch():
        return over_http.get_model_config(model)["max_batch_size"]

    own = batch()
    for client, size in (over_http, own + 1), (over_grpc, own + 2):
        config = over_http.get_model_config(model)
        config["max_batch_size"] = size
        config.pop("dynamic_batching", None)
        client.load_model(model, headers=headers, config=json.dumps(config))
        assert batch() == size, batch()
        client.load_model(model, headers=headers)
        assert batch() == own, batch()


def refusals():
    """another model, files of the client's own and a wrong configuration are refused"""
    for client, missing, unsupported, invalid in (
            (over_http, "[404]", "[501]", "[400]"), (over_grpc, "NOT_FOUND", "UNIMPLEMENTED", "INVALID_ARGUMENT")):
        with checks.must_fail(InferenceServerException, missing, '"another"'):
            client.load_model("another", headers=headers)
        with checks.must_fail(InferenceServerException, missing, '"another"'):
            client.unload_model("another", headers=headers)
        with checks.must_fail(InferenceServerException, unsupported, "file:1/model.savedmodel"):
            client.load_model(model, headers=headers, config="{}", files={"file:1/model.savedmodel": b"x"})
        with checks.must_fail(InferenceServerException, invalid, "max_bach_size"):
            client.load_model(model, headers=headers, config='{"max_bach_size": 1}')
        assert client.is_model_ready(model)
    with checks.must_fail(InferenceServerException, "NOT_FOUND", '"../'):  # a path, which HTTP cannot name
        over_grpc.load_model("../" + model, headers=headers)


checks.run_checks(*([token] if args.token else []), reload, override, refusals)
over_http.close()
over_grpc.close()
