from __future__ import annotations

import ast
import contextlib
import http.server
import inspect
import json
import re
import socketserver
import threading
import typing as t
from pathlib import Path

import click
import flask
import pytest
from flask import Flask

import flask_mmolove
from flask_mmolove import ConfigError
from flask_mmolove import MMOLove
from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.admin.wording import STATES
from flask_mmolove.outbox.entry import Answer
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.sandbox import Faults
from flask_mmolove.settings import DEFAULTS
from flask_mmolove.settings import REQUIRED
from flask_mmolove.settings import Settings
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp
from tests.reliability.__main__ import main as harnesses
from tests.reliability.mutants import MUTANTS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

NUMBERS = {16: "sixteen", 17: "seventeen", 18: "eighteen"}


def headings(page: str, depth: int) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^#{{{depth}}} (.*)$", text, re.MULTILINE)


def logged() -> t.Iterator[str]:
    """Every message that is logged as a warning or worse, "…" for what differs."""
    for file in Path(flask_mmolove.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text())
        named = {
            target.id: each.value
            for each in tree.body
            if isinstance(each, ast.Assign)
            for target in each.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(
                node.func, ast.Attribute
            ):
                continue
            if not isinstance(node.func.value, ast.Name):
                continue
            levels = {"warning", "error", "exception", "critical"}
            if node.func.value.id == "logger" and node.func.attr in levels:
                message = node.args[0]
                if isinstance(message, ast.Name):
                    message = named[message.id]
                assert isinstance(message, ast.Constant), ast.dump(message)
                yield re.sub(r"%(\.\d)?[a-z]", "…", str(message.value))


def test_each_message_has_a_heading_that_says_what_to_do() -> None:
    told = headings("reference/messages.md", 3)
    messages = list(logged())
    assert len(messages) > 25
    for message in messages:
        assert any(message.startswith(heading) for heading in told), message
    for heading in told:
        assert any(message.startswith(heading) for message in messages), heading


def test_each_command_and_option_is_documented() -> None:
    assert sorted(headings("reference/commands.md", 2)) == sorted(command.commands)
    text = (DOCS / "reference" / "commands.md").read_text()
    for name, each in command.commands.items():
        if name == "sandbox":
            continue  # its own --help is for whoever tries it
        for option in each.params:
            if isinstance(option, click.Option):
                assert any(word in text for word in option.opts), (name, option.opts)


def pages() -> t.Iterator[tuple[str, str]]:
    """Each page, by its name, with what it includes of others."""
    for file in sorted(DOCS.rglob("*.md")):
        if "_build" not in file.parts:
            yield str(file.relative_to(DOCS)), file.read_text()


def test_each_setting_has_a_section_and_its_default() -> None:
    text = (DOCS / "reference" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| \[`MMOLOVE_(\w+)`\]\(#\w+\) \| (.*?) \|", text, re.M))
    defaults = {name: f"`{value}`" for name, value in DEFAULTS.items()}
    defaults["ENDPOINT"] = "MMOLove's"  # too long for the table
    assert rows == {name: "required" for name in REQUIRED} | defaults
    assert set(headings("reference/settings.md", 3)) == {f"MMOLOVE_{n}" for n in rows}
    links = re.findall(r"^\| \[`(MMOLOVE_\w+)`\]\(#(\w+)\)", text, re.M)
    assert all(link == name.lower() for name, link in links)
    assert f"by default `{DEFAULTS['ENDPOINT']}`" in text


def test_the_limits_of_each_number_are_true() -> None:
    text = (DOCS / "reference" / "settings.md").read_text()
    sections = re.findall(r"^### MMOLOVE_(\w+)$(.*?)(?=^#|\Z)", text, re.S | re.M)
    told = {
        name: (float(found[1]), float(found[2].replace(",", "")))
        for name, section in sections
        if (found := re.search(r"([\d.]+) to ([\d,]*\d)", section))
    }
    assert len(told) == 5
    for name, (least, most) in told.items():
        config = {"MMOLOVE_ENABLED": False, f"MMOLOVE_{name}": 0.0}
        for number, is_fine in (
            (least, True),
            (most, True),
            (least - 0.01, False),
            (most + 1, False),
        ):
            config[f"MMOLOVE_{name}"] = number
            refused = (
                contextlib.nullcontext() if is_fine else pytest.raises(ConfigError)
            )
            with refused:
                Settings.from_config(config, "/instance")


def test_no_page_names_a_setting_that_there_is_not() -> None:
    known = {*REQUIRED, *DEFAULTS}
    for page, text in pages():
        named = re.findall(r"\bMMOLOVE_([A-Z_]+[A-Z])\b", text)
        assert not set(named) - known, page


def test_no_page_names_a_command_or_an_option_that_there_is_not() -> None:
    for page, text in pages():
        for name, rest in re.findall(r"flask(?:\n| )mmolove ([a-z-]+)([^`\n]*)", text):
            assert name in command.commands, (page, name)
            known = {opt for each in command.commands[name].params for opt in each.opts}
            # What follows a pipe or a word of the sentence is another program's.
            options = re.findall(r"(?<!\S)(--[a-z-]+)", re.split(r"[|;&>,]", rest)[0])
            assert set(options) <= known, (page, name)


def test_no_page_imports_a_name_that_there_is_not() -> None:
    for page, text in pages():
        for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.M):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module == "flask_mmolove":
                    for each in node.names:
                        assert each.name in flask_mmolove.__all__, (page, each.name)


def test_each_public_name_is_in_the_reference() -> None:
    text = "".join(text for page, text in pages() if page.startswith("reference/"))
    told = re.findall(r"^\.\. (?:auto\w+|data):: ([\w.]+)", text, re.MULTILINE)
    assert set(flask_mmolove.__all__) <= set(told)


def test_the_api_at_a_glance_is_the_api() -> None:
    text = (DOCS / "reference" / "api.md").read_text().partition("## The extension")[0]
    methods = {name for name in vars(MMOLove) if not name.startswith("_")}
    shown = dict(re.findall(r"mmolove\.(\w+)(?:\(([^)]*)\))?", text))
    assert set(shown) == methods
    for name, arguments in shown.items():
        known = inspect.signature(getattr(MMOLove, name)).parameters
        assert {*re.findall(r"(\w+)=", arguments)} <= {*known}, name


def test_each_state_is_explained() -> None:
    text = (DOCS / "reference" / "states.md").read_text()
    assert {*re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)} == {*STATES}


def test_what_is_told_of_an_entry_is_there() -> None:
    text = (DOCS / "reference" / "signals.md").read_text()
    names = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert len(names) > 10
    assert all(hasattr(Entry, name) for name in names)
    (answers,) = re.findall(r"^\| `answers` .*", text, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", answers)) == {"answers", *Answer._fields}


def test_each_mutant_is_told() -> None:
    text = (DOCS / "explanation" / "guarantees.md").read_text()
    table = text.partition("| mutant |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|-]+?) \|", table, re.MULTILINE)
    assert rows == [mutant.name for mutant in MUTANTS]
    assert f"puts {NUMBERS[len(MUTANTS)]} deliberate faults" in text


def test_each_harness_with_a_result_takes_these_options() -> None:
    text = (DOCS / "explanation" / "guarantees.md").read_text()
    results = text.partition("## Results")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `(\w+)(.*?)`", results, re.MULTILINE)
    assert len(lines) > 10
    for name, rest in lines:
        known = {opt for each in harnesses.commands[name].params for opt in each.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, name


def test_each_command_that_a_message_names_exists() -> None:
    code = Path(flask_mmolove.__file__).parent.rglob("*.py")
    named = re.compile(r"flask\s+mmolove\s+([a-z][a-z-]*)((?:\s+--[a-z-]+)*)")
    count = 0
    for file in [*ROOT.glob("*.md"), *code]:
        # A command in a message may be split over two lines of a string.
        text = re.sub(r'"\n\s*"', "", file.read_text())
        for name, options in named.findall(text):
            known = {o for each in command.commands[name].params for o in each.opts}
            assert known >= set(options.split()), (file.name, name, options)
            count += 1
    assert count > 30


def test_each_signal_says_what_it_carries() -> None:
    source = Path(flask_mmolove.signals.__file__).read_text()
    names = re.findall(r"^(\w+) = _signals", source, re.MULTILINE)
    told = re.findall(r"^#: :param .*\n(?:#: .*\n)*(\w+) = _signals", source, re.M)
    assert len(names) == 12
    assert [*told] == names


@contextlib.contextmanager
def recipe(title: str, **names: t.Any) -> t.Iterator[dict[str, t.Any]]:
    """What a recipe defines; its receivers end with it."""
    text = (DOCS / "howto" / "alerts.md").read_text()
    found = re.search(rf"^### {title}\n\n```python\n(.*?)```", text, re.DOTALL | re.M)
    assert found is not None
    exec(found[1], names)
    yield names
    names.clear()  # and with it the functions that the signals hold weakly


def make_trouble(app: Flask, sandbox: SiteSandbox) -> None:
    """One event is rejected, one accepted."""
    with app.app_context():
        sandbox.sandbox.faults = Faults(fail=422)
        registered("7", token=sandbox.mint())
        sandbox.sandbox.faults = Faults()
        registered("8", token=sandbox.mint())


@contextlib.contextmanager
def listening(server: socketserver.BaseServer) -> t.Iterator[tuple[str, int]]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield t.cast("tuple[str, int]", server.server_address)
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_recipe_for_discord(app: Flask, mmolove_sandbox: SiteSandbox) -> None:
    told: list[str] = []

    class Discord(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append(json.loads(body)["content"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: t.Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Discord)
    with recipe("Discord") as names, listening(server) as (host, port):
        app.config["DISCORD_WEBHOOK"] = f"http://{host}:{port}/"
        make_trouble(app, mmolove_sandbox)
        names["on_paused"](app, reason="no answer")
    assert told == [
        "Event 1 of player 7 is rejected",
        "Delivery to MMOLove is paused: no answer",
    ]


def test_the_recipe_for_mail(app: Flask, mmolove_sandbox: SiteSandbox) -> None:
    mails: list[str] = []

    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            for line in self.rfile:
                if line.upper().startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    mails.append("".join(x.decode() for x in iter(self._line, b".")))
                self.wfile.write(b"250 ok\r\n")

        def _line(self) -> bytes:
            line = self.rfile.readline()
            return b"." if line == b".\r\n" else line

    server = socketserver.TCPServer(("127.0.0.1", 0), Mail)
    with recipe("Mail"), listening(server) as address:
        app.config.update(OWNER_MAIL_HOST=address, OWNER_MAIL="owner@localhost")
        make_trouble(app, mmolove_sandbox)
    (mail,) = mails
    assert "Subject: Referral event 1 was rejected" in mail
    assert "Player 7:" in mail


def test_the_recipe_for_prometheus(app: Flask, mmolove_sandbox: SiteSandbox) -> None:
    with recipe("Prometheus", app=app):
        make_trouble(app, mmolove_sandbox)
        text = app.test_client().get("/metrics").text
    for state, count in (("pending", 2), ("rejected", 1), ("accepted", 1)):
        labels = f'event="registered",state="{state}"'
        assert f"mmolove_events_total{{{labels}}} {count}.0" in text


def test_a_receiver_that_raises_harms_nothing(
    app: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    def broken(sender: Flask, **extra: t.Any) -> None:
        raise RuntimeError("the receiver is broken")

    signals = [
        flask_mmolove.event_recorded,
        flask_mmolove.event_rejected,
        flask_mmolove.event_accepted,
    ]
    with contextlib.ExitStack() as stack:
        for signal in signals:
            stack.enter_context(signal.connected_to(broken))
        make_trouble(app, mmolove_sandbox)
    assert mmolove_sandbox.reported == [("registered", "8")]


def test_a_page_and_a_signup_wait_for_these_receivers(
    app: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    told: list[str] = []

    def note(sender: Flask, **extra: t.Any) -> None:
        told.append(flask.request.method)

    @app.route("/", methods=["GET", "POST"])
    def home() -> str:
        if flask.request.method == "POST":
            registered("7")
        return ""

    with (
        flask_mmolove.referral_captured.connected_to(note),
        flask_mmolove.event_recorded.connected_to(note),
    ):
        client = app.test_client()
        client.get(f"/?mmref={mmolove_sandbox.mint()}")
        client.post("/")
    assert told == ["GET", "POST"]


def test_an_outage_is_told_once_and_its_end(
    make_app: MakeApp,
    mmolove_sandbox: SiteSandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app(MMOLove())
    told: list[dict[str, t.Any]] = []

    def note(sender: Flask, **arguments: t.Any) -> None:
        told.append(arguments)

    with (
        flask_mmolove.delivery_paused.connected_to(note),
        flask_mmolove.delivery_resumed.connected_to(note),
        app.app_context(),
    ):
        mmolove_sandbox.sandbox.faults = Faults(fail=503)
        for player in range(40):
            registered(player, token=mmolove_sandbox.mint())
        (paused,) = told
        assert "HTTP 503" in paused["reason"]
        ours = [r for r in caplog.records if r.name == "flask_mmolove"]
        assert [r.levelname for r in ours if r.levelno > 20] == ["ERROR"]


def test_a_record_about_an_event_names_it(
    app: Flask, mmolove_sandbox: SiteSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make_trouble(app, mmolove_sandbox)
    records = [r for r in caplog.records if r.name == "flask_mmolove"]
    assert [getattr(r, "event_id", None) for r in records] == [1, 2]
