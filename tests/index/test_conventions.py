"""Facts about a span, told in each convention: which key wins, what counts as not set, how numbers are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from halo_mcp.index.local import LocalStore
from tests.builders import Record, span, store_of

NOT_SET = (None, "")
NOTHING: list[Any] = [None, "", [], {}]


class Case(NamedTuple):
    """One span, alone in its trace, and what is expected of one fact about it."""

    expected: object
    attributes: Mapping[str, Any]
    kind: str = ""
    name: str = "step"
    fields: Mapping[str, Any] = {}

    def __str__(self) -> str:
        told = {**self.attributes, **self.fields} or {"name": self.name}
        return f"{json.dumps(told, default=str)[:90]} -> {self.expected}"


def chain(
    keys: Sequence[str], values: Sequence[Any], kind: str = "", expected: Sequence[Any] | None = None
) -> list[Case]:
    """Each key of a fallback order: alone, before all that follow it, and behind earlier ones that are not set."""
    expected = expected or values
    cases: list[Case] = []
    for number, key in enumerate(keys):
        rest = dict(zip(keys[number:], values[number:], strict=True))
        cases.append(Case(expected[number], {key: values[number]}, kind))
        cases.append(Case(expected[number], dict(reversed(rest.items())), kind))
        cases += [
            Case(expected[number], dict.fromkeys(keys[:number], unset) | rest, kind) for unset in NOT_SET if number
        ]
    return cases


def texts(keys: Sequence[str], kind: str = "") -> list[Case]:
    return chain(keys, [f"from {key}" for key in keys], kind) + [
        Case(None, dict.fromkeys(keys, unset), kind) for unset in NOT_SET
    ]


INPUT = (
    "inference.llm.input_tokens",
    "llm.token_count.prompt",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
)
OUTPUT = (
    *("inference.llm.output_tokens", "llm.token_count.completion"),
    *("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
)
CACHED = (
    *(
        "inference.llm.cached_input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_cached",
    ),
    *("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),
)
NUMBERS: list[tuple[Any, int | None]] = [
    (12, 12),
    ("12", 12),
    ("12.0", 12),
    (12.0, 12),
    (0, 0),
    ("0", 0),
    (" 12 ", 12),
    (2**53 + 1, None),
    ("abc", None),
    ("", None),
    (None, None),
    (True, None),
    ([1], None),
    ({"n": 1}, None),
    (10**30, None),
    ("NaN", None),
]


def numbers(keys: Sequence[str]) -> list[Case]:
    return [
        *chain(keys, range(100, 100 + len(keys)), "LLM"),
        *(Case(expected, {keys[-1]: value}, "LLM") for value, expected in NUMBERS),
        Case(7, {keys[0]: "abc", keys[1]: "7"}, "LLM"),
        Case(7, {keys[0]: "abc", keys[1]: None, keys[2]: "7.0"}, "LLM"),
        Case(0, {keys[0]: 0, keys[1]: 9}, "LLM"),
    ]


MODEL = ("inference.llm.model_name", "llm.model_name", "gen_ai.response.model", "gen_ai.request.model")
PARAMETERS = "llm.invocation_parameters"
KINDS: list[Case] = [
    *(
        Case(kind, {"inference.observation_kind": kind})
        for kind in ("AGENT", "LLM", "TOOL", "CHAIN", "GUARDRAIL", "SPAN")
    ),
    *(Case(kind, {"inference.observation_kind": kind}) for kind in ("RETRIEVER", "EMBEDDING")),
    *(Case("LLM", {"openinference.span.kind": spelled}) for spelled in ("LLM", "llm", "Llm")),
    *(
        Case(kind.upper(), {"openinference.span.kind": kind})
        for kind in ("agent", "tool", "chain", "guardrail", "retriever")
    ),
    Case("EMBEDDING", {"openinference.span.kind": "EMBEDDING"}),
    *(Case("LLM", {"gen_ai.operation.name": name}) for name in ("chat", "text_completion", "generate_content")),
    Case("EMBEDDING", {"gen_ai.operation.name": "embeddings"}),
    Case("TOOL", {"gen_ai.operation.name": "execute_tool"}),
    *(Case("AGENT", {"gen_ai.operation.name": name}) for name in ("invoke_agent", "create_agent")),
    *(Case("CHAIN", {"gen_ai.operation.name": name}) for name in ("invoke_workflow", "execute_event_loop_cycle")),
    *(Case("CHAIN", {"traceloop.span.kind": name}) for name in ("workflow", "task")),
    Case("AGENT", {"traceloop.span.kind": "agent"}),
    Case("TOOL", {"traceloop.span.kind": "tool"}),
    Case("AGENT", {"span.type": "interaction"}),
    Case("LLM", {"span.type": "llm_request"}),
    Case("TOOL", {"span.type": "tool"}),
    *(Case("SPAN", {"span.type": name}) for name in ("tool.execution", "tool.blocked_on_user")),
    *(Case("LLM", {"mlflow.spanType": name}) for name in ("LLM", "CHAT_MODEL")),
    *(Case(name, {"mlflow.spanType": name}) for name in ("AGENT", "TOOL", "CHAIN", "RETRIEVER")),
    Case("LLM", {"ai.operationId": "ai.generateText.doGenerate"}),
    Case("LLM", {"ai.operationId": "ai.streamText.doStream"}),
    Case("TOOL", {"ai.operationId": "ai.toolCall"}),
    Case("CHAIN", {"ai.operationId": "ai.generateText"}),
    Case("LLM", {}, name="chat gpt-4.1"),
    Case("TOOL", {}, name="execute_tool search"),
    Case("AGENT", {}, name="invoke_agent planner"),
    *(Case("SPAN", {}, name=name) for name in ("chat", "step", "", "execute_toolbox", "a chat gpt")),
    # The first rule that knows the value wins.
    Case("TOOL", {"inference.observation_kind": "TOOL", "openinference.span.kind": "LLM"}),
    Case("LLM", {"openinference.span.kind": "LLM", "gen_ai.operation.name": "execute_tool"}),
    Case("TOOL", {"gen_ai.operation.name": "execute_tool", "traceloop.span.kind": "agent"}),
    Case("AGENT", {"traceloop.span.kind": "agent", "span.type": "tool"}),
    Case("TOOL", {"span.type": "tool", "mlflow.spanType": "AGENT"}),
    Case("AGENT", {"mlflow.spanType": "AGENT", "ai.operationId": "ai.toolCall"}),
    Case("TOOL", {"ai.operationId": "ai.toolCall"}, name="chat gpt"),
    Case("SPAN", {"inference.observation_kind": "SPAN", "openinference.span.kind": "CHAIN"}),
    # What says nothing counts as not set.
    *(
        Case("LLM", {"inference.observation_kind": value, "openinference.span.kind": "LLM"})
        for value in ("", None, "UNKNOWN")
    ),
    *(
        Case("TOOL", {"openinference.span.kind": value, "gen_ai.operation.name": "execute_tool"})
        for value in ("unknown", "")
    ),
    Case("SPAN", {"openinference.span.kind": "UNKNOWN"}),
    Case("LLM", {"traceloop.span.kind": "unknown"}, name="chat gpt"),
]
TOOL = ("tool.name", "gen_ai.tool.name", "tool_name", "traceloop.entity.name")
TOOL_NAMES = [case for case in texts(TOOL, "TOOL") if case.expected is not None] + [
    Case("search", {}, "TOOL", name="execute_tool search"),
    Case("search", {}, "TOOL", name="function.search"),
    Case("search", {}, "TOOL", name="search"),
    Case("my.tool", {}, "TOOL", name="my.tool"),
    Case("search", {}, name="execute_tool search"),
    Case("search", {"tool.name": ""}, "TOOL", name="search"),
    *(Case(None, {"tool.name": "search"}, kind) for kind in ("LLM", "AGENT", "CHAIN", "")),
]
AGENT = ("inference.agent_name", "agent.name", "gen_ai.agent.name")
AGENT_NAMES = [
    *texts(AGENT, "AGENT"),
    *texts(AGENT, "TOOL"),
    Case("planner", {}, "AGENT", name="invoke_agent planner"),
    Case("planner", {}, name="invoke_agent planner"),
    Case(None, {}, "LLM", name="invoke_agent planner"),
    Case(None, {}, "AGENT", name="planner"),
]
SESSIONS = texts(
    ("inference.session_id", "session.id", "gen_ai.conversation.id", "agent.workflow.group_id", "langfuse.session.id")
)
PROJECTS = texts(("inference.project_id",))
TASKS = texts(("task.id", "task.key", "task_id", "instance_id"))
RUNS = texts(("run.id", "run_id", "experiment.id"))
OUTCOME = ("task.outcome", "agent.outcome", "outcome", "task.success", "resolved")
OUTCOMES = [
    *chain(OUTCOME, ["pass", "fail", "success", False, True], expected=["pass", "fail", "pass", "fail", "pass"]),
    *(
        Case("pass", {"outcome": word})
        for word in ("pass", "PASSED", "Success", "succeeded", "resolved", True, 1, 1.0, "1")
    ),
    *(
        Case("fail", {"outcome": word})
        for word in ("fail", "FAILED", "failure", "error", "unresolved", False, 0, 0.0, "0")
    ),
    *(Case("unknown", {"outcome": word}) for word in ("perhaps", 0.5, {"pass": True}, *NOTHING)),
    Case("unknown", {}),
]


def status(code: Any, message: Any = "") -> Record:
    return {"status": {"code": code, "message": message}}


EXCEPTION: Record = {"name": "exception", "attributes": {"exception.type": "Timeout", "exception.message": "after 5 s"}}
STATUSES = [
    *(Case("OK", {}, fields=status(code)) for code in ("OK", "Ok", "ok", "1", 1, "STATUS_CODE_OK")),
    *(Case("ERROR", {}, fields=status(code)) for code in ("ERROR", "Error", "2", 2, "STATUS_CODE_ERROR")),
    *(Case("UNSET", {}, fields=status(code)) for code in ("UNSET", "STATUS_CODE_UNSET", 0, "", None, "warning")),
    *(Case("UNSET", {}, fields={"status": value}) for value in NOTHING),
    *(Case("UNSET", {}, fields=status(value)) for value in NOTHING),
    Case("ERROR", {}, fields={"status": {}, "events": [EXCEPTION]}),
    Case("ERROR", {"otel.events": [EXCEPTION]}, fields={"status": {}}),
    Case("ERROR", {}, fields={"status": {}, "events": [{"name": "log"}, EXCEPTION]}),
    Case("UNSET", {}, fields={"status": {}, "events": [{"name": "log", "attributes": {"exception.type": "X"}}]}),
    Case("OK", {}, fields=status("OK") | {"events": [EXCEPTION]}),
]
ERROR_TEXTS = [
    Case("Timeout: after 5 s", {}, fields=status("ERROR", "failed") | {"events": [EXCEPTION]}),
    Case("Timeout: after 5 s", {"otel.events": [EXCEPTION]}, fields=status("ERROR", "failed")),
    Case("Timeout: after 5 s", {"otel.events": [EXCEPTION]}, fields={"status": {}, "events": []}),
    Case("Timeout: failed", {"exception.type": "Timeout"}, fields=status("ERROR", "failed")),
    Case("Timeout: failed", {"error.type": "Timeout"}, fields=status("ERROR", "failed")),
    Case("Timeout", {"error.type": "Timeout"}, fields=status("ERROR")),
    Case("Broken: pipe", {"exception.type": "Broken", "exception.message": "pipe"}, fields=status("ERROR", "failed")),
    Case("failed", {}, fields=status("ERROR", "failed")),
    Case("failed | no such order", {"output.value": "no such order"}, "TOOL", fields=status("ERROR", "failed")),
    Case("no such order", {"output.value": "no such order"}, "TOOL", fields=status("ERROR")),
    Case("no such order", {"gen_ai.tool.call.result": "no such order"}, "TOOL", fields=status("ERROR")),
    Case("no such order", {"traceloop.entity.output": "no such order"}, "TOOL", fields=status("ERROR")),
    Case("failed", {"output.value": "an answer"}, "LLM", fields=status("ERROR", "failed")),
    Case(None, {"output.value": "fine"}, "TOOL", fields=status("OK")),
]
MODELS = [
    *texts(MODEL, "LLM"),
    Case("m", {PARAMETERS: '{"model":"m","temperature":1}'}, "LLM"),
    Case("m", {PARAMETERS: {"model": "m"}}, "LLM"),
    Case("named", {"gen_ai.request.model": "named", PARAMETERS: '{"model":"m"}'}, "LLM"),
    Case("m", {"gen_ai.request.model": "", PARAMETERS: '{"model":"m"}'}, "LLM"),
    *(
        Case(None, {PARAMETERS: text}, "LLM")
        for text in ("{}", "", "not json", "[1]", '{"model":""}', '{"model":null}', "{", '"m"')
    ),
]
TABLES: Mapping[str, Sequence[Case]] = {
    "model": MODELS,
    "input_tokens": numbers(INPUT),
    "output_tokens": numbers(OUTPUT),
    "cached_input_tokens": numbers(CACHED),
    "kind": KINDS,
    "tool": TOOL_NAMES,
    "agent": AGENT_NAMES,
    "session": SESSIONS,
    "project": PROJECTS,
    "task": TASKS,
    "run": RUNS,
    "outcome": OUTCOMES,
    "status": STATUSES,
    "error": ERROR_TEXTS,
}

GENERATION: Record = {
    "inference.export.schema_version": 1,
    "inference.project_id": "demo",
    "inference.observation_kind": "LLM",
    "inference.llm.provider": "openai",
    "inference.llm.model_name": "gpt-4.1",
    "inference.llm.input_tokens": 30,
    "inference.llm.output_tokens": 4,
    "inference.llm.cost.total": None,
    "inference.user_id": None,
    "inference.session_id": "group-1",
    "inference.agent_name": "",
    "agent.workflow.group_id": "group-1",
    "openinference.span.kind": "LLM",
    "llm.provider": "openai",
    "llm.model_name": "gpt-4.1",
    "llm.token_count.prompt": 30,
    "llm.token_count.completion": 4,
    "llm.token_count.total": 34,
}
EXPORTED: Mapping[str, tuple[str, Record, tuple[Any, ...]]] = {
    "agent": (
        "agent.Triage",
        {"inference.observation_kind": "AGENT", "inference.agent_name": "Triage", "agent.name": "Triage"},
        ("AGENT", None, None, "Triage", None, None),
    ),
    "generation": ("generation.gpt-4.1", GENERATION, ("LLM", "gpt-4.1", None, None, 30, 4)),
    "response": (
        "response",
        {**GENERATION, "inference.llm.model_name": None, "llm.model_name": None, "llm.response.id": "resp_1"},
        ("LLM", None, None, None, 30, 4),
    ),
    "function": (
        "function.search",
        {"inference.observation_kind": "TOOL", "inference.agent_name": "", "tool.name": "search", "input.value": "{}"},
        ("TOOL", None, "search", None, None, None),
    ),
    "mcp_tools": (
        "mcp_tools",
        {"inference.observation_kind": "TOOL", "mcp.server": "files", "mcp.tools.listed": '["read"]'},
        ("TOOL", None, "mcp_tools", None, None, None),
    ),
    "handoff": (
        "handoff",
        {"inference.observation_kind": "CHAIN", "inference.agent_name": "Triage", "agent.handoff.to": "Billing"},
        ("CHAIN", None, None, "Triage", None, None),
    ),
    "guardrail": (
        "guardrail.pii",
        {"inference.observation_kind": "GUARDRAIL", "guardrail.name": "pii", "guardrail.triggered": True},
        ("GUARDRAIL", None, None, None, None, None),
    ),
    "custom": (
        "custom.step",
        {"inference.observation_kind": "SPAN", "openinference.span.kind": "CHAIN", "sdk.span.type": "custom"},
        ("SPAN", None, None, None, None, None),
    ),
}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """Every case of every table, each in a trace of its own."""
    records = [
        span(trace=f"{fact}-{number}", kind=case.kind, attributes=case.attributes)
        | {"name": case.name, "resource": None, **case.fields}
        for fact, cases in TABLES.items()
        for number, case in enumerate(cases)
    ]
    exported = [
        span(trace=f"exported-{kind}", attributes=attributes, service="svc") | {"name": name}
        for kind, (name, attributes, _) in EXPORTED.items()
    ]
    return store_of(tmp_path_factory.mktemp("conventions"), *records, *exported)


def cases(fact: str) -> pytest.MarkDecorator:
    table = [pytest.param(f"{fact}-{number}", case.expected, id=str(case)) for number, case in enumerate(TABLES[fact])]
    return pytest.mark.parametrize("trace_id, expected", table)


@cases("model")
def test_the_model_is_taken_from_the_first_key_that_names_one(
    facts: LocalStore, trace_id: str, expected: str | None
) -> None:
    assert facts.spans(trace_id)[0].model_name == expected
    assert facts.trace(trace_id).model_names == (() if expected is None else (expected,))


@cases("input_tokens")
def test_input_tokens_are_taken_from_the_first_key_that_is_a_number(
    facts: LocalStore, trace_id: str, expected: int | None
) -> None:
    assert facts.spans(trace_id)[0].input_tokens == expected
    assert facts.trace(trace_id).input_tokens == expected


@cases("output_tokens")
def test_output_tokens_are_taken_from_the_first_key_that_is_a_number(
    facts: LocalStore, trace_id: str, expected: int | None
) -> None:
    assert facts.spans(trace_id)[0].output_tokens == expected
    assert facts.trace(trace_id).output_tokens == expected


@cases("cached_input_tokens")
def test_cached_tokens_are_kept_apart_from_input_tokens(facts: LocalStore, trace_id: str, expected: int | None) -> None:
    trace = facts.trace(trace_id)
    assert (trace.cached_input_tokens, trace.input_tokens) == (expected, None)


@cases("kind")
def test_the_observation_kind_follows_the_rules_in_order(facts: LocalStore, trace_id: str, expected: str) -> None:
    assert facts.spans(trace_id)[0].observation_kind == expected


@cases("tool")
def test_a_tool_span_names_its_tool_and_no_other_span_does(
    facts: LocalStore, trace_id: str, expected: str | None
) -> None:
    assert facts.spans(trace_id)[0].tool_name == expected


@cases("agent")
def test_the_agent_is_taken_from_the_first_key_that_names_one(
    facts: LocalStore, trace_id: str, expected: str | None
) -> None:
    assert facts.spans(trace_id)[0].agent_name == expected
    assert facts.trace(trace_id).agent_names == (() if expected is None else (expected,))


@cases("session")
def test_the_session_is_taken_from_the_first_key_that_names_one(
    facts: LocalStore, trace_id: str, expected: str | None
) -> None:
    assert facts.trace(trace_id).session_id == expected


@cases("project")
def test_the_project_is_halos_project_id(facts: LocalStore, trace_id: str, expected: str | None) -> None:
    assert facts.trace(trace_id).project_id == expected


@cases("task")
def test_the_task_key_is_taken_from_the_first_key_that_has_one(
    facts: LocalStore, trace_id: str, expected: str | None
) -> None:
    assert facts.trace(trace_id).task_key == expected


@cases("run")
def test_the_run_is_taken_from_the_first_key_that_names_one(
    facts: LocalStore, trace_id: str, expected: str | None
) -> None:
    assert facts.trace(trace_id).run_id == expected


@cases("outcome")
def test_an_outcome_is_pass_or_fail_in_many_words_and_else_unknown(
    facts: LocalStore, trace_id: str, expected: str
) -> None:
    assert facts.trace(trace_id).outcome == expected


@cases("status")
def test_a_status_is_ok_or_error_in_every_spelling_and_else_unset(
    facts: LocalStore, trace_id: str, expected: str
) -> None:
    assert facts.spans(trace_id)[0].status_code == expected
    assert facts.trace(trace_id).error_span_count == (expected == "ERROR")


@cases("error")
def test_an_error_text_is_the_best_that_the_span_has(facts: LocalStore, trace_id: str, expected: str | None) -> None:
    assert facts.spans(trace_id)[0].error_text == expected


@pytest.mark.parametrize("span_type", EXPORTED)
def test_every_span_type_of_the_agents_sdk_is_understood(facts: LocalStore, span_type: str) -> None:
    _, attributes, (kind, model, tool, agent, tokens_in, tokens_out) = EXPORTED[span_type]
    (row,) = facts.spans(f"exported-{span_type}")
    assert (row.observation_kind, row.model_name, row.tool_name) == (kind, model, tool)
    assert row.agent_name == (agent or "svc")
    assert (row.input_tokens, row.output_tokens) == (tokens_in, tokens_out)
    assert facts.trace(f"exported-{span_type}").session_id == attributes.get("inference.session_id")


def test_the_span_kind_of_open_telemetry_loses_its_prefix(tmp_path: Path) -> None:
    kinds = {
        "SPAN_KIND_CLIENT": "CLIENT",
        "client": "CLIENT",
        "INTERNAL": "INTERNAL",
        "": None,
        "SPAN_KIND_SERVER": "SERVER",
    }
    store = store_of(tmp_path, *(span(trace=f"t{number}") | {"kind": kind} for number, kind in enumerate(kinds)))
    assert [store.spans(f"t{number}")[0].kind for number in range(len(kinds))] == list(kinds.values())


def test_the_word_of_a_root_counts_before_that_of_other_spans(tmp_path: Path) -> None:
    words = [("pass", "t-child", "r-child"), ("fail", "t-root", "r-root")]
    child, root = ({"task.outcome": word, "task.id": task, "run.id": run} for word, task, run in words)
    store = store_of(tmp_path, span("c", "root", attributes=child), span("root", attributes=root))

    trace = store.trace("t1")
    assert (trace.outcome, trace.task_key, trace.run_id) == ("fail", "t-root", "r-root")


def test_further_projects_in_a_trace_are_counted(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(span(f"s{i}", attributes={"inference.project_id": f"p{i % 3}"}) for i in range(6)))
    assert (store.trace("t1").project_id, store.trace("t1").other_project_count) == ("p0", 2)


def test_long_messages_are_cut_in_the_index_and_whole_in_the_payload(tmp_path: Path) -> None:
    store = store_of(tmp_path, span(error="é" * 2_000))
    assert store.spans("t1")[0].status_message == "é" * 500
    assert store.payloads("t1")[0].status_message == "é" * 2_000
