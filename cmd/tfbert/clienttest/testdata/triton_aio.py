"""Triton's asyncio clients, over HTTP and gRPC.

    triton_aio.py --http HOST:PORT --grpc HOST:PORT --features X.npz
"""

import asyncio

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

import checks

args = checks.parse_arguments("features")
model, text_model = args.model, args.model + "_qa"
rows = checks.read_windows(args.features, count=5)


def inputs(module, arrays):
    list = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, array.shape, "INT32")
        tensor.set_data_from_numpy(array)
        list.append(tensor)
    return list


def row(module, i):
    i %= len(rows["input_ids"])
    return inputs(module, {name: array[i:i + 1] for name, array in rows.items()})


def question(module):
    list = []
    for name, text in ("QUESTION", checks.QUESTION), ("CONTEXT", checks.CONTEXT):
        tensor = module.InferInput(name, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=object))
        list.append(tensor)
    return list


async def verbs(client, module):
    """Calls every verb that does not change the server."""
    assert await client.is_server_live() and await client.is_server_ready()
    assert await client.is_model_ready(model, "1") and not await client.is_model_ready("another")
    as_json = {} if module is http else {"as_json": True}
    assert (await client.get_server_metadata(**as_json))["name"] == "tfbert"
    assert (await client.get_model_metadata(model, **as_json))["versions"] == ["1"]
    config = await client.get_model_config(model, **as_json)
    assert config.get("config", config)["max_batch_size"] == 8, config
    stats, = (await client.get_inference_statistics(model, **as_json))["model_stats"]
    assert int(stats["inference_count"]) > 0, stats


async def many(client, module):
    """Sends requests at once, each with its own answer, and a question as text."""
    want = (await client.infer(model, inputs(module, rows))).as_numpy("start_logits")
    results = await asyncio.gather(*(client.infer(model, row(module, i), request_id=str(i)) for i in range(20)))
    for i, result in enumerate(results):
        response = result.get_response()
        assert (response["id"] if module is http else response.id) == str(i)
        checks.assert_close(result.as_numpy("start_logits"), want[i % len(want)][None])
    answer = await client.infer(text_model, question(module))
    assert answer.as_numpy("ANSWER")[0, 0].decode() == checks.ANSWER
    assert answer.as_numpy("START")[0, 0] == checks.START
    with checks.must_fail(InferenceServerException, "9 rows", "at most 8"):
        await client.infer(model, inputs(module, {name: np.repeat(array[:1], 9, axis=0) for name, array in rows.items()}))
    return want


async def stream(client, want):
    """A stream answers in order and goes on after a bad request."""
    n, bad = 12, 4

    async def requests():
        for i in range(n):
            yield {"model_name": "another" if i == bad else model, "inputs": row(grpc, i), "request_id": str(i)}

    i = 0
    async for result, error in client.stream_infer(requests()):
        if i == bad:
            assert result is None and "another" in error.message(), (result, error)
        else:
            assert error is None, error
            assert result.get_response().id == str(i)
            checks.assert_close(result.as_numpy("start_logits"), want[i % len(want)][None])
        i += 1
    assert i == n, i

    # The server stays ready when a client goes away in the middle of a stream.
    canceled = client.stream_infer(requests())
    await canceled.__anext__()
    canceled.cancel()
    assert await client.is_server_ready()


async def over_http():
    async with http_aio.InferenceServerClient(args.http) as client:
        want = await many(client, http)
        await verbs(client, http)
        for algorithm in "gzip", "deflate":
            got = await client.infer(model, inputs(http, rows), request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)
            checks.assert_close(got.as_numpy("start_logits"), want)
        return want


async def over_grpc():
    async with grpc_aio.InferenceServerClient(args.grpc) as client:
        want = await many(client, grpc)
        await verbs(client, grpc)
        await stream(client, want)
        return want


def http_client():
    """the asyncio client over HTTP: verbs, many requests at once, compression"""
    http_client.logits = asyncio.run(over_http())


def grpc_client():
    """the asyncio client over gRPC: verbs, many requests at once, a stream"""
    checks.assert_close(asyncio.run(over_grpc()), http_client.logits)


checks.run_checks(http_client, grpc_client)
