"""Finding a data set's files: in the user's folder or that of an environment variable; unpacked, or in the official zip
archives, which are read without unpacking. Unpacked files take precedence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from icltool.contracts import archive_and_member, archive_members
from icltool.errors import DataError

_IMAGES = (".jpg", ".jpeg", ".png")


def chosen_root(root: Path | None, variables: Sequence[str], name: str) -> Path:
    """The absolute path of `root`, or of the folder in the first environment variable that is set.

    Raises DataError if there is none, or if it is not a folder.
    """
    if root is not None:
        return _folder(root, "--root")
    for variable in variables:
        if os.environ.get(variable):
            return _folder(Path(os.environ[variable]), variable)
    raise DataError(
        f"data set {name!r} needs a folder",
        f"name the folder of its files with --root, or set {' or '.join(variables)}",
    )


def folder_of(variable: str) -> Path | None:
    """The folder in an environment variable; None if it is not set."""
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None


def first_holding(candidates: Sequence[Path], names: Sequence[str], archives: Sequence[str] = ()) -> Path | None:
    """The first of the folders that holds at least one of the names, or of the archives (see `find_file`)."""
    for folder in candidates:
        unpacked = any((folder / PurePosixPath(archive).stem).is_dir() for archive in archives)
        if unpacked or any((folder / name).exists() for name in names) or any(_archives(folder, archives)):
            return folder
    return None


def find_file(folder: Path, name: str, archives: Sequence[str]) -> Path | None:
    """`folder / name`, or the file of that name within one of the archives, as a path for `open_file`.

    An archive may be unpacked into a folder of its own name. Archives are searched for in the folder and in the folders
    directly below it; the file may be anywhere within. None if there is neither file nor archive. Raises DataError if an
    archive cannot be read, or if none of them holds the file.
    """
    last = PurePosixPath(name).name
    own = [folder / PurePosixPath(archive).stem for archive in archives]
    for place in (folder / name, *(below / each for below in own for each in (name, last))):
        if place.exists():
            return place
    return _within(_archives(folder, archives), last, lambda member: member if _ends_with(member, last) else None)


def find_folder(folder: Path, name: str, archives: Sequence[str]) -> Path | None:
    """Like `find_file`, for a folder of images; an archive of images without that folder counts as the folder itself."""
    if (folder / name).exists():
        return folder / name

    def place(member: str) -> str | None:
        above, _, last = member.rpartition("/")
        if above:  # the images may be in folders of their own below it
            start = f"/{above}/".find(f"/{name}/")
            return above[: start + len(name)] if start >= 0 else None
        return "" if last.lower().endswith(_IMAGES) else None

    return _within(_archives(folder, archives), f"folder {name}", place)


def there(paths: Mapping[str, Path | None]) -> dict[str, Path]:
    """The entries whose path is not None."""
    return {name: path for name, path in paths.items() if path is not None}


def on_disk(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The files on disk, without duplicates: for a path within an archive, the archive."""
    return tuple(dict.fromkeys(Path(held[0]) if (held := archive_and_member(path)) else path for path in paths))


def archives_of(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The archives that contain these paths."""
    return tuple(path for path in on_disk(paths) if path.is_file())


def _archives(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Those of the names that are files in the folder or directly below it."""
    if not names:
        return
    try:
        with os.scandir(folder) as entries:
            below = sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        return
    for place in (folder, *below):
        yield from (place / name for name in names if (place / name).is_file())


def _within(archives: Iterable[Path], what: str, place: Callable[[str], str | None]) -> Path | None:
    """The shortest place that `place` makes of a member, of the first archive that has any; "" only where it is alone."""
    tried: list[Path] = []
    for archive in archives:
        tried.append(archive)
        try:
            members = archive_members(archive)
        except OSError as error:
            raise DataError(f"{archive} cannot be read: {error.strerror or error}", "get the archive again") from error
        # __MACOSX holds what one system's archiver adds: files of the same names that are something else
        places = {place(member) for member in members if not member.startswith("__MACOSX/")} - {None}
        if places:
            return archive / min((str(p) for p in places), key=lambda p: (not p, p.count("/"), p))
    if tried:
        raise DataError(f"{tried[0]} has no {what}", "download the archive again, or unpack the right one beside it")
    return None


def _ends_with(path: str, last: str) -> bool:
    return path == last or path.endswith(f"/{last}")


def _folder(path: Path, origin: str) -> Path:
    folder = path.expanduser().absolute()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}", f"check {origin}; it must name the folder that holds the data set's files")
    return folder
