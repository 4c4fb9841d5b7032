"""Reports in the site's own session: both are committed, or neither is."""

from __future__ import annotations

import contextlib
import io
import threading
import time
import typing as t
from pathlib import Path

import pytest
from flask import after_this_request
from flask import Flask
from flask import request
from flask import Response
from flask.typing import ResponseReturnValue
from sqlalchemy import event
from sqlalchemy import insert
from sqlalchemy import select
from sqlalchemy import text
from sqlalchemy import update
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from flask_mmolove import event_recorded
from flask_mmolove import IdentityError
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.statements import Transaction
from flask_mmolove.outbox.store import Outbox
from flask_mmolove.testing import SiteSandbox
from tests.sites import Gift
from tests.sites import make_sites
from tests.sites import MakeSite
from tests.sites import Player
from tests.sites import Site


@pytest.fixture
def make_site(
    url: URL, mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> t.Iterator[MakeSite]:
    yield from make_sites(url, mmolove_sandbox, tmp_path)


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site(MMOLOVE_DELIVERY="manual")


def sign_up(site: Site, sandbox: SiteSandbox, query: str = "") -> TestResponse:
    """A visitor with a token comes to the signup page and fills in its form."""
    client = site.app.test_client()
    client.get(f"/?mmref={sandbox.mint()}")
    return client.post(f"/register?{query}", data={"name": "anna"})


def signup(site: Site, **options: t.Any) -> t.Callable[[t.Any], t.Any]:
    """Makes a function the site's signup view."""

    def decorate(view: t.Any) -> t.Any:
        return site.app.post("/register")(referral_register(**options)(view))

    return decorate


def leave_transactions_alone(connection: t.Any, record: object) -> None:
    connection.isolation_level = None
    # Else who reads keeps all others from committing.
    connection.execute("PRAGMA journal_mode = WAL").close()


class TestSignup:
    """When the response leaves, the account and its event are there, or neither."""

    @pytest.mark.parametrize("order", ["before", "after", "id", "between"])
    def test_the_player_is_handed_over_before_the_commit_or_after_it(
        self, site: Site, mmolove_sandbox: SiteSandbox, order: str
    ) -> None:
        @signup(site)
        def register() -> str:
            player = site.add(request.form["name"])
            if order == "before":
                registered(player)
            if order == "between":
                site.db.session.flush()
                registered(player)
            site.db.session.commit()
            if order == "after":
                registered(player)
            if order == "id":
                registered(player.id)
                site.db.session.rollback()  # of nothing
            return "welcome"

        response = sign_up(site, mmolove_sandbox)
        assert site.count(Player) == 1
        assert site.entries(1)["registered"].state == "pending"
        cleared = response.headers.getlist("Set-Cookie")
        assert any(cookie.startswith("mmolove_ref=;") for cookie in cleared)

    @pytest.mark.parametrize("flushed", [True, False])
    def test_a_commit_that_fails_reports_nothing_and_raises_what_it_would(
        self, site: Site, mmolove_sandbox: SiteSandbox, flushed: bool
    ) -> None:
        with site.app.app_context():
            site.add("anna")
            site.db.session.commit()

        @signup(site)
        def register() -> str:
            player = site.add("ben" if flushed else "anna")
            if flushed:
                site.db.session.flush()
            registered(player)
            player.name = "anna"
            try:
                site.db.session.commit()
            except IntegrityError:
                site.db.session.rollback()
                return "this name is taken"
            return "welcome"

        response = sign_up(site, mmolove_sandbox)
        assert response.text == "this name is taken"
        assert "Set-Cookie" not in response.headers  # the token is good for another try
        assert site.state.outbox.inspector.summary().counts == {}

    @pytest.mark.parametrize("how", ["never", "rollback", "close", "abort"])
    def test_an_account_that_is_not_committed_is_not_reported(
        self, site: Site, mmolove_sandbox: SiteSandbox, how: str, log: t.Any
    ) -> None:
        @signup(site)
        def register() -> ResponseReturnValue:
            player = site.add()
            site.db.session.flush()
            registered(player)
            if how == "rollback":
                site.db.session.rollback()
            if how == "close":
                site.db.session.close()
            return ("no", 409) if how == "abort" else "hm"

        sign_up(site, mmolove_sandbox)
        assert site.count(Player) == 0
        assert site.state.outbox.inspector.summary().counts == {}
        forgot = "Player 1 was not reported to MMOLove: db.session was not committed"
        assert (forgot in log.getvalue()) == (how == "never")

    def test_a_savepoint_that_is_rolled_back_takes_its_player_along(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        @signup(site)
        def register() -> str:
            for name in ("anna", "ben"):
                with contextlib.suppress(ZeroDivisionError):
                    with site.db.session.begin_nested():
                        player = site.add(name)
                        site.db.session.flush()
                        registered(player)
                        if name == "ben":
                            raise ZeroDivisionError
            site.db.session.commit()
            return "welcome"

        sign_up(site, mmolove_sandbox)
        assert site.count(Player) == 1
        (entry,) = site.state.outbox.inspector.page()
        assert entry.identity == "1"  # who was named before, and committed

    def test_a_savepoint_that_holds_is_committed_with_the_rest(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        @signup(site)
        def register() -> str:
            with site.db.session.begin_nested():
                player = site.add()
                registered(player)
            site.db.session.commit()
            return "welcome"

        sign_up(site, mmolove_sandbox)
        assert site.entries(1)["registered"].state == "pending"

    def test_a_signal_before_a_commit_that_comes_with_the_response(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        """Flask-Security's order."""

        @site.app.post("/register")
        def register() -> str:
            @after_this_request
            def commit(response: Response) -> Response:
                if "fails" in request.args:
                    site.db.session.rollback()
                else:
                    site.db.session.commit()
                return response

            registered(site.add())
            return "welcome"

        sign_up(site, mmolove_sandbox, "fails")
        assert site.state.outbox.inspector.summary().counts == {}
        sign_up(site, mmolove_sandbox)
        assert site.count(Player) == 1
        assert site.state.outbox.inspector.summary().counts == {"pending": 1}

    def test_a_site_that_commits_last_of_all(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        @site.app.after_request
        def commit(response: Response) -> Response:
            site.db.session.commit()
            return response

        @signup(site)
        def register() -> str:
            registered(site.add())
            return "welcome"

        sign_up(site, mmolove_sandbox)
        assert site.entries(1)["registered"].state == "pending"

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_who_is_committed_is_reported_though_the_answer_is_an_error(
        self, site: Site, mmolove_sandbox: SiteSandbox, when: str
    ) -> None:
        @site.app.after_request
        def commit(response: Response) -> Response:
            site.db.session.commit()
            return response

        @signup(site)
        def register() -> ResponseReturnValue:
            player = site.add()
            if when == "before":
                site.db.session.commit()
            registered(player)
            return "confirm your address first", 403

        sign_up(site, mmolove_sandbox)
        assert site.count(Player) == 1
        assert site.entries(1)["registered"].state == "pending"

    def test_who_is_not_committed_with_an_error_is_dropped_without_a_word(
        self, site: Site, mmolove_sandbox: SiteSandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        @signup(site)
        def register() -> ResponseReturnValue:
            registered(site.add())
            site.db.session.flush()
            return "no", 409

        sign_up(site, mmolove_sandbox)
        assert site.count(Player) == 0
        assert site.state.outbox.inspector.page() == []
        assert not caplog.records

    def test_the_decorator_finds_the_player_when_all_is_committed(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        @signup(site, player=lambda response: response.get_json()["id"])
        def register() -> dict[str, int]:
            player = site.add()
            site.db.session.commit()
            return {"id": player.id}

        sign_up(site, mmolove_sandbox)
        assert site.entries(1)["registered"].state == "pending"

    def test_an_account_that_was_not_made_by_the_orm(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        @signup(site)
        def register() -> str:
            new = insert(Player).values(id=7, name="anna", level=1)
            site.db.session.connection().execute(new)
            registered(7)
            if "fails" in request.args:
                site.db.session.rollback()
            else:
                site.db.session.commit()
            return "welcome"

        if str(site.state.outbox).startswith("mariadb"):
            pytest.skip("MariaDB does not say whether something was changed")
        sign_up(site, mmolove_sandbox, "fails")
        assert site.entries(7) == {}
        sign_up(site, mmolove_sandbox)
        assert site.entries(7)["registered"].state == "pending"

    @pytest.mark.parametrize("how", ["orm", "core", "rollback"])
    def test_a_transaction_that_is_begun_by_a_read(
        self, site: Site, mmolove_sandbox: SiteSandbox, how: str
    ) -> None:
        """As SQLAlchemy's documentation has SQLite begin one."""

        @signup(site)
        def register() -> str:
            session = site.db.session
            if how == "orm":
                site.add()
                session.commit()
                session.get_one(Player, 1)
                registered(1)
                return "welcome"
            session.get(Player, 1)
            new = insert(Player).values(id=1, name="anna", level=1)
            session.connection().execute(new)
            registered(1)
            getattr(session, "rollback" if how == "rollback" else "commit")()
            return "welcome"

        if not str(site.state.outbox).startswith("sqlite"):
            pytest.skip("others always do")
        with site.app.app_context():
            engine = site.db.engine
            engine.dispose()
        event.listen(engine, "connect", leave_transactions_alone)
        event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN") and None)
        sign_up(site, mmolove_sandbox)
        if how == "rollback":
            assert site.entries(1) == {}
        else:
            assert site.entries(1)["registered"].state == "pending"

    def test_a_session_that_the_view_closed(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        @signup(site)
        def register() -> str:
            player = site.add()
            site.db.session.commit()
            registered(player)
            site.db.session.remove()
            return "welcome"

        sign_up(site, mmolove_sandbox)
        assert site.entries(1)["registered"].state == "pending"

    def test_an_account_that_is_committed_is_not_asked_for_its_id(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        """The database may be gone by then."""
        asked: list[str] = []

        @signup(site)
        def register() -> str:
            player = site.add()
            site.db.session.commit()
            event.listen(site.db.engine, "before_cursor_execute", note)
            registered(player)
            event.remove(site.db.engine, "before_cursor_execute", note)
            return "welcome"

        def note(*called: t.Any) -> None:
            asked.append(called[2])

        sign_up(site, mmolove_sandbox)
        assert site.entries(1)["registered"].state == "pending"
        assert asked == []

    def test_a_signup_waits_for_one_statement_more(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        asked: list[str] = []

        def note(*called: t.Any) -> None:
            asked.append(called[2])

        @signup(site)
        def register() -> str:
            registered(site.add())
            event.listen(site.db.engine, "before_cursor_execute", note)
            site.db.session.commit()
            event.remove(site.db.engine, "before_cursor_execute", note)
            return "welcome"

        site.state.outbox.create()
        sign_up(site, mmolove_sandbox)
        assert site.entries(1)["registered"].state == "pending"
        account, row = asked
        assert "INSERT INTO player" in account
        assert "INSERT INTO mmolove_event" in row

    def test_a_player_made_while_the_session_is_flushed(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        def tell(mapper: object, connection: object, player: Player) -> None:
            registered(player)

        event.listen(Player, "after_insert", tell)
        try:

            @signup(site)
            def register() -> str:
                site.add()
                site.db.session.commit()
                return "welcome"

            sign_up(site, mmolove_sandbox)
        finally:
            event.remove(Player, "after_insert", tell)
        assert site.entries(1)["registered"].state == "pending"


class TestTrouble:
    """What fails of ours is no trouble of the site's."""

    def test_the_account_is_committed_and_its_event_takes_the_emergency_exit(
        self, site: Site, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Looking a token up would make the table first.
        monkeypatch.setattr(Outbox, "is_used", lambda *args: False)

        @signup(site)
        def register() -> str:
            player = site.add()
            site.db.session.flush()
            registered(player)
            site.db.session.commit()
            return "welcome"

        with site.app.app_context():
            rename(site, "mmolove_event", "away")
        site.app.extensions["migrate"] = object()  # so nothing recreates it
        sign_up(site, mmolove_sandbox)
        assert site.count(Player) == 1
        [(_, report)] = site.state.spool.read()
        assert report.identity == "1"
        with site.app.app_context():
            rename(site, "away", "mmolove_event")
        site.state.make_delivery().drain()
        assert mmolove_sandbox.reported == [("registered", "1")]

    def test_what_was_rolled_back_is_not_kept_there_either(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        with site.app.app_context():
            site.state.outbox.tables.event.drop(site.db.engine)  # type: ignore[attr-defined]
            player = site.add(mmref="tok")
            site.db.session.flush()
            registered(player)
            qualify(player)
            site.db.session.rollback()
        assert site.state.spool.read() == []

    def test_a_player_without_an_identity_harms_no_commit(
        self, site: Site, log: t.Any
    ) -> None:
        with site.app.app_context():
            registered(Player(name="nobody"), token="tok")
            site.add()
            site.db.session.commit()
        assert site.count(Player) == 1
        assert "could not be reported" in log.getvalue()

    def test_the_lock_of_another_holds_a_commit_up_for_no_longer_than_allowed(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if str(site.state.outbox).startswith("sqlite"):
            pytest.skip("SQLite has one lock, and the site waits for it as it likes")
        monkeypatch.setattr("flask_mmolove.recording.recorder.TIMEOUT", 0.1)
        with site.app.app_context():
            site.add("anna", mmref="tok")
            site.db.session.commit()
            with site.db.engine.begin() as other:
                site.state.outbox.within(other).add(  # type: ignore[attr-defined]
                    "1",
                    site.state.recorder.report("1", None, "registered").events(
                        "t", "s"
                    ),
                    1,
                )
                player = site.db.session.scalars(select(Player)).one()
                registered(player)
                player.level = 2
                site.db.session.commit()
        assert [report.identity for _, report in site.state.spool.read()] == ["1"]

    def test_a_commit_of_nothing_else_waits_no_longer_for_sqlite_s_one_lock(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not str(site.state.outbox).startswith("sqlite"):
            pytest.skip("others have more locks")
        monkeypatch.setattr("flask_mmolove.recording.recorder.TIMEOUT", 0.1)
        with site.app.app_context():
            session = site.db.session
            session.add(Player(name="anna", mmref="tok"))
            session.commit()
            with site.db.engine.connect() as other:
                other.exec_driver_sql("BEGIN IMMEDIATE")
                qualify(session.get_one(Player, 1))
                begun = time.monotonic()
                session.commit()
                assert time.monotonic() - begun < 3  # the site waits for 5 seconds
            assert session.scalar(text("PRAGMA busy_timeout")) == 5000
            site.add("ben")
            session.commit()
        assert [report.identity for _, report in site.state.spool.read()] == ["1"]

    def test_a_connection_that_is_lost_meanwhile_is_told_as_such(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The site's commit raises what it would without us."""
        name = str(site.state.outbox).partition("+")[0].partition(":")[0]
        end = {
            "postgresql": "SELECT pg_terminate_backend(pg_backend_pid())",
            "mariadb": "KILL CONNECTION_ID()",
        }.get(name)
        if end is None:
            pytest.skip("SQLite has no connections to lose")

        def lose(*_: t.Any) -> t.Any:
            connection = site.db.session.connection()
            connection.execute(text(end))
            connection.execute(text("SELECT 1"))

        monkeypatch.setattr(Transaction, "record", lose)
        with site.app.app_context():
            registered(site.add(mmref="tok"))
            with pytest.raises(OperationalError):
                site.db.session.commit()
            site.db.session.rollback()
        assert site.count(Player) == 0
        assert site.state.spool.read() == []

    def test_a_transaction_that_the_database_gave_up_is_not_taken_for_committed(
        self, site: Site
    ) -> None:
        """MariaDB rolls back all of it in a deadlock, the site's changes too."""
        if not str(site.state.outbox).startswith("mariadb"):
            pytest.skip("others give up no more than the savepoint")
        with site.app.app_context():
            site.add("anna", mmref="a-token")
            site.db.session.commit()
            other = site.db.engine.connect()
            other.execute(insert(Gift), [{"key": str(n)} for n in range(99)])
            site.state.outbox.within(other).add(  # type: ignore[attr-defined]
                "1",
                site.state.recorder.report("1", None, "registered").events("t", "s"),
                1,
            )
            player = site.db.session.scalars(select(Player)).one()
            change = update(Player).values(level=3)
            site.db.session.execute(change)
            registered(player)
            waiting = threading.Thread(target=other.execute, args=(change,))
            waiting.start()
            with pytest.raises(OperationalError) as caught:
                site.db.session.commit()
            assert "INSERT INTO mmolove_event" in str(caught.value)
            assert "a-token" not in str(caught.value)  # the site logs it
            waiting.join(10)
            other.rollback()
            other.close()
            site.db.session.rollback()
            assert site.db.session.scalars(select(Player)).one().level == 1


def rename(site: Site, old: str, new: str) -> None:
    with site.db.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


class TestMilestone:
    @pytest.fixture
    def player(self, site: Site) -> int:
        with site.app.app_context():
            player = site.add(mmref="tok")
            registered(player)
            site.db.session.commit()
            return player.id

    def test_it_is_committed_with_the_site_s_changes(
        self, site: Site, player: int
    ) -> None:
        with site.app.app_context():
            found = site.db.session.get_one(Player, player)
            found.level = 20
            first, again = qualify(found), qualify(found)
            assert site.entries(player).keys() == {"registered"}
            site.db.session.commit()
            assert site.entries(player).keys() == {"registered", "qualified"}
        assert isinstance(first, Referral) and again == first
        assert (first.identity, first.state) == (str(player), "pending")

    @pytest.mark.parametrize("first", [True, False])
    def test_it_is_rolled_back_with_the_site_s_changes(
        self, site: Site, player: int, first: bool
    ) -> None:
        with site.app.app_context():
            found = site.db.session.get_one(Player, player)
            if first:
                qualify(found)
            found.level = 20
            site.db.session.flush()
            if not first:
                qualify(found)
            site.db.session.rollback()
        assert site.entries(player).keys() == {"registered"}

    @pytest.mark.parametrize("how", ["raised", "refused", "outer"])
    def test_a_savepoint_rolled_back_later_does_not_take_it_along(
        self, site: Site, player: int, how: str
    ) -> None:
        told: list[Entry] = []

        def listen(app: Flask, entry: Entry, **extra: t.Any) -> None:
            told.append(entry)

        session = site.db.session
        with event_recorded.connected_to(listen), site.app.app_context():
            found = session.get_one(Player, player)
            assert qualify(found) is not None
            with contextlib.suppress(IntegrityError, ZeroDivisionError):
                with session.begin_nested():
                    site.add("anna" if how == "refused" else "ben")
                    if how == "outer":
                        session.begin_nested().commit()
                    session.flush()
                    raise ZeroDivisionError
            found.level = 20
            session.commit()
            assert session.get_one(Player, player).level == 20
        assert site.count(Player) == 1
        assert site.entries(player).keys() == {"registered", "qualified"}
        assert [entry.event for entry in told] == ["qualified"]

    def test_trouble_in_such_a_savepoint_is_forgotten(
        self, site: Site, player: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = site.db.session
        with site.app.app_context():
            found = session.get_one(Player, player)
            qualify(found)
            with contextlib.suppress(ZeroDivisionError), monkeypatch.context() as patch:
                patch.setattr(Transaction, "record", None)
                with session.begin_nested():
                    site.add("ben")
                    session.flush()
                    raise ZeroDivisionError
            found.level = 20
            session.commit()
        assert site.entries(player).keys() == {"registered", "qualified"}
        assert site.state.spool.read() == []

    def test_a_flush_that_fails_takes_it_along(self, site: Site, player: int) -> None:
        with site.app.app_context():
            qualify(site.db.session.get_one(Player, player))
            site.add("anna")
            with pytest.raises(IntegrityError):
                site.db.session.flush()
            site.db.session.close()
        assert site.entries(player).keys() == {"registered"}

    def test_it_is_recorded_where_the_site_has_nothing_to_commit(
        self, site: Site, player: int
    ) -> None:
        with site.app.app_context():
            qualify(player)
        assert site.entries(player).keys() == {"registered", "qualified"}

    @pytest.mark.parametrize("changed", [False, True])
    def test_where_the_site_fails_it_is_dropped_with_changes_only(
        self, site: Site, player: int, changed: bool, log: io.StringIO
    ) -> None:
        with pytest.raises(ZeroDivisionError), site.app.app_context():
            if changed:
                site.add("ben")
            qualify(player)
            raise ZeroDivisionError
        assert ("qualified" in site.entries(player)) == (not changed)
        assert "not committed" not in log.getvalue()

    def test_a_signup_and_a_milestone_in_one_transaction(self, site: Site) -> None:
        with site.app.app_context():
            player = site.add("ben", mmref="tok")
            registered(player)
            site.db.session.flush()
            assert qualify(player) is not None
            site.db.session.commit()
            entries = site.entries(player.id)
        assert entries["registered"].due is not None
        assert entries["qualified"].due is None  # until that is accepted

    def test_a_player_who_is_not_flushed_yet_is(self, site: Site) -> None:
        with site.app.app_context():
            assert qualify(site.add("ben", mmref="tok")) is not None
            site.db.session.commit()
        assert site.entries(1).keys() == {"registered", "qualified"}

    def test_a_player_who_never_will_be_is_an_error(self, site: Site) -> None:
        with site.app.app_context(), pytest.raises(IdentityError):
            qualify(Player(name="nobody", mmref="tok"))

    def test_what_cannot_be_read_now_is_kept_for_later(
        self, site: Site, player: int, mmolove_sandbox: SiteSandbox
    ) -> None:
        site.app.extensions["migrate"] = "makes the tables, and has not yet"
        with site.app.app_context():
            rename(site, "mmolove_event", "away")
            assert qualify(player) is None
            site.db.session.commit()
            rename(site, "away", "mmolove_event")
        assert [report.identity for _, report in site.state.spool.read()] == ["1"]
        site.state.make_delivery().import_spool()
        assert site.entries(player).keys() == {"registered", "qualified"}
