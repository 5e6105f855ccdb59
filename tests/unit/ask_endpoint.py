"""A small OpenAI-compatible server on loopback that fails as real ones do. Used by the tests of ask and
remote."""

import contextlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyEndpoint:
    """`plan(number)` names the fault of request `number` (0, 1, ...) or None: 429, 500, 400, 401, "cut",
    "junk", "empty", "slow", "schema" (good JSON that is not what was asked for). Good answers echo the last message;
    where a schema was given, `{"said": ...}`. `answered` counts good replies per message. With `remembers` a
    request whose Idempotency-Key was answered before is answered again without being paid again. A request with
    `stream` is answered in pieces of 8 characters."""

    def __init__(self, plan=lambda number: None, delay=0.0, reply=None, remembers=False):
        self.plan, self.delay, self.reply, self.remembers = plan, delay, reply, remembers
        self.memory = {}
        self.pieces = 0  # of streams, sent
        self.lock = threading.Lock()
        self.number = self.now = self.most = self.tokens = 0
        self.answered = Counter()
        self.bodies = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format, *args):  # quiet
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with endpoint.lock:
                    number, endpoint.number = endpoint.number, endpoint.number + 1
                    endpoint.now += 1
                    endpoint.most = max(endpoint.most, endpoint.now)
                    endpoint.bodies.append((self.path, body))
                try:
                    time.sleep(endpoint.delay)
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        self.answer(endpoint.plan(number), body)
                finally:
                    with endpoint.lock:
                        endpoint.now -= 1

            def answer(self, fault, body):
                if fault == "slow":
                    time.sleep(1.0)
                if isinstance(fault, int):
                    headers = {"retry-after": "0.01"} if fault == 429 else {}
                    return self.send(fault, b'{"error": {"message": "planned"}}', headers)
                if fault == "junk":
                    return self.send(200, b'{"choices": [{"mess')
                if fault == "empty":
                    return self.send(200, b"{}")
                key = self.headers.get("idempotency-key", "")
                value = endpoint.memory.get(key) if endpoint.remembers else None
                if value is None:
                    value = endpoint.value(self.path, body)
                    endpoint.memory[key] = value
                if fault == "schema":
                    value = json.loads(json.dumps(value))
                    value["choices"][0]["message"]["content"] = '{"other": [1, 2]}'
                if body.get("stream"):
                    return self.stream(value, fault)
                data = json.dumps(value).encode()
                if fault == "cut":
                    self.close_connection = True
                    return self.send(200, data[: len(data) // 2], {"content-length": str(len(data))})
                return self.send(200 if value is not None else 404, data)

            def stream(self, value, fault):
                self.close_connection = True
                self.send_response(200)
                self.send_header("connection", "close")
                self.end_headers()
                text = value["choices"][0]["message"]["content"]
                pieces = [text[i : i + 8] for i in range(0, len(text), 8)]
                if fault == "cut":
                    pieces = pieces[: len(pieces) // 2]
                events = [{"choices": [{"index": 0, "delta": {"content": p}}]} for p in pieces]
                if fault != "cut":
                    events += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
                    events += [{"choices": [], "usage": value["usage"]}]
                for event in events:
                    self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                    self.wfile.flush()
                    endpoint.pieces += 1
                    time.sleep(0.001 if len(events) > 100 else 0)
                if fault != "cut":
                    self.wfile.write(b"data: [DONE]\n\n")

            def send(self, status, data, headers=None):
                self.send_response(status)
                for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):  # a client that went away is no news
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def value(self, path, body):
        if self.reply is not None:
            return self.reply(path, body)
        said = body["messages"][-1]["content"]
        with self.lock:
            self.answered[said] += 1
            self.tokens += 30
        text = json.dumps({"said": said}) if body.get("response_format") else f"echo {said}"
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 20, "completion_tokens": 10}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
