"""The result of a question as text: short, for a model or a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from halo_mcp.tools.budget import DEFAULT_CHARS, Page, preview
from halo_mcp.tools.code_evidence import code_line
from halo_mcp.tools.render import counted, number, printable

_QUOTE_CHARS: Final = 160
_WARNINGS: Final = 5
_CODE_SHOWN: Final = 5


def outcome_text(outcome: Mapping[str, Any]) -> str:
    """The answer, its findings with verdicts, what was used, and what to doubt."""
    text = Page(DEFAULT_CHARS, reserve=1_500)
    text.add(_head(outcome))
    text.add_cut(str(outcome["answer"]))
    findings = outcome["findings"]
    shown = 0
    for position, finding in enumerate(findings, 1):
        if not text.add(_finding(position, finding)):
            break
        shown += 1
    closing = _closing(outcome)
    if shown < len(findings):
        closing.insert(0, f'{counted(len(findings) - shown, "further finding")} left out: response_format="json".')
    return printable(text.close(*closing))


def _head(outcome: Mapping[str, Any]) -> str:
    used, reason = outcome["usage"], outcome["stop_reason"]
    parts = [f"status {outcome['status']}{f' ({reason})' if reason else ''}", f"run {outcome['run_id']}"]
    parts += [counted(used["turns"], "turn"), counted(used["tool_calls"], "tool call")]
    parts += [counted(used["subagents"], "subagent")] if used["subagents"] else []
    parts += [f"tokens in {number(used['input_tokens'])} out {number(used['output_tokens'])}"]
    parts += [] if used["cost_usd"] is None else [f"${used['cost_usd']:.4f}"]
    return " · ".join([*parts, f"{used['seconds']:.0f} s", f"model {preview(outcome['model'])}"])


def _finding(position: int, finding: Mapping[str, Any]) -> str:
    lines = [f"{position}. [{finding['severity']}] {finding['claim']}"]
    lines += [f"   {_evidence(one)}" for one in finding["evidence"]]
    lines += [f"   code {code_line(one)}" for one in finding.get("code", [])]
    if counter := finding.get("counterexample"):
        lines.append(f"   counterexample: {_evidence(counter)}")
    if check := finding.get("check"):
        verdict = check.get("verdict", "unchecked")
        actual = f", is {check['actual']}" if verdict == "wrong" else ""
        lines.append(f"   count {verdict}: expected {check['expected']}{actual}")
    if not finding["evidence"] and not finding.get("check"):
        lines.append("   no evidence of traces given" if finding.get("code") else "   no evidence given")
    return "\n".join(lines)


def _evidence(one: Mapping[str, Any]) -> str:
    place = f"trace {one['trace_id']}" + (f" span {one['span_id']}" if one.get("span_id") else "")
    quote = f" “{preview(one['quote'], _QUOTE_CHARS)}”" if one.get("quote") else ""
    unread = " · never read in this run" if one.get("seen") is False else ""
    return f"{one.get('verdict', 'unchecked').replace('_', ' ')} · {place}{quote}{unread}"


def _code(tally: Mapping[str, Any]) -> list[str]:
    """The citations of code in numbers, and those in the text that have to be told."""
    if not tally["total"]:
        return []
    kinds = ", ".join(f"{tally[kind]} {kind}" for kind in ("verified", "moved", "failed", "unchecked") if tally[kind])
    told = [row for row in tally["text"] if row["reason"] or "cited_path" in row]
    lines = [f"{counted(tally['total'], 'citation')} of code: {kinds}"]
    lines += [f"In the text: {code_line(row)}" for row in told[:_CODE_SHOWN]]
    return lines + ([f"and {len(told) - _CODE_SHOWN} more in the text"] if len(told) > _CODE_SHOWN else [])


def _closing(outcome: Mapping[str, Any]) -> list[str]:
    found = outcome["citations"]
    lines: list[str] = []
    if found["total"]:
        kinds = ", ".join(f"{found[kind]} {kind}" for kind in ("verified", "moved", "failed") if found[kind])
        lines.append(f"{counted(found['total'], 'citation')}: {kinds or 'none decided'} (that words stand, not causes)")
    lines += _code(found["code"]) if "code" in found else []
    if outcome["problems"]:
        shown = "; ".join(preview(problem, 200) for problem in outcome["problems"][:_WARNINGS])
        lines.append(f"Still wrong after a second try: {shown}")
    if outcome["limitations"]:
        lines.append(f"Limits: {preview(outcome['limitations'], 400)}")
    lines += [f"Warning: {preview(warning, 300)}" for warning in outcome["warnings"][:_WARNINGS]]
    lines.append(f"Record: halo://runs/{outcome['run_id']}")
    return lines
