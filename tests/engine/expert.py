"""A scripted model that knows how to diagnose, and nothing else: every reply is computed from what its tools returned.

It goes from the overview over the failure modes to subagents, one for each place that fails; these read an example of
every mode and quote it. Counts come from `count_traces`, differences from `contrast_traces`. Nothing of the dataset is
written here: with other traces it gives another answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from tests.engine.fake_llm import Json, Reply, Status, Step, answer, conversation
from tests.engine.test_subagents import is_child

OVERHEAD_TOKENS: Final = 8_000
"""For the system prompt and the descriptions of tools."""
FORGED: Final[Json] = {
    "trace_id": "deadbeefdeadbeefdeadbeefdeadbeef",
    "span_id": "deadbeefdeadbeefdeadbeef",
    "quote": "limit must be <= 100",
}
_MODE: Final = re.compile(
    r"^\d+\. \[(?P<id>\w+)\] (?P<what>.+)\n"
    r" +(?P<spans>[\d,]+) spans?, (?P<traces>[\d,]+) traces?; of failing traces (?P<failing>[\d,]+)"
    r".*\n +e\.g\. trace (?P<trace>\w+) span (?P<span>\w+) (?P<field>\S+?): “(?P<words>.*)”$",
    re.MULTILINE,
)
_JOB: Final = re.compile(
    r"^mode (?P<id>\w+): trace (?P<trace>\w+) span (?P<span>\w+); (?P<how>read|search) for “(?P<look>.*)”$",
    re.MULTILINE,
)
_PAIR: Final = re.compile(r"e\.g\. failing \w+ span \w+, passing (?P<trace>\w+) span (?P<span>\w+)")


class Done(NamedTuple):
    """One call of the conversation and what came back."""

    tool: str
    arguments: Json
    result: str


@dataclass(frozen=True)
class Mode:
    """A failure mode, as `list_failure_modes` writes it."""

    id: str
    what: str
    spans: int
    traces: int
    failing: int
    trace_id: str
    span_id: str
    words: str

    @property
    def place(self) -> str:
        return self.what.split(" · ")[0]


def history(request: Json) -> list[Done]:
    """Every call before this request, with its result, on either wire; without the fence around results."""
    called: dict[str, tuple[str, Json]] = {}
    done: list[Done] = []
    for message in conversation(request):
        for call in message.get("tool_calls", []):
            called[call["id"]] = (call["function"]["name"], json.loads(call["function"]["arguments"]))
        if message.get("type") == "function_call":
            called[message["call_id"]] = (message["name"], json.loads(message["arguments"]))
        call_id = message.get("tool_call_id") if message.get("role") == "tool" else message.get("call_id")
        if call_id and message.get("type") != "function_call":
            text = str(message.get("content") or message.get("output"))
            fenced = re.fullmatch(r"<untrusted-\w+ [^\n]*>\n(.*)\n</untrusted-\w+>", text, re.DOTALL)
            done.append(Done(*called[call_id], fenced[1] if fenced else text))
    return done


def modes_in(text: str) -> list[Mode]:
    return [
        Mode(
            found["id"],
            found["what"],
            _number(found["spans"]),
            _number(found["traces"]),
            _number(found["failing"]),
            found["trace"],
            found["span"],
            found["words"],
        )
        for found in _MODE.finditer(text)
    ]


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def expert(request: Json) -> Reply:
    """The next turn of whichever agent asks, with tokens counted from what it was shown."""
    done = history(request)
    reply = _read(request, done) if is_child(request) else _lead(done)
    # Without ids and the wording of tools and prompts, so that the same investigation always counts the same.
    shown = sum(len(item.result) + len(json.dumps(item.arguments)) for item in done if item.tool != "call_subagent")
    return replace(reply, usage=(OVERHEAD_TOKENS + shown // 4, len(json.dumps(reply.calls)) // 4, OVERHEAD_TOKENS))


# --- the root agent -----------------------------------------------------------------------------------------------
def _lead(done: Sequence[Done]) -> Reply:
    tools = {item.tool: item for item in done}
    if "get_dataset_overview" not in tools:
        return Reply(text="First what is there.", calls=[("get_dataset_overview", {})])
    if "list_failure_modes" not in tools:
        return Reply(text="Now what fails.", calls=[("list_failure_modes", {})])
    modes = modes_in(tools["list_failure_modes"].result)
    if "call_subagent" not in tools:
        return Reply(text="One reader for each place.", calls=_delegations(modes))
    if "count_traces" not in tools:
        counts = [("count_traces", {"filters": {"failure_mode": [mode.id]}}) for mode in modes]
        return Reply(text="Counts and what separates.", calls=[*counts, ("contrast_traces", {})])
    return answer(**_conclusion(modes, done))


def _delegations(modes: Sequence[Mode]) -> list[tuple[str, Json]]:
    places = dict.fromkeys(mode.place for mode in modes)
    return [
        (
            "call_subagent",
            {
                "objective": f"Read an example of each failure mode of {place}.",
                "context": "\n".join(
                    f"mode {mode.id}: trace {mode.trace_id} span {mode.span_id}; {_how(mode)} for “{_anchor(mode)}”"
                    for mode in modes
                    if mode.place == place
                ),
                "deliverable": "One finding for each mode, claim 'mode ID', with a verbatim quote of the span.",
            },
        )
        for place in places
    ]


def _how(mode: Mode) -> str:
    """Repetition shows only in the order of things: that takes the trace, not a search in it."""
    return "read" if "repeated" in mode.what else "search"


def _anchor(mode: Mode) -> str:
    """The longest stretch of a mode's words without digits and quotation marks: what search can find literally."""
    return max(re.split(r"[^\w\s:./'-]|\d+", mode.words), key=len).strip()


def _conclusion(modes: Sequence[Mode], done: Sequence[Done]) -> Json:
    quoted: dict[str, Json] = {}
    for item in done:
        if item.tool == "call_subagent":
            for finding in json.loads(item.result).get("findings", []):
                quoted[finding["claim"].removeprefix("mode ")] = finding["evidence"][0]
    counted = {
        item.arguments["filters"]["failure_mode"][0]: _number(item.result.split(" ", 1)[0])
        for item in done
        if item.tool == "count_traces"
    }
    contrast = next(item.result for item in done if item.tool == "contrast_traces")
    findings = [_finding(mode, quoted[mode.id], counted[mode.id], contrast) for mode in modes]
    first = modes[0]
    text = (
        f"The largest is {first.what}: {first.spans} spans in {counted[first.id]} traces, {first.failing} of which "
        f"failed, for example trace {first.trace_id}. {len(modes)} failure modes in all."
    )
    return {"text": text, "findings": findings, "limitations": "One example of each mode was read."}


def _finding(mode: Mode, evidence: Json, traces: int, contrast: str) -> Json:
    separates = next((line for line in _blocks(contrast) if f"failure mode [{mode.id}]" in line), "")
    claim = f"{mode.what}: {mode.spans} spans in {traces} traces, {mode.failing} of them failed"
    finding: Json = {
        "claim": f"{claim}; more common in failing traces." if separates else f"{claim}.",
        "severity": "high" if separates else "medium",
        "evidence": [{key: evidence[key] for key in ("trace_id", "span_id", "quote")}],
        "check": {"filters": {"failure_mode": [mode.id]}, "expected": traces},
    }
    if passing := _PAIR.search(separates):
        finding["counterexample"] = {"trace_id": passing["trace"], "span_id": passing["span"]}
    return finding


def _blocks(contrast: str) -> list[str]:
    """What differs, one block each with its example; up to what differs only together with something else."""
    told = contrast.split("differ, but not on their own")[0]
    return re.split(r"\n  (?=\S)", told)


# --- a subagent ---------------------------------------------------------------------------------------------------
def _read(request: Json, done: Sequence[Done]) -> Reply:
    asked = [found.groupdict() for found in _JOB.finditer(str(conversation(request)[0]["content"]))]
    if not done:
        return Reply(text="Where it stands.", calls=[_look(job) for job in asked])
    if not any(item.tool == "view_spans" for item in done):
        spans = [("view_spans", {"trace_id": job["trace"], "span_ids": [job["span"]]}) for job in asked]
        return Reply(text="The whole spans.", calls=spans)
    seen = {item.arguments["span_ids"][0]: item.result for item in done if item.tool == "view_spans"}
    findings = [
        {
            "claim": f"mode {job['id']}",
            "evidence": [
                {"trace_id": job["trace"], "span_id": job["span"], "quote": _quote(seen[job["span"]], job["look"])}
            ],
        }
        for job in asked
    ]
    return answer(f"Read {len(asked)} spans.", findings=findings)


def _look(job: Json) -> tuple[str, Json]:
    if job["how"] == "search":
        return "search_trace", {"trace_id": job["trace"], "pattern": job["look"], "literal": True}
    return "view_trace", {"trace_id": job["trace"], "detail": "outline"}


def _quote(shown: str, look: str) -> str:
    """The last line of what was read that holds the words, from them on, without what encloses them."""
    last = [line for line in shown.splitlines() if look in line][-1]
    return re.split(r'["”]', last[last.index(look) :])[0].strip()


# --- others -------------------------------------------------------------------------------------------------------
def bad_expert(request: Json) -> Reply:
    """The expert, but its answer names a trace that does not exist and one count too many; it never corrects them."""
    reply = expert(request)
    if is_child(request) or reply.calls[0][0] != "final_answer":
        return reply
    given: Json = json.loads(json.dumps(reply.calls[0][1]))
    given["findings"][0]["evidence"] = [FORGED]
    given["findings"][1]["check"]["expected"] += 1
    return replace(reply, calls=[("final_answer", given)])


Fault = Callable[[Reply], Step]


def through(model: Callable[[Json], Reply], faults: Sequence[Fault | None]) -> Callable[[Json], Step]:
    """A model whose n-th request meets the n-th fault (None: none); after them nothing more goes wrong."""
    left = iter(faults)

    def script(request: Json) -> Step:
        reply, fault = model(request), next(left, None)
        return fault(reply) if fault else reply

    return script


def down(reply: Reply) -> Step:
    """No reply: the endpoint is overloaded."""
    return Status(503)


def cut(reply: Reply) -> Step:
    """The same reply, whose socket closes in the middle."""
    return replace(reply, cut_after=4)


def ends_early(reply: Reply) -> Step:
    """The same reply without its end: everything was said, but not that it was finished."""
    return replace(reply, end_after=-3)
