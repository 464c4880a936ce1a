"""What runs inside WebAssembly: one Python interpreter that executes code and keeps its variables between runs.

componentize-py freezes the interpreter after these imports. A module that is not imported here does not exist in the
sandbox, so this list is the standard library that the code gets (with the internals that it imports late).
"""

# ruff: noqa: E401, F401, I001, T201
import abc, array, ast, asyncio, base64, binascii, bisect, calendar, cmath, codecs, collections.abc, concurrent.futures
import contextlib, copy, csv, dataclasses, datetime, decimal, difflib, enum, fnmatch, fractions, functools, graphlib
import hashlib, heapq, html, inspect, io, itertools, json, keyword, linecache, locale, math, numbers, operator, pathlib
import pprint, random, re, reprlib, shlex, statistics, string, struct, sys, textwrap, time, timeit, token, tokenize
import traceback, types, typing, unicodedata, urllib.parse, uuid, warnings, weakref, zoneinfo
import _strptime, _pydecimal, _pylong, encodings.utf_8, encodings.ascii, encodings.latin_1

import wit_world  # made by componentize-py from halo.wit

FILENAME = "<run_code>"
FRAMES_SHOWN = 8
ERROR_CHARS = 4_000
FLUSH_CHARS = 4_096
FLUSH_S = 0.25


class HaloError(Exception):
    """A function of the host could not do what it was asked; the message says why and what to do instead."""

    __module__ = "__main__"


variables = {"__name__": "__main__", "__builtins__": __builtins__, "HaloError": HaloError}
"""The globals of the code. They live as long as this interpreter."""


class Output(io.TextIOBase):
    """Stands for stdout and stderr. Sends text to the host early, so that a run that is killed still shows what it
    printed, and counts what goes beyond the limit instead of keeping it."""

    def __init__(self, limit):
        self.dropped = 0
        self._room = limit
        self._parts, self._held = [], 0
        self._flushed_at = time.monotonic()

    def writable(self):
        return True

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        kept = text[: max(0, self._room)]
        self.dropped += len(text) - len(kept)
        if kept:
            self._room -= len(kept)
            self._parts.append(kept)
            self._held += len(kept)
            if self._held > FLUSH_CHARS or time.monotonic() - self._flushed_at > FLUSH_S:
                self.flush()
        return len(text)

    def flush(self):
        if self._parts:
            text = "".join(self._parts)
            self._parts, self._held = [], 0
            wit_world.printed(text.encode("utf-8", "replace").decode())  # half a surrogate pair is not a character
        self._flushed_at = time.monotonic()


def host_function(name):
    """A Python function that asks the host."""

    def call(*positional, **named):
        reply = wit_world.host_call(name, json.dumps([positional, named]))
        form, content = reply[:1], reply[1:]
        if form == "=":
            return json.loads(content)
        if form == "*":
            return [json.loads(line) for line in content.split("\n") if line]
        raise HaloError(content)

    call.__name__ = call.__qualname__ = name
    return call


def execute(code):
    """Run the statements; print the value of a last expression, as an interactive interpreter does."""
    linecache.cache[FILENAME] = (len(code), None, code.splitlines(keepends=True), FILENAME)
    module = ast.parse(code, FILENAME)
    last = module.body.pop() if module.body and isinstance(module.body[-1], ast.Expr) else None
    exec(compile(module, FILENAME, "exec"), variables)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), FILENAME, "eval"), variables)
        if value is not None:
            print(repr(value))


def described(error):
    """The traceback from the first frame of the code on: its last frames, and of a long text the end."""
    frame = error.__traceback__
    while frame and frame.tb_frame.f_code.co_filename != FILENAME:
        frame = frame.tb_next
    try:
        told = traceback.TracebackException(type(error), error, frame, limit=-FRAMES_SHOWN)
        told.stack[:] = [entry for entry in told.stack if entry.filename != __file__]
        text = "".join(told.format())
    except BaseException:  # no memory left, or an exception that cannot be shown
        text = type(error).__name__
    return text[-ERROR_CHARS:].encode("utf-8", "replace").decode()


class WitWorld(wit_world.WitWorld):
    """The exports of halo.wit."""

    def set_functions(self, names):
        variables.update((name, host_function(name)) for name in names.split(","))

    def run(self, code, max_output):
        output, error = Output(max_output), None
        streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = output
        try:
            execute(code)
        except BaseException as raised:
            error = described(raised)
        finally:
            sys.stdout, sys.stderr = streams
        output.flush()
        return json.dumps({"error": error, "dropped": output.dropped})
