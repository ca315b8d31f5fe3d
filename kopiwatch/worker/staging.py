"""The worker's side of a stage: a copy of the sources that Kopia can read after the window.

Orders (``do``), and what is said at their end (``say``, with a field ``result``). Paths are as the
worker sees them; times are in seconds, sizes in bytes.

``probe-stage`` ``{stages: [folder, …], sources: [{path}, …]}``
    Says ``probed``, one entry per stage: ``{stages: [{stage, writable, why, free, total, sources:
    [{path, clonable, why}, …]}, …]}``. ``clonable`` is the answer of a real FICLONE of a real file
    (a source without files is clonable); ``why`` is "" or the reason in words. ``writable`` is
    false for a folder that is missing, cannot be written, or holds files that are no stage's.

``pre-stage`` ``{stage, parts: [{source, target, how: "clone" | "copy"}, …], reserve}``
    Makes the whole copy while everything runs. ``target`` is relative to ``stage``; ``source`` is a
    folder or a single file. Once more with the same stage: only what has changed since (nothing but
    ``do`` need be given). Says ``pre-staged``: the figures below.

``stage`` ``{}``, or the fields of ``pre-stage`` where there was none
    In the window: what differs from the pre-pass is cloned or copied again, what is gone is
    deleted; times, modes and owners are exactly the source's. Says ``staged``: the figures below.

``unstage`` ``{stages: [folder, …]}``
    Deletes all that lies in those folders, but nothing that is mounted there, and the folders
    themselves stay. Also ends a ``pre-stage`` or ``stage`` that is under way. A folder that is
    missing is no error. Says ``unstaged``: ``{files, bytes, seconds}``.

Figures: ``{files, folders, links, bytes, fresh, deleted, vanished, seconds}``: how many there are
(``bytes`` of the files), how many files were cloned or copied by this very order (``fresh``, of
``fresh_bytes``), how many entries were deleted from the stage, how many vanished under our hands.

While anything is staged, the free space of its file system is watched. Below ``reserve`` bytes the
stage is deleted at once, and a Kopia that reads from it (``go`` with ``"stage": true``, before
``read``) is killed first, which is said as ``exit``. Then ``dropped`` is said, unasked: ``{free,
reserve, killed, files, bytes, seconds}`` (``free`` as it was found). A ``pre-stage`` or ``stage``
that was under way, or comes later, answers with the error ``dropped``. ``unstage`` ends this state.

Errors (``reason``, ``text`` in words): ``no-space``, ``no-clone`` (this source cannot be cloned into
this stage), ``stage`` (the stage folder is missing, not writable, or not a stage), ``dropped``,
``unreadable`` (a source cannot be read), ``stuck``, ``system``. After each of them the live path is
as good as before: nothing is ever written to a source.
"""
