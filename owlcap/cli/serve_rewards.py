"""`owlcap serve-rewards`: the rewards over HTTP, for training systems outside of owlcap."""

from __future__ import annotations

import os
import signal
import socket
from ipaddress import ip_address
from typing import Annotated

import typer

from owlcap.cli.console import say
from owlcap.errors import ConfigError

TOKEN_VARIABLE = "OWLCAP_REWARDS_TOKEN"
DRAIN_S = 60  # for requests in flight when the server is told to end


def serve_rewards(
    config: Annotated[str, typer.Argument(help="A rewards YAML, or an RL configuration (a file or a name).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that win over the file.")
    ] = None,
    host: Annotated[str, typer.Option(help="Another than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8900,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Of one request.")] = 8,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Captions of all requests; above it, HTTP 429.")] = 1024,
) -> None:
    """Score captions for other training systems: POST /v1/score; see docs/serve-rewards.md."""
    from owlcap.config_io import load_rewards

    settings = load_rewards(config, overrides or ())
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} is open to others, and there is no token",
            where="owlcap serve-rewards",
            cure=f"put a secret into the environment variable {TOKEN_VARIABLE}, or leave --host out",
        )
    import uvicorn

    from owlcap.logging import setup_logging
    from rewards.http import Limits, make_app
    from rewards.suite import make_suite

    setup_logging()
    listener = _bind(host, port)
    limits = Limits(body_bytes=max_body_mib * 2**20, in_flight=max_in_flight)
    app = make_app(make_suite(settings), token, limits)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_S)
    )
    terms = " + ".join(f"{term.weight:g} x {term.name}" for term in settings.terms)
    judge = settings.judge.model if settings.judge.kind == "openai" else "lexical, offline"
    say(f"rewards: {terms}; judge: {judge}")
    say(f"token: {f'from {TOKEN_VARIABLE}' if token else 'none (loopback only)'}")
    say(f"listening on http://{host}:{listener.getsockname()[1]}")
    # uvicorn ends its work and then raises the signal again; a drained server has ended well.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # from here on connections wait until the server takes them
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            where="owlcap serve-rewards",
            cure="choose another --port (0 takes a free one) or --host",
        ) from error
    return listener
