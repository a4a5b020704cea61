"""No path of one machine and no registry's host in what is tracked, and a lock that pins all."""

import re

from tests.tidy.finding import Finding, Source

MACHINE_PATH = re.compile(r"(?<![\w.$~})/-])/(home|root|work|farm|Users)/[\w.]")
REGISTRY = re.compile(
    r"[\w.-]*(pypi|pythonhosted|npmjs|deb\.debian|debian)\.(org|com|io|net)\b", re.I
)
REQUIREMENT = re.compile(r"[a-z0-9][a-z0-9._-]*==[a-z0-9.+!]+")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def machine_places(source: Source) -> list[Finding]:
    """Paths that exist on one machine only, and hosts of package registries."""
    return [
        Finding(path=source.path, line=number, what=f"{found.group()!r} belongs to one machine")
        for number, line in source.lines()
        if (found := MACHINE_PATH.search(line) or REGISTRY.search(line))
    ]


def loose_locks(source: Source) -> list[Finding]:
    """Lines of a lock file that are not a pinned version with its hashes."""
    findings = []
    for requirement in source.text.replace("\\\n", " ").splitlines():
        words = requirement.split()
        pinned = words and REQUIREMENT.fullmatch(words[0])
        if not pinned or len(words) < 2 or not all(HASH.fullmatch(word) for word in words[1:]):
            line = source.text[: source.text.find(requirement.split(" ")[0])].count("\n") + 1
            findings.append(Finding(path=source.path, line=line, what=f"not pinned: {requirement}"))
    return findings
