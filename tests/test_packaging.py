"""The wheel and the editable install both find the mappings."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import electra_convert
from electra_convert.mapping import default_directory

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_mappings(tmp_path: Path) -> None:
    """An unpacked wheel, away from the checkout, loads its own mappings and runs its own command line."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("electra_convert-*.whl")
    with zipfile.ZipFile(wheel) as pack:
        names = pack.namelist()
        pack.extractall(tmp_path / "site")
    data = {
        "py.typed",
        "parity/gates.yaml",
        "report/batch.html.j2",
        "report/card.md.j2",
        "report/page.css.j2",
        "report/verification.html.j2",
    }
    assert {f"electra_convert/{name}" for name in data} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "fixtures/"))]
    script = (
        "import electra_convert; from electra_convert.mapping import default_directory;"
        "print(default_directory()); print(len(electra_convert.load_mappings().formats))"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(tmp_path / 'site'), *sys.path]!r}\n{script}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    place, count = run.stdout.split()
    assert Path(place) == tmp_path / "site" / "electra_convert" / "mappings"
    assert count == "4"


def test_the_checkout_finds_the_mappings_beside_the_package() -> None:
    """In an editable install the mappings are those of the checkout, so that an edit takes effect."""
    assert Path(electra_convert.__file__).parent.parent == ROOT
    assert default_directory() == ROOT / "mappings"
