#!/usr/bin/python3
"""`thimble chat`, on a terminal and line by line: history, commands, Ctrl-C, the context that is full."""

import json
import os
import signal
import stat
import subprocess

import chat_model
import harness
from terminal import Terminal

UP, CTRL_C, CTRL_D = "\x1b[A", "\x03", "\x04"
ANSWER = ("--max-tokens", "5", "--temperature", "0")


def chat_daemon(test, *options):
    model = chat_model.make(test.scratch)
    return test.daemon(model=model, options=["--enforcement", "none", *options]).ready()


def on_terminal(test, daemon, *options):
    return Terminal(daemon.client("chat", *options), env={"XDG_STATE_HOME": os.path.join(test.scratch, "xdg")})


def line_by_line(daemon, lines, *options):
    return subprocess.run(daemon.client("chat", *options), input="".join(line + "\n" for line in lines), text=True,
                          capture_output=True, timeout=60, check=False)


def saved(path):
    with open(path, encoding="utf-8") as file:
        return [(message["role"], message["content"]) for message in map(json.loads, file)]


def line_by_line_answers_go_to_standard_output_alone(test):
    daemon = chat_daemon(test)
    path = os.path.join(test.scratch, "saved")
    said = line_by_line(daemon, ["hello", "", "and again", "//no command", f"/save {path}"], *ANSWER)
    assert said.returncode == 0, said.stderr
    messages = saved(path)
    assert [role for role, _ in messages] == ["user", "assistant"] * 3
    assert [messages[i][1] for i in (0, 2, 4)] == ["hello", "and again", "/no command"]
    assert said.stdout == "".join(messages[i][1] + "\n" for i in (1, 3, 5)), "the answers and nothing else"
    # The same, said by the daemon in one go: the history was sent.
    loaded = line_by_line(daemon, [f"/load {path}", "/retry", f"/save {path}"], *ANSWER)
    assert loaded.returncode == 0 and saved(path) == messages, "greedy: a retry is the same answer"
    daemon.stop()


def errors_end_it_line_by_line(test):
    daemon = chat_daemon(test)
    assert line_by_line(daemon, ["/frobnicate"]).returncode == 2
    nothing = line_by_line(daemon, ["/load " + os.path.join(test.scratch, "nothing")])
    assert nothing.returncode == 1 and "No such file" in nothing.stderr
    noise = subprocess.run(daemon.client("chat"), input=b"caf\xe9\n", capture_output=True, timeout=60, check=False)
    assert noise.returncode == 2 and b"byte 0xe9 at offset 3" in noise.stderr, noise.stderr
    long = line_by_line(daemon, ["a" * 6000], *ANSWER)
    assert long.returncode == 1 and "OUT_OF_RANGE" in long.stderr, long.stderr
    daemon.stop()


def a_full_context_leaves_the_oldest_out(test):
    daemon = chat_daemon(test, "--context", "256")
    path = os.path.join(test.scratch, "saved")
    said = line_by_line(daemon, [f"question {n} " + "x" * 30 for n in range(12)] + [f"/save {path}"],
                        "--system", "be brief", *ANSWER)
    assert said.returncode == 0, said.stderr
    assert "left out" in said.stderr, said.stderr
    messages = saved(path)
    assert messages[0] == ("system", "be brief"), "the instructions stay"
    questions = [content for role, content in messages if role == "user"]
    assert "question 11 " + "x" * 30 == questions[-1] and len(questions) < 12, questions
    daemon.stop()


def a_model_without_a_template_is_said_so(test):
    daemon = test.daemon(options=["--enforcement", "none"]).ready()
    said = line_by_line(daemon, ["hello"])
    assert said.returncode == 1 and "FAILED_PRECONDITION" in said.stderr, said.stderr
    assert "thimble generate" in said.stderr, said.stderr
    daemon.stop()


def a_terminal_has_history_and_commands(test):
    daemon = chat_daemon(test)
    history = os.path.join(test.scratch, "xdg/thimble/chat_history")
    with on_terminal(test, daemon, *ANSWER) as chat:
        at = chat.wait_for("/help lists the commands")
        chat.type("hello wörld\r")
        at = chat.wait_for("> ", after=chat.wait_for("hello wörld", after=at))
        chat.type("/system speak softly\r/system\r")
        at = chat.wait_for("speak softly", after=chat.wait_for("/system\r\n", after=at))
        chat.type('"""one\rtwo"""\r')
        at = chat.wait_for("... ", after=at)
        at = chat.wait_for("> ", after=at)
        chat.type("/stats\r")
        chat.wait_for("Statistics after each answer", after=at)
        chat.type("/quit\r")
        assert chat.finish() == 0
    assert stat.S_IMODE(os.stat(history).st_mode) == 0o600, "what one says is nobody else's"
    with on_terminal(test, daemon, *ANSWER) as chat:
        at = chat.wait_for("> ", after=chat.wait_for("/help lists"))
        chat.type(UP + UP)  # /quit, /stats
        chat.wait_for("/stats", after=at)
        chat.type(UP * 6 + "\r")
        chat.wait_for("hello wörld", after=at)
        # The answer's own text may look like a prompt: Ctrl-D counts at the one behind it alone.
        harness.wait_until(lambda: not chat.read(0.2) and daemon.number("active_requests") == 0 and
                           chat.output.rstrip().endswith(">"), 30, "the prompt behind the answer")
        chat.type(CTRL_D)
        assert chat.finish() == 0
    daemon.stop()


def ctrl_c_stops_the_answer_and_not_the_program(test):
    daemon = chat_daemon(test)
    with on_terminal(test, daemon, "--max-tokens", "400", "--temperature", "1", "--seed", "1") as chat:
        at = chat.wait_for("> ", after=chat.wait_for("/help lists"))
        for _ in range(30):  # an answer may end by itself before it is stopped
            chat.type("hello\r")
            at = chat.wait_for("hello", after=at)
            harness.wait_until(lambda: chat.read(0.01) or len(chat.output) > at + 20, 20, "an answer")
            # Held meanwhile: the model is so small that the rest takes no longer than to press a key.
            daemon.process.send_signal(signal.SIGSTOP)
            try:
                chat.type(CTRL_C)
                at = chat.wait_for("\n> ", after=at)
            finally:
                daemon.process.send_signal(signal.SIGCONT)
            if "(stopped)" in chat.output:
                break
        assert "(stopped)" in chat.output, chat.output[-2000:]
        harness.wait_until(lambda: daemon.number("active_requests") == 0, 5, "nothing is computed")
        chat.type("half a line" + CTRL_C)  # at the prompt: the line is left
        at = chat.wait_for("> ", after=chat.wait_for("/quit leaves", after=at))
        chat.type("/quit\r")
        assert chat.finish() == 0
    daemon.stop()


def an_answer_goes_on_after_kill_9(test):
    model = chat_model.make(test.scratch)
    daemon = test.daemon(model=model, options=["--enforcement", "none"]).ready()
    options = ("--max-tokens", "300", "--temperature", "1", "--seed", "2")
    whole = subprocess.run(daemon.client("chat", *options), input=b"hello\n", capture_output=True, timeout=60,
                           check=True).stdout.decode()
    with subprocess.Popen(daemon.client("chat", *options), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as chat:
        try:
            chat.stdin.write(b"hello\n")
            chat.stdin.flush()
            head = os.read(chat.stdout.fileno(), 4)
            daemon.kill()
            daemon = test.daemon(model=model, state=daemon.state, options=["--enforcement", "none"]).ready()
            rest, errors = chat.communicate(timeout=60)
            assert chat.returncode == 0, errors
        finally:
            chat.kill()
    assert (head + rest).decode() == whole
    daemon.stop()


if __name__ == "__main__":
    harness.main(line_by_line_answers_go_to_standard_output_alone, errors_end_it_line_by_line,
                 a_full_context_leaves_the_oldest_out, a_model_without_a_template_is_said_so,
                 a_terminal_has_history_and_commands, ctrl_c_stops_the_answer_and_not_the_program,
                 an_answer_goes_on_after_kill_9)
