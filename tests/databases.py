"""Which tests run on PostgreSQL too, and why the others do not.

What is asked of a store has one answer, whatever engine it lies in. So a test whose store comes from a fixture (`store_root`,
`store_address`, `small_store`, `demo_store`, ...), or whose server does (`server`, `new_server`), runs twice, as `test_x[sqlite]`
and as `test_x[postgresql]`, if it is not in SQLITE_ONLY. The second is long, so that .ci/long runs it, but for the tests of SOON,
which .ci/run does as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

DOCTOR = "the doctor and backups are for SQLite's file; PostgreSQL has tools of its own"
DECISIONS = "decisions.jsonl, from which SQLite's file is made again"
CLIENT = "what a training process writes: journals, by code that knows no database"
OTHERS = "what other people's files are read as, whatever store the reader is asked by"
OWN = "makes a database of its own"
FRONT = (
    "what the server does before it asks its store, or with files, which lie in a folder whatever the engine"
)
WIDE = "a command below the screen, for which PostgreSQL's address leaves no room"

SQLITE_ONLY: dict[str, str] = {
    "tests/bench": "figures, which are SQLite's; those of PostgreSQL have scripts and tests of their own there",
    "tests/e2e": "journeys of machines, containers and servers over a folder",
    "tests/integrations": CLIENT,
    "tests/mlflow_api/test_access.py::test_a_file_that_somebody_else_could_have_written_lets_nobody_in": FRONT,
    "tests/mlflow_api/test_access.py::test_https_with_a_given_certificate": FRONT,
    "tests/mlflow_api/test_access.py::test_too_much_is_refused_for_a_while": FRONT,
    "tests/mlflow_api/test_artifacts.py::test_a_large_file_takes_little_memory": FRONT,
    "tests/mlflow_api/test_artifacts.py::test_no_path_leads_out": FRONT,
    "tests/mlflow_api/test_artifacts.py::test_ranges": FRONT,
    "tests/mlflow_api/test_artifacts.py::test_two_gigabytes_take_little_memory": FRONT,
    "tests/mlflow_api/test_clients.py::test_mlflows_command_line": "MLflow's command; what it sends: test_clients.py, test_odd.py",
    "tests/mlflow_api/test_curl.py::test_mlflows_command": "MLflow's command; what it sends: test_clients.py, test_odd.py",
    "tests/mlflow_api/test_hostile.py::test_a_second_request_cannot_be_smuggled": FRONT,
    "tests/mlflow_api/test_hostile.py::test_a_websocket_or_another_protocol_is_not_spoken": FRONT,
    "tests/mlflow_api/test_hostile.py::test_only_json_is_taken": FRONT,
    "tests/mlflow_api/test_hostile.py::test_other_names_and_pages_are_refused": FRONT,
    "tests/mlflow_api/test_schema.py::test_no_route_answers_with_a_5xx_or_not_at_all": "ten minutes; a shorter one: test_guard.py",
    "tests/mlflow_api/test_ship.py::test_what_a_server_received_is_in_its_postgresql_without_being_asked_for": OWN,
    "tests/mlflow_api/test_trainings.py": "minutes of other people's trainings; what they send: test_clients.py, test_ship.py",
    "tests/projects": "jobs, whose files lie in the store's folder; one on PostgreSQL: test_launch.py",
    "tests/store/test_artifacts_elsewhere.py": "companions that send a folder's files; one test makes a database of its own",
    "tests/store/test_backup.py": DOCTOR,
    "tests/store/test_client_console.py": CLIENT,
    "tests/store/test_client_git.py": CLIENT,
    "tests/store/test_client_run_command.py": CLIENT,
    "tests/store/test_columns.py::test_a_damaged_segment_is_a_sentence_and_doctor_makes_it_anew": DOCTOR,
    "tests/store/test_copies.py": "folders of a store that are moved and copied",
    "tests/store/test_damaged_database.py": "damaged pages of SQLite's file",
    "tests/store/test_damaged_journals.py": "damaged journals of a store in a folder; of all engines: test_fold_commits.py",
    "tests/store/test_database_killed.py": OWN,
    "tests/store/test_decisions.py::test_a_rename_holds_for_late_journals_and_not_for_later_runs": DECISIONS,
    "tests/store/test_decisions.py::test_garbage_in_the_file_of_decisions_hides_none": DECISIONS,
    "tests/store/test_decisions.py::test_undo_and_redo_restore_exactly_and_all_survives_the_database": DECISIONS,
    "tests/store/test_decisions.py::test_what_was_purged_stays_gone": DECISIONS,
    "tests/store/test_demo.py": "`mltrack demo DIR`",
    "tests/store/test_disk_errors.py": "the disk of a store in a folder",
    "tests/store/test_disk_full.py": "the disk of a store in a folder",
    "tests/store/test_filesystems.py": "FUSE, and filesystems without locks or shared memory",
    "tests/store/test_fold_commits.py": "has an engine as a parameter of its own",
    "tests/store/test_followed_store.py": "a folder that may only be read",
    "tests/store/test_gc.py::test_dropped_journals_end_rebuilding_and_nothing_else": DOCTOR,
    "tests/store/test_group_store.py": "modes of files in a group's folder",
    "tests/store/test_journal_format.py": CLIENT,
    "tests/store/test_kill.py::test_a_killed_fold_is_taken_up_where_it_was": "copies of a folder; of all engines: test_fold_commits.py",
    "tests/store/test_mirror.py": "copies of journals that lie in a folder elsewhere",
    "tests/store/test_no_network.py": "there is no network",
    "tests/store/test_object_faults.py": "companions that send a folder's files",
    "tests/store/test_object_google.py": "companions that send a folder's files",
    "tests/store/test_object_store.py": "companions that send a folder's files",
    "tests/store/test_old_and_new.py": "stores that the code of the first day made",
    "tests/store/test_points_rule.py": OWN,
    "tests/store/test_postgresql.py": OWN,
    "tests/store/test_registry.py::test_registry_and_notes_come_back_after_the_database_is_destroyed": DECISIONS,
    "tests/store/test_remote_store.py": OWN,
    "tests/store/test_schema.py": "SQLite's schema and its upgrades; one test makes a database of its own",
    "tests/store/test_seal.py": "sealed journals of a folder, and what the doctor makes of them",
    "tests/store/test_shared_store.py": "modes of files in a group's folder",
    "tests/store/test_slow_store.py": "SQLite's lock; a server that hangs or is not there",
    "tests/store/test_source_damage.py::test_another_users_folder_that_may_only_be_read": "another user's process and folder",
    "tests/store/test_source_store.py": "a folder's store that is followed by another",
    "tests/store/test_zoom.py::test_the_doctor_reads_outlines": DOCTOR,
    "tests/tui/test_app_compare.py::test_aggregate_equals_and_rows_behind_rows": WIDE,
    "tests/tui/test_app_compare.py::test_three_runs_are_plotted_by_what_differs_and_the_command_below_does_the_same": WIDE,
    "tests/tui/test_app_hostile.py": "a store's folder that goes away; a database that does: test_app_postgresql.py",
    "tests/tui/test_app_postgresql.py": OWN,
    "tests/tui/test_app_roles.py": "a server, over a folder",
    "tests/tui/test_app_run.py::test_files_in_an_object_store_are_listed_and_shown": "companions that send a folder's files",
    "tests/tui/test_app_runs.py::test_experiments_are_chosen_in_their_pane": WIDE,
    "tests/tui/test_app_sources.py": "the store that is made for who has none: a folder",
    "tests/tui/test_app_ssh.py": "a folder behind ssh",
    "tests/tui/test_cli_change.py::test_a_check_takes_nothing_in": DOCTOR,
    "tests/tui/test_cli_change.py::test_upkeep_commands_say_what_they_did": DOCTOR,
    "tests/tui/test_cli_sync.py": "copies of journals that are kept in a store's folder",
    "tests/tui/test_cli_tensorboard.py": OTHERS,
    "tests/tui/test_live.py": "a worker's pipe",
    "tests/tui/test_picture_terminals.py": "pictures, which are files",
    "tests/tui/test_session_loads_nothing.py": "hostile files; none of them is in a database",
    "tests/tui/test_sources_untouched.py": OTHERS,
    "tests/tui/test_ssh_sources.py": "folders behind ssh",
    "tests/tui/test_two_people.py": "a group's folder and its users",
}
"""Folder, file, or file::test, to what is the matter with it."""

SOON = frozenset(
    {
        "tests/mlflow_api/test_curl.py",
        "tests/mlflow_api/test_semantics.py",
        "tests/store/test_decisions.py",
        "tests/store/test_gc.py",
        "tests/store/test_logging.py",
        "tests/store/test_registry.py",
        "tests/store/test_registry_rules.py",
        "tests/store/test_unread_points.py",
        "tests/store/test_zoom.py",
        "tests/tui/test_groups_and_views.py",
    }
)
"""Folders, files, or file::test, whose tests run on PostgreSQL in .ci/run, too."""


def kinds_for(nodeid: str) -> Sequence[object]:
    """The parameters of `database_kind` for a test."""
    if _is_in(nodeid, SQLITE_ONLY):
        return ["sqlite"]
    soon = _is_in(nodeid, SOON)
    return ["sqlite", "postgresql" if soon else pytest.param("postgresql", marks=pytest.mark.long)]


def _is_in(nodeid: str, names: frozenset[str] | dict[str, str]) -> bool:
    file = nodeid.partition("::")[0]
    return any(name in names for name in (nodeid, file, file.rpartition("/")[0]))
