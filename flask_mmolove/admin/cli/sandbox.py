"""``sandbox``: run a local MMOLove."""

from __future__ import annotations

import os
import shlex
import sqlite3
import typing as t

import click

from .site import wait_for_a_signal

if t.TYPE_CHECKING:
    from ...sandbox import Sandbox


def _check_url(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} does not begin with http:// or https://.")
    return value


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    metavar="PORT",
    help="The port to serve on; 0 for any free one.",
)
@click.option(
    "--register-url",
    default="http://127.0.0.1:5000/register",
    show_default=True,
    metavar="URL",
    callback=_check_url,
    help="The site's signup page, where the share link leads.",
)
@click.option(
    "--server-id",
    default="demo-server",
    envvar="FLASK_MMOLOVE_SERVER_ID",
    metavar="ID",
    help="FLASK_MMOLOVE_SERVER_ID unless given, or else demo-server.",
)
@click.option(
    "--secret",
    default="demo-secret",
    envvar="FLASK_MMOLOVE_REFERRAL_SECRET",
    help="FLASK_MMOLOVE_REFERRAL_SECRET unless given, or else demo-secret.",
)
@click.option(
    "--state",
    "path",
    type=click.Path(dir_okay=False),
    help="Store what arrives in this file. Only you can read it.",
)
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    metavar="NAME",
    help="Respond to this name as well as 127.0.0.1 and localhost. Repeatable.",
)
@click.option(
    "--fail",
    type=click.IntRange(300, 599),
    metavar="STATUS",
    help="Respond with this HTTP status.",
)
@click.option(
    "--drop",
    type=click.Choice(["request", "response"]),
    is_flag=False,
    flag_value="response",
    help="Hang up before the event is processed, or after it (the default).",
)
@click.option(
    "--latency",
    type=float,
    default=0.0,
    metavar="SECONDS",
    help="Wait before each response.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1),
    default=1.0,
    metavar="SHARE",
    help="The share of requests that go wrong, from 0 to 1. All, unless given.",
)
def sandbox(
    port: int,
    register_url: str,
    server_id: str,
    secret: str,
    path: str | None,
    host_names: tuple[str, ...],
    rate: float,
    **faults: t.Any,
) -> None:
    """Run a local MMOLove to try a site against.

    It needs no account and no site. To see what a site does when MMOLove fails, use
    --fail, --drop or --latency.
    """
    from ...sandbox import Faults
    from ...sandbox import Sandbox

    try:
        server = Sandbox(
            server_id=server_id,
            secret=secret,
            registration_url=register_url,
            path=path,
            faults=Faults(rate=rate, **faults),
            host_names=host_names,
            port=port,
        )
    except ValueError as e:
        raise click.UsageError(str(e)) from e
    except sqlite3.Error as e:
        raise click.ClickException(f"{path} cannot be used: {e}.") from e
    try:
        server.start()
    except OSError as e:
        raise click.ClickException(
            f"Port {port} cannot be used: {os.strerror(e.errno or 0)}. If "
            "a sandbox is running already, use or stop that one. Or choose another "
            "port with --port; 0 takes any free one."
        ) from e
    with server:
        click.echo(_introduction(server, secret, register_url))
        wait_for_a_signal()


def _introduction(server: Sandbox, secret: str, register_url: str) -> str:
    variable = "FLASK_MMOLOVE_REFERRAL_SECRET"
    line = f"  export {variable}={shlex.quote(secret)}\n"
    if secret == os.environ.get(variable):
        line = f"  # {variable} stays as it is\n"
    return (
        f"The sandbox, a local MMOLove, shows what arrives at {server.url}/\n"
        f"A share link to click: {server.share_link()}\n"
        f"It leads to {register_url}; --register-url names another page.\n"
        "\nThe site's settings:\n"
        f"  export FLASK_MMOLOVE_SERVER_ID={server.server_id}\n"
        f"{line}"
        f"  export FLASK_MMOLOVE_ENDPOINT={server.endpoint}\n"
        "\nStop it with Ctrl+C."
    )
