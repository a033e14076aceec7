"""The keys of Projects, Launch and Jobs: rows of the one table in keys.py, which checks and shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltrack.tui.keys import Focus

# name, keys, focus, label, short label for the footer, the command line that does the same
LAUNCH_KEYS: tuple[tuple[str, str, Focus, str, str, str], ...] = (
    ("open_project", "enter", "projects", "the form to launch this project", "open", "mltrack project show"),
    ("address", "a", "projects", "a project by folder or git address", "by address", "mltrack run URL"),
    ("next_project", "j down", "projects", "next project", "", ""),
    ("previous_project", "k up", "projects", "project before", "", ""),
    ("first_project", "g home", "projects", "first project", "", ""),
    ("last_project", "G end", "projects", "last project", "", ""),
    ("change", "enter", "launch", "launch, or edit the field under the cursor", "launch or edit", ""),
    ("launch", "r", "launch", "launch from any field", "launch", "mltrack run PROJECT"),
    (
        "dry_run",
        "d",
        "launch",
        "dry run: command, mounts, Dockerfile",
        "dry run",
        "mltrack run PROJECT --dry-run",
    ),
    ("copy_line", "y", "launch", "copy the command line that does the same", "copy line", ""),
    ("next_launch_tab", "tab l right", "launch", "next tab", "tab", ""),
    ("previous_launch_tab", "shift+tab h left", "launch", "tab before", "", ""),
    ("next_field", "j down", "launch", "next field", "", ""),
    ("previous_field", "k up", "launch", "field before", "", ""),
    ("first_field", "g home", "launch", "first field", "", ""),
    ("last_field", "G end", "launch", "last field", "", ""),
    ("open_job", "enter", "jobs", "the run of this job", "open", "mltrack show RUN"),
    ("job_logs", "L", "jobs", "what it prints, and its build", "log", "mltrack logs RUN -f"),
    (
        "job_stop",
        "X",
        "jobs",
        "stop it, or take it out of the queue (asks)",
        "stop",
        "mltrack jobs --cancel RUN",
    ),
    ("job_again", "r", "jobs", "run it again: the form, filled in", "again", "mltrack run @last"),
    ("next_job", "j down", "jobs", "next job", "", ""),
    ("previous_job", "k up", "jobs", "job before", "", ""),
    ("first_job", "g home", "jobs", "first job", "", ""),
    ("last_job", "G end", "jobs", "last job", "", ""),
)
