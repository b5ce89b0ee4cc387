"""A carrier to try triage with: `python carrier.py` answers at http://127.0.0.1:8008 until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PARCELS = Path(__file__).with_name("parcels.json")
PORT = 8008


class Carrier(BaseHTTPRequestHandler):
    """Answers `GET /parcels/NUMBER` with the parcel's status, or 404."""

    def do_GET(self) -> None:
        """Answer one request."""
        status = json.loads(PARCELS.read_text("utf-8")).get(self.path.removeprefix("/parcels/"))
        body = json.dumps({"status": status} if status else {"error": "no such parcel"}).encode()
        self.send_response(200 if status else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def serve(port: int = PORT) -> ThreadingHTTPServer:
    """Return a server on localhost, which `serve_forever` runs; port 0 chooses one."""
    return ThreadingHTTPServer(("127.0.0.1", port), Carrier)


if __name__ == "__main__":
    print(f"answers at http://127.0.0.1:{PORT}; Ctrl-C stops it", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        serve().serve_forever()
