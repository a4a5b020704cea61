"""An atheris harness over every decoder: the first byte says which one takes the rest.

`python tests/fuzz/fuzz_codec.py [libFuzzer options] FOLDER`: the folder becomes the corpus; the
valid objects of the vectors are put into it first.
"""

import hashlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["wallet.protocol"]):
    from tests.fuzz.objects import DECODERS, valid_objects
    from wallet.protocol.codec import decode, encode
    from wallet.protocol.refusals import ProtocolError

_NAMES = tuple(DECODERS)


def one_input(data: bytes) -> None:
    """Raises: what a decoder raises that is no ProtocolError; for a value that came out changed."""
    if not data:
        return
    name = _NAMES[data[0] % len(_NAMES)]
    try:
        DECODERS[name](data[1:])
        if name == "codec" and encode(decode(data[1:], bytes_max=1 << 20)) != data[1:]:
            raise AssertionError("what was read is not written again as it was")
    except ProtocolError:
        return


def seed(folder: Path) -> None:
    """Every valid object before every decoder that may be meant for it."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, valid in enumerate(valid_objects()):
        for number in {0, at % len(_NAMES), *_meant(valid)}:
            content = bytes([number]) + valid
            name = hashlib.sha256(content).hexdigest()[:20]
            (folder / name).write_bytes(content)


def _meant(valid: bytes) -> list[int]:
    taken = []
    for number, decoder in enumerate(DECODERS.values()):
        try:
            decoder(valid)
        except ProtocolError:
            continue
        taken.append(number)
    return taken


def main() -> None:
    """Seed the first folder among the arguments, and fuzz."""
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders:
        seed(Path(folders[0]))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
