"""All users that the memory backend knows, each with what belongs to them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from agentsession.memory._records import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentsession.sessions import UserKey

__all__ = ["Users"]


class Users:
    """The users of all applications: found by key, listed by application, swept in turn."""

    def __init__(self) -> None:
        # In the order in which the sweeper comes to them.
        self._users: OrderedDict[UserKey, User] = OrderedDict()
        # For each application the ids of its users, ascending.
        self._ids: dict[str, list[str]] = {}
        #: Returns what belongs to a user, if anything does.
        self.get: Final = self._users.get

    def __len__(self) -> int:
        return len(self._users)

    def __iter__(self) -> Iterator[User]:
        return iter(self._users.values())

    def get_or_add(self, key: UserKey) -> User:
        """Return what belongs to a user, with a record made if there was none."""
        user = self._users.get(key)
        if user is None:
            user = self._users[key] = User(key)
            insort(self._ids.setdefault(key.app_name, []), key.user_id)
        return user

    def remove(self, user: User) -> None:
        """Forget a user, unless another record has come in the place of this one."""
        key = user.key
        if self._users.get(key) is user:
            del self._users[key]
            ids = self._ids[key.app_name]
            del ids[bisect_left(ids, key.user_id)]
            if not ids:
                del self._ids[key.app_name]

    def next_to_sweep(self) -> User | None:
        """Return the user whose turn it is, who then goes to the end of all."""
        if not self._users:
            return None
        key, user = next(iter(self._users.items()))
        self._users.move_to_end(key)
        return user

    def ids_after(self, app_name: str, user_id: str, most: int) -> list[str]:
        """Return the next users of an application in the order of their ids."""
        ids = self._ids.get(app_name, [])
        start = bisect_right(ids, user_id)
        return ids[start : start + most]
