"""Named views at the prompt: `mltrack ls --view NAME`, `--save-view NAME`; the app's `:view` knows the same."""

from __future__ import annotations

from collections.abc import Sequence

from mltrack.store.errors import BadInput
from mltrack.tui.cli.session import Session


def with_view(
    session: Session, name: str, filter_text: str, experiment: str | None, sort: Sequence[str]
) -> tuple[str, str | None, tuple[str, ...]]:
    """Filter, experiment and sort of a view; what was given beside it narrows or beats that. Raises BadInput."""
    from mltrack.store.client.location import choose_store
    from mltrack.tui.named_views import list_views, load_named
    from mltrack.tui.worker_calls.run_columns import Layout, sort_key

    url = choose_store(session.where).url
    try:
        view = load_named(url, name)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if view is None:
        raise BadInput(f"There is no view '{name}'; there are {', '.join(list_views(url)) or 'none'}.")
    filters = [text for text in (view.filter.strip(), filter_text.strip()) if text]
    joined = filters[0] if len(filters) == 1 else " and ".join(f"({text})" for text in filters)
    layout = Layout.of(view.layouts.get(view.experiment or "", {}))
    keys: list[str] = []
    for id, turned in view.sort:
        key = (
            sort_key(id, view.aggregate or "best", layout.direction(id.partition(":")[2]))
            if ":" in id
            else id
        )
        if key is not None:
            keys.append(key if not turned else key[1:] if key.startswith("-") else f"-{key}")
    return joined, experiment or view.experiment, tuple(sort) or tuple(keys)


def keep_view(
    session: Session, name: str, filter_text: str, experiment: str | None, sort: Sequence[str]
) -> None:
    """Save what `ls` was asked for. Raises BadInput."""
    from mltrack.store.client.location import choose_store
    from mltrack.tui.named_views import save_named
    from mltrack.tui.saved_view import SavedView

    view = SavedView(filter=filter_text, experiment=experiment, sort=[[key, False] for key in sort])
    try:
        save_named(choose_store(session.where).url, name, view)
    except ValueError as error:
        raise BadInput(str(error)) from None
