from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from flask_mmolove.admin.cli import mmolove as command


def test_the_sandbox_runs_without_a_site(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "mmolove", "sandbox", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        url = first.split()[-1]
        assert requests.get(url, timeout=10).status_code == 200
        link = process.stdout.readline().split()[-1]
        response = requests.get(link, allow_redirects=False, timeout=10)
        assert "/register?mmref=" in response.headers["Location"]
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--register-url", "localhost:5000"], "does not begin with http://"),
        (["--state", "missing/file"], "missing/file cannot be used: "),
    ],
    ids=["register-url", "state"],
)
def test_what_it_cannot_use_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["sandbox", "--port", "0", *args])
    assert result.exit_code != 0
    assert words in result.output.splitlines()[-1]


def test_a_port_in_use_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(command, ["sandbox", "--port", port])
    assert result.output == (
        f"Error: Port {port} cannot be used: Address already in use. If a sandbox is "
        "running already, use or stop that one. Or choose another port with --port; 0 "
        "takes any free one.\n"
    )


@pytest.mark.parametrize(
    ("secret", "line"),
    [
        ("demo-secret", "  export FLASK_MMOLOVE_REFERRAL_SECRET=demo-secret\n"),
        ("two words", "  export FLASK_MMOLOVE_REFERRAL_SECRET='two words'\n"),
        ("the site's own", "  # FLASK_MMOLOVE_REFERRAL_SECRET stays as it is\n"),
    ],
)
def test_the_sandbox_prints_lines_that_a_shell_takes(
    secret: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_MMOLOVE_REFERRAL_SECRET", "the site's own")
    # The name of the module is that of its command too.
    module = sys.modules["flask_mmolove.admin.cli.sandbox"]
    monkeypatch.setattr(module, "wait_for_a_signal", lambda: None)
    options = ["--port", "0", "--secret", secret]
    output = CliRunner().invoke(command, ["sandbox", *options]).output
    assert line in output
    assert "the site's own" not in output
