"""A language model server of known latency: sleeps, then answers with the words of the data in reverse order.

    python benchmarks/sleeping_server.py 0.1

Implements the OpenAI protocol. Prints its address and serves until its standard input closes.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def handler(seconds: float) -> type[BaseHTTPRequestHandler]:
    """Return a handler class that answers each request after `seconds`, concurrently with others."""

    class Sleeping(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(seconds)
            text = request["messages"][-1]["content"].partition("<data>\n")[2].partition("\n</data>")[0]
            words = " ".join(reversed(text.split()))
            body = json.dumps(
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "sleeping",
                    "choices": [
                        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": words}}
                    ],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Sleeping


@contextmanager
def sleeping_server(seconds: float) -> Iterator[str]:
    """Start the server in a separate process and yield its base URL; the process stops at the end of the context."""
    with subprocess.Popen(
        [sys.executable, __file__, str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield server.stdout.readline().strip()
        server.stdin.close()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(float(sys.argv[1])))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    sys.stdin.read()
