#!/usr/bin/python3
"""Text after a prompt, as it comes: generate.py [ADDRESS] PROMPT

Uses nothing but the proto; see README.md beside this file for the stubs."""

import sys

import grpc
from thimble.v1 import thimble_pb2 as api
from thimble.v1 import thimble_pb2_grpc

address = sys.argv[1] if len(sys.argv) > 2 else "unix:/run/thimble/thimble.sock"
request = api.GenerateRequest(prompt=sys.argv[-1], max_tokens=60,
                              sampling=api.SamplingOptions(temperature=0.7, seed=1))

with grpc.insecure_channel(address) as channel:
    thimble = thimble_pb2_grpc.ThimbleStub(channel)
    try:
        for event in thimble.Generate(request):
            kind = event.WhichOneof("event")
            if kind == "queued":
                print(f"[place {event.queued.position} in the queue]", file=sys.stderr)
            elif kind == "token":
                print(event.token.text, end="", flush=True)
            elif kind == "done":
                print(event.done.tail)
                print(f"[{event.done.generated_tokens} tokens in {event.done.total_seconds:.2f} s]",
                      file=sys.stderr)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
