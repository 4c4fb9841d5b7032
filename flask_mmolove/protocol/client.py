"""The client: one signed POST to MMOLove. It works without Flask."""

from __future__ import annotations

import os
import time
import typing as t
from functools import cached_property

from ..errors import ConfigError
from ..text import mask
from . import checks
from . import wire
from .clock import Clock
from .clock import read_ahead
from .failure import explain
from .failure import root_cause
from .proxy import read_proxy
from .response import Outcome
from .response import read_response
from .response import Verdict

if t.TYPE_CHECKING:
    from .transport import Transport

C = t.TypeVar("C")


class SignedBody(t.NamedTuple):
    """The exact bytes to send, and the value of ``X-MMOLove-Signature`` for them."""

    body: bytes
    signature: str

    def __repr__(self) -> str:
        return f"<SignedBody of {len(self.body)} bytes>"


class ReferralClient:
    """Reports events to MMOLove. The methods have the names of MMOLove's own SDK.

    .. code-block:: python

        client = ReferralClient(server_id="srv-1", secret="...")
        result = client.registered(
            token, referee_identity="7842", server_event_id="reg-7842"
        )
        if not result.ok:
            print(result.status, result.body)

    The delivery sends with it too. It stores nothing, and tries again only once, if a
    signature was refused because our clock is wrong: the outbox does the rest. Threads
    may share a client, processes may not.

    :param server_id: The server's id at MMOLove.
    :param secret: The signing secret of the Referrals tab.
    :param endpoint: The URL to send events to.
    :param key_id: Sent as ``kid`` with each signature.
    :param timeout: Seconds for a whole attempt.
    :param connections: How many connections are kept open.
    :param proxy: The URL of a proxy; not used for an endpoint on this machine.
    :param ca_bundle: A file of certificates to trust instead of those that come with
        requests.
    :param clock: Unix seconds; for tests.
    :raises ConfigError: If one of them cannot work.
    """

    def __init__(
        self,
        *,
        server_id: str,
        secret: str,
        endpoint: str = wire.ENDPOINT,
        key_id: str | None = None,
        timeout: float = 10,
        connections: int = 4,
        proxy: str | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
        clock: t.Callable[[], float] = time.time,
    ) -> None:
        self.server_id = _checked("server_id", server_id, checks.check_text)
        self.endpoint = _checked("endpoint", endpoint, checks.check_endpoint)
        self._secret = _checked("secret", secret, checks.check_text)
        self._key_id = _checked("key_id", key_id or "", checks.check_key_id)
        self._timeout = timeout
        self._connections = connections
        self._proxy = _checked("proxy", proxy or "", read_proxy)
        self._ca_bundle: str | None = None
        if ca_bundle is not None:
            file = os.fspath(ca_bundle)
            self._ca_bundle = _checked("ca_bundle", file, checks.check_ca_bundle)
        self._clock = Clock(clock)

    @property
    def ahead(self) -> float:
        """Seconds that MMOLove's clock is ahead, if we sign by it; else 0."""
        return self._clock.ahead

    def __repr__(self) -> str:
        return f"<ReferralClient {self.server_id!r} {mask(self.endpoint)!r}>"

    @cached_property
    def _transport(self) -> Transport:
        # requests imports slower than Flask, and who only records does not need it.
        from .transport import Transport

        return Transport(
            self.endpoint,
            self._timeout,
            self._connections,
            proxy=self._proxy,
            ca_bundle=self._ca_bundle,
        )

    def registered(
        self,
        token: str,
        *,
        referee_identity: str,
        server_event_id: str,
        ts: int | None = None,
        test: bool = False,
    ) -> Outcome:
        """Report that a referred account exists.

        :param token: The captured ``mmref``.
        :param referee_identity: The account's stable id.
        :param server_event_id: The idempotency key, such as ``reg-7842``.
        :param ts: When it happened, in Unix seconds; now, unless given.
        :param test: A dry run, which MMOLove verifies and does not store.
        :raises EventError: If MMOLove could only refuse it. A failure on the way raises
            nothing: the outcome has status 0.
        """
        return self.send(
            self._body("registered", token, server_event_id, ts, test, referee_identity)
        )

    def qualified(
        self,
        token: str,
        *,
        server_event_id: str,
        ts: int | None = None,
        test: bool = False,
    ) -> Outcome:
        """Report that a referred player reached the milestone.

        Parameters, outcome and errors are those of :meth:`registered`. Pass the same
        token and a ``server_event_id`` of its own, such as ``qual-7842``.
        """
        return self.send(self._body("qualified", token, server_event_id, ts, test))

    def sign(
        self,
        event: str,
        token: str,
        *,
        server_event_id: str,
        referee_identity: str | None = None,
        ts: int | None = None,
        test: bool = False,
    ) -> SignedBody:
        """Return the exact bytes and their signature, and send nothing.

        :raises EventError: If MMOLove could only refuse it.
        """
        body = self._body(event, token, server_event_id, ts, test, referee_identity)
        return SignedBody(body, self._sign(body))

    def send(self, body: bytes) -> Outcome:
        """Make one delivery attempt: sign a body now, POST it, and read the response.

        If MMOLove refuses the signature and the response's ``Date`` shows that our
        clock is wrong, this body and all that follow are signed by MMOLove's clock.
        """
        ahead, started = self._clock.ahead, time.monotonic()
        outcome = self._attempt(body)
        if outcome.status == 401:
            self._clock.correct(outcome.clock)
            if self._clock.ahead != ahead:  # perhaps by another thread
                outcome = self._attempt(body)
        return outcome._replace(took=time.monotonic() - started)

    def close(self) -> None:
        """Close the connections."""
        if "_transport" in self.__dict__:
            self._transport.close()

    def _body(
        self,
        event: str,
        token: str,
        server_event_id: str,
        ts: int | None,
        test: bool,
        referee_identity: str | None = None,
    ) -> bytes:
        return wire.Event(
            event=event,
            token=token,
            server_id=self.server_id,
            server_event_id=server_event_id,
            ts=int(self._clock.time()) if ts is None else ts,
            referee_identity=referee_identity,
            test=test,
        ).encode()

    def _sign(self, body: bytes) -> str:
        return wire.sign_referral_body(
            body,
            self._secret,
            timestamp=self._clock.signing_time(),
            key_id=self._key_id or None,
        )

    def _attempt(self, body: bytes) -> Outcome:
        from .transport import FAILURES

        started = self._clock.time()
        try:
            status, headers, content = self._transport.post(body, self._sign(body))
        except FAILURES as e:
            return self._fail(e)
        now = self._clock.time()
        clock = read_ahead(headers, (started + now) / 2)
        return read_response(status, headers, content, now, clock)

    def _fail(self, error: BaseException) -> Outcome:
        cause = root_cause(error)
        proxy, local = self._transport.proxy, checks.is_local(self.endpoint)
        hint = explain(cause, proxy, self._ca_bundle, is_local=local)
        body = f"{type(cause).__name__}: {cause}"[:300]
        return Outcome(0, body, Verdict.RETRY, hint)


def _checked(name: str, value: str, check: t.Callable[[str], C]) -> C:
    if not isinstance(value, str):
        raise ConfigError(f"{name!r} must be a string, not {type(value).__name__}.")
    try:
        return check(value)
    except ValueError as e:
        raise ConfigError(f"{name!r} {e}.") from None
