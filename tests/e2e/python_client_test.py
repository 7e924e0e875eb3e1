#!/usr/bin/python3
"""Debian's python3-grpcio against thimbled, knowing nothing but the .proto files: every method, cancelling,
deadlines, health, reflection. The stubs are made here by protoc."""

import os
import subprocess
import sys
import tempfile
import threading

import chat_model
import grpc
import harness
from harness import SOURCE, wait_until

STUBS = tempfile.TemporaryDirectory(prefix="thimble-stubs-")
PROTOS = ["thimble/v1/thimble.proto", "grpc/health/v1/health.proto", "grpc/reflection/v1alpha/reflection.proto"]
subprocess.run(["protoc", "-I", os.path.join(SOURCE, "proto"), "--python_out", STUBS.name, "--grpc_python_out",
                STUBS.name, "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin", *PROTOS], check=True)
# The stubs' own packages would hide grpc's ("grpc.health"): they get names of their own.
for proto in PROTOS[1:]:
    for suffix in ("_pb2.py", "_pb2_grpc.py"):
        path = os.path.join(STUBS.name, proto.replace(".proto", suffix))
        with open(path, encoding="utf-8") as file:
            text = file.read()
        package = os.path.dirname(proto).replace("/", ".")
        name = os.path.basename(path)
        with open(os.path.join(STUBS.name, name), "w", encoding="utf-8") as file:
            file.write(text.replace(f"from {package} import", "import"))
sys.path.insert(0, STUBS.name)
import health_pb2
import health_pb2_grpc
import reflection_pb2
import reflection_pb2_grpc
from google.protobuf import descriptor_pb2
from thimble.v1 import thimble_pb2 as pb
from thimble.v1 import thimble_pb2_grpc

USER, SYSTEM, ASSISTANT = pb.ROLE_USER, pb.ROLE_SYSTEM, pb.ROLE_ASSISTANT
SECONDS = 60  # no call takes this long


class Served:
    def __init__(self, test, *options):
        self.daemon = test.daemon(model=chat_model.make(test.scratch),
                                  options=["--enforcement", "none", *options]).ready()
        self.channel = grpc.insecure_channel("unix:" + self.daemon.socket)
        self.thimble = thimble_pb2_grpc.ThimbleStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def end(self):
        self.channel.close()
        self.daemon.stop()


def conversation(*messages):
    return pb.Conversation(messages=[pb.ChatMessage(role=role, content=content) for role, content in messages])


def collect(stream):
    """A generation's events: its kinds in order, ids, text, and how it was done."""
    kinds, ids, text, done = [], [], "", None
    for event in stream:
        kind = event.WhichOneof("event")
        if not kinds or kinds[-1] != kind:
            kinds.append(kind)
        if kind == "token":
            assert event.token.index == len(ids)
            ids.append(event.token.id)
            text += event.token.text
        if kind == "done":
            done = event.done
            text += done.tail
    return kinds, ids, text, done


def refusal(call, *arguments, **options):
    """The error of a call that must fail."""
    try:
        response = call(*arguments, timeout=SECONDS, **options)
        if hasattr(response, "__iter__"):
            for _ in response:
                pass
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


GREEDY = pb.SamplingOptions(temperature=0)


def generate_streams_its_events(test):
    served = Served(test)
    request = pb.GenerateRequest(prompt="hello there", max_tokens=9, sampling=GREEDY, ignore_eos=True,
                                 log_probabilities=True)
    events = list(served.thimble.Generate(request, timeout=SECONDS))
    assert all(event.token.HasField("log_probability") and event.token.log_probability <= 0
               for event in events if event.HasField("token"))
    kinds, ids, _, done = collect(events)
    assert kinds == ["queued", "started", "prompt_progress", "token", "done"], kinds
    assert len(ids) == 9 == done.generated_tokens and done.reason == pb.FINISH_REASON_LENGTH
    assert done.total_seconds >= done.first_token_seconds > 0
    request.log_probabilities = False
    again = list(served.thimble.Generate(request, timeout=SECONDS))
    assert collect(again)[1] == ids, "the same text"
    assert not any(event.token.HasField("log_probability") for event in again if event.HasField("token"))
    log = served.daemon.log()
    assert "method=Generate" in log and f"pid={os.getpid()} uid={os.getuid()} gid={os.getgid()}" in log, log
    served.end()


def chat_is_generate_with_the_models_template(test):
    served = Served(test)
    messages = conversation((SYSTEM, "Short."), (USER, "One"), (ASSISTANT, "Two"), (USER, "Three </s>"))
    tokens = served.thimble.Tokenize(pb.TokenizeRequest(conversation=messages, pieces=True), timeout=SECONDS)
    text = b"".join(tokens.pieces).decode()
    model = served.thimble.GetModel(pb.GetModelRequest(), timeout=SECONDS)
    assert model.chat_template == "zephyr" and not model.chat_template_note
    assert tokens.ids[0] == model.bos_id and list(tokens.ids).count(model.bos_id) == 1
    ends = [i for i in tokens.ids if i in model.end_ids]
    assert len(ends) == 4, f"one a message, and none of the text's own </s>: {ends}"
    assert text.replace(" ", "").endswith("<|user|>\nThree</s></s>\n<|assistant|>\n".replace(" ", "")), text
    options = {"max_tokens": 8, "sampling": GREEDY, "ignore_eos": True}
    chat = collect(served.thimble.Chat(pb.ChatRequest(conversation=messages, **options), timeout=SECONDS))
    plain = collect(served.thimble.Generate(pb.GenerateRequest(tokens=pb.TokenIds(ids=tokens.ids), **options),
                                            timeout=SECONDS))
    assert chat[1] == plain[1] and chat[2] == plain[2] and chat[3].prompt_tokens == len(tokens.ids)
    error = refusal(served.thimble.Chat, pb.ChatRequest(conversation=conversation((ASSISTANT, "One"))))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "messages[0].role" in error.details()
    served.end()


def a_cancel_frees_the_slot(test):
    served = Served(test, "--max-active", "1")
    stream = served.thimble.Generate(pb.GenerateRequest(prompt="a", max_tokens=500, ignore_eos=True))
    for event in stream:
        if event.HasField("token"):
            break
    stream.cancel()
    wait_until(lambda: served.thimble.GetStatus(pb.GetStatusRequest()).active_requests == 0, 20, "the slot is free")
    assert collect(served.thimble.Generate(pb.GenerateRequest(prompt="b", max_tokens=1), timeout=SECONDS))[3]
    served.end()


def a_deadline_is_kept(test):
    served = Served(test)
    request = pb.GenerateRequest(prompt="a", max_tokens=500, ignore_eos=True)
    try:
        collect(served.thimble.Generate(request, timeout=0.05))
        raise AssertionError("500 tokens within 50 ms")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    wait_until(lambda: served.thimble.GetStatus(pb.GetStatusRequest()).active_requests == 0, 20, "it is given up")
    served.end()


def a_full_queue_says_when_to_try_again(test):
    served = Served(test, "--max-active", "1", "--max-queue", "1")
    waiting = [served.thimble.Generate(pb.GenerateRequest(prompt="a", max_tokens=500, ignore_eos=True))
               for _ in range(8)]
    errors = []

    def drain(stream):
        try:
            collect(stream)
        except grpc.RpcError as error:
            errors.append(error)

    threads = [threading.Thread(target=drain, args=(stream,)) for stream in waiting]
    for thread in threads:
        thread.start()
    wait_until(lambda: errors, 20, "one is refused")
    error = errors[0]
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
    pushback = dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")
    assert pushback and int(pushback) > 0, error.trailing_metadata()
    assert "try again in" in error.details(), error.details()
    for stream in waiting:
        stream.cancel()
    for thread in threads:
        thread.join()
    served.end()


def health_is_told_and_watched(test):
    served = Served(test)
    check = health_pb2.HealthCheckRequest
    for service in ("", "thimble.v1.Thimble"):
        assert served.health.Check(check(service=service), timeout=SECONDS).status == 1
    assert refusal(served.health.Check, check(service="nobody")).code() == grpc.StatusCode.NOT_FOUND
    watch = served.health.Watch(check(service="thimble.v1.Thimble"))
    assert next(watch).status == 1
    served.daemon.process.terminate()
    assert next(watch).status == 2, "NOT_SERVING when it stops"
    assert watch.code() == grpc.StatusCode.UNAVAILABLE
    served.channel.close()
    assert served.daemon.exit_status() == 0


def without_json_names(definition):
    """protoc writes fields' JSON names into a file's description, Python's own copy has none."""
    for message in getattr(definition, "message_type", None) or getattr(definition, "nested_type", ()):
        without_json_names(message)
    for field in getattr(definition, "field", ()):
        field.ClearField("json_name")
    return definition


def reflection_lists_what_there_is(test):
    served = Served(test, "--reflection")
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    question = reflection_pb2.ServerReflectionRequest
    answers = list(stub.ServerReflectionInfo(iter([question(list_services="*"),
                                                   question(file_containing_symbol="thimble.v1.Thimble")]),
                                             timeout=SECONDS))
    names = [service.name for service in answers[0].list_services_response.service]
    assert names == ["thimble.v1.Thimble", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"], names
    file = descriptor_pb2.FileDescriptorProto.FromString(
        answers[1].file_descriptor_response.file_descriptor_proto[0])
    own = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(own)
    assert without_json_names(file) == without_json_names(own)
    served.end()


def tokens_make_a_round_trip(test):
    served = Served(test)
    for text in ("hello there", "", "<s> and </s>", "grüß dich 漢", "  two  spaces\n"):
        tokens = served.thimble.Tokenize(pb.TokenizeRequest(text=text, pieces=True), timeout=SECONDS)
        assert len(tokens.pieces) == len(tokens.ids)
        back = served.thimble.Detokenize(pb.DetokenizeRequest(ids=tokens.ids), timeout=SECONDS)
        assert back.text == text and not back.raw, (text, back)
    special = served.thimble.Tokenize(pb.TokenizeRequest(text="a</s>b", parse_special=True, add_special=False))
    assert 2 in special.ids
    shown = served.thimble.Detokenize(pb.DetokenizeRequest(ids=special.ids, show_special=True))
    assert shown.text == "a</s>b", shown
    error = refusal(served.thimble.Detokenize, pb.DetokenizeRequest(ids=[5, 512]))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "ids[1] 512: from 0 to 511" in error.details()
    error = refusal(served.thimble.Tokenize, pb.TokenizeRequest(text="a" * 40000))
    assert error.code() == grpc.StatusCode.OUT_OF_RANGE and "40000" in error.details(), error.details()
    served.end()


def model_plan_and_status_agree(test):
    served = Served(test, "--context", "300", "--granularity", "head")
    model = served.thimble.GetModel(pb.GetModelRequest(), timeout=SECONDS)
    assert (model.architecture, model.layers, model.heads, model.kv_heads) == ("llama", 2, 8, 2)
    assert model.context_tokens == 300 and model.trained_context_tokens == 512 and model.vocabulary == 512
    assert model.tensor_types[0].type == "Q8_0" and len(model.fingerprint) == 16 and model.parameters > 1000000
    plan = served.thimble.GetPlan(pb.GetPlanRequest(), timeout=SECONDS)
    assert plan.granularity == "head" and len(plan.stages) == plan.stages_total == len(plan.groups)
    assert plan.stages[0].kind == "embed" and not plan.stages[0].HasField("layer")
    assert sum(stage.weight_bytes for stage in plan.stages) == plan.model_bytes == model.weight_bytes
    assert sum(stage.resident_weight_bytes for stage in plan.stages) == plan.model_bytes - plan.pass_bytes
    parts = (plan.ring_bytes, plan.values_bytes, plan.resident_bytes, plan.kv_bytes)
    assert plan.kv_bytes > 0 and plan.peak_bytes == sum(parts), parts
    part = served.thimble.GetPlan(pb.GetPlanRequest(first_stage=3, max_stages=2), timeout=SECONDS)
    assert list(part.stages) == list(plan.stages[3:5])
    error = refusal(served.thimble.GetPlan, pb.GetPlanRequest(first_stage=10000))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "first_stage 10000" in error.details()
    status = served.thimble.GetStatus(pb.GetStatusRequest(), timeout=SECONDS)
    assert status.plan_peak_bytes == plan.peak_bytes and status.ready and not status.not_ready_reason
    served.end()


def the_status_is_watched(test):
    served = Served(test)
    watch = served.thimble.WatchStatus(pb.WatchStatusRequest(interval_seconds=0.2), timeout=SECONDS)
    first = next(watch)
    collect(served.thimble.Generate(pb.GenerateRequest(prompt="a", max_tokens=3, ignore_eos=True)))
    wait_until(lambda: next(watch).generated_tokens_total == 3, 20, "the tokens are told")
    times = [next(watch).uptime_seconds for _ in range(4)]
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert first.ready and all(gap > 0.05 for gap in gaps), gaps
    for seconds in (0, 0.05, 61, float("nan")):
        error = refusal(served.thimble.WatchStatus, pb.WatchStatusRequest(interval_seconds=seconds))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "from 0.1 to 60" in error.details()
    served.daemon.process.terminate()
    last = None
    try:
        for status in watch:
            last = status
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    assert last is not None and not last.ready and last.not_ready_reason.startswith("stopping"), last
    assert served.daemon.exit_status() == 0


def what_is_too_large_is_refused_with_numbers(test):
    served = Served(test)
    limit = served.thimble.GetModel(pb.GetModelRequest()).max_request_bytes
    error = refusal(served.thimble.Generate, pb.GenerateRequest(prompt="a" * (limit + 1)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and str(limit) in error.details(), error.details()
    for _ in range(20):
        error = refusal(served.thimble.Generate, pb.GenerateRequest(prompt="a" * (4 << 20)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
    assert served.thimble.GetStatus(pb.GetStatusRequest(), timeout=SECONDS).ready
    served.end()


if __name__ == "__main__":
    harness.main(generate_streams_its_events, chat_is_generate_with_the_models_template, a_cancel_frees_the_slot,
                 a_deadline_is_kept, a_full_queue_says_when_to_try_again, health_is_told_and_watched,
                 reflection_lists_what_there_is, tokens_make_a_round_trip, model_plan_and_status_agree,
                 the_status_is_watched, what_is_too_large_is_refused_with_numbers)
