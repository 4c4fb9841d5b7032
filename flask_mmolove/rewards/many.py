"""Milestones of many players at once, as the game or a list of ids tells of them."""

from __future__ import annotations

import itertools
import typing as t

from ..state import State

#: Players whose milestones are recorded in one commit.
BATCH = 500

#: ``recorded``
#:     The milestone is stored now, and will be sent.
#: ``known``
#:     It was stored before.
#: ``not referred``
#:     The player did not come by a referral, so there is nothing to report.
Result = t.Literal["recorded", "known", "not referred"]


def qualify_all(
    state: State, players: t.Iterable[str], *, dry_run: bool = False
) -> dict[str, Result]:
    """Record the milestone of each of these players who was referred.

    :param players: Their identities, :data:`BATCH` at most.
    :param dry_run: Only give what would become of each.
    :return: What became of each. All of it is on disk.
    :raises OutboxError: If the outbox cannot be read or written. Then nothing of it is
        recorded; repeat the call.
    """
    recorder = state.recorder
    identities = list(dict.fromkeys(players))
    known = state.outbox.of_all(identities, state.settings.test, state.timeout)
    spooled = _spooled(state, identities)
    results: dict[str, Result] = {}
    reports, to_spool = [], []
    for identity in identities:
        report = recorder.report(identity, None, "qualified")
        entries = known.get(identity, {})
        if "qualified" in entries or spooled.get(identity):
            results[identity] = "known"
        elif registered := entries.get("registered"):
            results[identity] = "recorded"
            token, referrer = registered.token, registered.referrer
            reports.append(report._replace(token=token, referrer=referrer))
        elif identity in spooled:
            results[identity] = "recorded"
            to_spool.append(report)
        else:
            results[identity] = "not referred"
    if not dry_run:
        recorder.record_all(reports)
        for report in to_spool:
            # A milestone must not overtake its signup in the spool.
            recorder.spool(report, "The outbox does not have this player's signup yet.")
    return results


def _spooled(state: State, players: list[str]) -> dict[str, bool]:
    """Those of the players who are in the spool, and whether their milestone is too."""
    found: dict[str, bool] = {}
    for _, report in state.spool.of(*players, strict=True):
        is_there = found.get(report.identity, False)
        found[report.identity] = is_there or "qualified" in report.names
    return found


def batches(players: t.Iterable[str]) -> t.Iterator[list[str]]:
    """Players, as many at a time as :func:`qualify_all` takes."""
    waiting = iter(players)
    while batch := list(itertools.islice(waiting, BATCH)):
        yield batch
