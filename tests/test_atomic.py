from pathlib import Path

import pytest

from freefast import atomic


def test_a_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    atomic.replace_text(path, "old \u03b5")

    def interrupted(part: Path) -> None:
        part.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.replace(path, interrupted)
    assert path.read_text(encoding="utf-8") == "old \u03b5"
    atomic.replace_text(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]
