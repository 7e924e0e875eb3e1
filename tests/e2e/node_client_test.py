#!/usr/bin/python3
"""npm's @grpc/grpc-js against thimbled (node/client_test.js). The packages that node/package-lock.json names, with
their checksums, are fetched once into a directory beside the programs."""

import os
import shutil
import subprocess

import chat_model
import harness

NODE = os.path.join(harness.SOURCE, "tests/e2e/node")


def installed(directory):
    """The test and its packages in `directory`, which may be there from the last time."""
    os.makedirs(directory, exist_ok=True)
    lock = os.path.join(directory, "package-lock.json")
    with open(os.path.join(NODE, "package-lock.json"), encoding="utf-8") as file:
        wanted = file.read()
    have = None
    if os.path.exists(lock) and os.path.exists(os.path.join(directory, "installed")):
        with open(lock, encoding="utf-8") as file:
            have = file.read()
    for name in ("package.json", "package-lock.json", "client_test.js"):
        shutil.copy(os.path.join(NODE, name), directory)
    if have != wanted:
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=directory, check=True,
                       stdin=subprocess.DEVNULL, timeout=300)
        with open(os.path.join(directory, "installed"), "w", encoding="ascii") as file:
            file.write("all of package-lock.json\n")
    return directory


def node_speaks_to_the_daemon(test):
    directory = installed(os.path.join(os.path.dirname(test.thimbled), "node-client"))
    daemon = test.daemon(model=chat_model.make(test.scratch), options=["--enforcement", "none", "--reflection"]).ready()
    done = subprocess.run(["node", "client_test.js", os.path.join(harness.SOURCE, "proto"), "unix:" + daemon.socket],
                          cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    print(done.stdout, end="")
    assert done.returncode == 0, done.stdout + done.stderr
    daemon.stop()


if __name__ == "__main__":
    harness.main(node_speaks_to_the_daemon)
