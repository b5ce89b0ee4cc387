"""Scripts and styles as they are served: ours without comments and indentation, which are for who reads them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_TYPES = {".js": "text/javascript", ".css": "text/css"}
_KEPT = 64


class Assets(StaticFiles):
    """Serves a folder."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file; of ours what a browser needs of it."""
        try:
            full, found = self.lookup_path(path)
        except (OSError, ValueError):  # a name that no file can have
            return await super().get_response(path, scope)
        file = Path(full)
        if found is None or file.suffix not in _TYPES or file.name.endswith(".min.js"):
            return await super().get_response(path, scope)
        return Response(served_as(file, found.st_mtime_ns), media_type=_TYPES[file.suffix])


@lru_cache(maxsize=_KEPT)
def served_as(file: Path, _changed_ns: int = 0) -> str:
    """Return a script or style of ours without indentation and without lines that are comments.

    So none may have a text of several lines.
    """
    lines = (line.strip() for line in file.read_text("utf-8").splitlines())
    return "\n".join(
        line for line in lines if line and not line.startswith("//") and not (line[:2] == "/*" and line[-2:] == "*/")
    )
