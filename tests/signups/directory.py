"""An LDAP directory on this machine, for the logins that go by one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
import typing as t
from pathlib import Path

from example_app.servers import free_port

PLAYERS = "ou=players,dc=moor"
PASSWORD = "will-o-the-wisp"

_CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=moor
directory {folder}
"""

_ENTRIES = """
dn: dc=moor
objectClass: dcObject
objectClass: organization
dc: moor
o: The Moor

dn: {players}
objectClass: organizationalUnit
ou: players

dn: uid=anna,{players}
objectClass: inetOrgPerson
uid: anna
givenName: Anna
sn: Moor
cn: Anna Moor
mail: anna@example.org
userPassword: {password}
"""

#: What it takes to run one, and to ask it.
SOURCE = "apt install slapd libldap-dev libsasl2-dev; pip install python-ldap"

SLAPD = shutil.which("slapd") or shutil.which("slapd", path="/usr/sbin")


@contextlib.contextmanager
def directory(folder: Path) -> t.Iterator[str]:
    """The URL of a directory that knows the player anna, for as long as it is open."""
    assert SLAPD
    config, entries = folder / "slapd.conf", folder / "entries.ldif"
    config.write_text(_CONFIG.format(folder=folder))
    entries.write_text(_ENTRIES.format(players=PLAYERS, password=PASSWORD))
    add = [SLAPD, "-T", "add", "-f", str(config), "-l", str(entries)]
    subprocess.run(add, check=True, capture_output=True)
    port = free_port()
    url = f"ldap://127.0.0.1:{port}"
    # With -d it stays in the foreground.
    process = subprocess.Popen([SLAPD, "-d", "0", "-h", url, "-f", str(config)])
    try:
        _await(port, process)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)  # nothing else tells that it listens
