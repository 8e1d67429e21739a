"""The decoder process behind `owlcap.data.video.VideoLoader`: `python -m owlcap.data.video_child FD`.

Reads (path, start_s, end_s) from the pipe FD, answers each with a clip or an error, and never imports torch
(unless the torchcodec backend is chosen). A thread watches the pipe, so the process ends with its parent even while
a decoder hangs.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from multiprocessing.connection import Connection

from owlcap.config import VideoSection
from owlcap.data.video import decode, send_clip
from owlcap.errors import OwlcapError


def main(fd: int) -> None:
    """Serve decode requests until the parent closes its end of the pipe."""
    pipe = Connection(fd)
    video = VideoSection(**pipe.recv())
    requests: queue.SimpleQueue[tuple[str, float | None, float | None]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(pipe, requests), daemon=True).start()
    pipe.send(True)
    while True:
        path, start_s, end_s = requests.get()
        try:
            answer = decode(path, video, start_s, end_s)
        except OwlcapError as error:
            answer = error
        send_clip(pipe, answer)


def _read_requests(pipe: Connection, requests: queue.SimpleQueue) -> None:
    try:
        while True:
            requests.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)  # the main thread may hang inside a decoder: end without waiting for it


if __name__ == "__main__":
    main(int(sys.argv[1]))
