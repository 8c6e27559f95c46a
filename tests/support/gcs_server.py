"""A server that speaks the part of Google Cloud Storage's JSON API that reading objects needs."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit


class GcsServer:
    """One bucket with objects by name."""

    def __init__(self, bucket: str, objects: dict[str, bytes]) -> None:
        self.bucket, self.objects = bucket, objects
        server = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "GcsServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        root = f"/storage/v1/b/{self.bucket}/o"
        path = parts.path.removeprefix("/download")
        name = unquote(path.removeprefix(f"{root}/"))
        if path.rstrip("/") == root:
            names = [name for name in sorted(self.objects) if name.startswith(query.get("prefix", ""))]
            self._json(handler, {"kind": "storage#objects", "items": [self._entry(name) for name in names]})
        elif path.startswith(f"{root}/") and name in self.objects:
            if query.get("alt") == "media" or parts.path != path:
                self._object(handler, self.objects[name])
            else:
                self._json(handler, self._entry(name))
        else:
            self._json(handler, {"error": {"code": 404, "message": "not found"}}, status=404)

    def _entry(self, name: str) -> dict[str, object]:
        data = self.objects[name]
        return {
            "name": name,
            "bucket": self.bucket,
            "size": str(len(data)),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "mediaLink": f"{self.url}/download/storage/v1/b/{self.bucket}/o/{name}?alt=media",
        }

    def _object(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        first, _, last = handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(part)))
        handler.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(part)

    def _json(self, handler: BaseHTTPRequestHandler, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
