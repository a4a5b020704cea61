"""The port for gateways next door: it tells them newer lists, and does nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from edge.http.body import BodyType, answer, read_bytes
from edge.http.context import Context, certificate_of
from edge.http.octets import Octets
from edge.http.problem import HttpCode, problem
from edge.http.routes import Route
from edge.http.types import Answer, Body
from wallet.journal.recovery import list_kind
from wallet.protocol.issued import decode_list
from wallet.protocol.lists import ListId
from wallet.protocol.state import State
from wallet.store.connection import Connection
from wallet.store.objects import list_objects, newest_objects

PATH = "/v1/lists"
GATEWAY_URI = "urn:cbdc:gateway:"
# One list has at most 64 MiB: an answer begins with whatever comes first, and ends here.
ANSWER_BYTES_MAX = 16 * 1024 * 1024
# A list that is not large is signed in full more often than that.
CHAIN_MAX = 64
PAGE = 64
NONE_HELD = -1

Sequence = Annotated[int, Meta(ge=NONE_HELD, le=2**53 - 1)]


class ListsBody(Body, frozen=True, kw_only=True):
    """The newest sequence held of each list, by its number; what is not named is not held."""

    held: Annotated[dict[int, Sequence], Meta(max_length=64)]


class ListsAnswer(Answer, frozen=True, kw_only=True):
    """Signed lists as the issuer made them, each list's oldest first; empty when all is held."""

    lists: list[Octets]


LISTS = BodyType(ListsBody)


def held_sequences(state: State) -> dict[int, int]:
    """What this gateway holds, to ask others for more."""
    return {int(number): held.sequence for number, held in state.lists.items()}


async def post_lists(context: Context, request: web.Request) -> web.Response:
    """Lists that are newer than what a neighbour holds."""
    require_gateway(request)
    body = LISTS.decode(await read_bytes(request, timeout_s=context.body_timeout_s), request)
    database = context.opened.database
    lists = await database.read(lambda connection: lists_after(connection, body.held))
    return answer(request, ListsAnswer(lists=[Octets(raw) for raw in lists]))


def require_gateway(request: web.Request) -> None:
    """The other side is a gateway, by its certificate. Raises: ProblemRaised."""
    names = (certificate_of(request) or {}).get("subjectAltName", ())
    if not any(kind == "URI" and name.startswith(GATEWAY_URI) for kind, name in names):
        raise problem(HttpCode.NEIGHBOUR_UNKNOWN, "a gateway's certificate is needed")


def lists_after(
    connection: Connection, held: Mapping[int, int], *, bytes_max: int = ANSWER_BYTES_MAX
) -> list[bytes]:
    """What somebody lacks who holds these sequences, each list's oldest first, as much as fits.

    The first one that is news is told whatever its size; what does not fit is asked for next time.
    """
    found: list[bytes] = []
    left = bytes_max
    for number in ListId:
        for raw in _chain(connection, number, held.get(int(number), NONE_HELD)):
            left -= len(raw)
            if found and left < 0:
                return found
            found.append(raw)
    return found


def _chain(connection: Connection, number: ListId, held: int) -> Iterator[bytes]:
    """The newest full list, if it is newer than what is held, and the deltas on it or on that."""
    kind, chain = list_kind(number), list[bytes]()
    newest = newest_objects(connection, kind, held, CHAIN_MAX)
    for stored in newest:
        chain.append(stored.object)
        if decode_list(stored.object).base is None:
            break
    else:
        if len(newest) == CHAIN_MAX:
            # A large list is one chain of deltas: from the oldest one that is lacking.
            yield from _from(connection, kind, held)
            return
    yield from reversed(chain)


def _from(connection: Connection, kind: str, held: int) -> Iterator[bytes]:
    while page := list_objects(connection, kind, held, PAGE):
        yield from [stored.object for stored in page]
        held = page[-1].sequence


NEIGHBOURS = [
    Route(
        method="POST",
        path=PATH,
        handler=post_lists,
        body=ListsBody,
        answers={200: ListsAnswer},
        closed=False,
    ),
]
