"""Results of checks as JUnit XML, the form that CI systems read. There is no standard; this is the common subset:

https://github.com/testmoapp/junitxml (suites, cases, ``failure`` and ``error`` with message and text).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from xml.etree import ElementTree

from halo_mcp.index.checks import CheckResult

_NOT_XML: Final = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold (section 2.2), and the control characters that it discourages."""


def junit_xml(results: Mapping[str, Sequence[CheckResult]], told: Mapping[str, Sequence[str]]) -> str:
    """One suite per dataset, one case per check; ``told`` is what is to be read about each of them."""
    suites = ElementTree.Element("testsuites", _totals("halo-mcp check", [r for rs in results.values() for r in rs]))
    for dataset, of_dataset in results.items():
        suite = ElementTree.SubElement(suites, "testsuite", _totals(dataset, of_dataset))
        for result, text in zip(of_dataset, told[dataset], strict=True):
            names = {"name": _xml(result.check.name), "classname": _xml(dataset)}
            case = ElementTree.SubElement(suite, "testcase", names)
            if result.status != "pass":
                tag = "failure" if result.status == "fail" else "error"
                problem = ElementTree.SubElement(case, tag, {"message": _xml(text.partition("\n")[0]), "type": tag})
                problem.text = _xml(text)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _totals(name: str, results: Sequence[CheckResult]) -> dict[str, str]:
    def count(status: str) -> str:
        return str(sum(result.status == status for result in results))

    return {"name": _xml(name), "tests": str(len(results)), "failures": count("fail"), "errors": count("error")}


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
