"""One token pays once: it belongs to the first account that was reported with it."""

from __future__ import annotations

import io
import logging
import sqlite3
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask import request
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import inspect
from sqlalchemy import URL

from flask_mmolove import IdentityError
from flask_mmolove import MMOLove
from flask_mmolove import OutboxBusy
from flask_mmolove import OutboxError
from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove import signals
from flask_mmolove.admin.cli import mmolove as group
from flask_mmolove.admin.wording import hint
from flask_mmolove.outbox.actions import Actions
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.report import make_event
from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.spool import Spool
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.outbox.sqlite.schema import MIGRATIONS
from flask_mmolove.outbox.sqlite.schema import Schema
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.store import Outbox
from flask_mmolove.outbox.tokens import TOKEN_USED
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox
from tests.conftest import find_url
from tests.conftest import MakeApp
from tests.conftest import SQL
from tests.outbox.storm import processes_context

NOW = 1_790_000_000_000
LEASE = 60_000
STORES = ("own", *SQL)
BOTH = ("registered", "qualified")


def open_outbox(where: str) -> Outbox:
    return SQLAlchemyOutbox(where) if "://" in where else SQLiteOutbox(Path(where))


@pytest.fixture(params=STORES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "own":
        return str(tmp_path / "outbox.db")
    return find_url(request.param, request).render_as_string(hide_password=False)


@pytest.fixture
def outbox(where: str) -> t.Iterator[Outbox]:
    outbox = open_outbox(where)
    yield outbox
    outbox.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def add(
    outbox: Outbox,
    player: str,
    *names: str,
    token: str = "token",
    test: bool = False,
    now: int = NOW,
) -> list[Entry]:
    note = Report(player, token, names or BOTH, test, now)
    return outbox.record(note, "srv")


def states(outbox: Outbox, player: str) -> list[str]:
    return [entry.state for entry in sorted(outbox.of(player, False).values())]


def accept(outbox: Outbox, *, reward: bool = False) -> list[str]:
    """Do all that is due, and give whose milestones were credited."""
    credited = []
    while entries := outbox.claim("pending", NOW + 9, LEASE, 99):
        settled = [Settlement(e, "accepted", is_fact=True) for e in entries]
        outbox.settle(settled, NOW)
        credited += [e.identity for e in entries if e.event == "qualified"]
        if reward and entries[0].event == "qualified":
            rows = [outbox.of(e.identity, False)["qualified"] for e in entries]
            paid = [Settlement(row, "rewarded", is_fact=True) for row in rows]
            outbox.settle(paid, NOW)
    return credited


class TestStores:
    def test_a_second_account_is_ignored_and_never_sent(self, outbox: Outbox) -> None:
        add(outbox, "first")
        second, milestone = add(outbox, "second")
        assert (second.state, second.answer) == ("ignored", TOKEN_USED)
        assert (second.due, second.digest, second.is_second) == (None, None, True)
        assert (milestone.state, milestone.due) == ("ignored", None)
        assert second == outbox.of("second", False)["registered"]
        assert accept(outbox) == ["first"]

    def test_the_milestone_of_a_second_account_is_ignored_later(
        self, outbox: Outbox
    ) -> None:
        add(outbox, "first", "registered")
        add(outbox, "second", "registered")
        accept(outbox)
        add(outbox, "second")
        assert states(outbox, "second") == ["ignored", "ignored"]
        assert accept(outbox) == []

    def test_whether_a_token_is_used_is_known_for_good(self, outbox: Outbox) -> None:
        assert not outbox.is_used("token")
        add(outbox, "tester", test=True)
        assert not outbox.is_used("token")
        add(outbox, "first")
        assert outbox.is_used("token") and not outbox.is_used("other")
        outbox.erase("first")
        assert outbox.is_used("token") and not outbox.is_used("other")

    def test_the_same_account_again_changes_nothing(self, outbox: Outbox) -> None:
        new = add(outbox, "first")
        assert add(outbox, "first") == []
        assert sorted(outbox.of("first", False).values()) == sorted(new)

    def test_an_account_that_is_known_stays_with_its_token(
        self, outbox: Outbox
    ) -> None:
        add(outbox, "first", "registered", token="one")
        assert add(outbox, "first", "registered", token="two") == []
        assert add(outbox, "second", "registered", token="two")[0].state == "pending"

    def test_a_second_account_is_told_once(self, outbox: Outbox) -> None:
        add(outbox, "first")
        assert len(add(outbox, "second")) == 2
        assert add(outbox, "second") == []

    def test_dry_runs_use_no_token(self, outbox: Outbox) -> None:
        for player in ("first", "second"):
            assert add(outbox, player, test=True)[0].state == "pending"
            assert outbox.of(player, True)["registered"].digest is None
        assert add(outbox, "third")[0].state == "pending"

    def test_case_and_accents_tell_tokens_apart(self, outbox: Outbox) -> None:
        for number, token in enumerate(("token", "Token", "TOKEN")):
            (new,) = add(outbox, str(number), "registered", token=token)
            assert new.state == "pending"

    def test_a_rejected_owner_that_is_sent_again_still_owns(
        self, outbox: Outbox
    ) -> None:
        add(outbox, "first")
        (entry,) = outbox.claim("pending", NOW, LEASE, 1)
        outbox.settle([Settlement(entry, "rejected", status=404)], NOW)
        add(outbox, "second")
        outbox.retry(NOW)
        assert outbox.retry(NOW) == []
        assert accept(outbox) == ["first"]

    def test_settings_that_change_leave_the_owner(self, outbox: Outbox) -> None:
        outbox.apply_settings("old", "srv", NOW)
        add(outbox, "first")
        add(outbox, "second")
        outbox.apply_settings("new", "other", NOW)
        add(outbox, "third")
        assert accept(outbox) == ["first"]

    def test_an_erased_account_frees_no_token(self, outbox: Outbox) -> None:
        add(outbox, "first")
        accept(outbox, reward=True)
        outbox.erase("first")
        for player in ("first", "second"):
            assert add(outbox, player)[0].is_second
        assert accept(outbox) == []

    def test_to_erase_a_second_account_frees_no_token(self, outbox: Outbox) -> None:
        add(outbox, "first")
        add(outbox, "second")
        outbox.erase("second")
        assert add(outbox, "second")[0].is_second
        assert accept(outbox) == ["first"]

    def test_a_purged_account_frees_no_token(self, outbox: Outbox) -> None:
        add(outbox, "first")
        accept(outbox, reward=True)
        assert outbox.purge(NOW + 1) == 2
        for player in ("first", "second"):
            assert add(outbox, player)[0].is_second

    def test_a_token_is_used_before_its_row_is_purged(
        self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A signup that waits for the row to go does not see what the same transaction
        put elsewhere.
        """
        add(outbox, "first")
        accept(outbox, reward=True)

        def fail(*args: object) -> t.NoReturn:
            raise OSError("killed")

        monkeypatch.setattr(Actions, "purge", fail)
        with pytest.raises(OSError, match="killed"):
            outbox.purge(NOW + 1)
        used = f"SELECT count(*) FROM {outbox.dialect.used}"
        assert outbox.run(lambda db: db.execute(used, {})) == [(1,)]

    def test_what_is_used_already_can_be_erased_again(self, outbox: Outbox) -> None:
        add(outbox, "first")
        for _ in range(2):
            outbox.use_tokens("first", ["spooled", "spooled"])
        outbox.erase("first")
        assert add(outbox, "second", token="spooled")[0].is_second

    def test_a_second_account_is_counted_nowhere(self, outbox: Outbox) -> None:
        add(outbox, "first")
        add(outbox, "second")
        accept(outbox, reward=True)
        (day,) = outbox.inspector.days(NOW, NOW)
        assert (day.signed_up, day.accepted, day.rewarded) == (1, 1, 1)

    @pytest.mark.slow
    def test_processes_that_race_for_a_token_have_one_owner(self, where: str) -> None:
        context = processes_context()
        count = 8
        barrier = context.Barrier(count)
        processes = [
            context.Process(target=race, args=(where, barrier, number))
            for number in range(count)
        ]
        outbox = open_outbox(where)
        outbox.create()
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * count
        counts = outbox.inspector.summary().counts
        assert counts == {"pending": 20, "ignored": 10 * 2 * count - 20}
        owners = accept(outbox)
        assert len(owners) == 10
        outbox.close()


def race(where: str, barrier: t.Any, number: int) -> None:
    outbox = open_outbox(where)
    barrier.wait(60)
    for token in range(10):
        add(outbox, f"{number}-{token}", token=f"token-{token}")
    outbox.close()


class TestDamage:
    @pytest.fixture
    def outbox(self, path: Path) -> t.Iterator[SQLiteOutbox]:
        outbox = SQLiteOutbox(path)
        yield outbox
        outbox.close()

    def damage(self, outbox: SQLiteOutbox, path: Path) -> None:
        """Damage what every query needs, and let it be noticed."""
        outbox.close()
        content = bytearray(path.read_bytes())
        content[:16] = b"\xff" * 16
        path.write_bytes(content)
        with pytest.raises(OutboxError):
            add(outbox, "late", token="late")

    def test_a_recovered_account_owns_its_token(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add(outbox, "first")
        accept(outbox, reward=True)
        self.damage(outbox, path)
        outbox.recover()
        assert add(outbox, "second")[0].is_second
        assert accept(outbox) == []

    def test_a_used_token_is_recovered(self, outbox: SQLiteOutbox, path: Path) -> None:
        add(outbox, "first")
        outbox.erase("first")
        self.damage(outbox, path)
        outbox.recover()
        assert add(outbox, "second")[0].is_second

    def test_a_used_token_survives_a_file_that_is_deleted(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add(outbox, "first")
        outbox.erase("first")
        path.unlink()
        add(outbox, "other", token="other")
        outbox.recover()
        assert add(outbox, "second")[0].is_second

    @pytest.mark.parametrize("first_is_rewarded", [True, False])
    def test_the_account_that_came_first_wins_when_it_is_recovered(
        self, outbox: SQLiteOutbox, path: Path, first_is_rewarded: bool
    ) -> None:
        add(outbox, "first")
        if first_is_rewarded:
            accept(outbox, reward=True)
        self.damage(outbox, path)
        add(outbox, "second", now=NOW + 1)
        outbox.recover()
        assert states(outbox, "second") == ["ignored", "ignored"]
        assert accept(outbox) == ([] if first_is_rewarded else ["first"])

    def test_an_account_that_was_rewarded_meanwhile_keeps_the_token(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add(outbox, "first")
        self.damage(outbox, path)
        add(outbox, "second", now=NOW + 1)
        accept(outbox, reward=True)
        outbox.recover()
        assert states(outbox, "second") == ["accepted", "rewarded"]
        assert states(outbox, "first") == ["ignored", "ignored"]
        assert accept(outbox) == []

    def test_an_account_that_was_shut_out_meanwhile_gets_its_token_back(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add(outbox, "first")
        self.damage(outbox, path)
        add(outbox, "second", now=NOW + 1)
        assert add(outbox, "first", "registered", now=NOW + 2)[0].is_second
        outbox.recover()
        assert accept(outbox) == ["first"]
        assert states(outbox, "second") == ["ignored", "ignored"]


# -- outboxes of the version before ----------------------------------------------------


def make_old_file(path: Path, *players: str) -> None:
    """A file as the version before made it, with one token for all."""
    db = sqlite3.connect(path, isolation_level=None)
    Schema(MIGRATIONS[:1], ()).migrate(db, path)
    for player in players:
        for name in BOTH:
            event = make_event(name, player, "token", "srv", NOW, False)
            db.execute(
                "INSERT INTO event (identity, event, test, token, server_id, body,"
                " state, due, recorded, begun)"
                " VALUES (?, ?, 0, 'token', 'srv', ?, 'pending', ?, ?, 0)",
                (player, name, event.encode(), NOW if name == BOTH[0] else None, NOW),
            )
    db.close()


def make_old_tables(url: URL, *players: str) -> SQLAlchemyOutbox:
    """The same in a SQL database."""
    outbox = SQLAlchemyOutbox(url)
    outbox.create()
    for player in players:
        add(outbox, player, token=player)
    on = " ON mmolove_event" if outbox._is_mysql else ""
    with outbox._engine().begin() as connection:
        for statement in (
            f"DROP INDEX mmolove_event_digest{on}",
            "ALTER TABLE mmolove_event DROP COLUMN digest",
            "DROP TABLE mmolove_used",
            "UPDATE mmolove_event SET token = 'token'",
        ):
            connection.exec_driver_sql(statement)
    outbox.close()
    return SQLAlchemyOutbox(url)


class TestUpgrade:
    def test_an_old_file_goes_on(self, path: Path) -> None:
        make_old_file(path, "first", "second")
        outbox = SQLiteOutbox(path)
        outbox.upgrade()
        assert add(outbox, "third")[0].is_second
        assert add(outbox, "fourth", token="other")[0].state == "pending"
        assert accept(outbox) == ["first", "fourth"]
        assert states(outbox, "second") == ["ignored", "ignored"]
        outbox.close()

    def test_it_is_done_once(self, path: Path) -> None:
        make_old_file(path, "first")
        outbox = SQLiteOutbox(path)
        outbox.upgrade()
        before = outbox.inspector.page()
        outbox.upgrade()
        assert outbox.inspector.page() == before
        outbox.close()

    def test_who_was_reported_before_the_upgrade_was_done_gives_way(
        self, path: Path
    ) -> None:
        make_old_file(path, "first")
        outbox = SQLiteOutbox(path)
        assert add(outbox, "second", now=NOW + 1)[0].state == "pending"
        outbox.upgrade()
        assert accept(outbox) == ["first"]
        outbox.close()

    def test_an_old_file_that_is_damaged_is_recovered(self, path: Path) -> None:
        make_old_file(path, "first", "second")
        content = bytearray(path.read_bytes())
        content[:16] = b"\xff" * 16
        path.write_bytes(content)
        outbox = SQLiteOutbox(path)
        with pytest.raises(OutboxError):
            outbox.create()
        outbox.recover()
        assert accept(outbox) == ["first"]
        outbox.close()

    def test_more_rows_than_one_transaction_takes(self, path: Path) -> None:
        make_old_file(path, *map(str, range(501)))
        outbox = SQLiteOutbox(path)
        outbox.upgrade()
        assert accept(outbox) == ["0"]
        outbox.close()

    def test_old_tables_are_brought_up_to_date_when_they_are_used(
        self, url: URL
    ) -> None:
        outbox = make_old_tables(url, "first", "second")
        outbox.upgrade()
        assert add(outbox, "third")[0].is_second
        assert accept(outbox) == ["first"]
        outbox.close()

    def test_init_db_adds_what_is_missing(self, url: URL) -> None:
        outbox = make_old_tables(url, "first")
        assert outbox.create()
        assert not outbox.create()
        inspector = inspect(outbox._engine())
        indexes = {i["name"]: i for i in inspector.get_indexes("mmolove_event")}
        assert indexes["mmolove_event_digest"]["unique"]
        outbox.close()

    def test_where_migrations_make_the_tables_a_signup_says_what_to_do(
        self, url: URL
    ) -> None:
        make_old_tables(url, "first").close()
        outbox = SQLAlchemyOutbox(url, creates=lambda: False)
        with pytest.raises(OutboxError, match="flask mmolove init-db"):
            add(outbox, "second")
        outbox.close()


# -- a site ----------------------------------------------------------------------------


class Player:
    def __init__(self, id: str, mmref: str | None = None) -> None:
        self.id = id
        self.mmref = mmref


class Site:
    """A site whose form makes an account of any name."""

    def __init__(self, app: Flask, mmolove: MMOLove, sandbox: SiteSandbox) -> None:
        self.app = app
        self.mmolove = mmolove
        self.sandbox = sandbox
        self.state: State = app.extensions["mmolove"]
        self.rewards: list[str] = []
        mmolove.reward(lambda referral: self.rewards.append(referral.identity))
        app.add_url_rule("/signup", view_func=self._sign_up, methods=["GET", "POST"])
        app.add_url_rule("/delete", view_func=self._delete, methods=["POST"])

    @referral_register
    def _sign_up(self) -> str:
        if request.method == "POST":
            registered(request.args["player"])
        return "Welcome"

    def _delete(self) -> str:
        self.mmolove.forget(request.args["player"])
        return "Bye"

    def browser(self, token: str) -> FlaskClient:
        client = self.app.test_client()
        client.get(f"/signup?mmref={token}")
        return client

    def sign_up(self, player: str, token: str) -> None:
        response = self.browser(token).post(f"/signup?player={player}")
        assert response.status_code == 200

    def qualify(self, player: str | Player) -> t.Any:
        with self.app.app_context():
            return qualify(player)

    def deliver(self) -> None:
        self.state.make_delivery().drain()

    def command(self, *args: str) -> str:
        return self.app.test_cli_runner().invoke(group, [*args]).output


@pytest.fixture
def site(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Site:
    mmolove = MMOLove()
    return Site(make_app(mmolove, DELIVERY="manual"), mmolove, mmolove_sandbox)


def test_one_cookie_in_twenty_browsers_is_worth_one_reward(
    site: Site, log: io.StringIO
) -> None:
    token = site.sandbox.mint()
    cookie = site.browser(token).get_cookie("mmolove_ref")
    assert cookie is not None
    for number in range(20):
        client = site.app.test_client()
        client.set_cookie("mmolove_ref", cookie.value)
        assert client.post(f"/signup?player={number}").status_code == 200
        site.deliver()
        site.qualify(str(number))
        site.deliver()
    assert site.rewards == ["0"]
    assert site.sandbox.reported == [("registered", "0"), ("qualified", "0")]
    assert len(site.sandbox.sandbox.arrivals) == 2
    assert log.getvalue().count("a token counts once") == 19


def test_a_second_account_is_visible_to_the_owner(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # a narrow table is cut
    told: list[Entry] = []

    def hear(sender: Flask, entry: Entry, **extra: t.Any) -> None:
        told.append(entry)

    token = site.sandbox.mint()
    site.sign_up("1", token)
    with signals.event_ignored.connected_to(hear):
        site.sign_up("2", token)
    (second,) = told
    assert second.is_second and second.identity == "2"
    assert "A token counts once" in hint(second)
    assert hint(second) in site.command("show", str(second.id))
    assert TOKEN_USED in site.command("events", "--player", "2")
    assert "ignored" in site.command("events", "--player", "2")
    assert "another account came first" in site.command("status")
    assert site.qualify("2").state == "ignored"


def test_a_second_account_from_the_spool_is_ignored_with_a_warning(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    token = site.sandbox.mint()
    site.sign_up("1", token)
    site.state.spool.write(Report("2", token, ["registered"], False, NOW))
    site.deliver()
    assert site.state.outbox.of("2", False)["registered"].is_second
    assert "Player 2 was reported with the token" in caplog.text


def test_forgotten_and_qualified_again_it_is_not_rewarded_twice(site: Site) -> None:
    token = site.sandbox.mint()
    player = Player("1", token)
    site.qualify(player)
    site.deliver()
    with site.app.app_context():
        site.mmolove.forget(player)
    assert site.qualify(player).state == "ignored"
    assert site.qualify(Player("2", token)).state == "ignored"
    site.deliver()
    assert site.rewards == ["1"]


# -- ids that are used twice -----------------------------------------------------------


def test_a_forgotten_account_s_id_is_a_new_player(site: Site) -> None:
    site.sign_up("1", site.sandbox.mint())
    site.deliver()
    assert site.app.test_client().post("/delete?player=1").text == "Bye"
    assert site.qualify("1") is None
    site.deliver()
    assert site.rewards == []
    assert site.state.outbox.inspector.page() == []


def test_forget_uses_up_the_token_of_a_signup_in_the_spool(site: Site) -> None:
    spooled = Report("1", "spooled", ["registered"], False, NOW)
    site.state.spool.write(spooled)
    with site.app.app_context():
        site.mmolove.forget("1")
    assert site.state.spool.read() == []
    assert add(site.state.outbox, "2", token="spooled")[0].is_second


def test_forget_raises_what_keeps_it_from_erasing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(spool: Spool, player: str) -> None:
        raise OutboxError("The file cannot be read.")

    monkeypatch.setattr(Spool, "erase", fail)
    with site.app.app_context(), pytest.raises(OutboxError):
        site.mmolove.forget("1")
    with site.app.app_context(), pytest.raises(IdentityError):
        site.mmolove.forget(None)


def test_forget_waits_in_a_request_no_longer_than_a_request_may(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mmolove.recording.recorder.REQUEST_TIMEOUT", 0.01)
    site.state.outbox.create()
    other = sqlite3.connect(site.state.settings.outbox, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    site.app.testing = True
    with pytest.raises(OutboxBusy):
        site.app.test_client().post("/delete?player=1")
    other.close()


@pytest.mark.parametrize("way", ["a request", "the spool"])
def test_a_known_player_with_another_token_is_warned_of(
    site: Site, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    site.sign_up("1", site.sandbox.mint())
    token = site.sandbox.mint()
    assert not caplog.records
    if way == "a request":
        site.sign_up("1", token)
    else:
        site.state.spool.write(Report("1", token, ["registered"], False, NOW))
        site.deliver()
    warned = [r for r in caplog.records if "mmolove.forget(player)" in r.getMessage()]
    assert [record.levelno for record in warned] == [logging.WARNING]
    assert token[:6] in caplog.text


def test_the_same_token_again_is_not_warned_of(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    token = site.sandbox.mint()
    site.sign_up("1", token)
    site.sign_up("1", token)
    site.qualify(Player("1", site.sandbox.mint()))
    assert not caplog.records


# -- the site's own database -----------------------------------------------------------


@pytest.mark.parametrize("first", ["committed", "uncommitted"])
def test_a_second_account_in_the_site_s_session_breaks_no_signup(
    url: URL, mmolove_sandbox: SiteSandbox, tmp_path: Path, first: str
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(
        mmolove_sandbox.config,
        SECRET_KEY="for tests",
        SQLALCHEMY_DATABASE_URI=url.render_as_string(hide_password=False),
        MMOLOVE_DELIVERY="manual",
    )
    db = SQLAlchemy(app)
    mmolove = MMOLove(app, db=db)
    token = mmolove_sandbox.mint()
    with app.app_context():
        db.create_all()
        registered("1", token=token)
        if first == "committed":
            db.session.commit()
        registered("2", token=token)
        db.session.commit()
        registered("3", token=token)
        db.session.commit()
        outbox = app.extensions["mmolove"].outbox
        assert states(outbox, "1") == ["pending"]
        assert states(outbox, "2") == states(outbox, "3") == ["ignored"]
        mmolove.forget("1")
        registered("1", token=token)
        db.session.commit()
        assert states(outbox, "1") == ["ignored"]
        outbox.close()
