"""Which store is meant: the first of --store, MLTRACK_STORE, the nearest .mltrack/, the site file, the user's data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mltrack.store.client.location import LocationError, choose_store, explain_choice


def test_each_setting_gives_way_to_the_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, below = tmp_path / "project", tmp_path / "project" / "a" / "b"
    below.mkdir(parents=True)
    site = tmp_path / "site.toml"
    monkeypatch.delenv("MLTRACK_STORE", raising=False)
    monkeypatch.setenv("MLTRACK_SITE_FILE", str(site))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("sys.platform", "linux")

    def chosen(explicit: str | None = None) -> str:
        choice = choose_store(explicit, below)
        assert choice.url == str(choice.root)
        said = dict(explain_choice(explicit, below)).values()
        assert next(value for value in said if value != "-") == choice.url
        return choice.url

    assert chosen() == str(tmp_path / "data" / "mltrack")
    site.write_text(f'store = "{tmp_path / "everybody"}"\n')
    assert chosen() == str(tmp_path / "everybody")
    (project / ".mltrack").mkdir()
    assert chosen() == str(project / ".mltrack")
    (below / ".mltrack").mkdir()
    assert chosen() == str(below / ".mltrack")
    monkeypatch.setenv("MLTRACK_STORE", str(tmp_path / "environment"))
    assert chosen() == str(tmp_path / "environment")
    assert chosen(str(tmp_path / "asked")) == str(tmp_path / "asked")
    assert not (tmp_path / "data").exists() and not (tmp_path / "asked").exists(), "asking makes nothing"


@pytest.mark.parametrize("written", [b"store = ", b'store = "\xff"', b"store = 3"])
def test_a_broken_site_file_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bytes
) -> None:
    site = tmp_path / "site.toml"
    site.write_bytes(written)
    monkeypatch.delenv("MLTRACK_STORE", raising=False)
    monkeypatch.setenv("MLTRACK_SITE_FILE", str(site))
    with pytest.raises(LocationError, match=r"site file .* Correct it or set MLTRACK_STORE"):
        choose_store(folder=tmp_path)
