#!/usr/bin/env python3
"""Compare 'tfbert serve' with the same model offline, using 'tfbert predict' and 'tfbert bench --url'.

    python3 scripts/bench_serve.py --data dev-v1.1.json

Every round measures, one after the other: the offline throughput over a sample of the questions, the
server's throughput at saturation, its latency with one client, and its latency at half of that round's
saturation. The script prints each round, the medians, the memory of idle connections, and the commands
that it ran.
"""
import argparse
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
TFBERT = str(ROOT / "bin" / "tfbert")


def run(*command):
    print("$", "tfbert", *command[1:], file=sys.stderr)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


class Server:
    def __init__(self, model, flags):
        self.process = subprocess.Popen(
            [TFBERT, "serve", "--model", model, "--model_name", "m", "--http_port", "0", "--grpc_port", "0", *flags],
            stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r'msg="serving HTTP" address=(\S+)', line):
                self.address = found[1]
            if "ask questions at" in line:
                break
        else:
            sys.exit("bench_serve: the server ended before it was ready")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def resident(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()


def bench(server, data, *flags):
    out = run(TFBERT, "bench", "--url", "http://" + server.address, "--predict_file", data, "--format", "json", *flags)
    return json.loads(out)[0]


def idle(server, count):
    """Open connections, send a request over each, and return by how much the server's memory grows."""
    host, port = server.address.rsplit(":", 1)
    before, connections = server.resident(), []
    for _ in range(count):
        c = socket.create_connection((host, int(port)))
        c.sendall(b"GET /healthz HTTP/1.1\r\nHost: idle\r\n\r\n")
        c.recv(4096)
        connections.append(c)
    more = server.resident() - before
    for c in connections[:: count // 10]:  # the server must not have closed them
        c.sendall(b"GET /healthz HTTP/1.1\r\nHost: idle\r\n\r\n")
        assert c.recv(4096).startswith(b"HTTP/1.1 200")
    for c in connections:
        c.close()
    return more


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="SQuAD file")
    parser.add_argument("--model", help="SavedModel (default: the bundled checkpoint's fused graph)")
    parser.add_argument("--every", type=int, default=12, help="take every n-th paragraph")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64, help="number of clients at saturation")
    parser.add_argument("--interval", default="5s", help="duration of a measurement (default: 5s)")
    parser.add_argument("--connections", type=int, default=10000, help="number of idle connections")
    parser.add_argument("--serve_flags", default="", help="flags for the server")
    args = parser.parse_args()
    os.chdir(ROOT)
    subprocess.run(["go", "build", "-o", TFBERT, "./cmd/tfbert"], check=True)
    with tempfile.TemporaryDirectory() as temp:
        model = args.model
        if not model:
            model = os.path.join(temp, "model")
            run(TFBERT, "export", "testdata/models/minilm-squad", model, "--graph", "fused")
        data, sample = os.path.join(temp, "sample.json"), json.load(open(args.data))
        paragraphs = [p for article in sample["data"] for p in article["paragraphs"]][:: args.every]
        sample["data"] = [{"title": "sample", "paragraphs": paragraphs}]
        json.dump(sample, open(data, "w"))
        print(sum(len(p["qas"]) for p in paragraphs), "questions", file=sys.stderr)

        server, rounds = Server(model, args.serve_flags.split()), []
        flags = ["--measurement_interval", args.interval, "--num_warmup_iterations"]
        for _ in range(args.rounds):
            predicted = json.loads(run(TFBERT, "predict", "--model", model, "--predict_file", data,
                                       "--output_dir", temp, "--json"))
            full = bench(server, data, *flags, "256", "--concurrency", str(args.clients))
            alone = bench(server, data, *flags, "20")
            rate = f"{full['throughput'] / 2:.1f}"
            half = [bench(server, data, *flags, "20", "--concurrency", "1024", "--request_rate", rate,
                          "--request_distribution", how) for how in ("constant", "poisson")]
            offline = predicted["questions"] / predicted["seconds"]
            rounds.append({
                "offline, questions/s": offline,
                "saturated, questions/s": full["throughput"],
                "saturated / offline": full["throughput"] / offline,
                "one client, median ms": alone["latency_ms"]["p50"],
                "one client, p99 ms": alone["latency_ms"]["p99"],
                "overhead over the model, median ms": alone["overhead_ms"]["p50"],
                "half load in equal steps, p99 ms": half[0]["latency_ms"]["p99"],
                "half load in equal steps, p99 / one client's":
                    half[0]["latency_ms"]["p99"] / alone["latency_ms"]["p99"],
                "half load at random, p99 ms": half[1]["latency_ms"]["p99"],
                "half load at random, p99 / one client's":
                    half[1]["latency_ms"]["p99"] / alone["latency_ms"]["p99"],
            })
            print(json.dumps(rounds[-1]), file=sys.stderr)
        memory = idle(server, args.connections)
        server.stop()
    print("| | median | range |\n| --- | --- | --- |")
    for name in rounds[0]:
        values = [r[name] for r in rounds]
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |")
    print(f"| {args.connections} idle connections, MiB | {memory:.0f} | |")


if __name__ == "__main__":
    main()
