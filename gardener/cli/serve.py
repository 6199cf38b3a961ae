"""`gardener serve`: a ring that any client of OpenAI's interface can ask."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli import options as o
from gardener.cli.cluster_options import ClusterFile
from gardener.cli.groups import SERVER
from gardener.cli.logs import begin_logs
from gardener.cli.program import flag, note, run
from gardener.cli.recording import recorder_at
from gardener.cli.view import live
from gardener.cli.view.server_watch import ServerWatch
from gardener.decoding.policy import Bounds
from gardener.errors import UserError
from gardener.rings.settings import RingSettings
from gardener.runtime.logs import few

WITHOUT = "the server needs packages that are not installed: pip install 'gardener-node[serve]'"


# Not GARDENER_PORT: Kubernetes sets that for a service called gardener, to what is no port.


@Parameter(name="*", group=SERVER)
@dataclass(frozen=True)
class ServerOptions:
    """Where the server is, and who may ask it."""

    host: Annotated[
        str,
        Parameter(
            env_var="GARDENER_HTTP_HOST",
            help="Where to listen. Any address but this machine's own needs --api-key.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Parameter(
            env_var="GARDENER_HTTP_PORT",
            validator=Number(gte=0, lte=65535),
            help="0: one that is free, which is printed.",
        ),
    ] = 8000
    api_key: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_API_KEY",
            metavar="KEY",
            help="What clients must send. Better in the environment, where others on this machine "
            "do not see it.",
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        Parameter(
            env_var="GARDENER_TLS_CERT",
            metavar="FILE",
            help="Certificate, with those between it and its root, as PEM.",
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        Parameter(
            env_var="GARDENER_TLS_KEY", metavar="FILE", help="Private key of it, not encrypted."
        ),
    ] = None
    cors: Annotated[
        str,
        Parameter(
            env_var="GARDENER_CORS",
            metavar="ORIGIN,...",
            show_default=False,
            help="Pages that may ask from a browser, as https://example.org; * for all of them.",
        ),
    ] = ""
    no_page: Annotated[
        bool,
        flag(
            env_var="GARDENER_NO_PAGE",
            help="Without the page for people at /, and without /ring/events and /ring/status, "
            "where all who may ask see the newest text of others.",
        ),
    ] = False
    connections: Annotated[
        int,
        Parameter(
            env_var="GARDENER_CONNECTIONS",
            validator=Number(gte=1),
            metavar="N",
            help="Most connections at a time; more are refused.",
        ),
    ] = 256
    queue: Annotated[
        int,
        Parameter(
            env_var="GARDENER_QUEUE",
            validator=Number(gte=0),
            metavar="N",
            help="Most requests that wait for their turn; more are refused.",
        ),
    ] = 64
    grace: Annotated[
        float,
        Parameter(
            env_var="GARDENER_GRACE",
            validator=Number(gte=0),
            metavar="SECONDS",
            help="How long answers may go on once the server is told to end.",
        ),
    ] = 20.0
    keep_alive: Annotated[
        float,
        Parameter(
            env_var="GARDENER_KEEP_ALIVE",
            validator=Number(gte=0.1),
            metavar="SECONDS",
            help="After so long without a token, a stream gets a comment.",
        ),
    ] = 5.0
    served_name: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_SERVED_NAME",
            metavar="NAME",
            help="What clients call the model. Default: what --model says, without a path.",
        ),
    ] = None


def serve(
    *,
    server: ServerOptions = ServerOptions(),
    ring: o.RingOptions = o.RingOptions(),
    draft: o.Draft = "auto",
    holder: o.HolderOptions = o.HolderOptions(),
    policy: o.Policy = None,
    log_format: o.LogFormat = "text",
    verbose: Annotated[
        bool, flag("--verbose", "-v", help="Show what the stages of a local ring print.")
    ] = False,
    no_view: o.NoView = False,
    record: o.Record = None,
    cluster: ClusterFile = None,
    config: o.Config = None,
) -> None:
    """Serve a ring to any client of OpenAI's interface, until Ctrl-C.

    gardener serve --local 3
    """
    begin_logs(log_format)
    settings = holder.settings(ring, holder.drafting.settings(draft))
    settings = replace(settings, keep_prefixes=True, policies=() if policy is None else (policy,))
    simulated = settings.simulate is not None  # it runs ahead of what it tells: nothing to watch
    if simulated and record is not None:
        raise UserError(
            "--record writes what a real ring does: take --local or --peer, or leave it"
        )
    recorder = None if record is None else recorder_at(record, settings.model)
    shown = not (no_view or simulated) and log_format == "text" and live.possible()
    stages = settings.local or 0
    view = ServerWatch("opening the ring", stages, recorder, shown=shown)
    _serve(server, settings, policy, holder.bounds.bounds(), view, verbose)


def _serve(
    options: ServerOptions,
    ring: RingSettings,
    policy: str | None,
    bounds: Bounds,
    view: ServerWatch,
    verbose: bool,
) -> None:
    try:  # late: it takes half a second, and may not be there
        from gardener.serve.server import nobody
        from gardener.serve.server import serve as serve_ring
        from gardener.serve.settings import ServeSettings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gardener"):
            raise
        raise UserError(WITHOUT) from error
    settings = ServeSettings(
        host=options.host,
        port=options.port,
        api_key=options.api_key,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        cors=tuple(origin.strip() for origin in options.cors.split(",") if origin.strip()),
        page=not options.no_page,
        connections=options.connections,
        queue=options.queue,
        grace=options.grace,
        keep_alive=options.keep_alive,
        name=options.served_name,
        policy=policy,
        bounds=bounds,
    )

    def heard(line: str) -> None:
        view.heard(line)
        if verbose:
            note(line)

    async def watched() -> None:
        async with view:
            begun = view.follow if ring.simulate is None else nobody
            await serve_ring(settings, ring, few(note), heard, begun)

    run(watched(), patience=1)
