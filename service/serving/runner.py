"""The process that runs one model: it reads requests as clients wrote them, and answers each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from service.sandbox import confine

__all__ = ["REWRITE", "main"]

REWRITE = "rewrite"
"""The word that lets onnxruntime rewrite the graph as it does at its default level."""


def main() -> None:
    """Load the model that the command line names, run it once, say so, and answer until no more questions come."""
    path, threads, rows, largest, rewrite = confine(sys.argv[1:])
    # Whatever native code prints must not stand between two frames: it goes where messages go.
    answers = os.dup(1)
    os.dup2(2, 1)
    _serve(Path(path), int(threads), int(rows), int(largest), answers, rewrite=rewrite == REWRITE)


def _serve(path: Path, threads: int, rows: int, largest: int, answers: int, *, rewrite: bool) -> None:
    from service.serving.channel import Channel
    from service.serving.frames import Hello
    from service.serving.rounds import Rounds
    from service.serving.session import UnrunnableError, open_session, signature_of

    channel = Channel(0, answers)
    try:
        session = open_session(path, threads, rewrite=rewrite)
        rounds = Rounds(session, signature_of(session), largest)
    except UnrunnableError as error:
        channel.hello(Hello(str(error)))
        return
    rounds.warm_up()
    batches = rows > 1 and rounds.may_batch(path, rows)
    channel.hello(Hello("", batches))
    while asked := channel.round(rounds.most):
        rounds.answer(asked, channel.answer)
        channel.flush()


if __name__ == "__main__":
    main()
