"""Who may ask, and what every response carries."""

import pytest
from loopback import run
from served import MODEL, served

from gardener.errors import UserError
from gardener.serve.access import MOST_BODY
from gardener.serve.settings import ServeSettings

KEY = "a-key"


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", "Bearer a-ke", "Basic a-key", KEY, "Bearer schlüssel"]
)
def test_without_the_key_nothing_is_answered(given: str) -> None:
    async def scenario() -> None:
        async with served(api_key=KEY) as made:
            for method, path in [("GET", "/v1/models"), ("POST", "/v1/completions"), ("GET", "/x")]:
                call = await made.call(method, path, authorization=given).end()
                assert call.status == 401
                assert call.error["type"] == "authentication_error"
                assert call.error["code"] == "invalid_api_key"
                assert KEY not in call.error["message"]
                assert call.headers["www-authenticate"] == "Bearer"

    run(scenario)


def test_with_the_key_it_is() -> None:
    async def scenario() -> None:
        async with served(api_key=KEY) as made:
            for given in (f"Bearer {KEY}", f"bearer  {KEY} "):
                assert (await made.get("/v1/models", authorization=given)).status == 200

    run(scenario)


def test_probes_need_no_key() -> None:
    async def scenario() -> None:
        async with served(api_key=KEY) as made:
            for path in ("/health", "/ready", "/version"):
                assert (await made.get(path)).status == 200

    run(scenario)


def test_why_it_is_not_ready_is_told_to_who_may_ask() -> None:
    async def scenario() -> None:
        async with served(stands=False, api_key=KEY) as made:
            call = await made.get("/ready")
            assert call.status == 503
            assert "stage 2" not in call.error["message"]
            assert "retry-after" in call.headers
            call = await made.get("/ready", authorization=f"Bearer {KEY}")
            assert (call.status, call.error["message"]) == (503, "stage 2 is missing")

    run(scenario)


def test_a_body_whose_length_is_said_twice_is_refused() -> None:
    async def scenario() -> None:
        async with served() as made:
            twice = {"content_length": "5", "transfer_encoding": "chunked"}
            call = await made.call("POST", "/v1/completions", b"hello", **twice).end()
            assert (call.status, call.error["code"]) == (400, "invalid_http")
            assert call.headers["connection"] == "close"

    run(scenario)


def test_a_page_from_elsewhere_gets_nothing_from_a_server_without_a_key() -> None:
    async def scenario() -> None:
        async with served(cors=("https://chat.example",)) as made:
            for name in ("evil.example", "evil.example:8000", "localhost.evil.example", "["):
                call = await made.get("/v1/models", host=name)
                assert (call.status, call.error["code"]) == (403, "wrong_host")
            for name in (
                "localhost:8000",
                "127.0.0.1",
                "127.0.0.1:8000",
                "[::1]:8000",
                "localhost.:80",
            ):
                assert (await made.get("/v1/models", host=name)).status == 200
            for origin in ("https://evil.example", "null", "http://localhost:3000"):
                call = await made.get("/v1/models", origin=origin)
                assert (call.status, call.error["code"]) == (403, "wrong_origin")
                assert "--cors null" not in call.error["message"]
            for origin in ("https://chat.example", "http://localhost"):
                assert (await made.get("/v1/models", origin=origin)).status == 200

    run(scenario)


def test_pages_that_are_allowed_are_told_so() -> None:
    async def scenario() -> None:
        async with served(cors=("https://chat.example",), api_key=KEY) as made:
            asks = {
                "origin": "https://chat.example",
                "access_control_request_method": "POST",
                "access_control_request_headers": "authorization, content-type",
            }
            call = await made.call("OPTIONS", "/v1/chat/completions", **asks).end()
            assert call.status == 200
            assert call.headers["access-control-allow-origin"] == "https://chat.example"
            assert "authorization" in call.headers["access-control-allow-headers"]
            refused = await made.get("/v1/models", origin="https://chat.example")
            assert refused.status == 401
            assert refused.headers["access-control-allow-origin"] == "https://chat.example"
            assert "x-request-id" in refused.headers["access-control-expose-headers"]
            call = await made.call("OPTIONS", "/v1/models", **{**asks, "origin": "https://e"}).end()
            assert call.status == 400

    run(scenario)


def test_every_response_has_an_id_and_is_for_nobody_else() -> None:
    async def scenario() -> None:
        async with served() as made:
            calls = [await made.get(path) for path in ("/health", "/health", "/nowhere")]
            calls.append(await made.complete(stream=True).end())
            calls.append(await made.get("/health", x_request_id="bad\tid"))
            marks = {call.headers["x-request-id"] for call in calls}
            assert len(marks) == len(calls)
            assert all(mark.startswith("req-") for mark in marks)
            for call in calls:
                assert call.headers["x-content-type-options"] == "nosniff"
                assert "default-src 'none'" in call.headers["content-security-policy"]
            assert calls[0].headers["cache-control"] == "no-store"
            mine = await made.get("/health", x_request_id="mine-1")
            assert mine.headers["x-request-id"] == "mine-1"

    run(scenario)


@pytest.mark.parametrize("said", [True, False])
def test_a_body_without_end_is_refused(said: bool) -> None:
    async def scenario() -> None:
        async with served() as made:
            headers = {"content_length": str(MOST_BODY + 1)} if said else {}
            call = made.call("POST", "/v1/completions", b"x" * (MOST_BODY + 1), **headers)
            await call.end()
            assert call.status == 413
            assert call.error["code"] == "request_too_large"

    run(scenario)


def test_a_bug_is_an_error_in_the_envelope(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with served() as made:
            made.house.model = None  # type: ignore[assignment]
            call = await made.call(
                "POST", "/v1/completions", {"model": MODEL, "prompt": "w1"}
            ).end()
            assert call.status == 404
            del made.house.model
            call = await made.get("/v1/models")
            assert call.status == 500
            assert call.error["type"] == "server_error"
            assert "AttributeError" in call.error["message"]
            assert "x-request-id" in call.headers

    run(scenario)
    assert "AttributeError" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"host": "0.0.0.0"}, "--api-key"),
        ({"host": "192.168.1.5"}, "--api-key"),
        ({"host": "example.org"}, "--api-key"),
        ({"host": "::"}, "--api-key"),
        ({"api_key": ""}, "empty"),
        ({"api_key": "two words"}, "spaces"),
        ({"api_key": "schlüssel"}, "ASCII"),
        ({"tls_cert": "x.pem"}, "--tls-key"),
        ({"tls_key": "x.pem"}, "--tls-cert"),
        ({"cors": ("example.org",)}, "example.org"),
        ({"cors": ("https://example.org/path",)}, "without a path"),
        ({"cors": ("https://example.org two",)}, "without a path"),
    ],
)
def test_what_cannot_be_served_is_said(wrong: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        ServeSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://sites.example", "*"])
def test_origins_of_pages(origin: str) -> None:
    assert ServeSettings(cors=(origin,)).cors == (origin,)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_this_machine_needs_no_key(host: str) -> None:
    assert ServeSettings(host=host).is_local
    assert not ServeSettings(host="0.0.0.0", api_key=KEY).is_local
    assert KEY not in repr(ServeSettings(api_key=KEY))
