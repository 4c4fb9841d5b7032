"""What a stranger may send: requests made by lot, from a seed.

Half of what they carry is valid, so that they come in; the other half is that with a
scratch, or no text that anybody expects.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import random
import time
import typing as t
from urllib.parse import quote_from_bytes

from .doorsite import DoorSite
from .doorsite import GAME_KEY
from .doorsite import HOST
from .server import SECRET
from .server import SERVER_ID

Environ = dict[str, t.Any]

#: What must never come back as it is.
MARKUP = ("<script>x", "<img src=x onerror")

#: Values of ``Sec-Fetch-Dest`` for what a page embeds.
EMBEDDED = ("image", "iframe", "frame", "script", "style", "video", "object", "embed")

#: A host that is nobody's whom the site knows.
FOREIGN = "evil.example"

_STRANGE = [
    "",
    " ",
    "\0",
    "\ud800",
    "\udfff\ud800",
    "é",
    "\xff",
    "\u202e\u00a0",
    "😀",
    "\r\nX-Forged: 1",
    "7\nall is well\x1b[2J",
    "{{ 7 * 7 }}{% for %}",
    "%s%n{0}",
    "%00%ff%",
    "%ed%a0%80",
    "../../etc/passwd",
    f"//{FOREIGN}/",
    f"/\\{FOREIGN}",
    f"https://{FOREIGN}",
    "javascript:alert(1)",
    "' OR 1=1 --",
    "0",
    "-1",
    "9" * 19,
    "9" * 400,
    "1e999",
    "٣",
    "null",
    "~",
    "~!",
    ".",
    "..",
    "~YQ.",
    "a" * 255,
    "a" * 1025,
    "A" * 9000,
    "." * 3000,
    "=?utf-8?q?x?=",
]

_ALPHABET = "aZ09-_.~/+=%&;:,\"'\\<>\0\n\x7f\xa0\xffĀ\ud800😀 "

_METHODS = [
    *("HEAD", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"),
    *("get", "post", "Head", "", "PROPFIND", "POST ", "P\0ST", "GÊT", "X" * 300),
]

_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_TYPES = [
    *(_FORM, _JSON, "multipart/form-data", "multipart/form-data; boundary="),
    *(
        "multipart/form-data; boundary=\xff",
        "multipart/mixed; boundary=b",
        "text/plain",
    ),
    *(f"{_JSON}; charset=utf-16", f"{_FORM}; charset=x\0", "", ";", "text/plain"),
    *(f'{_JSON}; x="', "application/vnd.api+json", f"{_FORM.upper()}", "\xff/\xff"),
]

_LENGTHS = ["", "-1", "0", "1", "9" * 30, "x", "1.5", " 5", "+5", "٥", "1, 2", "40000"]

_HEADERS = {
    "HTTP_SEC_FETCH_DEST": ["document", "document", "empty", *EMBEDDED],
    "HTTP_SEC_FETCH_SITE": ["same-origin", "same-site", "cross-site", "none"],
    "HTTP_SEC_FETCH_MODE": ["navigate", "no-cors", "cors", "websocket"],
    "HTTP_SEC_FETCH_USER": ["?1", "?0"],
    "HTTP_SEC_PURPOSE": ["prefetch", "prefetch;prerender"],
    "HTTP_PURPOSE": ["prefetch"],
    "HTTP_ORIGIN": [f"https://{FOREIGN}", "null", f"http://{HOST}"],
    "HTTP_REFERER": [f"https://{FOREIGN}/", f"http://{HOST}/mmolove/retry"],
    "HTTP_X_FORWARDED_HOST": [FOREIGN],
    "HTTP_X_FORWARDED_FOR": ["127.0.0.1"],
    "HTTP_X_HTTP_METHOD_OVERRIDE": ["POST"],
    "HTTP_ACCEPT": [_JSON, "text/html"],
    "HTTP_ACCEPT_LANGUAGE": ["tlh"],
    "HTTP_IF_NONE_MATCH": ["*", 'W/"x"'],
    "HTTP_RANGE": ["bytes=0-1", "bytes=9-1"],
    "HTTP_TRANSFER_ENCODING": ["chunked"],
    "HTTP_CONTENT_ENCODING": ["gzip"],
    "HTTP_AUTHORIZATION": ["Basic Og==", "Basic \xff", "Digest"],
    "HTTP_X_GAME_KEY": [GAME_KEY],
}

_HOSTS = [
    *(FOREIGN, f"{FOREIGN}:80", "", "\xff", "localhost:99999999", "[::1", "a@b", "a b"),
    *(f"{HOST}.{FOREIGN}", f"{HOST}/x?", "ß.example", "a" * 300, "127.0.0.1"),
]

_COOKIES = ("mmref", "session", "mmolove_ref", "mmolove_referrer", "mmolove_inviter")

#: Each door, and how many of a hundred knock there.
DOORS = {
    "capture": 22,
    "signup": 10,
    "invite": 17,
    "dashboard": 17,
    "hold": 7,
    "unseal": 9,
    "game": 5,
    "sandbox": 13,
}


class Visitor:
    """Makes requests to a site and its sandbox.

    :param site: The site, with what a visitor may have in hand.
    """

    def __init__(self, site: DoorSite) -> None:
        self._site = site
        self._doors = [*DOORS], [*DOORS.values()]
        self._random = random.Random()

    def make(self, seed: int, number: int) -> tuple[str, Environ]:
        """A request, and the door it knocks at; always the same for the same numbers
        but for what the site signed or minted.
        """
        self._random.seed(seed << 40 | number)
        (door,) = self._random.choices(*self._doors)
        environ: Environ = getattr(self, f"_{door}")()
        self._dress(door, environ)
        return door, environ

    # -- the doors ---------------------------------------------------------------------

    def _capture(self) -> Environ:
        path = self._pick(
            "/", "/", "/register", "/join", "/nowhere", "/static/x.css", "/seal"
        )
        return self._request("GET", path, query={"mmref": self._token()})

    def _signup(self) -> Environ:
        path = self._pick("/register", "/join", "/join", "/api/join")
        fields = {"name": self._any_text(), "mmref": self._token()}
        query = {"mmref": self._token()} if self._chance(0.4) else {}
        return self._request("POST", path, query, fields)

    def _invite(self) -> Environ:
        code = self._near(self._pick(*self._site.codes))
        path = f"/invite/{code}{self._pick('', '', '', '', '/')}"
        query = {"mmref": self._token()} if self._chance(0.1) else {}
        return self._request("GET", path, query)

    def _dashboard(self) -> Environ:
        owner = self._pick(*self._site.owners)
        path, fields = self._page()
        acts = path.endswith(("/retry", "/reward")) and self._chance(0.8)
        if self._chance(0.85):
            source = owner if self._chance(0.8) else self._pick(*self._site.owners)
            fields[source.field] = self._near(source.token)
        query = {"player": self._any_text()} if self._chance(0.2) else {}
        query |= {"state": self._any_text()} if self._chance(0.1) else {}
        query |= {"before": self._any_text()} if self._chance(0.1) else {}
        # Whoever may see the pages costs as much as twenty who may not.
        method = self._pick("POST", "POST", "HEAD", "PUT") if acts else "GET"
        environ = self._request(method, path, query, fields if acts else {})
        if self._chance(0.6 if acts else 0.2):
            environ["HTTP_COOKIE"] = _header(f"session={self._near(owner.cookie)}")
        return environ

    def _page(self) -> tuple[str, dict[str, t.Any]]:
        """The path of a page, and what its form holds besides the token."""
        page = self._pick("retry", "reward", "reward", "event", "other")
        ids = self._site.stuck.get(page, self._site.ids)
        id = self._pick(*ids) if self._chance(0.8) else self._any_text()
        if page == "other":
            page = self._pick("", "events", "static/heart.svg", "static/x")
            return f"/mmolove/{page}", {}
        if page == "event":
            return f"/mmolove/events/{id}", {}
        if page == "retry" and self._chance(0.05):
            return "/mmolove/retry", {}
        given = self._pick("yes", "no", "no", self._any_text())
        return f"/mmolove/events/{id}/{page}", {"granted": given}

    def _hold(self) -> Environ:
        path = self._pick("/hold", "/confirm")
        # Few keys, so that what is held is found.
        key = f"key-{self._random.randrange(9)}"
        fields = {"key": key if self._chance(0.6) else self._any_text()}
        query = {"mmref": self._token()} if self._chance(0.5) else {}
        return self._request("POST", path, query, fields)

    def _unseal(self) -> Environ:
        sealed = self._near(self._pick(*self._site.sealed))
        method = self._pick("GET", "POST", "POST")
        in_query = method == "GET"
        fields = {"state": sealed}
        return self._request(
            method,
            "/unseal",
            fields if in_query else {},
            {} if in_query else fields,
        )

    def _game(self) -> Environ:
        player = self._pick(*self._site.players)
        fields = {"player": player if self._chance(0.6) else self._any_text()}
        environ = self._request("POST", "/game", {}, fields)
        if self._chance(0.7):
            environ["HTTP_X_GAME_KEY"] = GAME_KEY
        return environ

    def _sandbox(self) -> Environ:
        chosen = self._random.random()
        if chosen < 0.4:
            server = SERVER_ID if self._chance(0.7) else self._any_text()
            ref = self._near(self._pick("demo", *self._site.codes))
            return self._request("GET", f"/r/{server}", {"ref": ref})
        if chosen < 0.42:
            page = self._pick("/", "/history.json", "/static/x", "/any")
            return self._request("GET", page)
        return self._event()

    def _event(self) -> Environ:
        event: dict[str, t.Any] = {
            "event": self._pick("registered", "qualified", "reversed"),
            "server_id": SERVER_ID,
            "ts": int(time.time()),
            "token": self._near(self._pick(*self._site.tokens)),
            "referee_identity": self._pick(*self._site.players),
            "server_event_id": f"reg-{self._random.randrange(99)}",
        }
        for name in event:
            if self._chance(0.06):
                event[name] = self._any_value()
        body = self._as_json(event)
        if self._chance(0.02):
            body = b"[" * 60_000
        moment = int(time.time()) + self._pick(0, 0, 0, 0, -200, 400, -(10**10), 10**15)
        mac = hmac.new(SECRET.encode(), b"%d.%b" % (moment, body), hashlib.sha256)
        signature = f"t={moment},v1=sha256={mac.hexdigest()}"
        environ = self._request("POST", "/api/referral/events")
        self._put_body(environ, _JSON, body)
        environ["HTTP_X_MMOLOVE_SIGNATURE"] = _header(self._near(signature))
        return environ

    # -- their parts -------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        query: t.Mapping[str, t.Any] | None = None,
        fields: t.Mapping[str, t.Any] | None = None,
    ) -> Environ:
        if self._chance(0.15):
            method = self._pick("GET", "POST", *_METHODS)
        if self._chance(0.03):
            path = self._scratch(path)
        environ: Environ = {
            "REQUEST_METHOD": _latin(method),
            "SCRIPT_NAME": "",
            "PATH_INFO": _latin(path),
            "QUERY_STRING": self._encode(query or {}),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.7",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if fields:
            self._fill_in(environ, fields)
        elif self._chance(0.03):
            self._put_body(environ, self._pick(*_TYPES), _bytes(self._any_text()))
        return environ

    def _dress(self, door: str, environ: Environ) -> None:
        """Add headers and cookies, and make some of them wrong."""
        own = "127.0.0.1:5001" if door == "sandbox" else HOST
        environ["HTTP_HOST"] = self._pick(*_HOSTS) if self._chance(0.08) else own
        if self._chance(0.02):
            del environ["HTTP_HOST"]
        for _ in range(self._pick(0, 0, 1, 2, 4)):
            name = self._pick(*_HEADERS)
            environ[name] = self._pick(*_HEADERS[name])
            if self._chance(0.1):
                environ[name] = _header(self._scratch(environ[name]))
        if door != "sandbox" and self._chance(0.3):
            known = [environ["HTTP_COOKIE"]] if "HTTP_COOKIE" in environ else []
            more = [self._cookie() for _ in range(self._pick(1, 1, 2, 4))]
            jar = [*known, *map(_header, more)]
            self._random.shuffle(jar)
            environ["HTTP_COOKIE"] = "; ".join(jar)

    def _cookie(self) -> str:
        if self._chance(0.2):
            return f"{self._pick(*_COOKIES)}={self._any_text()}"
        if self._chance(0.2):
            return f"mmref={self._token()}"
        name, _, value = self._pick(*self._site.cookies).partition("=")
        return f"{name}={self._near(value)}"

    def _fill_in(self, environ: Environ, fields: t.Mapping[str, t.Any]) -> None:
        """Put fields into the body, as a form or as JSON, mostly rightly."""
        chosen = self._random.random()
        if chosen < 0.55:
            kind, body = _FORM, self._encode(fields).encode("latin-1")
        elif chosen < 0.75:
            kind, body = _JSON, self._as_json(fields)
        else:
            kind, body = self._as_parts(fields)
        if self._chance(0.05):
            kind = self._pick(*_TYPES)
        if self._chance(0.03):
            body = _bytes(self._scratch(body.decode("latin-1")))
        self._put_body(environ, kind, body)

    def _put_body(self, environ: Environ, kind: str, body: bytes) -> None:
        environ["CONTENT_TYPE"] = kind
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)
        if self._chance(0.04):
            environ["CONTENT_LENGTH"] = self._pick(*_LENGTHS)
        elif self._chance(0.02):
            del environ["CONTENT_LENGTH"]
            environ["wsgi.input_terminated"] = True

    def _encode(self, fields: t.Mapping[str, t.Any]) -> str:
        """A query, percent-encoded or raw."""
        pairs = []
        for name, value in fields.items():
            data = _bytes(str(value))
            raw = self._chance(0.1)
            pairs.append(f"{name}={_latin(data) if raw else quote_from_bytes(data)}")
        if self._chance(0.05):
            pairs.append(
                self._pick(*pairs, "", "=", "%", "a[]=1", "&" * 99, "\xff=\xfe")
            )
        if self._chance(0.05):
            self._random.shuffle(pairs)
        return "&".join(pairs)

    def _as_json(self, fields: t.Mapping[str, t.Any]) -> bytes:
        content: t.Any = fields
        if self._chance(0.03):
            content = self._any_value()
        plain = self._chance(0.5)
        return _bytes(json.dumps(content, ensure_ascii=not plain))

    def _as_parts(self, fields: t.Mapping[str, t.Any]) -> tuple[str, bytes]:
        boundary = "b" * self._pick(1, 9, 70)
        parts = []
        for name, value in fields.items():
            file = '; filename="x"' if self._chance(0.05) else ""
            kind = self._pick("", "", "", f"\r\nContent-Type: {self._pick(*_TYPES)}")
            head = f'Content-Disposition: form-data; name="{name}"{file}{kind}'
            parts.append(b"%b\r\n\r\n%b\r\n" % (_bytes(head), _bytes(str(value))))
        line = f"--{boundary}".encode()
        body = b"".join(line + b"\r\n" + part for part in parts)
        end = b"" if self._chance(0.05) else line + b"--\r\n"
        return f"multipart/form-data; boundary={boundary}", body + end

    # -- the words ---------------------------------------------------------------------

    def _token(self) -> str:
        if self._chance(0.5):
            return self._near(self._pick(*self._site.tokens))
        return self._near(f"tok.{self._random.getrandbits(64):x}")

    def _near(self, text: str) -> str:
        """A valid text as it is, or nearly so, or another one."""
        chosen = self._random.random()
        if chosen < 0.6:
            return text
        return self._scratch(text) if chosen < 0.85 else self._any_text()

    def _any_text(self) -> str:
        if self._chance(0.1):
            return str(self._pick("", '"', "</p>") + self._pick(*MARKUP))
        if self._chance(0.8):
            return t.cast(str, self._pick(*_STRANGE))
        length = self._pick(1, 3, 20)
        return "".join(self._random.choices(_ALPHABET, k=length))

    def _any_value(self) -> t.Any:
        """What JSON can say."""
        values: list[t.Any] = [
            None,
            True,
            0,
            -1,
            1.5,
            10**30,
            1e308,
            [],
            {},
            [[]],
            {"a": [None]},
        ]
        return self._pick(*values, self._any_text(), [self._any_text()])

    def _scratch(self, text: str) -> str:
        """A text that was changed somewhere."""
        at = self._random.randrange(len(text) + 1)
        letter: str = self._pick(*_ALPHABET)
        changed: str = self._pick(
            text[:at],
            text[at:],
            text[:at] + letter + text[at:],
            text[:at] + letter + text[at + 1 :],
            letter + text,
            text + self._pick(*_STRANGE),
            text * self._pick(2, 50),
            ".".join(reversed(text.split("."))),
            text.swapcase(),
        )
        return changed

    def _pick(self, *choices: t.Any) -> t.Any:
        return choices[int(self._random.random() * len(choices))]

    def _chance(self, share: float) -> bool:
        return self._random.random() < share


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _latin(text: str | bytes) -> str:
    """A text as WSGI has it: bytes, each as a character."""
    data = _bytes(text) if isinstance(text, str) else text
    return data.decode("latin-1")


def _header(text: str) -> str:
    """The same for a header, in which no server lets a line end or a NUL pass."""
    return _latin(text).translate({0: None, 10: None, 13: None})
