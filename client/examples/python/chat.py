#!/usr/bin/python3
"""A conversation, a line each: chat.py [ADDRESS]   (needs a model with a chat template)

Uses nothing but the proto; see README.md beside this file for the stubs."""

import sys

import grpc
from thimble.v1 import thimble_pb2 as api
from thimble.v1 import thimble_pb2_grpc

address = sys.argv[1] if len(sys.argv) > 1 else "unix:/run/thimble/thimble.sock"
messages = []

with grpc.insecure_channel(address) as channel:
    thimble = thimble_pb2_grpc.ThimbleStub(channel)
    for line in sys.stdin:
        messages.append(api.ChatMessage(role=api.ROLE_USER, content=line.rstrip("\n")))
        answer = ""
        try:
            request = api.ChatRequest(conversation=api.Conversation(messages=messages), max_tokens=100)
            for event in thimble.Chat(request):
                text = event.token.text if event.HasField("token") else event.done.tail
                answer += text
                print(text, end="", flush=True)
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")
        print()
        messages.append(api.ChatMessage(role=api.ROLE_ASSISTANT, content=answer))
