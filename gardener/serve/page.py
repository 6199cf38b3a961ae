"""The page at `/`: files that come with the package, and nothing from anywhere else.

No build step: what lies in `page/` is what a browser gets. Its content security policy lets it run
its own scripts and ask its own server, and no more.
"""

from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gardener.serve.errors import ApiError

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""`trusted-types 'none'`: no text ever becomes markup, the browser itself sees to that."""


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """The content and type of each file of the page, by its name."""
    folder = files("gardener.serve").joinpath("page")
    found = {each.name: each for each in folder.iterdir()}
    return {
        name: (each.read_bytes(), kind)
        for name, each in found.items()
        if (kind := KINDS.get("." + name.rpartition(".")[2]))
    }


def _file(name: str) -> Response:
    if name not in _files():
        raise ApiError(404, f"the page has no file {name}", code="unknown_path")
    content, kind = _files()[name]
    return Response(content, headers={**HEADERS, "content-type": kind})


async def index(request: Request) -> Response:
    """The page itself."""
    return _file("index.html")


async def part(request: Request) -> Response:
    """A style sheet, a script or the icon."""
    return _file(request.path_params["name"])


ROUTES = (Route("/", index), Route("/page/{name}", part))
