"""Every attribute key that halo-mcp understands, in fallback order: the first key with a value wins.

Conventions: HALO's exporter (``inference.*``), OpenInference (``llm.*``, ``tool.*``, ``input.value`` ...),
OpenTelemetry GenAI (``gen_ai.*``), Traceloop, Vercel AI SDK, MLflow, Langfuse, Claude Code, OpenAI Agents SDK.
Null and ``""`` mean "not set". Aliases of one fact on one span are alternatives, never addends.

No attribute key is spelled anywhere else; ``columns.py`` turns these lists into SQL, ``messages.py`` reads payloads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, Literal

ObservationKind = Literal["AGENT", "LLM", "TOOL", "CHAIN", "GUARDRAIL", "RETRIEVER", "EMBEDDING", "SPAN"]
OBSERVATION_KINDS: Final[tuple[ObservationKind, ...]] = (
    "AGENT",
    "LLM",
    "TOOL",
    "CHAIN",
    "GUARDRAIL",
    "RETRIEVER",
    "EMBEDDING",
    "SPAN",
)

# --- facts of one span ------------------------------------------------------------------------------------------
MODEL_NAME: Final = (
    "inference.llm.model_name",
    "llm.model_name",
    "gen_ai.response.model",
    "gen_ai.request.model",
    "model",
)
INVOCATION_PARAMETERS: Final = "llm.invocation_parameters"
"""JSON text; its ``model`` member is the last source of the model name."""

PROVIDER: Final = ("inference.llm.provider", "llm.provider", "gen_ai.provider.name", "gen_ai.system", "llm.system")

INPUT_TOKENS: Final = (
    "inference.llm.input_tokens",
    "llm.token_count.prompt",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "input_tokens",
)
OUTPUT_TOKENS: Final = (
    "inference.llm.output_tokens",
    "llm.token_count.completion",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "output_tokens",
)
TOTAL_TOKENS: Final = ("llm.token_count.total", "gen_ai.usage.total_tokens", "llm.usage.total_tokens")
"""Never read: input and output tokens say it."""
MIME_TYPES: Final = ("input.mime_type", "output.mime_type")
"""Never read: a value says itself whether it is JSON."""
CACHED_INPUT_TOKENS: Final = (
    "inference.llm.cached_input_tokens",
    "llm.token_count.prompt_details.cache_read",
    "llm.token_count.prompt_cached",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "cache_read_tokens",
)
TOOL_NAME: Final = ("tool.name", "gen_ai.tool.name", "tool_name", "traceloop.entity.name")
TOOL_NAME_PREFIXES: Final = ("execute_tool ", "function.", "tool.", "ai.toolCall ")
"""Removed from the span name when no attribute names the tool."""

AGENT_NAME: Final = ("inference.agent_name", "agent.name", "gen_ai.agent.name")
AGENT_NAME_PREFIX: Final = "invoke_agent "
"""Removed from an AGENT span's name when no attribute names the agent."""
AGENT_ID: Final = ("inference.agent_id", "agent.id", "gen_ai.agent.id")

SESSION_ID: Final = (
    "inference.session_id",
    "session.id",
    "gen_ai.conversation.id",
    "agent.workflow.group_id",
    "langfuse.session.id",
)
SCHEMA_VERSION: Final = "inference.export.schema_version"
"""Of HALO's exporter; it says nothing about the span."""
PROJECT_ID: Final = ("inference.project_id",)
SERVICE_NAME: Final = "service.name"
"""A resource attribute."""

TASK_KEY: Final = ("task.id", "task.key", "task_id", "instance_id")
RUN_ID: Final = ("run.id", "run_id", "experiment.id")
OUTCOME: Final = (
    "task.outcome",
    "agent.outcome",
    "outcome",
    "task.success",
    "resolved",
    "task.passed",
    "task.resolved",
)
"""A verdict: a word, a truth value, or 0 and 1. Not read on TOOL spans, whose result is not that of the task."""
SCORE: Final = ("task.reward", "task.score", "reward", "final_reward", "total_reward")
"""A number that becomes a verdict by a threshold (a word or truth value is one). Not read on TOOL spans either."""
ROOT_OUTCOME: Final = (
    "success",
    "passed",
    "solved",
    "correct",
    "is_correct",
    "verdict",
    "eval.label",
    "evaluation.label",
    "gen_ai.evaluation.score.label",
)
ROOT_SCORE: Final = ("score", "eval.score", "evaluation.score", "gen_ai.evaluation.score.value")
"""Both as above, but only a root's word counts: below it, such keys speak of one step."""

_PASS_OR_FAIL: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("pass", "passed", "success", "succeeded", "successful", "resolved", "solved", "correct", "true", "yes"), "pass"
    ),
    **dict.fromkeys(
        ("fail", "failed", "failure", "error", "unsuccessful", "unresolved", "unsolved", "incorrect", "wrong"), "fail"
    ),
    **dict.fromkeys(("false", "no"), "fail"),
}
OUTCOME_VALUES: Final[Mapping[str, str]] = MappingProxyType(_PASS_OR_FAIL)
"""Words, lower-cased."""
OUTCOME_DIGITS: Final[Mapping[str, str]] = MappingProxyType({"1": "pass", "1.0": "pass", "0": "fail", "0.0": "fail"})
"""What these mean where a verdict is expected, not a score."""

INPUT_VALUE: Final = (
    "input.value",
    "gen_ai.tool.call.arguments",
    "traceloop.entity.input",
    "user_prompt",
    "tool_input",
)
OUTPUT_VALUE: Final = (
    "output.value",
    "gen_ai.tool.call.result",
    "traceloop.entity.output",
    "response.model_output",
)
TOOL_ARGUMENTS: Final = INPUT_VALUE[1]
TOOL_RESULT: Final = OUTPUT_VALUE[1]
OPERATION_NAME: Final = "gen_ai.operation.name"

SAYS_ERROR: Final = ("tool.is_error", "gen_ai.tool.is_error", "isError", "is_error")
SAYS_SUCCESS: Final = ("tool.success", "success", "completed", "finalized")
TOOL_STATUS: Final = ("gen_ai.tool.status", "tool.status")
STOP_REASON: Final = ("agent.stop_reason",)
"""How a span says that it failed without an ERROR status."""
FINISH_REASON: Final = (
    "gen_ai.response.finish_reasons",
    "llm.finish_reason",
    "gen_ai.completion.0.finish_reason",
    "llm.output_messages.0.message.finish_reason",
    "ai.response.finishReason",
    "stop_reason",
)
"""Why a model stopped: a word, or a list of which the first counts."""

EXCEPTION_TYPE: Final = ("exception.type", "error.type")
EXCEPTION_MESSAGE: Final = ("exception.message",)
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
EXCEPTION_EVENT: Final = "exception"
EVENTS_ATTRIBUTE: Final = "otel.events"
LINKS_ATTRIBUTE: Final = "otel.links"
"""Where converters without top-level ``events`` and ``links`` keep them, as lists of objects."""

# --- what converters of other formats write beside the keys above ----------------------------------------------------
SOURCE_TRACE_ID: Final = "source.trace_id"
SOURCE_SPAN_ID: Final = "source.span_id"
SOURCE_PARENT_SPAN_ID: Final = "source.parent_span_id"
"""Ids as the source spells them, where the index spells them in another way."""
SYNTHETIC_TIME: Final = "source.synthetic_time"
"""True where the source has no clock: the times tell the order only."""
SOURCE_STEP: Final = "source.step"
"""Position of a record in a source without ids, counted from 0."""
NEW_MESSAGES_ONLY: Final = "source.new_messages_only"
"""True where an LLM span's input is only what came since the model's last answer: the rest is in the spans before."""
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
RESULT_MISSING: Final = "tool.result.missing"
"""True on a tool call of which the source has no result."""

# --- messages ---------------------------------------------------------------------------------------------------
INPUT_MESSAGES: Final = ("llm.input_messages", "gen_ai.input.messages")
OUTPUT_MESSAGES: Final = ("llm.output_messages", "gen_ai.output.messages")
OUTPUT_TEXT: Final = ("llm.output_messages.0.message.content", "gen_ai.completion.0.content", "ai.response.text")
OUTPUT_CALLS: Final = (
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name",
    "gen_ai.completion.0.tool_calls.0.name",
    "ai.response.toolCalls",
)
"""The text and the first tool call of a model's answer, where they are attributes of their own."""
FLAT_INPUT_PREFIXES: Final = ("llm.input_messages.", "gen_ai.prompt.")
FLAT_OUTPUT_PREFIXES: Final = ("llm.output_messages.", "gen_ai.completion.")
FLAT_PREFIXES: Final = FLAT_INPUT_PREFIXES + FLAT_OUTPUT_PREFIXES
"""Flattened messages: ``llm.input_messages.0.message.role`` (OpenInference), ``gen_ai.prompt.0.role`` (Traceloop)."""

MESSAGE_EVENTS: Final[Mapping[str, str]] = MappingProxyType(
    {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
)
"""Span events that are a message to the model -> its role."""
TOOL_MESSAGE_EVENT: Final = "gen_ai.tool.message"
CHOICE_EVENT: Final = "gen_ai.choice"
"""Span event that is an answer of the model; on a tool's span, its result."""
EVENT_CONTENT: Final = "gen_ai.event.content"
"""Attribute of a message event: its body as JSON, where the body is not spread over attributes."""
DETAILS_EVENTS: Final = (
    "gen_ai.client.inference.operation.details",
    "gen_ai.content.prompt",
    "gen_ai.content.completion",
)
"""Span events whose attributes are those of a span in other versions of the convention."""
EVENT_INPUT_MESSAGES: Final = INPUT_MESSAGES[1]
EVENT_OUTPUT_MESSAGES: Final = OUTPUT_MESSAGES[1]
"""Keys by which messages from events go on."""

# --- the harness: what an agent was given before it started ------------------------------------------------------
PROMPT_ROLES: Final = ("system", "developer")
"""Roles of the messages that a harness writes, not a user."""
PROMPT_MESSAGES: Final = (*INPUT_MESSAGES, "ai.prompt.messages")
"""JSON lists of messages whose first ones may be the system prompt."""
SYSTEM_INSTRUCTIONS: Final = ("gen_ai.system_instructions", "agent.instructions", "system_prompt")
"""The system prompt where it stands apart from the messages: text, or a JSON list of parts."""
DETAILS: Final[Mapping[str, str]] = MappingProxyType(
    {
        key: key
        for key in (EVENT_INPUT_MESSAGES, EVENT_OUTPUT_MESSAGES, SYSTEM_INSTRUCTIONS[0], "gen_ai.tool.definitions")
    }
    | {"gen_ai.prompt": EVENT_INPUT_MESSAGES, "gen_ai.completion": EVENT_OUTPUT_MESSAGES}
)
"""What DETAILS_EVENTS may tell -> the span's attribute that tells it."""
PROMPT_TEMPLATE: Final = ("llm.prompt_template.template",)
PROMPT_VARIABLES: Final = ("llm.prompt_template.variables",)
"""JSON object: what was filled into the template."""
PROMPT_VERSION: Final = (
    "llm.prompt_template.version",
    "langfuse.observation.prompt.version",
    "gen_ai.prompt.version",
    "prompt.version",
)
SERVICE_VERSION: Final = "service.version"
"""A resource attribute."""
TOOL_DEFINITIONS: Final = ("llm.tools", "gen_ai.tool.definitions", "ai.prompt.tools", "mcp.tools.listed")
"""JSON lists of tools, as objects, or as strings that hold an object or a bare name."""
FLAT_TOOL_DEFINITIONS: Final = ("llm.tools.", "llm.request.functions.", "mcp.tools.")
"""Flattened: ``llm.tools.0.tool.json_schema`` (OpenInference), ``llm.request.functions.0.name`` (Traceloop)."""
TOOL_LIST: Final = ("agent.tools",)
"""JSON list of bare names: read only where no definitions are recorded."""
REQUEST_PARAMETERS: Final = (
    "gen_ai.request.temperature",
    "gen_ai.request.top_p",
    "gen_ai.request.top_k",
    "gen_ai.request.max_tokens",
    "gen_ai.request.frequency_penalty",
    "gen_ai.request.presence_penalty",
    "gen_ai.request.stop_sequences",
    "gen_ai.request.choice.count",
    "gen_ai.request.reasoning.effort",
)
"""Beside INVOCATION_PARAMETERS; the last part of the key is the parameter's name."""
NO_SAMPLING_PARAMETERS: Final = frozenset(
    (
        "model",
        "messages",
        "input",
        "prompt",
        "system",
        "instructions",
        "tools",
        "functions",
        "seed",
        "user",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "previous_response_id",
        "conversation",
        "headers",
        "extra_headers",
        "extra_body",
        "api_key",
    )
)
"""Members of the invocation parameters that tell who asked for what, are compared elsewhere, or may be secret."""

# --- observation kind: the first rule that knows the value wins ----------------------------------------------------
_KIND_NAMES: Final[dict[str, ObservationKind]] = {kind.lower(): kind for kind in OBSERVATION_KINDS}

CLAUDE_CODE_TYPE: Final = "span.type"
CLAUDE_CODE_TYPES: Final[Mapping[str, ObservationKind]] = MappingProxyType(
    {
        "interaction": "AGENT",
        "llm_request": "LLM",
        "tool": "TOOL",
        "tool.execution": "SPAN",  # as TOOL each call would count more than once
        "tool.blocked_on_user": "SPAN",
    }
)
CLAUDE_CODE_SUCCESS: Final = "success"
CLAUDE_CODE_ERROR: Final = "error"
"""Claude Code never sets a status: these attributes tell it."""

KIND_RULES: Final[tuple[tuple[str, Mapping[str, ObservationKind]], ...]] = (
    ("inference.observation_kind", _KIND_NAMES),
    ("openinference.span.kind", {**_KIND_NAMES, "reranker": "RETRIEVER", "evaluator": "SPAN", "prompt": "SPAN"}),
    (
        OPERATION_NAME,
        {
            "chat": "LLM",
            "text_completion": "LLM",
            "generate_content": "LLM",
            "embeddings": "EMBEDDING",
            "execute_tool": "TOOL",
            "invoke_agent": "AGENT",
            "create_agent": "AGENT",
            "invoke_workflow": "CHAIN",
            "execute_event_loop_cycle": "CHAIN",
        },
    ),
    ("traceloop.span.kind", {"workflow": "CHAIN", "task": "CHAIN", "agent": "AGENT", "tool": "TOOL"}),
    ("llm.request.type", {"chat": "LLM", "completion": "LLM", "embedding": "EMBEDDING", "rerank": "RETRIEVER"}),
    (CLAUDE_CODE_TYPE, CLAUDE_CODE_TYPES),
    ("mlflow.spanType", {**_KIND_NAMES, "chat_model": "LLM"}),
    ("langfuse.observation.type", {**_KIND_NAMES, "generation": "LLM", "event": "SPAN"}),
    (
        "ai.operationId",
        {
            "ai.generatetext.dogenerate": "LLM",
            "ai.streamtext.dostream": "LLM",
            "ai.generateobject.dogenerate": "LLM",
            "ai.streamobject.dostream": "LLM",
            "ai.embed.doembed": "EMBEDDING",
            "ai.embedmany.doembed": "EMBEDDING",
            "ai.toolcall": "TOOL",
            "ai.generatetext": "CHAIN",
            "ai.streamtext": "CHAIN",
            "ai.generateobject": "CHAIN",
            "ai.streamobject": "CHAIN",
        },
    ),
)
"""(attribute key, lower-cased value -> kind)."""

OBSERVATION_KIND: Final = KIND_RULES[0][0]
"""The key by which converters tell the kind."""

KIND_NAME_PREFIXES: Final[tuple[tuple[str, ObservationKind], ...]] = (
    ("chat ", "LLM"),
    ("execute_tool ", "TOOL"),
    ("invoke_agent ", "AGENT"),
)
"""The last resort before SPAN: how the span name starts."""

STATUS_ERROR: Final = ("STATUS_CODE_ERROR", "ERROR", "2")
STATUS_OK: Final = ("STATUS_CODE_OK", "OK", "1")


def indexed_attribute_keys() -> tuple[str, ...]:
    """Every span attribute that the index reads, each once, in the order of this module."""
    groups = (
        MODEL_NAME,
        (INVOCATION_PARAMETERS,),
        INPUT_TOKENS,
        OUTPUT_TOKENS,
        CACHED_INPUT_TOKENS,
        TOOL_NAME,
        AGENT_NAME,
        AGENT_ID,
        SESSION_ID,
        PROJECT_ID,
        TASK_KEY,
        RUN_ID,
        OUTCOME,
        SCORE,
        ROOT_OUTCOME,
        ROOT_SCORE,
        INPUT_VALUE,
        OUTPUT_VALUE,
        OUTPUT_MESSAGES,
        OUTPUT_TEXT,
        OUTPUT_CALLS,
        FINISH_REASON,
        SAYS_ERROR,
        SAYS_SUCCESS,
        TOOL_STATUS,
        STOP_REASON,
        EXCEPTION_TYPE,
        EXCEPTION_MESSAGE,
        tuple(key for key, _ in KIND_RULES),
    )
    return tuple(dict.fromkeys(key for group in groups for key in group))


def is_understood(key: str) -> bool:
    """Whether any rule of ours reads this span attribute."""
    return key in _understood() or key.startswith(FLAT_PREFIXES + FLAT_TOOL_DEFINITIONS)


@cache
def _understood() -> frozenset[str]:
    groups = (
        indexed_attribute_keys(),
        PROVIDER,
        TOTAL_TOKENS,
        MIME_TYPES,
        INPUT_MESSAGES,
        OUTPUT_MESSAGES,
        PROMPT_MESSAGES,
        SYSTEM_INSTRUCTIONS,
        PROMPT_TEMPLATE,
        PROMPT_VARIABLES,
        PROMPT_VERSION,
        TOOL_DEFINITIONS,
        TOOL_LIST,
        REQUEST_PARAMETERS,
        (EXCEPTION_STACKTRACE, EVENTS_ATTRIBUTE, LINKS_ATTRIBUTE),
        (SOURCE_TRACE_ID, SOURCE_SPAN_ID, SOURCE_PARENT_SPAN_ID, SYNTHETIC_TIME, SOURCE_STEP, SCHEMA_VERSION),
        (NEW_MESSAGES_ONLY, TOOL_CALL_ID),
    )
    return frozenset(key for group in groups for key in group)
