"""Parameters become arguments, and nothing that is in their values is ever run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mltrack.projects.command import Command, build_command, parameter_values
from mltrack.projects.errors import ProjectError
from mltrack.projects.spec import EntryPoint, Parameter

SHOW = """#!/bin/sh
printf '%s\\0' "$@" >> "$OUT"
"""
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40)
FRAGMENTS = st.lists(
    st.sampled_from(
        [
            "touch bang", ";", "$(touch bang)", "`touch bang`", "'", '"', "\\", " ", "\n", "|", "&", ">", "<(", ")", "}",
            "{", "$", "${IFS}", "a[$(touch bang)]", "-c", "eval", "--", "*", "~", "#", "!", "x", "EOF\n", "-e", "=",
        ]
    ),
    max_size=8,
).map("".join)  # fmt: skip

# Each holds {a}, which `show` must be given as one argument, exactly.
ARGV_TEMPLATES = [
    "show {a}",
    "show '{a}'",
    'show "{a}"',
    'bash -c "show {a}"',
    "sh -c 'show \"{a}\"'",
    "bash -ec 'show {a}' x",
]
SHELL_TEMPLATES = [
    "show {a} && true",
    "true; show '{a}' | cat",
    'cd . && show "{a}"',
    'X={a} && show "$X"',
    'Y="{a}"; Z=\'{a}\'; show "$Y"',
    'show "$(printf %s. {a})" | cat; true',
    'show "$(printf %s. "{a}")"',
    "show `printf %s. x`{a}; :",
    "for i in {a}; do show \"$i\"; done",
    "if [ -n x{a} ]; then show {a}; fi",
    "( show {a} ) 2>/dev/null",
    "cat <(printf %s {a}) >/dev/null; show {a}",
    "cat <<< {a} > /dev/null\nshow {a}",
    "f() {{ show \"$1\"; }}; f {a}",
    "case {a} in *) show {a};; esac",
    "[[ {a} == x || -n y ]]; show {a}",
    "true | bash -c 'show {a}'",
    "env bash -c \"bash -c 'show {a}'\" && true",
    "A=({a} b); show \"${{A[0]}}\"",
    "export V={a}; show \"$V\"",
    "show {a} > /dev/null 2>&1 # {a}",
    "echo '{a}' > /dev/null \\\n && show {a}",
]  # fmt: skip


def command_for(template: str, **values: str) -> Command:
    parameters = {name: Parameter(name) for name in values}
    entry = EntryPoint("main", template, parameters)
    return build_command(entry, parameter_values(entry, values, Path("/")))


def run(command: Command, folder: Path) -> list[str]:
    """What `show` was given; fails when a value was executed."""
    out = folder / "out"
    out.unlink(missing_ok=True)
    program = folder / "bin" / "show"
    if not program.exists():
        program.parent.mkdir(exist_ok=True)
        program.write_text(SHOW)
        program.chmod(0o755)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "OUT": str(out), **command.environment}
    subprocess.run(command.argv, cwd=work, env=environment, check=False, capture_output=True, timeout=20)
    assert not (work / "bang").exists() and not (folder / "bang").exists(), command.argv
    return os.fsdecode(out.read_bytes()).split("\0")[:-1] if out.exists() else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("command")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(template=st.sampled_from(ARGV_TEMPLATES + SHELL_TEMPLATES), value=st.one_of(FRAGMENTS, TEXT))
def test_any_value_arrives_whole_and_runs_nothing(folder: Path, template: str, value: str) -> None:
    command = command_for(template, a=value)
    expected = value
    if "printf %s. {a}" in template or 'printf %s. "{a}"' in template:
        expected = value + "."
    elif "`" in template:
        expected = "x." + value
    assert run(command, folder) == [expected]


@pytest.mark.parametrize("template", ARGV_TEMPLATES)
def test_without_shell_features_there_is_no_shell(template: str) -> None:
    assert not command_for(template, a="x").uses_shell


@pytest.mark.parametrize("template", SHELL_TEMPLATES)
def test_shell_features_keep_working(folder: Path, template: str) -> None:
    command = command_for(template, a="$(touch bang)`touch bang`; touch bang 'x")
    assert command.uses_shell
    assert "touch" not in " ".join(command.argv)
    assert len(run(command, folder)) == 1


@pytest.mark.parametrize(
    "template",
    [
        "eval show {a}",
        "eval 'show {a}'",
        "trap 'show {a}' EXIT; true",
        "echo $(({a} + 1))",
        "(( {a} > 1 )) && echo",
        "[[ {a} -gt 3 ]]",
        "[[ -n x && {a} -eq 3 ]]",
        "echo ${{X:-{a}}}",
        "echo ${{A[{a}]}}",
        "A[{a}]=1",
        "declare {a}",
        "declare -i X={a}",
        "let x={a}",
        "read {a} < f",
        "unset {a}",
        "test -v {a} && true",
        "printf -v {a} x; true",
        "export {a}; true",
        "cat <<EOF\n{a}\nEOF",
        "echo $'{a}'",
        "echo {a} | bash",
        "bash < {a}",
        "echo {a} | sudo -u x sh -s y",
        "bash -c {a}",
        "bash -c '{a}'",
        'sh -c "$PRE {a}"',
        "ssh box train {a}",
        "env -S {a}",
        "{a}=3 cmd; true",
        "echo `echo \\`echo {a}\\``",
    ],
)
def test_places_where_a_shell_would_evaluate_a_value_are_refused(template: str) -> None:
    with pytest.raises(ProjectError, match="code|closing"):
        command_for(template, a="x")


def test_a_value_is_no_shell_builtin_and_no_option_of_a_shell(folder: Path) -> None:
    command = command_for("true && {a} {b}", a="eval", b="touch bang")
    assert run(command, folder) == []
    command = command_for("bash {a} {b}", a="-c", b="touch bang")
    assert command.argv == ("bash", "--", "-c", "touch bang")
    assert run(command, folder) == []
    assert run(command_for("true; bash {a} {b}", a="-c", b="touch bang"), folder) == []


@pytest.mark.parametrize(
    ("template", "argv"),
    [
        ("python train.py --lr {lr}", ["python", "train.py", "--lr", "0.1"]),
        ("python train.py --lr={lr}x", ["python", "train.py", "--lr=0.1x"]),
        ('python -c \'print("a b")\' "q {lr}"', ["python", "-c", 'print("a b")', "q 0.1"]),
        ('echo "a\\"b" c\\ d \'\' {{}}'.replace("{{}}", "x"), ["echo", 'a"b', "c d", "", "x"]),
        ("echo {lr:>5}", ["echo", "  0.1"]),
        ("  echo\ta  b\n", ["echo", "a", "b"]),
    ],
)
def test_argv_is_what_bash_would_make_of_it(template: str, argv: list[str]) -> None:
    assert list(command_for(template, lr="0.1").argv) == argv


@settings(max_examples=60)
@given(st.text(alphabet="ab '\"\\=,.:/-@%+\t\n", max_size=25))
def test_words_are_split_as_by_bash(text: str) -> None:
    try:
        command = command_for("printf %s\\\\0 " + text)
    except ProjectError:
        return
    expected = subprocess.run(["bash", "-c", "printf %s\\\\0 " + text], capture_output=True, check=False)
    if not command.uses_shell and expected.returncode == 0:
        assert "\0".join([*command.argv[2:], ""]) == expected.stdout.decode() or command.argv[2:] == ()


def test_undeclared_parameters_are_appended_as_options(folder: Path) -> None:
    entry = EntryPoint("main", "show {a}", {"a": Parameter("a", "float", 1)})
    values = parameter_values(entry, {"x": "1 2", "y-z": "$(touch bang)"}, folder)
    assert build_command(entry, values).argv == ("show", "1", "--x", "1 2", "--y-z", "$(touch bang)")
    entry = EntryPoint("main", "true && show {a}", entry.parameters)
    assert run(build_command(entry, values), folder) == ["1", "--x", "1 2", "--y-z", "$(touch bang)"]


def test_values_are_checked_by_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(
        "main",
        "x {p} {u} {n} {e}",
        {
            "p": Parameter("p", "path"),
            "u": Parameter("u", "uri"),
            "n": Parameter("n", "float"),
            "e": Parameter("e", "string", ""),
        },
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "with space").touch()
    assert parameter_values(
        entry, {"p": f"file://{tmp_path}/with%20space", "u": "a:b", "n": ""}, tmp_path
    ).paths
    good = {"p": "data", "u": "s3://b/k", "n": "any"}
    values = parameter_values(entry, good, tmp_path)
    assert values.declared == {"p": str(tmp_path / "data"), "u": "s3://b/k", "n": "any", "e": ""}
    assert values.paths == (tmp_path / "data",)
    away = parameter_values(entry, {**good, "p": "https://example.org/a%20b/x.csv?v=1"}, tmp_path)
    [(name, url, place)] = away.remote
    assert values.absolute(good) == {**good, "p": str(tmp_path / "data")}
    assert away.absolute({"p": url, "n": "any"}) == {"p": url, "n": "any"}
    assert (name, url, place.name) == ("p", "https://example.org/a%20b/x.csv?v=1", "x.csv")
    assert away.declared["p"] == str(place) and away.paths == (place,)
    with pytest.raises(ProjectError, match="needs a value for p, u, n: -P p="):
        parameter_values(entry, {}, tmp_path)
    for wrong in ({"p": "nowhere"}, {"u": "no uri"}, {"n": "a\0b"}, {"p": "ftp://host/x"}):
        with pytest.raises(ProjectError):
            parameter_values(entry, {**good, **wrong}, tmp_path)


@pytest.mark.parametrize(
    "template", ["x {}", "x {0}", "x {a.b}", "x {a[0]}", "x {a!r}", "x {b}", "x {a", "x }", "", "x 'y"]
)
def test_templates_that_cannot_be_filled_say_why(template: str) -> None:
    with pytest.raises(ProjectError):
        command_for(template, a="1")
