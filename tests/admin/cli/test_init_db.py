from __future__ import annotations

from pathlib import Path

from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy import inspect
from sqlalchemy import MetaData
from sqlalchemy import URL

from flask_mmolove.outbox.sql.tables import tables
from flask_mmolove.testing import SiteSandbox
from tests.admin.cli.conftest import Run
from tests.conftest import MakeApp


def test_it_makes_the_tables_once_and_says_where(
    make_app: MakeApp, run: Run, url: URL
) -> None:
    shown = url.render_as_string(hide_password=True)
    app = make_app(OUTBOX=url.render_as_string(hide_password=False))
    assert run(app, "init-db").output == f"The outbox was created: {shown}\n"
    engine = create_engine(url)
    made = {table.name for table in tables(MetaData())}
    assert {*inspect(engine).get_table_names()} == made
    engine.dispose()
    words = f"The outbox exists already: {shown}\n"
    assert run(app, "init-db").output == words


def test_a_file_needs_no_command(
    app: Flask, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    path = mmolove_sandbox.config["MMOLOVE_OUTBOX"]
    assert run(app, "init-db").output.splitlines() == [
        f"The outbox was created: {path}",
        "The first use creates a file too, so this command is optional.",
    ]
    assert Path(path).is_file()


def test_a_database_that_is_not_there_is_one_line(make_app: MakeApp, run: Run) -> None:
    url = "postgresql+psycopg://game:s3cret@127.0.0.1:1/game"
    result = run(make_app(OUTBOX=url), "init-db")
    assert result.exit_code == 1
    assert result.output.startswith("Error: The outbox in postgresql+psycopg://")
    assert "s3cret" not in result.output
