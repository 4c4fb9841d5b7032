"""``sandbox``: run a local MMOLove."""

from __future__ import annotations

import os
import shlex
import typing as t

import click

from .site import wait_for_a_signal

if t.TYPE_CHECKING:
    from ...sandbox import Sandbox


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="0 for a free one.",
)
@click.option(
    "--register-url",
    default="http://127.0.0.1:5000/register",
    show_default=True,
    help="The site's signup page, where the share link leads.",
)
@click.option(
    "--server-id",
    default="demo-server",
    envvar="FLASK_MMOLOVE_SERVER_ID",
    help="From FLASK_MMOLOVE_SERVER_ID if it is set, else demo-server.",
)
@click.option(
    "--secret",
    default="demo-secret",
    envvar="FLASK_MMOLOVE_REFERRAL_SECRET",
    help="From FLASK_MMOLOVE_REFERRAL_SECRET if it is set, else demo-secret.",
)
@click.option(
    "--state",
    "path",
    type=click.Path(dir_okay=False),
    help="Store what arrives in this file, which only you can read.",
)
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    help="Answer to this name as well as 127.0.0.1 and localhost. Repeatable.",
)
@click.option("--fail", type=click.IntRange(300, 599), help="Answer with this status.")
@click.option(
    "--drop",
    type=click.Choice(["request", "response"]),
    is_flag=False,
    flag_value="response",
    help="Hang up before the event is processed, or after it (the default).",
)
@click.option("--latency", type=float, default=0.0, help="Seconds before an answer.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 1),
    default=1.0,
    help="Share of the requests that get the fault, 0 to 1.",
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
    """Run a local MMOLove, to try a site against."""
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
