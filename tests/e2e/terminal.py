"""A program on a terminal of its own (a pty), for the tests of what people see.

Standard library only. Memory: what the program prints.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time


class Terminal:
    """`command` with its standard streams on a pty, but for those given by name (stdout=PIPE)."""

    def __init__(self, command, columns=100, rows=30, env=None, **streams):
        self.master, self.slave = pty.openpty()
        self.resize(columns, rows, tell=False)
        self.attributes = termios.tcgetattr(self.slave)
        self.output = ""
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(env or {})}

        def own_terminal():
            os.setsid()
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(command, env=environment, preexec_fn=own_terminal,
                                        **{"stdin": self.slave, "stdout": self.slave, "stderr": self.slave, **streams})

    def resize(self, columns, rows, tell=True):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def read(self, seconds):
        """What is there, waiting at most so long for something."""
        if select.select([self.master], [], [], seconds)[0]:
            self.output += os.read(self.master, 65536).decode("utf-8", errors="replace")

    def wait_for(self, text, seconds=30, after=0):
        """Until the output behind `after` contains the text; where it ends."""
        end = time.monotonic() + seconds
        while text not in self.output[after:]:
            assert time.monotonic() < end, f"not within {seconds} s: {text!r} in {self.output[after:]!r}"
            self.read(0.05)
        return self.output.index(text, after) + len(text)

    def type(self, text):
        os.write(self.master, text.encode())

    def finish(self, seconds=20):
        """The exit status; what is left to read is read."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it goes on after {seconds} s: {self.output[-500:]!r}"
            self.read(0.05)
        while select.select([self.master], [], [], 0.05)[0]:
            self.read(0)
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
