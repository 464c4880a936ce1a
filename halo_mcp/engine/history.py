"""One agent's conversation, and the ledger of every tool result of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from halo_mcp.engine.types import Call, Json, LedgerItem, Message, Turn
from halo_mcp.engine.wires import message_chars

PREVIEW_CHARS: Final = 200
"""What stays visible of a cleared result."""


class Ledger:
    """Every tool result of a run, whole; a conversation holds shortened copies."""

    def __init__(self, nonce: str, items: Sequence[LedgerItem] = ()) -> None:
        self._nonce = nonce
        self._items = {item.id: item for item in items}

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> list[LedgerItem]:
        """In the order they were stored."""
        return [*self._items.values()]

    def store(
        self, agent_id: str, tool: str, arguments: Json, text: str, *, failed: bool = False, call: str = ""
    ) -> LedgerItem:
        """Keep a result, in the place of an earlier one of the same call."""
        before = self.of_call(agent_id, call)
        item_id = before.id if before else f"r{len(self._items) + 1}"
        self._items[item_id] = item = LedgerItem(item_id, agent_id, tool, arguments, text, failed, call)
        return item

    def of_call(self, agent_id: str, call: str) -> LedgerItem | None:
        """The result that a call had before its run was interrupted."""
        found = (item for item in self._items.values() if (item.agent_id, item.call) == (agent_id, call))
        return next(found, None) if call else None

    def get(self, item_id: str) -> LedgerItem | None:
        return self._items.get(item_id)

    def fenced(self, item: LedgerItem, limit: int, offset: int = 0) -> str:
        """What a model is shown: at most ``limit`` characters, marked as data that gives no orders."""
        part = item.text[offset : offset + limit]
        tag = f"untrusted-{self._nonce}"
        # Text that knows the fence could close it; no trace can, but the record of this very run might come back.
        shown = f'<{tag} item="{item.id}" tool="{item.tool}">\n{part.replace(self._nonce, "-")}\n</{tag}>'
        end = offset + len(part)
        if offset or end < len(item.text):
            shown += f"\n[characters {offset:,} to {end:,} of {len(item.text):,}"
            shown += f"; get_context_item(item_id='{item.id}', offset={end}) reads on]" if end < len(item.text) else "]"
        return shown

    def to_json(self) -> list[Json]:
        return [asdict(item) for item in self._items.values()]


@dataclass(slots=True)
class History:
    """An agent's conversation. A turn enters it whole or not at all."""

    messages: list[Message] = field(default_factory=list[Message])

    def user(self, text: str) -> None:
        self.messages.append(Message("user", text))

    def turn(self, turn: Turn) -> None:
        """Append a model's turn, with call ids that occurred before replaced: results are matched by id."""
        used = {call.id for message in self.messages if message.turn for call in message.turn.calls}
        for position, call in enumerate(turn.calls):
            if call.id in used:
                _rename(turn, position, _unused(call.id, used))
            used.add(turn.calls[position].id)
        self.messages.append(Message("assistant", turn.text, turn))

    def result(self, call_id: str, text: str, item_id: str = "") -> None:
        self.messages.append(Message("tool", text, call_id=call_id, item_id=item_id))

    def pending(self) -> list[Call]:
        """Calls of the last turn that have no result yet."""
        answered: set[str] = set()
        for message in reversed(self.messages):
            if message.role == "tool":
                answered.add(message.call_id)
            elif message.turn:
                return [call for call in message.turn.calls if call.id not in answered]
            else:
                return []
        return []

    def last_finish(self) -> str:
        return next((message.turn.finish for message in reversed(self.messages) if message.turn), "")

    def last_text(self) -> str:
        """The last thing the model said in words, or an empty text."""
        return next((item.text.strip() for item in reversed(self.messages) if item.turn and item.text.strip()), "")

    def chars(self) -> int:
        return sum(message_chars(message) for message in self.messages)

    def tool_turns(self) -> list[int]:
        """Positions of the turns that called tools."""
        return [place for place, message in enumerate(self.messages) if message.turn and message.turn.calls]

    def clear(self, ledger: Ledger, keep: int, limit: int = PREVIEW_CHARS, least_share: float = 0.0) -> int:
        """Shorten the results before the last ``keep`` tool turns to ``limit`` characters; the characters freed.

        Nothing is done when that would free less than ``least_share`` of the conversation: every change of old
        messages costs the provider's cache.
        """
        places = self.tool_turns()
        end = len(self.messages) if keep == 0 else places[-keep] if len(places) >= keep else 0
        shorter: dict[int, str] = {}
        for place, message in enumerate(self.messages[:end]):
            item = ledger.get(message.item_id) if message.item_id and not message.cleared else None
            if item is not None and len(item.text) > limit:
                text = f"[cleared, {len(item.text):,} characters; get_context_item(item_id='{item.id}') has them]\n"
                text += ledger.fenced(replace(item, text=item.text[:limit]), limit)
                if len(text) < len(message.text):
                    shorter[place] = text
        freed = sum(len(self.messages[place].text) - len(text) for place, text in shorter.items())
        if not shorter or freed < least_share * self.chars():
            return 0
        for place, text in shorter.items():
            self.messages[place] = replace(self.messages[place], text=text, cleared=True)
        return freed

    def head(self, keep: int) -> list[Message]:
        """What a summary may replace: all between the question and the last ``keep`` tool turns."""
        places = self.tool_turns()
        return self.messages[1 : places[-keep]] if len(places) > keep else []

    def replace_head(self, count: int, summary: str) -> None:
        self.messages[1 : 1 + count] = [Message("user", summary)]

    def to_json(self) -> list[Json]:
        return [message.to_json() for message in self.messages]

    @staticmethod
    def from_json(data: list[Json]) -> History:
        return History([Message.from_json(item) for item in data])


def _unused(call_id: str, used: set[str]) -> str:
    number = 2
    while f"{call_id}_{number}" in used:
        number += 1
    return f"{call_id}_{number}"


def _rename(turn: Turn, position: int, call_id: str) -> None:
    """Give a call another id, in its native form too."""
    turn.calls[position] = replace(turn.calls[position], id=call_id)
    if turn.wire == "chat":
        turn.native["tool_calls"][position]["id"] = call_id
    else:
        [item for item in turn.native if item.get("type") == "function_call"][position]["call_id"] = call_id
