"""The message lists of model providers: made of events, and made into events.

One module for each provider's format, with the same two functions:

- ``to_messages(events)`` gives what a request takes. Show it a history, not the log:
  ``to_messages(context.history)``.
- ``from_messages(messages)`` gives events, for a conversation that began elsewhere, or an answer.

Both are pure. Messages that were made into events come back equal, as far as the provider's types
can say them. What cannot be said is not dropped in silence: it is in ``lost`` of what is returned.
"""

from __future__ import annotations

from agentsession.messages._converted import Converted, Loss

__all__ = ["Converted", "Loss"]
