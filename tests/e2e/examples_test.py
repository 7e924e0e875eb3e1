#!/usr/bin/python3
"""client/examples, run as their README files say: Python with stubs from protoc, Node with npm's packages."""

import os
import subprocess

import chat_model
import harness
import node_client_test

EXAMPLES = os.path.join(harness.SOURCE, "client/examples")
FREE = ["--enforcement", "none"]


def run(command, environment, lines=""):
    return subprocess.run(command, env={**os.environ, **environment}, input=lines, capture_output=True, text=True,
                          timeout=120, check=False)


def they_stream_and_chat(test, program, environment):
    """`program` is the command that runs an example by its name, without its ending."""
    story = test.daemon(options=FREE).ready()
    said = run([*program("generate"), "unix:" + story.socket, "Once upon a time"], environment)
    assert said.returncode == 0, said.stderr
    whole = story.generate("Once upon a time", "--max-tokens", 60, "--temperature", 0.7, "--seed", 1).require()
    assert said.stdout == whole.text + "\n" and "60 tokens in" in said.stderr, said
    refused = run([*program("chat"), "unix:" + story.socket], environment, "hello\n")
    assert refused.returncode == 1 and "FAILED_PRECONDITION" in refused.stderr, refused.stderr
    story.stop()
    nobody = run([*program("generate"), "unix:" + story.socket, "Once"], environment)
    assert nobody.returncode == 1 and "UNAVAILABLE" in nobody.stderr, nobody.stderr

    chat = test.daemon(model=chat_model.make(test.scratch), options=FREE).ready()
    said = run([*program("chat"), "unix:" + chat.socket], environment, "hello\nand again\n")
    assert said.returncode == 0 and len(said.stdout) > 20, said.stderr
    assert chat.number("requests_total") == 2
    chat.stop()


def python(test):
    stubs = os.path.join(test.scratch, "stubs")
    os.mkdir(stubs)
    subprocess.run(["protoc", "-I", "proto", "--python_out=" + stubs, "--grpc_python_out=" + stubs,
                    "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin", "proto/thimble/v1/thimble.proto"],
                   cwd=harness.SOURCE, check=True)
    they_stream_and_chat(test, lambda name: ["/usr/bin/python3", os.path.join(EXAMPLES, "python", name + ".py")],
                         {"PYTHONPATH": stubs, "PYTHONDONTWRITEBYTECODE": "1"})


def node(test):
    packages = node_client_test.installed(os.path.join(os.path.dirname(test.thimbled), "node-client"))
    they_stream_and_chat(test, lambda name: ["node", os.path.join(EXAMPLES, "node", name + ".js")],
                         {"NODE_PATH": os.path.join(packages, "node_modules")})


if __name__ == "__main__":
    harness.main(python, node)
