"""TensorFlow Serving's own stubs move a label between two versions of a model.

    tensorflow_serving_labels.py --http HOST:PORT --grpc HOST:PORT --model M --base DIR
"""

import grpc
import requests
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

import checks

args = checks.parse_arguments("base")
models = model_service_pb2_grpc.ModelServiceStub(grpc.insecure_channel(args.grpc))


def reload(stable, versions):
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(f"""model_config_list {{ config {{
        name: "{args.model}" base_path: "{args.base}" model_platform: "tensorflow"
        model_version_policy {{ specific {{ versions: {versions} }} }}
        version_labels {{ key: "stable" value: {stable} }} }} }}""", config)
    return models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(config=config))


def version(label):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version_label = args.model, label
    status, = models.GetModelStatus(request).model_version_status
    return status.version


def ask(label):
    body = {"instances": [{"QUESTION": checks.QUESTION, "CONTEXT": checks.CONTEXT}]}
    r = requests.post(f"http://{args.http}/v1/models/{args.model}_qa/labels/{label}:predict", json=body, timeout=60)
    assert r.status_code == 200, r.text
    return r.json()["predictions"][0]["ANSWER"]


def labels():
    """a label answers over REST and gRPC, and moves to another version"""
    assert version("stable") == 1 and ask("stable") == checks.ANSWER
    assert reload(2, [1, 2]).status.error_code == 0
    assert version("stable") == 2 and ask("stable") == checks.ANSWER
    assert reload(2, [2]).status.error_code == 0
    assert version("stable") == 2


def refusals():
    """a configuration that cannot be served takes nothing away"""
    for stable, versions, word in (3, [2], "version 3"), (9, [9], "no version to serve"):
        try:
            reload(stable, versions)
        except grpc.RpcError as error:
            assert word in error.details(), error.details()
        else:
            raise AssertionError("no error")
        assert version("stable") == 2 and ask("stable") == checks.ANSWER


checks.run_checks(labels, refusals)
