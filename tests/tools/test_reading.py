"""What a view prints is readable, complete and findable."""
# ruff: noqa: E501  # recorded texts have long lines

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot

from halo_mcp.index import semconv
from halo_mcp.index.span import as_list, as_mapping
from halo_mcp.tools.budget import SPAN_ATTRIBUTE_CHARS, VIEW_ATTRIBUTE_CHARS
from tests.builders import Record, agent, llm, span, write_lines
from tests.tools.conftest import Demo
from tests.tools.desk import Desk, desk_over

SHARED: Final = Path(__file__).parents[3] / "shared" / "data" / "halo"


def view(tmp_path: Path, *records: Record) -> str:
    return desk_over(tmp_path, write_lines(tmp_path / "traces.jsonl", *records)).text("view_trace", trace_id="t1")


def test_openinference_with_flat_messages_only_reads_as_a_conversation(tmp_path: Path) -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-4.1",
        "llm.token_count.prompt": 12,
        "llm.token_count.completion": 3,
        "llm.token_count.total": 15,
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": "Be brief.\nBe kind.",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.contents.0.message_content.type": "text",
        "llm.input_messages.1.message.contents.0.message_content.text": 'What does "42" mean?',
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.finish_reason": "tool_calls",
        "llm.output_messages.0.message.tool_calls.0.tool_call.id": "call_1",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "lookup",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"query": "a \\"quoted\\"\\nword"}',
    }
    assert view(tmp_path, span(attributes=attributes)) == snapshot("""\
trace t1 · 1 spans · 2026-03-02T09:00:00.000Z + 1 ms · outcome unknown · 0 ERROR spans (0 original) · tokens 12 in 3 out · 1.2 KB
scope: name=tests, version=1
[s1] LLM step (gpt-4.1) · +0 ms for 1 ms · 12 in 3 out · OK
  1 system:
    Be brief.
    Be kind.
  2 user: What does "42" mean?
  → assistant:
    {"finish_reason":"tool_calls"}
    calls lookup id=call_1:
      query:
        a "quoted"
        word
All 1 spans shown.\
""")


def test_gen_ai_parts_and_a_copy_in_another_convention_read_as_one_conversation(tmp_path: Path) -> None:
    parts = [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "One"}, {"type": "text", "content": "Two"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": {"rows": [1, 2]}}]},
    ]
    answer = [
        {
            "role": "assistant",
            "finish_reason": "stop",
            "parts": [{"type": "tool_call", "id": "c2", "name": "f", "arguments": {"a": "x\ny"}}],
        }
    ]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "claude",
        "gen_ai.input.messages": parts,
        "gen_ai.output.messages": json.dumps(answer),
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": "Be brief.",
        "gen_ai.prompt.1.content": "something that only the copy says",
    }
    assert view(tmp_path, span(name="chat claude", attributes=attributes)) == snapshot("""\
trace t1 · 1 spans · 2026-03-02T09:00:00.000Z + 1 ms · outcome unknown · 0 ERROR spans (0 original) · tokens 0 in 0 out · 1.0 KB
scope: name=tests, version=1
[s1] LLM chat claude · +0 ms for 1 ms · OK
  1 system: Be brief.
  2 user:
    One
    Two
  3 tool (c1): {"rows":[1,2]}
  → assistant:
    {"finish_reason":"stop"}
    calls f id=c2:
      a:
        x
        y
  also in the messages: gen_ai.prompt.1.content=something that only the copy says
All 1 spans shown.\
""")


def test_json_inside_json_inside_json_is_decoded_and_nothing_is_escaped_twice(tmp_path: Path) -> None:
    innermost = json.dumps({"error": 'bad "limit"\nat line 2', "ids": [1, 2]})
    output = json.dumps({"status": "failed", "body": innermost, "path": "C:\\temp", "note": "n" * 120})
    text = view(
        tmp_path,
        span(kind="TOOL", attributes={"tool.name": "search", "output.value": output, "input.value": "{broken"}),
    )
    assert '\\"' not in text
    assert "\\n" not in text
    assert text == snapshot("""\
trace t1 · 1 spans · 2026-03-02T09:00:00.000Z + 1 ms · outcome unknown · 0 ERROR spans (0 original) · tokens 0 in 0 out · 718 B
scope: name=tests, version=1
[s1] TOOL step (search) · +0 ms for 1 ms · OK
  output:
    status: failed
    body:
      error:
        bad "limit"
        at line 2
      ids: [1,2]
    path: C:\\temp
    note: nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn
  input: {broken
All 1 spans shown.\
""")


def test_a_trace_reads_as_a_tree_with_errors_events_links_and_what_spans_share(tmp_path: Path) -> None:
    shared = {"deployment": "eval", "release": "1.2"}
    events = [
        {
            "name": "exception",
            "time": "2026-03-02T09:00:01Z",
            "attributes": {"exception.type": "KeyError", "exception.message": "'city'"},
        }
    ]
    records = [
        agent("root", name="planner", ms=900, attributes={**shared, "task.id": "t-7"}, service="harness"),
        llm(
            "think",
            "root",
            tokens=(120, 8),
            start_ms=10,
            ms=200,
            attributes={**shared, "llm.model_name": "m-1", "agent.name": "planner"},
            service="harness",
        ),
        span(
            "act",
            "root",
            kind="TOOL",
            start_ms=300,
            ms=5,
            error="boom\nmore words",
            attributes={**shared, "tool.name": "geo", "input.value": '{"q": 1}'},
            events=events,
            links=[{"trace_id": "t9", "span_id": "s9"}],
            service="harness",
            note="an extra member",
        ),
    ]
    assert view(tmp_path, *records) == snapshot("""\
trace t1 · 3 spans · 2026-03-02T09:00:00.000Z + 900 ms · outcome unknown · 1 ERROR spans (1 original) · tokens 120 in 8 out · 1.7 KB · task t-7
on every span: deployment=eval, release=1.2 · resource: service.name=harness · scope: name=tests, version=1
[root] AGENT step (planner) · +0 ms for 900 ms · OK
  attributes: task.id=t-7
  [think] LLM step (m-1) · +10 ms for 200 ms · 120 in 8 out · OK
  [act] TOOL step (geo) · +300 ms for 5 ms · ERROR KeyError: 'city'
    status message:
      boom
      more words
    event exception at 2026-03-02T09:00:01Z: exception.type=KeyError, exception.message='city'
    links: [{"trace_id":"t9","span_id":"s9"}]
    input: {"q": 1}
    other members: {"note":"an extra member"}
All 3 spans shown.\
""")


# --- nothing is lost --------------------------------------------------------------------------------------------------
KEYS: Final = (
    *semconv.MODEL_NAME,
    *semconv.PROVIDER,
    *semconv.INPUT_TOKENS,
    *semconv.OUTPUT_TOKENS,
    *semconv.TOOL_NAME,
    *semconv.AGENT_NAME,
    *semconv.INPUT_VALUE,
    *semconv.OUTPUT_VALUE,
    *semconv.INPUT_MESSAGES,
    *semconv.OUTPUT_MESSAGES,
    *(key for key, _ in semconv.KIND_RULES),
    "llm.input_messages.0.message.role",
    "llm.input_messages.0.message.content",
    "llm.input_messages.0.message.reasoning",
    "llm.input_messages.2.message.content",
    "llm.input_messages.x",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments",
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.content",
    "exception.type",
    "custom",
    "custom.list",
)
WORDS: Final = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12
)
TEXTS: Final = st.one_of(
    WORDS,
    st.lists(WORDS, min_size=2, max_size=3).map("\n".join),
    st.sampled_from(["LLM", "tool", "chat", "AGENT", "0", "17", "openai"]),
    st.dictionaries(WORDS, WORDS, min_size=1, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False)),
)
MESSAGE: Final = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXTS}),
    st.fixed_dictionaries({"role": WORDS, "content": TEXTS, "reasoning": WORDS, "name": WORDS}),
)
MESSAGES: Final = st.lists(MESSAGE, min_size=1, max_size=3)
VALUES: Final = st.one_of(
    TEXTS, st.integers(-5, 10**12), st.booleans(), st.lists(WORDS, max_size=3), MESSAGES, MESSAGES.map(json.dumps)
)


TRACES: Final = st.lists(
    st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=7), min_size=1, max_size=3),
    min_size=1,
    max_size=20,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(TRACES)
def test_every_attribute_of_a_span_is_shown_or_named(traces: list[list[dict[str, Any]]]) -> None:
    records = [
        span(f"s{i}", trace=f"t{t}", attributes=attributes, start_ms=i)
        for t, spans in enumerate(traces)
        for i, attributes in enumerate(spans)
    ]
    with tempfile.TemporaryDirectory() as directory:
        desk = desk_over(Path(directory), write_lines(Path(directory, "traces.jsonl"), *records))
        for t, spans in enumerate(traces):
            text = desk.text("view_trace", trace_id=f"t{t}", detail="full", max_chars=150_000)
            for attributes in spans:
                for key, value in attributes.items():
                    assert said(key, value, text), (key, value, text)


def said(key: str, value: Any, text: str) -> bool:
    """Whether the value, each text in it, or at least the key stands in the text."""
    shown = flat(text)
    if key in shown or value in (None, "", [], {}) or (isinstance(value, str) and flat(value) in shown):
        return True
    return all(flat(leaf) in shown or thousands(leaf) in text for leaf in leaves(value))


def leaves(value: Any) -> Iterator[str]:
    """The texts of a value: of JSON inside strings too, without roles and keys."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            yield from leaves(json.loads(value))
        except ValueError:
            yield value
    elif isinstance(value, dict):
        for member in as_mapping(value).values():
            yield from leaves(member)
    elif isinstance(value, list):
        for member in as_list(value):
            yield from leaves(member)
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def flat(text: str) -> str:
    """Without the blanks that indentation adds, and with the escapes of JSON that stayed JSON undone."""
    return re.sub(r"\s+", "", text.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\"))


def thousands(text: str) -> str:
    return f"{int(text):,}" if text.isdigit() and text.isascii() else text


# --- what is printed can be searched ----------------------------------------------------------------------------------
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_line_copied_from_a_view_is_found_by_search(data: st.DataObject) -> None:
    """Any part of a line of text that a view prints; not of labels, nor across the seam between label and text."""
    texts = data.draw(
        st.lists(st.lists(PRINTED, min_size=1, max_size=3).map("\n".join), min_size=3, max_size=3), label="texts"
    )
    wrapped = json.dumps({"result": {"text": texts[2], "pad": "p" * 200}}, ensure_ascii=data.draw(st.booleans()))
    messages = json.dumps([{"role": "user", "content": texts[0]}], ensure_ascii=data.draw(st.booleans()))
    record = span(
        kind="LLM", attributes={"llm.input_messages": messages, "input.value": texts[1], "output.value": wrapped}
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "traces.jsonl")
        path.write_text(json.dumps(record, ensure_ascii=data.draw(st.booleans())) + "\n", encoding="utf-8")
        desk = desk_over(Path(directory), path)
        printed = desk.text("view_trace", trace_id="t1")
        for text in texts:
            line = data.draw(st.sampled_from([line for line in text.split("\n") if line]))
            assert line in printed
            start = data.draw(st.integers(0, len(line) - 1))
            part = line[start : data.draw(st.integers(start + 1, len(line)))]
            assume(part.strip())
            for arguments in ({"pattern": escaped(part)}, {"pattern": part, "literal": True}):
                found = desk.data("search_trace", trace_id="t1", **arguments)
                assert found["match_count"] >= 1
                assert all(match["match_text"] == part for match in found["matches"])


PRINTED: Final = st.text(
    st.one_of(
        st.sampled_from('"\\{}[]()/<>&.,:;*+?^$|-_ éß中😀\u00a0'),
        st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]),
    ),
    min_size=1,
    max_size=20,
)


def escaped(text: str) -> str:
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


# --- text costs less than JSON ----------------------------------------------------------------------------------------
def halo_json(record: Any, limit: int) -> str:
    """The span as HALO sends it: the record without flat messages, attributes cut."""
    attributes = {
        key: value[:limit] + f"... [HALO truncated: original {len(value)} chars]"
        if isinstance(value, str) and len(value) > limit
        else value
        for key, value in record["attributes"].items()
        if not key.startswith(semconv.FLAT_PREFIXES)
    }
    return json.dumps({**record, "attributes": attributes}, ensure_ascii=False, separators=(",", ":"))


def by_trace(path: Path) -> dict[str, list[Any]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    traces: dict[str, list[Any]] = {}
    for line in raw.splitlines():
        if line.strip():
            record = json.loads(line)
            traces.setdefault(record["trace_id"], []).append(record)
    return traces


def assert_text_is_smaller(desk: Desk, dataset: str, trace_id: str, records: list[Any]) -> None:
    text = desk.text("view_trace", dataset=dataset, trace_id=trace_id, detail="full", max_chars=150_000)
    if "All " in text.splitlines()[-1]:
        assert len(text) < sum(len(halo_json(record, VIEW_ATTRIBUTE_CHARS)) for record in records)
    ids = [record["span_id"] for record in records][:20]
    chosen = desk.text("view_spans", dataset=dataset, trace_id=trace_id, span_ids=ids, max_chars=150_000)
    if "did not fit" not in chosen and "goes on" not in chosen:
        assert len(chosen) < sum(len(halo_json(record, SPAN_ATTRIBUTE_CHARS)) for record in records[:20])


def test_text_of_the_sample_dataset_is_smaller_than_its_json(demo: Demo) -> None:
    (file,) = demo.desk.datasets.sources("before")
    traces = by_trace(Path(file))
    for trace_id in list(traces)[::4]:
        assert_text_is_smaller(demo.desk, "before", trace_id, traces[trace_id])


@pytest.mark.skipif(not SHARED.exists(), reason="HALO's sample files are not here")
@pytest.mark.parametrize("name", ["demo_traces.jsonl", "realistic_traces.jsonl", "tiny_traces.jsonl"])
def test_text_of_halos_sample_files_is_smaller_than_their_json(tmp_path: Path, name: str) -> None:
    desk = desk_over(tmp_path, SHARED / name)
    for trace_id, records in by_trace(SHARED / name).items():
        assert_text_is_smaller(desk, "data", trace_id, records)
