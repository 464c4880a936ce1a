"""What ``repr()`` of Python objects says, as JSON: the text that ``str()`` of an object leaves in a dump."""

from __future__ import annotations

import ast
import warnings
from typing import Final

from halo_mcp.index.span import Json

_LONGEST: Final = 2_000_000
_DEEPEST: Final = 60


def from_repr(text: str) -> Json:
    """``Response(id='r', output=[Text(text='a')])`` as ``{"id": "r", "output": [{"text": "a"}]}``; None when it is no
    such text. Nothing in it is run: it is only parsed."""
    if len(text) > _LONGEST or not text.rstrip().endswith((")", "]", "}")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text.strip(), mode="eval")
        return _value(tree.body, 0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, depth: int) -> Json:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str | int | float | bool | None) else repr(node.value)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_value(item, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(_value(key, depth + 1)): _value(held, depth + 1) for key, held in pairs if key is not None}
    if isinstance(node, ast.Call):
        members = {keyword.arg: _value(keyword.value, depth + 1) for keyword in node.keywords if keyword.arg}
        return members or ([_value(item, depth + 1) for item in node.args] if node.args else {})
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand, depth + 1)
        return -number if isinstance(number, int | float) else ast.unparse(node)
    return ast.unparse(node)
