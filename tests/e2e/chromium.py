"""Chromium, headless, over its DevTools protocol on two pipes: standard library only, no port, no driver.

Called by page_test.py. Everything the page says on its console, every exception and every request is kept.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find():
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="thimble-chromium-")
        ours_out, theirs_in = os.pipe(), os.pipe()
        # Chromium reads its commands from descriptor 3 and answers on 4.
        to_browser_r, self.write_fd = ours_out
        self.read_fd, from_browser_w = theirs_in

        def descriptors():
            high = [os.dup2(fd, target) for fd, target in ((to_browser_r, 20), (from_browser_w, 21))]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)
            for fd in high:
                os.close(fd)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
             "--disable-extensions", "--disable-sync", f"--user-data-dir={self.profile}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=descriptors)
        os.close(to_browser_r)
        os.close(from_browser_w)
        self.buffer, self.number, self.replies = b"", 0, {}
        self.console, self.errors, self.requests = [], [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    session = None

    def call(self, method, seconds=60, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        number, end = self.number, time.monotonic() + seconds
        while number not in self.replies:
            left = end - time.monotonic()
            assert left > 0, f"{method}: no reply within {seconds} s"
            self.read(left)
        reply = self.replies.pop(number)
        assert "error" not in reply, f"{method}: {reply.get('error')}"
        return reply["result"]

    def read(self, seconds):
        """Takes what has come, waiting up to `seconds` for something."""
        if not select.select([self.read_fd], [], [], seconds)[0]:
            return
        data = os.read(self.read_fd, 1 << 20)
        assert data, "Chromium has ended"
        *messages, self.buffer = (self.buffer + data).split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self.replies[message["id"]] = message
                continue
            what = message["params"]
            if message["method"] == "Runtime.consoleAPICalled":
                self.console.append(what["type"] + ": " + " ".join(str(a.get("value")) for a in what["args"]))
            elif message["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(what["exceptionDetails"])[:500])
            elif message["method"] == "Log.entryAdded":
                self.errors.append(f"{what['entry']['level']}: {what['entry']['text']} {what['entry'].get('url', '')}")
            elif message["method"] == "Network.requestWillBeSent":
                self.requests.append(what["request"]["url"])

    def watch(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(min(0.2, max(0, end - time.monotonic())))

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def window(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 500)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def picture(self, path):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for fd in (self.write_fd, self.read_fd):
            os.close(fd)
        shutil.rmtree(self.profile, ignore_errors=True)
