"""Stands for the package xllamacpp in a child process: a server with slots, whose tokens are words.

A journal beside the model has a line for each chat (tokens of the prompt, tokens cached) and each restored slot.
The answer repeats the last message, word by word, and calls the first tool of a request with tools. A word of the
question plays a fault: `crash` ends the process in mid-answer, `hang` stops it there, `cut` ends the answer without a
finish reason.
"""

import itertools
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit


class CommonParams:
    """The parameters that a test may look at."""

    def __init__(self):
        self.model = SimpleNamespace(path="")
        self.cpuparams = SimpleNamespace(n_threads=-1)
        self.cpuparams_batch = SimpleNamespace(n_threads=-1)
        self.n_batch, self.n_ubatch = 2048, 512


def get_device_info():
    """No GPU."""
    return [{"name": "CPU"}]


class Server:
    """Serves until the process ends. A model file that holds `broken` cannot be loaded."""

    def __init__(self, params):
        model = Path(params.model.path).read_text("latin-1")
        if "exit" in model:
            os._exit(3)
        os.write(2, b"loading\n")
        while "endless" in model:  # without a moment for other threads, as native code
            pass
        if "broken" in model:
            os.write(2, b"0.00.005.684 E llama_model_load: error loading model: it is broken\n")
            raise RuntimeError("Failed to init server, please check the input params.")
        os.write(1, b"native code prints where it likes\n")
        http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        http.params = params
        http.slots = [[] for _ in range(params.n_parallel)]
        http.window = params.n_ctx // params.n_parallel
        threading.Thread(target=http.serve_forever, daemon=True).start()
        self.listening_address = f"http://127.0.0.1:{http.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/health":
            self.answer(200, {"status": "ok"})
        elif not self.allowed():
            pass
        elif path == "/props":
            self.answer(200, {"default_generation_settings": {"n_ctx": self.server.window}})
        else:
            self.answer(404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = urlsplit(self.path)
        if not self.allowed():
            return
        if parts.path == "/tokenize":
            content = body["content"]  # texts, and tokens, which stay as they are
            self.note("tokenize")
            known = [part for part in content if isinstance(part, str)] if "texts only" in content else content
            tokens = [range(len(part.split())) if isinstance(part, str) else [part] for part in known]
            self.answer(200, {"tokens": list(itertools.chain.from_iterable(tokens))})
        elif parts.path == "/apply-template":
            self.answer(200, {"prompt": " ".join(_words(body["messages"]))})
        elif parts.path.startswith("/slots/"):
            self.slot(int(parts.path.split("/")[2]), parse_qs(parts.query)["action"][0], body["filename"])
        elif parts.path == "/v1/chat/completions":
            self.chat(body)
        else:
            self.answer(404, {})

    def allowed(self):
        if self.headers["Authorization"] in [f"Bearer {key}" for key in self.server.params.api_keys]:
            return True
        self.answer(401, {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}})
        return False

    def slot(self, index, action, name):
        path = Path(self.server.params.slot_save_path + name)
        try:
            if action == "save":
                path.write_text(json.dumps(self.server.slots[index]))
            else:
                self.server.slots[index] = json.loads(path.read_text())
                self.note("restore")
        except OSError:
            self.answer(400, {"error": {"code": 400, "message": f"Unable to {action} slot"}})
        else:
            self.answer(200, {"id_slot": index, "filename": name})

    def note(self, line):
        with Path(self.server.params.model.path).with_suffix(".journal").open("a") as journal:
            journal.write(f"{line}\n")

    def chat(self, body):
        index, prompt = body["id_slot"], _words(body["messages"])
        if body["messages"][0]["content"] == "alternate" and len(body["messages"]) < 3:
            self.answer(400, {"error": {"code": 400, "message": "roles must alternate"}})
            return
        if len(prompt) >= self.server.window:
            message = f"request ({len(prompt)} tokens) exceeds the available context size"
            counts = {"n_prompt_tokens": len(prompt), "n_ctx": self.server.window}
            error = {"code": 400, "message": message, "type": "exceed_context_size_error", **counts}
            self.answer(400, {"error": error})
            return
        held = self.server.slots[index]
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(held, prompt, strict=False))
        cached = min(sum(1 for _ in same), len(prompt) - 1)
        self.note(f"chat {len(prompt)} {cached}")
        words = body["messages"][-1]["content"].split()[: body.get("max_tokens") or None]
        self.server.slots[index] = [*prompt, *words]
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(words),
            "total_tokens": len(prompt) + len(words),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        head = {"id": "chatcmpl-fake", "created": 1, "model": "fake"}
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": " ".join(words)}}
            self.answer(200, {**head, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        head["object"] = "chat.completion.chunk"
        for word in words:
            self.event({**head, "choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]})
            if word == "crash":
                os._exit(9)
            if word == "hang":
                os.kill(os.getpid(), signal.SIGSTOP)
                threading.Event().wait()  # the other threads stop a moment later
        reason = None if "cut" in words else "stop"
        if "tools" in body:
            reason, name = "tool_calls", body["tools"][0]["function"]["name"]
            call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"a":1}'}}
            self.event({**head, "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]})
        self.event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        self.event({**head, "choices": [], "usage": usage})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def event(self, data):
        self.chunk(b"data: " + json.dumps(data).encode() + b"\n\n")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _words(messages):
    return [word for message in messages for word in [f"<{message['role']}>", *message["content"].split()]]
