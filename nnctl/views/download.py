"""Display of a download and of other work: progress bars in a terminal, otherwise lines."""

from __future__ import annotations

from rich import progress
from rich.filesize import decimal

from nnctl.data.download import (
    BytesReceived,
    FileDamaged,
    FileDone,
    FileKept,
    FileStarted,
    MirrorFailed,
)
from nnctl.runs.resolve import Notice, Working
from nnctl.views.console import View, is_live, notices, say, warn


class DownloadView(View):
    """Shows the events of a download; call it with each event.

    Parameters
    ----------
    quiet : bool
        Show only warnings.
    list_cached : bool
        Whether to list cached files that are correct. `nnctl download` lists them; other commands
        do not.
    """

    def __init__(self, *, quiet: bool, list_cached: bool = False) -> None:
        self._console = notices(quiet=quiet)
        self._list_cached = list_cached
        self._live = is_live(self._console)
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=None),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=self._console,
        )
        self._tasks: dict[str, progress.TaskID] = {}
        self._work: progress.Progress | None = None
        # They are printed if another mirror serves the file; otherwise the error lists them.
        self._failures: list[str] = []

    def stop(self) -> None:
        """Stop the display, and keep only the finished bars."""
        if self._work:
            self._work.stop()
        if self._tasks:
            for task in self._progress.tasks:
                if not task.finished:
                    self._progress.remove_task(task.id)
            self._progress.stop()

    def __call__(self, event: Notice) -> None:
        """Show an event."""
        match event:
            case FileKept() if self._list_cached:
                say(self._console, f"{event.name} is already downloaded and correct")
            case FileDamaged():
                warn(f"{event.path} is damaged; downloading it again", self._console)
            case FileStarted() if self._live and event.name not in self._tasks:
                self._progress.start()
                self._tasks[event.name] = self._progress.add_task(event.name, total=event.size)
            case FileStarted() if self._live:  # the previous mirror failed
                self._progress.reset(self._tasks[event.name])
            case BytesReceived() if self._live:
                self._progress.advance(self._tasks[event.name], event.count)
            case MirrorFailed():
                self._failures.append(f"{event.url} {event.reason}")
            case FileDone():
                for failure in self._failures:
                    say(self._console, failure)
                self._failures.clear()
                if not self._live:
                    say(self._console, f"{event.name} ({decimal(event.size)}) from {event.url}")
            case str():
                warn(event, self._console)
            case Working() if self._live:
                self._show_work(event)

    def _show_work(self, event: Working) -> None:
        """Show a bar for work that follows the download."""
        if self._work is None:
            self._progress.stop()
            self._work = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._work.add_task(event.what)
            self._work.start()
        total = None if event.share is None else 1.0
        task = self._work.task_ids[0]
        self._work.update(task, description=event.what, total=total, completed=event.share or 0.0)
