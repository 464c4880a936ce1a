"""A plain function over a store becomes an MCP tool.

The function takes a Call first and returns an Answer. Published, it takes ``dataset`` and ``response_format`` too, runs
in a worker thread that stops when the client cancels, reports progress, and answers errors as one sentence.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, cast

import anyio
import orjson
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import ConfigDict, Field

from halo_mcp.engine.settings import LLMSettings
from halo_mcp.errors import HaloError
from halo_mcp.index.work import Work
from halo_mcp.tools.budget import RESULT_META
from halo_mcp.tools.calls import ToolFunction, about_all_datasets, answer, own_parameters
from halo_mcp.tools.catalog import Published
from halo_mcp.tools.params import Answer, ResponseFormat
from halo_mcp.tools.render import printable
from halo_mcp.tools.serving import Serving
from halo_mcp.tools.threads import run_in_thread

READ_ONLY: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
"""The other two hints mean nothing on a tool that only reads."""
SENDING: Final = ToolAnnotations(read_only_hint=True, open_world_hint=True)
FULL_FILTERS_IN: Final = "query_traces"
"""The one tool whose schema spells the filters out: repeated in every tool they would fill most of tools/list."""
_FILTERS_IN_WORDS: Final = f"conditions as in {FULL_FILTERS_IN}; {{}} = all traces"
_PROGRESS_EVERY_S: Final = 0.5
_MOST_PROGRESS: Final = 0.999
_log = logging.getLogger(__name__)

_Dataset = Annotated[str, Field(description="name; empty = the default one")]
_Format = Annotated[ResponseFormat, Field()]


def publish(entry: Published, llm: LLMSettings | None = None) -> Tool:
    """The MCP tool of a catalogue entry; ``llm``: which model the server may ask."""
    llm = llm or LLMSettings()
    function = entry.function

    async def run(**arguments: Any) -> CallToolResult:
        context = cast("Context[Serving]", arguments.pop("ctx"))
        dataset = "" if about_all_datasets(function) else cast("str", arguments.pop("dataset", ""))
        response_format = cast("ResponseFormat", arguments.pop("response_format"))
        datasets = context.request_context.lifespan_context.datasets
        try:
            result = await in_thread(context, partial(answer, datasets, dataset, function, arguments))
            if response_format == "json":
                return CallToolResult(
                    content=[TextContent(text=orjson.dumps(result.data).decode())],
                    structured_content=dict(result.data),
                )
            return text_result(printable(result.text))
        except HaloError as error:
            return text_result(str(error), is_error=True)
        except anyio.get_cancelled_exc_class():
            raise
        except Exception:
            _log.exception("tool %s failed", function.__name__)
            return text_result(
                f"Internal error in {function.__name__}; the server's log has the details. Other calls still work.",
                is_error=True,
            )

    _sign(run, function)
    meta: dict[str, Any] = {"anthropic/searchHint": entry.hint} if entry.hint else {}
    meta |= {"anthropic/alwaysLoad": True} if entry.always_load else {}
    meta |= RESULT_META if entry.large else {}
    tool = Tool.from_function(
        run,
        name=function.__name__,
        title=entry.title,
        description=entry.described(llm) if entry.described else inspect.getdoc(function),
        annotations=SENDING if entry.described and llm.why_off() is None else READ_ONLY,
        meta=meta or None,
        structured_output=False,
    )
    return strict(tool)


def text_result(text: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=is_error)


def _sign(run: Callable[..., Any], function: ToolFunction) -> None:
    """Give ``run`` the parameters of ``function`` without its Call, and those every tool has."""
    kind = inspect.Parameter.KEYWORD_ONLY
    own = [parameter.replace(kind=kind) for parameter in own_parameters(function)]
    if not about_all_datasets(function):
        own.append(inspect.Parameter("dataset", kind, default="", annotation=_Dataset))
    own.append(inspect.Parameter("response_format", kind, default="text", annotation=_Format))
    own.append(inspect.Parameter("ctx", kind, annotation=Context))
    run.__signature__ = inspect.Signature(own, return_annotation=CallToolResult)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in own} | {"return": CallToolResult}
    run.__name__ = function.__name__
    run.__doc__ = function.__doc__


def strict(tool: Tool) -> Tool:
    """Refuse unknown arguments (the SDK drops them silently) and publish the schema without its automatic titles."""
    base = tool.fn_metadata.arg_model
    model = type(base.__name__, (base,), {"model_config": ConfigDict(extra="forbid"), "__module__": base.__module__})
    tool.fn_metadata.arg_model = model
    tool.parameters = _lean({"additionalProperties": False, **tool.parameters})
    properties = tool.parameters["properties"]
    for name in [name for name, schema in properties.items() if str(schema.get("$ref")).endswith("/TraceFilters")]:
        if tool.name != FULL_FILTERS_IN:
            words = _FILTERS_IN_WORDS if name == "filters" else properties[name]["description"]
            properties[name] = {"type": "object", "description": words}
            tool.parameters.pop("$defs", None)
    return tool


def _lean(schema: Any) -> Any:
    """Without what costs tokens and tells a model nothing it needs: automatic titles, defaults that mean "not given",
    limits that no sensible call meets (they are checked all the same), and null where leaving out means the same."""
    if isinstance(schema, list):
        return [_lean(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    lean: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", schema).items():
        if key in ("properties", "$defs") and isinstance(value, dict):
            lean[key] = {name: _lean(member) for name, member in cast("dict[str, Any]", value).items()}
        elif key == "anyOf":
            (given,) = [choice for choice in value if choice != {"type": "null"}]
            lean |= _lean(given)
        elif not (_automatic(key, value) or key in ("maxItems", "minLength")):
            lean[key] = _lean(value)
    return lean


def _automatic(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and (value in ("", [], None) or isinstance(value, dict))
    )


async def in_thread(context: Context[Serving], call: Callable[[Work], Answer]) -> Answer:
    """Run ``call`` in a worker thread; reports progress, and tells the thread to stop when the client cancels."""
    latest: list[tuple[float, float, str]] = []
    lock = threading.Lock()

    def note(done: float, total: float, message: str) -> None:
        with lock:
            latest[:] = [(done, total, message)]

    work = Work(on_progress=note)
    outcome: list[Answer | HaloError] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_report, context, latest, lock)
        try:
            outcome.append(await run_in_thread(call, work))
        except HaloError as error:  # raised inside, it would come out of the group wrapped
            outcome.append(error)
        finally:
            work.stop()
            group.cancel_scope.cancel()
    if isinstance(outcome[0], HaloError):
        raise outcome[0]
    return outcome[0]


async def _report(context: Context[Serving], latest: list[tuple[float, float, str]], lock: threading.Lock) -> None:
    """Send the newest progress twice a second; the value always grows, as MCP demands, and stays below 1.0."""
    sent = -1.0
    while True:
        await anyio.sleep(_PROGRESS_EVERY_S)
        with lock:
            newest = latest.pop() if latest else None
        if newest is None:
            continue
        done, total, message = newest
        following = growing(sent, done / total if total else 0.0)
        if following > sent:
            sent = following
            await context.report_progress(sent, 1.0, message)


def growing(sent: float, share: float) -> float:
    """The progress to send after ``sent``: ``share``, or a little more than ``sent``; below 1.0, so it can go on."""
    return max(min(share, _MOST_PROGRESS), sent + (1.0 - sent) * 1e-4)
