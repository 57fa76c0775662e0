"""What endangers the data: the answer of :meth:`agentsession.SessionService.check`.

======================= ======== ===================================================================
code                    severity says
======================= ======== ===================================================================
``rights_missing``      danger   the server refuses scripts, keys, or commands inside scripts
``read_only``           danger   what is written is refused: by a server that is a replica, or by a
                                 file without the right to write to it
``writable_replica``    danger   the server is a replica, and forgets what is written to it
``memory_full``         danger   the server is at its ``maxmemory``, and takes no writes
``writes_refused``      danger   the server takes no writes: its disk or its replicas are failing
``eviction``            danger   a full server deletes sessions (a warning without ``maxmemory``)
``server_too_old``      danger   the server is older than what this library is tested with
``persistence_failing`` danger   what the server holds does not reach its disk
``no_append_only_file`` warning  a crash of the server loses what is newer than its last snapshot
``clock_skew``          warning  the clocks of this process and of the server differ
``unobservable``        warning  the server does not tell how it is configured
``process_memory``      warning  the data is gone when this process ends
``network_file_system`` danger   the file is where SQLite's locks do not work, and gets damaged
``disk_full``           danger   the file's disk has no room, and takes no writes (a warning if it
                                 has little)
``newer_format``        danger   the file is of a newer version of this library
``another_program``     danger   the file is a database of another program
``damaged``             danger   the file is damaged, or is no database
``not_durable``         warning  a crash of the machine loses the last writes
======================= ======== ===================================================================

Codes stay as they are; new ones may come.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

__all__ = ["Concern", "Severity"]

Severity: TypeAlias = Literal["danger", "warning"]
"""``"danger"``: data will be lost or refused as things are; ``"warning"``: if something fails."""


class Concern(Struct, frozen=True):
    """One thing that endangers the data.

    Attributes:
        code: For programs: one of those in this module's table, or a backend's own.
        severity: Whether a program had better not start like this.
        message: For people: what endangers the data, and what to do about it.
    """

    code: str
    severity: Severity
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"
