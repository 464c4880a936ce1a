"""Bring an index directory up to date with its sources: delta, one new segment, publish."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from halo_mcp.errors import SourceUnreadable
from halo_mcp.index import columns, tree
from halo_mcp.index.conversion import CopyState, continues, convert
from halo_mcp.index.duck import connect, failing_as_index, fetch_arrays, quoted, watched
from halo_mcp.index.failure_rules import DEFAULT_RULES, LOOP_CALLS, OF_ITS_OWN, mask
from halo_mcp.index.formats.names import CANONICAL, UNKNOWN
from halo_mcp.index.ingest import Ingest, Ingested
from halo_mcp.index.outcomes import USUAL_KEYS, OutcomeKeys
from halo_mcp.index.places import Places
from halo_mcp.index.segments import (
    SEGMENTS_LIMIT,
    Copied,
    Delta,
    IndexDirectory,
    IngestReport,
    Listed,
    Manifest,
    Range,
    SegmentInfo,
    SourceState,
    compute_delta,
    fingerprint,
    only_grew,
)
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

_CONVERTING: Final = 0.6
"""Share of a build's progress that is for converting, when anything is converted."""


def update_index(
    directory: IndexDirectory,
    list_sources: Callable[[], list[Listed]],
    work: Work,
    keys: OutcomeKeys = USUAL_KEYS,
) -> tuple[Manifest, list[Listed]]:
    """The manifest of an index that covers what ``list_sources`` lists, and that list.

    Builds what is missing, under the directory's lock. The sources are listed anew once it is held: an older list would
    look like files that shrank, when another call or process has taken in more meanwhile.

    Raises: SourceUnreadable, IndexFailure, Cancelled, DeadlineExceeded. Nothing is published unless all went well.
    """

    def can_go_on(state: SourceState) -> bool:
        return only_grew(state) and (
            state.copied is None or (state.copied.resumable and continues(directory, state.path, state.copied.path))
        )

    manifest, listed = directory.read_manifest(), list_sources()
    if manifest and compute_delta(listed, manifest, can_go_on).nothing_to_do:
        return manifest, listed
    with directory.writing(work):
        manifest, listed = directory.read_manifest(), list_sources()
        delta = compute_delta(listed, manifest, can_go_on)
        if manifest and delta.nothing_to_do:
            return manifest, listed
        manifest = _build(
            directory, Manifest() if delta.rebuild or not manifest else manifest, listed, delta, work, keys
        )
        directory.publish(manifest)
        return manifest, listed


def _build(
    directory: IndexDirectory,
    manifest: Manifest,
    listed: Sequence[Listed],
    delta: Delta,
    work: Work,
    keys: OutcomeKeys,
) -> Manifest:
    older = [directory.path / segment.file for segment in manifest.segments]
    fold = _to_fold(manifest.segments)
    by_path = {item.path: item for item in listed}
    taken, work = _converted(directory, manifest.sources, by_path, delta.ranges, work)
    target = directory.temporary(".duckdb")
    try:
        built = SegmentBuilder(directory.path, target, work, keys).build([one.indexed for one in taken], older, fold)
        final = target.with_name(target.name.replace("tmp-", "segment-"))
        os.replace(target, final)
    finally:
        target.unlink(missing_ok=True)
    kept = [segment for no, segment in enumerate(manifest.segments) if no not in fold]
    return Manifest(
        sources=_states(manifest.sources, by_path, taken, built.ingested),
        segments=[*kept, SegmentInfo(file=final.name, span_count=built.span_count)],
    )


def _to_fold(segments: Sequence[SegmentInfo]) -> frozenset[int]:
    """Which segments to merge into the next one: all but the largest, once there are too many."""
    if len(segments) < SEGMENTS_LIMIT:
        return frozenset()
    largest = max(range(len(segments)), key=lambda no: segments[no].span_count)
    return frozenset(range(len(segments))) - {largest}


@dataclass(frozen=True, slots=True)
class _Taken:
    """A range of a source as it is taken in."""

    source: Range
    indexed: Range
    """The range itself, or what it became in the converted copy of the source."""
    copy: CopyState | None


def _converted(
    directory: IndexDirectory,
    known: Sequence[SourceState],
    listed: dict[str, Listed],
    ranges: Sequence[Range],
    work: Work,
) -> tuple[list[_Taken], Work]:
    """The ranges with what is to be indexed in their place, and the work that is left for indexing it."""
    taken: list[_Taken] = []
    any_copy = False
    for number, item in enumerate(ranges):
        work.check()
        state = known[item.source_no] if item.source_no < len(known) else None
        share = work.part(_CONVERTING * number / len(ranges), _CONVERTING * (number + 1) / len(ranges))
        as_it_is = state is not None and state.copied is None and state.covered_bytes > 0
        copy = None if as_it_is else convert(directory, listed[str(item.path)], share)
        taken.append(_Taken(item, item if copy is None else _of_copy(directory, item, state, copy), copy))
        any_copy = any_copy or copy is not None
    return taken, work.part(_CONVERTING, 1.0) if any_copy else work


def _of_copy(directory: IndexDirectory, item: Range, state: SourceState | None, copy: CopyState) -> Range:
    earlier = state.copied if state else None
    return Range(
        item.source_no,
        directory.path / copy.file,
        earlier.covered_bytes if earlier else 0,
        copy.copy_bytes,
        earlier.covered_lines if earlier else 0,
        whole_file=earlier is None,
    )


def _states(
    known: Sequence[SourceState], listed: dict[str, Listed], taken: Sequence[_Taken], ingested: Ingested
) -> list[SourceState]:
    states = list(known)
    for one, report, end, lines in zip(taken, ingested.reports, ingested.ends, ingested.line_counts, strict=True):
        seen, copy = listed[str(one.source.path)], one.copy
        state = states[one.source.source_no] if one.source.source_no < len(states) else None
        copied = None
        covered, covered_lines = end, one.indexed.first_line + lines
        if copy is not None:
            indexed = state.copied.indexed.plus(report) if state and state.copied else report
            copied = Copied(
                path=str(one.indexed.path),
                covered_bytes=end,
                covered_lines=covered_lines,
                resumable=copy.resumable,
                indexed=indexed,
            )
            report = copy.ingest_report.of_copy(indexed).model_copy(update={"converted_bytes": copy.copy_bytes})
            covered, covered_lines = copy.covered_bytes, 0
        else:
            report = (state.report if state else IngestReport()).plus(report)
            report = report.model_copy(update={"format": CANONICAL if report.spans_indexed else UNKNOWN})
        states[one.source.source_no : one.source.source_no + 1] = [
            SourceState(
                path=seen.path,
                size=seen.size,
                mtime_ns=seen.mtime_ns,
                inode=seen.inode,
                covered_bytes=covered,
                covered_lines=covered_lines,
                fingerprint=copy.fingerprint if copy else _fingerprint(one.source.path, end),
                report=report,
                copied=copied,
            )
        ]
    return states


def _fingerprint(path: Path, covered_bytes: int) -> str:
    try:
        return fingerprint(path, covered_bytes)
    except OSError as error:  # it went away while it was being read
        raise SourceUnreadable(str(path), error.strerror or str(error)) from error


@dataclass(frozen=True, slots=True)
class Built:
    """What one segment build produced."""

    span_count: int
    ingested: Ingested


class SegmentBuilder:
    """Builds one segment file. Use once."""

    def __init__(self, directory: Path, target: Path, work: Work, keys: OutcomeKeys) -> None:
        self._keys = keys
        self._directory = directory
        self._target = target
        self._work = work
        self._db: duckdb.DuckDBPyConnection = connect(directory)

    def build(self, ranges: Sequence[Range], older: Sequence[Path], fold: frozenset[int]) -> Built:
        """Index ``ranges``; take over from ``older`` segments each trace that they continue, and all those in ``fold``.

        A trace thus lives whole in one segment; ``superseded`` lists where older versions of it no longer count.
        Raises: SourceUnreadable, IndexFailure, Cancelled, DeadlineExceeded.
        """
        try:
            with failing_as_index(self._directory):
                self._db.execute(f"ATTACH {quoted(str(self._target))} AS seg")
                ingested = Ingest(self._db, self._directory, ranges, self._work, self._keys).run()
                with watched(self._db, self._work, "taking over traces that go on", (0.82, 0.85)):
                    carried = self._carry(older, fold)
                with watched(self._db, self._work, "linking spans to traces", (0.85, 0.99)):
                    span_count = self._link(Places.joined([ingested.places, *carried]))
                self._work.check()
                self._db.execute("DETACH seg")
        finally:
            self._db.close()
        return Built(span_count, ingested)

    def _carry(self, older: Sequence[Path], fold: frozenset[int]) -> list[Places]:
        self._db.execute("CREATE TABLE seg.superseded (file VARCHAR, trace_no INTEGER)")
        if not older:
            return []
        self._db.execute("CREATE TEMP TABLE continued AS SELECT DISTINCT trace_id FROM seg.own WHERE trace_id <> ''")
        for no, path in enumerate(older):
            self._db.execute(f"ATTACH {quoted(str(path))} AS old{no} (READ_ONLY)")
        dead = " UNION ALL ".join(f"FROM old{no}.superseded" for no in range(len(older)))
        self._db.execute(f"CREATE TEMP TABLE dead AS {dead}")
        carried = [self._carry_from(no, path, wholly=no in fold) for no, path in enumerate(older)]
        kept_files = [path.name for no, path in enumerate(older) if no not in fold]
        # What folded segments had superseded in segments that stay is superseded by this one now.
        for no in fold:
            self._db.execute(
                f"INSERT INTO seg.superseded SELECT DISTINCT file, trace_no FROM old{no}.superseded "
                "WHERE list_contains(?, file)",
                [kept_files],
            )
        for no in range(len(older)):
            self._db.execute(f"DETACH old{no}")
        return carried

    def _carry_from(self, no: int, path: Path, *, wholly: bool) -> Places:
        wanted = "" if wholly else "AND trace_id IN (FROM continued)"
        self._db.execute(
            f"CREATE OR REPLACE TEMP TABLE carried AS SELECT trace_no FROM old{no}.traces "
            f"WHERE trace_no NOT IN (SELECT trace_no FROM dead WHERE file = ?) {wanted}",
            [path.name],
        )
        if not wholly:
            self._db.execute("INSERT INTO seg.superseded SELECT ?, trace_no FROM carried", [path.name])
        rows = f"FROM old{no}.tree WHERE trace_no IN (FROM carried)"
        places = fetch_arrays(self._db.execute(f"SELECT source_no, byte_offset, byte_length {rows} ORDER BY row"))
        self._db.execute(
            f"INSERT INTO seg.own SELECT * FROM old{no}.own WHERE rowid IN (SELECT row {rows}) ORDER BY rowid"
        )
        return Places(
            places["source_no"].astype(np.int32),
            places["byte_offset"].astype(np.int64),
            places["byte_length"].astype(np.int64),
        )

    def _link(self, places: Places) -> int:
        """Write ``tree``, ``traces`` and ``facets`` from ``own`` and its places; returns the number of spans."""
        self._db.execute(
            "CREATE TEMP TABLE numbered AS "
            "SELECT trace_id, (row_number() OVER (ORDER BY trace_id) - 1)::INTEGER AS trace_no FROM ("
            "SELECT DISTINCT trace_id FROM seg.own WHERE trace_id <> '' AND span_id <> '')"
        )
        self._db.execute(
            "CREATE TEMP TABLE agent_names AS SELECT name, (row_number() OVER ())::INTEGER AS number FROM ("
            "SELECT DISTINCT own_agent_name AS name FROM seg.own UNION SELECT DISTINCT service_name FROM seg.own) "
            "WHERE name IS NOT NULL"
        )
        span_count = self._write_tree(places)
        self._db.execute("DROP TABLE numbered")
        self._db.execute(f"CREATE TABLE seg.traces ({columns.table(columns.TRACE_COLUMNS)})")
        spans = "FROM seg.own AS o JOIN seg.tree AS t ON o.rowid = t.row"
        derived = columns.derived(columns.trace_columns(self._keys))
        traces = f"SELECT {derived} {spans} GROUP BY trace_no ORDER BY trace_no"
        self._db.execute(f"INSERT INTO seg.traces {traces}")
        self._db.execute(
            f"CREATE TABLE seg.facets AS SELECT {columns.derived(columns.FACET_COLUMNS)} {spans} GROUP BY ALL"
        )
        return span_count

    def _write_tree(self, places: Places) -> int:
        spans = fetch_arrays(
            self._db.execute(
                "SELECT o.rowid AS row, n.trace_no, o.status_code = 'ERROR' AS error, o.soft_rules AS soft, "
                "coalesce(a.number, 0) AS agent, coalesce(s.number, 0) AS service, "
                "o.observation_kind = 'LLM' AND (o.input_tokens IS NOT NULL OR o.output_tokens IS NOT NULL) AS call, "
                "o.observation_kind IN ('AGENT', 'TOOL') AS other "
                "FROM seg.own AS o JOIN numbered AS n USING (trace_id) "
                "LEFT JOIN agent_names AS a ON o.own_agent_name = a.name "
                "LEFT JOIN agent_names AS s ON o.service_name = s.name WHERE o.span_id <> '' ORDER BY o.rowid"
            )
        )
        row, trace_no = (spans[name].astype(np.int64) for name in ("row", "trace_no"))
        parents = self._parents(row)
        self._unwrap_calls(row[tree.wrappers(parents, spans["call"], spans["other"])])
        agents = _agents(spans["agent"], spans["service"], trace_no, parents)
        linked = {
            "row": row.astype(np.int32),
            "trace_no": trace_no.astype(np.int32),
            "source_no": places.source_no[row],
            "byte_offset": places.offset[row],
            "byte_length": places.length[row].astype(np.int32),
            "agent": agents,
            "has_parent": parents < len(row),
            "is_original_error": tree.original_errors(parents, spans["error"]),
            "is_soft_error": _soft_errors(spans["error"], spans["soft"], parents),
            "in_loop": self._in_loop(row, trace_no, agents),
        }
        self._db.register("linked", linked)
        # Looking the names up in a list, unlike a join, keeps the order of the rows without a sort.
        self._db.execute("SET VARIABLE agents = (SELECT list(name ORDER BY number) FROM agent_names)")
        self._db.execute(
            "CREATE TABLE seg.tree AS SELECT row, trace_no, source_no, byte_offset, byte_length, "
            "(getvariable('agents')::VARCHAR[])[agent] AS agent_name, has_parent, is_original_error, "
            "is_soft_error, in_loop FROM linked"
        )
        self._db.unregister("linked")
        return len(row)

    def _unwrap_calls(self, rows: NDArray[np.int64]) -> None:
        """The spans in these rows repeat the usage of a call below them: they are steps, not further calls."""
        if len(rows):
            self._db.register("wrappers", {"row": rows})
            self._db.execute("UPDATE seg.own SET observation_kind = 'CHAIN' WHERE rowid IN (SELECT row FROM wrappers)")
            self._db.unregister("wrappers")

    def _in_loop(
        self, row: NDArray[np.int64], trace_no: NDArray[np.int64], agents: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Which spans are calls of a tool that one agent of a trace made several times in a row."""
        calls = fetch_arrays(
            self._db.execute(
                # A call without recorded arguments is equal to no other.
                "SELECT rowid AS row, (hash(tool_name, coalesce(input_hash, rowid)) >> 1)::BIGINT AS call, "
                f"coalesce(start_time_unix_nano, {np.iinfo(np.int64).max}) AS start "
                "FROM seg.own WHERE observation_kind = 'TOOL' AND span_id <> '' AND trace_id <> ''"
            )
        )
        at = np.searchsorted(row, calls["row"].astype(np.int64))
        group = trace_no[at] << 32 | agents[at]
        order = np.lexsort((at, calls["start"], group))
        found = np.zeros(len(row), dtype=np.bool_)
        found[at[order]] = tree.loops(group[order], calls["call"][order], LOOP_CALLS)
        return found

    def _parents(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """The position (in ``row``) of each span's parent; ``len(row)`` for none."""
        pairs = fetch_arrays(
            self._db.execute(
                "SELECT child.rowid AS child, parent.rowid AS parent FROM seg.own AS child JOIN seg.own AS parent "
                "ON child.trace_id = parent.trace_id AND child.parent_span_id = parent.span_id "
                "WHERE child.span_id <> '' AND parent.span_id <> '' AND child.trace_id <> ''"
            )
        )
        child, parent = (np.searchsorted(row, pairs[name].astype(np.int64)) for name in ("child", "parent"))
        return tree.parent_rows(len(row), child, parent)


def _soft_errors(error: NDArray[np.bool_], rules: NDArray[np.int32], parents: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which spans failed softly by themselves: an agent whose tool failed only repeats that."""
    usual = rules & mask(DEFAULT_RULES) != 0
    first = tree.original_errors(parents, error | usual)
    return (rules != 0) & (first | ~usual | (rules & OF_ITS_OWN != 0))


def _agents(
    own: NDArray[np.int32], service: NDArray[np.int32], trace_no: NDArray[np.int64], parents: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Per span the number of its own agent, else the nearest ancestor's; in traces that name none, of its service."""
    inherited = np.append(own, 0)[tree.nearest(parents, own > 0)]
    names_an_agent = np.bincount(trace_no, weights=own > 0) > 0 if len(own) else np.zeros(0, np.bool_)
    return np.where(names_an_agent[trace_no], inherited, service).astype(np.int32)
