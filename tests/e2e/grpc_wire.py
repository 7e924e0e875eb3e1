"""gRPC spoken over a raw socket, for tests that open thousands of calls, or speak it badly on purpose.

HTTP/2 with the header compression's dynamic table switched off, so that what the server sends can be read
without keeping state. Standard library only. Memory: some KiB a connection, and the events of open calls.
"""

import socket
import struct
import time

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK, PADDED = 1, 4, 1, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 0, 1, 4, 8, 14
REFUSED_STREAM, CANCEL = 7, 8  # HTTP/2's


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def hpack_string(text):
    data = text.encode()
    assert len(data) < 127
    return bytes([len(data)]) + data


def header_block(pairs):
    """Literals that are not indexed."""
    return b"".join(b"\0" + hpack_string(name) + hpack_string(value) for name, value in pairs)


def hpack_integer(block, at, bits):
    value = block[at] & ((1 << bits) - 1)
    at += 1
    if value < (1 << bits) - 1:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def headers_of(block):
    """Name to value, of those headers that do not come from the static table alone."""
    found, at = {}, 0
    while at < len(block):
        byte = block[at]
        if byte & 128:
            _, at = hpack_integer(block, at, 7)
        elif byte & 224 == 32:  # a change of the table's size
            _, at = hpack_integer(block, at, 5)
        else:
            index, at = hpack_integer(block, at, 6 if byte & 64 else 4)
            texts = []
            for _ in range(2 if index == 0 else 1):
                coded = block[at] & 128
                length, at = hpack_integer(block, at, 7)
                texts.append("" if coded else block[at:at + length].decode("latin-1"))
                at += length
            if index == 0:
                found[texts[0]] = texts[1]
    return found


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields_of(message):
    """(field number, value) of a protobuf message: integers, or bytes."""
    at = 0
    while at < len(message):
        key, at = read_varint(message, at)
        if key & 7 == 0:
            value, at = read_varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(key & 7)
            if size is None:
                size, at = read_varint(message, at)
            value = message[at:at + size]
            at += size
        yield key >> 3, value


def generate_request(prompt, max_tokens):
    """thimble.v1.GenerateRequest: prompt = 1, max_tokens = 3, ignore_eos = 6."""
    text = prompt.encode()
    return b"\x0a" + varint(len(text)) + text + b"\x18" + varint(max_tokens) + b"\x30\x01"


class Call:
    """One call: how it went."""

    def __init__(self, method):
        self.method, self.data, self.messages = method, b"", []
        self.status, self.message, self.reset = None, "", None
        self.began = time.monotonic()
        self.ended = None

    @property
    def done(self):
        return self.ended is not None

    def take(self, data):
        self.data += data
        while len(self.data) >= 5 and len(self.data) >= 5 + struct.unpack(">I", self.data[1:5])[0]:
            size = struct.unpack(">I", self.data[1:5])[0]
            self.messages.append(self.data[5:5 + size])
            self.data = self.data[5 + size:]

    def events(self):
        """The kinds of a Generate call's events, by field number of the oneof."""
        return [next(fields_of(message))[0] for message in self.messages]


class Connection:
    """A connection and its calls. Nothing is read unless pump() is called."""

    def __init__(self, address, window=1 << 20, timeout=10.0):
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self.socket.settimeout(0)
        self.out, self.read, self.block = b"", b"", b""
        self.calls, self.next_stream, self.max_streams = {}, 1, 100
        self.closed, self.goaway = False, ""
        self.ready = False  # the server has sent its settings
        settings = struct.pack(">HIHI", 1, 0, 4, window)  # no dynamic table; a call's window
        self.write(PREFACE + frame(SETTINGS, 0, 0, settings) +
                   frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", window)))

    def write(self, data):
        self.out += data
        self.flush()

    def flush(self):
        try:
            while self.out and not self.closed:
                self.out = self.out[self.socket.send(self.out):]
        except BlockingIOError:
            pass
        except OSError:
            self.end("the connection was cut")

    def open(self, method, message=b"", timeout=None):
        stream, call = self.next_stream, Call(method)
        self.next_stream += 2
        self.calls[stream] = call
        call.stream = stream
        pairs = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"),
                 ("content-type", "application/grpc"), ("te", "trailers")]
        if timeout is not None:
            pairs.append(("grpc-timeout", f"{max(1, int(timeout * 1000))}m"))
        self.write(frame(HEADERS, END_HEADERS, stream, header_block(pairs)) +
                   frame(DATA, END_STREAM, stream, b"\0" + struct.pack(">I", len(message)) + message))
        return call

    def generate(self, prompt, max_tokens, timeout=None):
        return self.open("/thimble.v1.Thimble/Generate", generate_request(prompt, max_tokens), timeout)

    def cancel(self, call):
        if not call.done:
            self.write(frame(RST_STREAM, 0, call.stream, struct.pack(">I", CANCEL)))
            self.finish(call, CANCELLED, "cancelled here")

    def finish(self, call, status, message):
        call.status, call.message, call.ended = status, message, time.monotonic()
        self.calls.pop(call.stream, None)

    def end(self, why):
        self.closed = True
        self.socket.close()
        for call in list(self.calls.values()):
            self.finish(call, UNAVAILABLE, self.goaway or why)

    def close(self):
        if not self.closed:
            self.end("closed here")

    def pump(self):
        """Reads and answers what is there."""
        self.flush()
        while not self.closed:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.end("the server has closed the connection")
                return
            self.read += data
            at = 0
            while len(self.read) - at >= 9:
                size = struct.unpack(">I", b"\0" + self.read[at:at + 3])[0]
                if len(self.read) - at < 9 + size:
                    break
                kind, flags = self.read[at + 3], self.read[at + 4]
                stream = struct.unpack(">I", self.read[at + 5:at + 9])[0]
                self.take(kind, flags, stream, self.read[at + 9:at + 9 + size])
                at += 9 + size
            self.read = self.read[at:]

    def take(self, kind, flags, stream, payload):
        call = self.calls.get(stream)
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                key, value = struct.unpack(">HI", payload[at:at + 6])
                if key == 3:
                    self.max_streams = value
            self.ready = True
            self.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.goaway = payload[8:].decode("latin-1")
        elif kind == DATA:
            if payload:
                grant = struct.pack(">I", len(payload))
                self.write(frame(WINDOW_UPDATE, 0, 0, grant) + frame(WINDOW_UPDATE, 0, stream, grant))
            if call:
                call.take(payload)
        elif kind in (HEADERS, CONTINUATION):
            self.block = payload if kind == HEADERS else self.block + payload
            headers = headers_of(self.block) if flags & END_HEADERS else {}
            if call and "grpc-status" in headers:
                self.finish(call, int(headers["grpc-status"]), headers.get("grpc-message", ""))
        elif kind == RST_STREAM and call:
            call.reset = struct.unpack(">I", payload)[0]
            self.finish(call, UNAVAILABLE, f"reset with {call.reset}")


def run(connections, done, seconds):
    """Pumps until done() holds; False where the time is over first."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        for connection in connections:
            connection.pump()
        time.sleep(0.001)
    return True
