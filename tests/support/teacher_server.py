"""A teacher model for tests: a real HTTP server whose answers are right, slow, endless, invalid or missing."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Handler = BaseHTTPRequestHandler
Behaviour = Callable[[Handler, dict[str, Any], int], None]


def completion(content: str, reasoning: str = "I think.", finish: str = "stop", tokens: object = 100) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": {"total_tokens": tokens}}


def send(handler: Handler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def send_json(handler: Handler, value: Any) -> None:
    send(handler, 200, json.dumps(value).encode())


def drip(handler: Handler, seconds: float = 30, part: bytes = b" ") -> None:
    """Send one byte at a time, without end as far as the client can tell."""
    handler.send_response(200)
    handler.end_headers()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        handler.wfile.write(part)
        handler.wfile.flush()
        time.sleep(0.02 if len(part) == 1 else 0)


class Teacher:
    """Serves `behaviour(handler, body, how often this body was sent)`; records requests and answers."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.listed: list[dict[str, Any]] | None = None  # the models that the server states
        teacher = self

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                num_bytes = int(self.headers["Content-Length"])
                data = self.rfile.read(num_bytes).decode()
                if len(data.encode()) < num_bytes:
                    return  # the client was killed while sending
                teacher.asked[data] += 1
                teacher.headers.append(dict(self.headers))
                teacher.paths.append(self.path)
                try:
                    behaviour(self, json.loads(data), teacher.asked[data])
                    self.wfile.flush()
                    teacher.answered[data] += 1
                except OSError:
                    self.close_connection = True

            def do_GET(self) -> None:
                if teacher.listed is None or self.path != "/v1/models":
                    send(self, 404, b"")
                else:
                    send_json(self, {"object": "list", "data": teacher.listed})

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "Teacher":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
