"""``halo://guide``: how to use the server, made from the tools, filters and prompts that there are."""

from __future__ import annotations

from collections.abc import Iterable

from halo_mcp.index.filters import TraceFilters

_BEGIN = """\
# halo-mcp: evidence from agent traces

{instructions}
## Ways of working

- What goes wrong: get_dataset_overview, list_failure_modes, contrast_traces; then read two failing traces and a passing
  one with view_trace; then count each cause with count_traces among failing and among passing traces.
- One trace: view_trace; view_spans for long texts; search_trace for a place; analyze_tool_use(trace_id=...) for its
  tool calls beside a run that ended otherwise.
- Did a change help: compare_datasets(dataset=..., after=...); list_harness_versions says what changed.
- Before you report: verify_evidence with the ids and quotes that you cite.
- Long answers end with the literal call that goes on. Ids are given in full: copy them.
- Where text is "[redacted: KIND]" a credential was masked; quote it with its mask.
"""


def guide(
    instructions: str,
    tools: Iterable[tuple[str, str]],
    prompts: Iterable[tuple[str, str]],
    resources: Iterable[tuple[str, str]],
) -> str:
    """The text, in Markdown. Each pair is a name and a description, of which the first paragraph is shown."""
    parts = [_BEGIN.format(instructions=instructions)]
    parts.append("## Tools\n\n" + _listed((name, _first(text)) for name, text in tools))
    filters = ((name, _meaning(name)) for name in TraceFilters.model_fields)
    parts.append(
        "## Filters\n\nMembers of `filters`, `group_a`, `group_b` and the like; all given ones must hold, a list means "
        "any of its values.\n\n" + _listed(filters)
    )
    parts.append("## Prompts\n\n" + _listed((name, _first(text)) for name, text in prompts))
    parts.append("## Resources\n\n" + _listed((uri, _first(text)) for uri, text in resources))
    return "\n".join(parts)


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"- `{name}`: {text}\n" if text else f"- `{name}`\n" for name, text in pairs)


def _first(text: str) -> str:
    return " ".join(text.strip().split("\n\n")[0].split())


def _meaning(name: str) -> str:
    return TraceFilters.model_fields[name].description or ""
