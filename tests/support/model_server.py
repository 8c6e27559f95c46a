"""An OpenAI-compatible server with a tiny exported model; as a script it replaces vLLM in the tests."""

import argparse
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.teacher_server import Behaviour, Handler, send, send_json


def answering(folder: Path, names: tuple[str, ...] = ("m",)) -> Behaviour:
    """Greedy chat completions of the model in `folder`, with token counts like a real server's."""
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer
    from acc_megatron.evaluate.models.chat_ids import chat_ids
    from acc_megatron.evaluate.models.generate import Sampling, generate, load_model

    model, tokenizer, one_at_a_time = load_model(folder), load_tokenizer("qwen3"), threading.Lock()

    def answer(handler: Handler, body: dict[str, Any], _: int) -> None:
        if body["model"] not in names:
            send(handler, 404, json.dumps({"error": {"message": f"no model {body['model']}"}}).encode())
            return
        ids = chat_ids(body["messages"], tokenizer)
        with one_at_a_time:
            made = generate(model, ids, tokenizer, body["max_tokens"], Sampling(temperature=body["temperature"]))
        message = {"role": "assistant", "content": made.text}
        usage = {"prompt_tokens": len(ids), "completion_tokens": made.num_new_tokens}
        usage["total_tokens"] = sum(usage.values())
        choice = {"index": 0, "message": message, "finish_reason": "length" if made.cut else "stop"}
        send_json(handler, {"object": "chat.completion", "choices": [choice], "usage": usage})

    return answer


def main() -> None:
    """`vllm serve FOLDER --served-model-name NAME --port PORT ...`; other options are ignored."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--served-model-name")
    parser.add_argument("--port", type=int)
    options, _ = parser.parse_known_args()
    if "bad" in options.folder.name:
        raise SystemExit("this folder cannot be served")
    time.sleep(0.3)  # not ready at once
    ends_when_asked = "mortal" in options.folder.name
    behaviour = None if ends_when_asked else answering(options.folder, (options.served_model_name,))

    class Serving(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            send(self, 200 if self.path == "/health" else 404, b"")

        def do_POST(self) -> None:
            if behaviour is None:
                print("no such kernel", flush=True)
                os._exit(3)
            data = self.rfile.read(int(self.headers["Content-Length"]))
            behaviour(self, json.loads(data), 1)

        def log_message(self, *_: object) -> None:
            pass

    print(f"serving in process {os.getpid()}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", options.port), Serving).serve_forever()


if __name__ == "__main__":
    main()
