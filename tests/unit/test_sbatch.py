"""What sbatch is given, letter by letter, and what is understood of what squeue, scontrol and sacct say."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.projects.errors import ProjectError
from mltrack.projects.sbatch import (
    checked_settings,
    comment_of,
    container_command,
    gres_of,
    job_name,
    reference,
    render_script,
    run_of,
    submit_environment,
)
from mltrack.projects.slurm_end import outcome_of
from mltrack.projects.slurm_jobs import pending_text
from mltrack.projects.slurm_queue import SlurmJob, parse_json, parse_record, parse_text

RUN = "0123456789abcdef" * 2

ONE = f"""\
#!/bin/bash
#SBATCH --job-name=first_try_lr=0.1
#SBATCH --comment=mltrack:{RUN}
#SBATCH --partition=short
#SBATCH --gres=gpu:a100:2
#SBATCH --time=1-12:00:00
#SBATCH --cpus-per-task=8
#SBATCH --mem=16384M
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --chdir="/home/ann/my \\"project\\""
#SBATCH --output=/store/jobs/{RUN}/slurm-%j.out

python='/opt/a b/python'
if [ ! -x "$python" ]; then
    echo "mltrack: $python is not on $(hostname): install mltrack where every node sees it" >&2
    exit 127
fi
exec "$python" -P -m mltrack.projects.slurm_node <<'MLTRACK_JOB'
{{"job":1}}
MLTRACK_JOB
"""

ARRAY = f"""\
#!/bin/bash
#SBATCH --job-name=sweep_lr
#SBATCH --comment=mltrack:{RUN}
#SBATCH --array=0-5%2
#SBATCH --no-requeue
#SBATCH --open-mode=append
#SBATCH --chdir=/p
#SBATCH --output=/store/jobs/{RUN}/slurm-%A_%a.out

python=/usr/bin/python3
if [ ! -x "$python" ]; then
    echo "mltrack: $python is not on $(hostname): install mltrack where every node sees it" >&2
    exit 127
fi
exec "$python" -P -m mltrack.projects.slurm_node <<'MLTRACK_JOB'
{{}}
MLTRACK_JOB
"""


def test_the_script_of_one_job() -> None:
    settings = checked_settings(
        {"time": "1-12:00:00", "partition": "short", "cpus": 8, "memory": "16g", "gres": "gpu:a100:2"}
    )
    assert ONE == render_script(
        run_id=RUN,
        name="first try\nlr=0.1",
        settings=settings,
        folder='/home/ann/my "project"',
        output=f"/store/jobs/{RUN}/slurm-%j.out",
        python="/opt/a b/python",
        payload='{"job":1}',
    )


def test_the_script_of_a_sweep() -> None:
    assert ARRAY == render_script(
        run_id=RUN,
        name="sweep lr",
        settings=checked_settings({"requeue": False}),
        folder="/p",
        output=f"/store/jobs/{RUN}/slurm-%A_%a.out",
        python="/usr/bin/python3",
        payload="{}",
        tasks=6,
        at_once=2,
    )


@given(st.text(min_size=1), st.dictionaries(st.text(), st.text() | st.integers(), max_size=3))
def test_no_value_adds_a_line_and_what_is_handed_over_arrives(name: str, payload: dict[str, Any]) -> None:
    line = json.dumps({"name": name, **payload})
    script = render_script(
        run_id=RUN, name=name, settings={}, folder="/p", output="/o", python="/nowhere/python", payload=line
    )
    directives = [line for line in script.splitlines() if line.startswith("#")]
    assert len(directives) == 7
    read = script[script.index("MLTRACK_JOB'\n") + 13 : script.rindex("\nMLTRACK_JOB\n")]
    assert json.loads(read) == {"name": name, **payload}


def test_bash_reads_the_script_as_it_is_meant() -> None:
    script = render_script(
        run_id=RUN,
        name="x",
        settings={},
        folder="/",
        output="/o",
        python="/nowhere/py thon",
        payload='{"a":"$(touch /tmp/x) `y` \'z\' \\"q\\""}',
    )
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 127 and "/nowhere/py thon is not on" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"partion": "x"}, "no setting 'partion' here; there are partition, gres, time"),
        ({"partition": "a b"}, "no value for Slurm's partition"),
        ({"partition": "x\n#SBATCH --uid=0"}, "no value"),
        ({"qos": "--wrap=x"}, "no value"),
        ({"cpus": "0"}, "a number from 1"),
        ({"time": "soon"}, "no time such as 30 (minutes)"),
        ({"memory": "much"}, "no size"),
        ({"requeue": "maybe"}, "yes or no"),
        ({"container": "docker"}, "apptainer"),
    ],
)
def test_what_slurm_would_not_take_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ProjectError, match=".*") as caught:
        checked_settings(given)
    assert said in caught.value.message


def test_settings_are_written_as_slurm_reads_them() -> None:
    assert checked_settings({"memory": "1.5g", "partition": "a,b", "account": "", "requeue": True}) == {
        "memory": "1536M",
        "partition": "a,b",
        "requeue": "yes",
    }
    assert checked_settings({"memory": "4000"}) == {"memory": "4000M"}
    assert [gres_of(one) for one in ("none", "free", "2")] == ["", "gpu:1", "gpu:2"]
    with pytest.raises(ProjectError):
        gres_of("GPU-8c1b")
    assert job_name(" a b/c\n# ") == "a_b_c" and job_name("\n") == "mltrack"
    assert run_of(comment_of(RUN)) == RUN and run_of("mine") == "" and run_of(f"mltrack:{RUN}x") == ""


def test_neither_another_job_nor_a_variable_of_sbatch_overrules_the_script() -> None:
    environment = {
        "SLURM_CONF": "/c",
        "SLURM_JOB_ID": "7",
        "SBATCH_PARTITION": "other",
        "SBATCH_ACCOUNT": "mine",
        "SBATCH_EXPORT": "NONE",
        "CUDA_VISIBLE_DEVICES": "",
        "LR": "1",
    }
    kept = submit_environment(environment, {"partition": "short"})
    assert kept == {"SLURM_CONF": "/c", "SBATCH_ACCOUNT": "mine", "LR": "1"}


def test_commands_in_images() -> None:
    inside = container_command("apptainer", "ghcr.io/a/b:1", ["python", "x y.py"], "/p", ["/s", "/p"], True)
    assert inside == (
        "apptainer exec --nv --bind /s --bind /p --pwd /p docker://ghcr.io/a/b:1 python".split() + ["x y.py"]
    )
    assert container_command("apptainer", "/i.sif", ["a"], "/p", [], False) == [
        *"apptainer exec --pwd /p /i.sif a".split()
    ]
    bash, c, script, *words = container_command("enroot", "ghcr.io/a/b:1", ["a", "b c"], "/p p", ["/s"], True)
    assert (bash, c, words) == ("bash", "-c", ["enroot", "a", "b c"])
    assert "enroot import" in script and "docker://ghcr.io#a/b:1" in script and "--mount /s:/s" in script
    assert subprocess.run(["bash", "-nc", script], check=False).returncode == 0
    assert [reference(one, "#") for one in ("python:3.11", "a/b", "./x.sif", "oras://x")] == [
        "docker://python:3.11",
        "docker://a/b",
        "./x.sif",
        "oras://x",
    ]


# -- what is read


def of_22_05(**more: object) -> dict[str, object]:
    job: dict[str, object] = {
        "array_job_id": 0,
        "array_task_id": None,
        "array_task_string": "",
        "comment": f"mltrack:{RUN}",
        "end_time": 5,
        "exit_code": 0,
        "job_id": 17,
        "job_state": "RUNNING",
        "nodes": "n1",
        "restart_cnt": 1,
        "state_reason": "None",
        "user_id": 5,
    }
    return {**job, **more}


def number(value: int | None) -> dict[str, object]:
    return {"set": value is not None, "infinite": False, "number": value or 0}


def test_squeue_in_json() -> None:
    jobs = [
        of_22_05(),
        of_22_05(job_id=18, user_id=6),
        of_22_05(job_id=19, job_state="FAILED", exit_code=1280),
        of_22_05(job_id=20, job_state="FAILED", exit_code=9),
        of_22_05(job_id=21, array_job_id=21, array_task_string="2,4-5%1", job_state="PENDING", nodes=""),
        of_22_05(job_id=22, array_job_id=21, array_task_id=0),
    ]
    found = {job.job_id: job for job in parse_json(json.dumps({"jobs": jobs}), 5)}
    assert list(found) == ["17", "19", "20", "21_2", "21_4", "21_5", "21_0"]
    assert found["17"] == SlurmJob("17", "RUNNING", "", "n1", 0, 1, 5, RUN)
    assert (found["19"].exit_code, found["20"].exit_code) == (5, 137)
    assert found["21_2"].state == "PENDING" and not found["21_2"].ended and found["19"].ended


def test_squeue_in_the_json_of_later_versions() -> None:
    later = {
        "array_job_id": number(0),
        "array_task_id": number(None),
        "end_time": number(9),
        "restart_cnt": 0,
        "job_id": 30,
        "job_state": ["COMPLETED"],
        "exit_code": {
            "status": ["ERROR"],
            "return_code": number(3),
            "signal": {"id": number(None), "name": ""},
        },
        "state_reason": "None",
    }
    killed = {"return_code": number(0), "signal": {"id": number(9), "name": "KILL"}}
    jobs = [
        of_22_05(**later),
        of_22_05(**{**later, "job_id": 31, "exit_code": killed, "job_state": ["PENDING", "REQUEUED"]}),
        of_22_05(**{**later, "job_id": 32, "array_job_id": number(32), "array_task_id": number(4)}),
    ]
    one, two, three = parse_json(json.dumps({"jobs": jobs}), 5)
    assert (one.state, one.exit_code, one.ended_s, one.ended) == ("COMPLETED", 3, 9, True)
    assert two.exit_code == 137 and not two.ended
    assert three.job_id == "32_4"


def test_squeue_without_json() -> None:
    said = (
        f"17|17|N/A|RUNNING|2026-01-02T03:04:05|n1|mltrack:{RUN}|None\n"
        "21|21|2-3|PENDING|N/A||(null)|(JobArrayTaskLimit)\n"
        "garbage\n"
        "22|21|0|TIMEOUT|N/A|n2|x|TimeLimit|odd\n"
    )
    one, two, three, four = parse_text(said)
    assert (one.job_id, one.state, one.node, one.run_id) == ("17", "RUNNING", "n1", RUN) and one.ended_s > 0
    assert (two.job_id, three.job_id, four.job_id, four.reason) == ("21_2", "21_3", "21_0", "TimeLimit|odd")


def test_the_record_of_one_job() -> None:
    said = (
        "JobId=9 JobName=a b UserId=ann(5) JobState=FAILED Reason=NonZeroExitCode Restarts=2 ExitCode=0:9 "
        f"EndTime=2026-01-02T03:04:05 NodeList=n2 Comment=mltrack:{RUN} \n"
    )
    found = parse_record(said, "9")
    assert found is not None and (found.state, found.exit_code, found.restarts) == ("FAILED", 137, 2)
    assert (found.node, found.run_id) == ("n2", RUN)
    assert parse_record("nothing", "9") is None


@pytest.mark.parametrize(
    ("state", "code", "status", "reason"),
    [
        ("COMPLETED", 0, "FINISHED", ""),
        ("FAILED", 3, "FAILED", "exit code 3"),
        ("FAILED", 137, "FAILED", "signal 9"),
        ("FAILED", 181, "FAILED", "must be shared"),
        ("TIMEOUT", 0, "FAILED", "over its time limit"),
        ("OUT_OF_MEMORY", 0, "FAILED", "out of memory"),
        ("NODE_FAIL", 0, "FAILED", "its node failed (n1)"),
        ("CANCELLED", 0, "KILLED", "cancelled"),
        ("PREEMPTED", 0, "KILLED", "preempted by Slurm"),
        ("DEADLINE", 0, "FAILED", "over its deadline"),
        ("NEW_WORD", 0, "FAILED", "ended by Slurm: NEW_WORD"),
    ],
)
def test_ends_by_slurm(state: str, code: int, status: str, reason: str) -> None:
    found = outcome_of(SlurmJob("9", state, node="n1", exit_code=code))
    assert found.status == status and reason in found.reason


def test_an_end_that_slurm_has_forgotten() -> None:
    assert outcome_of(None).status == "FAILED" and outcome_of(None).exit_code is None


def test_why_a_job_waits() -> None:
    assert pending_text(SlurmJob("9", "PENDING", "Resources")) == (
        "Resources: waits until nodes are free (Slurm job 9)"
    )
    assert pending_text(SlurmJob("9", "PENDING", "BeginTime", restarts=1)).endswith("requeued 1x)")
