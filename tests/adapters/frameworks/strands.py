"""An agent of Strands with a model that answers by a script."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from strands.models.model import Model

Answer = Callable[[list[Any]], list[dict[str, Any]]]


class ScriptedModel(Model):
    """Answers each call by the next function of a script.

    Attributes:
        saw: What the model was shown, for each call.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.saw: list[list[Any]] = []

    def update_config(self, **model_config: Any) -> None:
        """Do nothing."""

    def get_config(self) -> dict[str, Any]:
        return {}

    def structured_output(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def stream(self, messages: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self.saw.append(json.loads(json.dumps(messages)))
        blocks = self.answers.pop(0)(self.saw[-1])
        yield {"messageStart": {"role": "assistant"}}
        for block in blocks:
            if "text" in block:
                yield {"contentBlockStart": {"start": {}}}
                yield {"contentBlockDelta": {"delta": {"text": block["text"]}}}
            else:
                use = block["toolUse"]
                start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
                yield {"contentBlockStart": {"start": start}}
                delta = {"toolUse": {"input": json.dumps(use["input"])}}
                yield {"contentBlockDelta": {"delta": delta}}
            yield {"contentBlockStop": {}}
        calls = any("toolUse" in block for block in blocks)
        yield {"messageStop": {"stopReason": "tool_use" if calls else "end_turn"}}


def says(text: str) -> Answer:
    return lambda _: [{"text": text}]


def calls(call_id: str, name: str, **arguments: Any) -> Answer:
    use = {"toolUseId": call_id, "name": name, "input": arguments}
    return lambda _: [{"toolUse": use}]
