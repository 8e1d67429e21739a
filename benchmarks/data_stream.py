"""Memory and speed of a data set's iteration: rows that stay in their file against rows that are read into memory.

    python benchmarks/data_stream.py [--rows 1000000] [--words 230] [--ranks 8] [--read-all 100000]

Synthetic rows with captions as long as HMD-270K's (216 to 244 words) are written, then iterated in shuffled order by
one rank of `--ranks`, in a process of its own for each way. A stream stopped half-way is continued in another process
and must give the same samples. Memory is the process's peak resident size less what it had before the file was opened.
Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

MIB = 2**20
FLOOR_MIB = 64.0  # flat: a million rows must not take more


def main() -> None:
    """Write the rows, and measure each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=230, help="of a caption")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--read-all", type=int, default=100_000, help="rows for read_rows, which keeps them all")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    least = {"rows": 10 * arguments.ranks, "words": 10, "ranks": 1, "read_all": arguments.ranks}
    for name in ("ranks", "rows", "words", "read_all"):  # a tenth of the rows is measured too, and each rank takes some
        if getattr(arguments, name) < least[name]:
            option = f"--{name.replace('_', '-')}"
            parser.error(f"argument {option}: {getattr(arguments, name)} is too few; allowed: {least[name]} or more")
    if arguments.child:
        way, path, ranks, start = arguments.child
        print(json.dumps(measure(way, Path(path), int(ranks), int(start))))
        return
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder) / "rows.jsonl", Path(folder) / "part.jsonl"
        write(whole, arguments.rows, arguments.words)
        write(part, arguments.read_all, arguments.words)
        tenth = Path(folder) / "tenth.jsonl"
        write(tenth, arguments.rows // 10, arguments.words)
        figures = {
            "stream": run("stream", whole, arguments.ranks),
            "stream of a tenth": run("stream", tenth, arguments.ranks),
            "read_rows": run("read", part, arguments.ranks),
        }
        half = figures["stream"]["taken"] // 2
        resumed = run("stream", whole, arguments.ranks, half)
        size = whole.stat().st_size / MIB
    print(f"{'':<20}{'rows':>12}{'file MiB':>10}{'peak MiB':>10}{'open s':>9}{'rows/s':>10}")
    for name, found in figures.items():
        cells = f"{found['rows']:>12,}{found['file_mib']:>10,.0f}{found['peak_mib']:>10,.1f}{found['open_s']:>9.1f}"
        print(f"{name:<20}{cells}{found['rows_per_s']:>10,.0f}")
    same = resumed["tail"] == figures["stream"]["tail"]
    print(f"\ncontinued half-way in another process: {'the same samples' if same else 'OTHER SAMPLES'}")
    peak = figures["stream"]["peak_mib"]
    print(
        json.dumps(
            {
                "rows": arguments.rows,
                "file_mib": round(size, 1),
                "peak_mib": round(peak, 1),
                "peak_mib_of_a_tenth": round(figures["stream of a tenth"]["peak_mib"], 1),
                "bytes_per_row": round(peak * MIB / arguments.rows, 1),
                "read_rows_bytes_per_row": round(
                    figures["read_rows"]["peak_mib"] * MIB / figures["read_rows"]["rows"], 1
                ),
                "resumes_exactly": same,
                "floor_mib": FLOOR_MIB,
                "passed": bool(same and peak <= FLOOR_MIB),
            }
        )
    )


def write(path: Path, num_rows: int, num_words: int) -> None:
    """Rows with captions of random words."""
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8))) for _ in range(2000)]
    sentences = [" ".join(draw.choices(vocabulary, k=10)) for _ in range(500)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            caption = ". ".join(draw.choices(sentences, k=num_words // 10))
            row = {
                "id": f"clip-{number:07d}",
                "messages": [
                    {"role": "user", "content": "Describe the video in detail.<video>"},
                    {"role": "assistant", "content": caption},
                ],
                "videos": [f"videos/{number:07d}.mp4"],
            }
            file.write(json.dumps(row) + "\n")


def run(way: str, path: Path, ranks: int, start: int = 0) -> dict:
    """One way in a process of its own."""
    command = [sys.executable, __file__, "--child", way, str(path), str(ranks), str(start)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def measure(way: str, path: Path, ranks: int, start: int) -> dict:
    """Iterate one rank's share of an epoch; `start` counts its samples that were taken before."""
    from owlcap.data.row_file import RowFile
    from owlcap.data.rows import read_rows
    from owlcap.data.stream import SampleStream, StreamPlace

    before, began = peak_bytes(), time.perf_counter()
    rows = RowFile(path) if way == "stream" else read_rows(path)
    open_s = time.perf_counter() - began
    share = len(rows) // ranks
    stream = SampleStream(rows, 0, 0, ranks, StreamPlace(0, start * ranks))
    tail = hashlib.blake2b(digest_size=8)
    began = time.perf_counter()
    for taken, (sample, _) in enumerate(islice(stream, share - start), start=start + 1):
        if taken > share // 2:
            tail.update(sample.id.encode())
    iterate_s = time.perf_counter() - began
    return {
        "rows": len(rows),
        "file_mib": path.stat().st_size / MIB,
        "peak_mib": (peak_bytes() - before) / MIB,
        "open_s": open_s,
        "rows_per_s": (share - start) / iterate_s,
        "taken": share,
        "tail": tail.hexdigest(),
    }


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
