"""A server that speaks the part of the Hugging Face hub's protocol that reading a dataset needs."""

import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """One dataset repository; the first `num_failures` requests for a file fail with status 503."""

    def __init__(self, name: str, files: dict[str, bytes], num_failures: int = 0) -> None:
        self.name, self.files, self.num_failures = name, files, num_failures
        self.asked: Counter[str] = Counter()
        server = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self, b"")

            def do_HEAD(self) -> None:
                server.answer(self, b"")

            def do_POST(self) -> None:
                server.answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """Answer one request."""
        path = unquote(urlsplit(handler.path).path)
        api, resolve = f"/api/datasets/{self.name}", f"/datasets/{self.name}/resolve/"
        self.asked[path] += 1
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            self._json(handler, {"_id": "1", "id": self.name, "sha": COMMIT, "siblings": []})
        elif path.startswith(f"{api}/tree/"):
            folder = path.removeprefix(f"{api}/tree/").partition("/")[2]
            names = [name for name in sorted(self.files) if not folder or name.startswith(f"{folder}/")]
            if names:
                self._json(handler, [self._entry(name) for name in names])
            else:
                self._json(handler, {"error": "not found"}, status=404)
        elif path.startswith(f"{api}/paths-info/"):
            found = json.loads(body)["paths"] if body[:1] == b"{" else []
            self._json(handler, [self._entry(name) for name in found if name in self.files])
        elif path.startswith(resolve):
            self._file(handler, path.removeprefix(resolve).partition("/")[2])
        else:
            self._json(handler, {"error": "not found"}, status=404)

    def _entry(self, name: str) -> dict[str, object]:
        data = self.files[name]
        return {"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": name}

    def _file(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        if self.num_failures:
            self.num_failures -= 1
            self._json(handler, {"error": "busy"}, status=503)
            return
        data = self.files[name]
        first, _, last = handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(part)))
        handler.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        handler.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(part)

    def _json(self, handler: BaseHTTPRequestHandler, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        if status == 404:
            handler.send_header("X-Error-Code", "EntryNotFound" if "/tree/" in handler.path else "RepoNotFound")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)
